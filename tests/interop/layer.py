# SPDX-License-Identifier: LGPL-2.1-or-later
"""A layer of a chain, with the options it was created with: drawn at random."""

from model import Ranges

KIB, MIB = 1 << 10, 1 << 20
CLUSTERS = [512 << shift for shift in range(13)]
WIDTHS = [1, 2, 4, 8, 16, 32, 64]


class Layer:
    def __init__(self, rng, index, backing):
        self.index = index
        self.backing = backing
        self.format = 'raw' if backing is None and rng.random() < 0.25 else 'qcow2'
        self.name = f'layer{index}.{self.format}'
        self.version = 2 if rng.random() < 0.2 else 3
        self.cluster = rng.choice(CLUSTERS)
        if self.cluster > 64 * KIB and rng.random() < 0.5:
            self.cluster = rng.choice(CLUSTERS[:8])
        self.width = rng.choice(WIDTHS) if self.version == 3 else 16
        self.lazy = self.version == 3 and rng.random() < 0.25
        self.compression = 'zstd' if self.version == 3 and rng.random() < 0.4 else 'zlib'
        self.preallocation = None
        if backing is None and rng.random() < 0.15:
            self.preallocation = rng.choice(['metadata', 'falloc', 'full'])
        if self.format == 'raw':
            self.preallocation = None
        self.size = self.first_size(rng)
        # What was written in this layer, or may have been: compressed writes to it may be refused.
        self.touched = Ranges()
        # Where clusters may be compressed.
        self.coded = Ranges()
        # The last cluster was cut by shrinking and may still hold what was behind the cut.
        self.stale_tail = False
        # A writer was killed and nobody repaired the image yet.
        self.leaks_allowed = False
        # A writer was killed: the file may go on behind what is allocated, and hold something there.
        self.long_file = False
        if self.preallocation is not None:
            self.touched.add(0, 1 << 62)

    def most(self):
        """The largest size worth having: it takes two tables of entries where that is not too much."""
        table = self.cluster * self.cluster // 8
        if self.preallocation is not None:
            return 4 * MIB if self.cluster <= 64 * KIB else 8 * self.cluster
        return max(min(table * 5 // 2, 1 << 30), 256 * KIB, self.cluster * 4)

    def first_size(self, rng):
        kind = rng.random()
        if self.backing is not None and kind < 0.4:
            size = self.backing.size
        elif self.backing is not None and kind < 0.6:
            size = self.backing.size + rng.choice([-1, 1]) * rng.randrange(1, 9) * self.cluster
        else:
            size = rng.randrange(1, self.most() + 1)
            if rng.random() < 0.3:
                size = (size // self.cluster + 1) * self.cluster
        size = min(max(size, 512), self.most())
        if self.format == 'raw' and rng.random() < 0.5:
            return size
        return (size + 511) // 512 * 512

    def resized(self, rng, side):
        """A size to resize to, or None where `side` must not."""
        shrink = rng.random() < 0.4
        if not shrink and side == 'qemu':
            # QEMU refuses to grow a version 2 image over a longer backing file, and does not clear what
            # shrinking left in the last cluster.
            if self.stale_tail or (self.version == 2 and self.backing is not None):
                return None
        span = rng.choice([12 * self.cluster, self.most()])
        size = self.size + (-1 if shrink else 1) * rng.randrange(1, span + 1)
        if rng.random() < 0.4:
            size = size // self.cluster * self.cluster
        unit = 1 if self.format == 'raw' and rng.random() < 0.5 else 512
        size = min(max(size, 512), self.most()) // unit * unit
        if size == self.size or (size < self.size and not shrink):
            return None
        return size

    def resize(self, size):
        if size < self.size:
            self.stale_tail = self.format == 'qcow2' and size % self.cluster != 0
        else:
            self.stale_tail = False
            # What a backing file holds in the rest of the last cluster is covered with zeroes.
            self.touched.add(self.size, 1)
            if self.version == 2 and self.backing is not None:
                # So is what a longer backing file holds; in version 2 by data, for want of zero clusters.
                self.touched.add(self.size, max(min(size, self.backing.size) - self.size, 1))
        self.size = size

    def options(self):
        """The -o list."""
        if self.format == 'raw':
            return ''
        options = [f'cluster_size={self.cluster}', f'compat={"0.10" if self.version == 2 else "1.1"}']
        if self.version == 3:
            options += [f'refcount_bits={self.width}', f'lazy_refcounts={"on" if self.lazy else "off"}',
                        f'compression_type={self.compression}']
        if self.preallocation is not None:
            options.append(f'preallocation={self.preallocation}')
        return ','.join(options)

    def create_words(self):
        words = ['create', '-q', '-f', self.format]
        if self.options():
            words += ['-o', self.options()]
        if self.backing is not None:
            words += ['-b', self.backing.name, '-F', self.backing.format]
        return words + [self.name, str(self.size)]
