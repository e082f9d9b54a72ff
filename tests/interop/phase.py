# SPDX-License-Identifier: LGPL-2.1-or-later
"""One run of ashlar-io or qemu-io on the topmost layer: commands drawn at random, and what they do to the
model."""

import re

from layer import KIB, MIB
from model import SECTOR, Ranges
from programs import Failed

PATTERN_FILE = 'pattern'
PATTERN_BYTES = 4099        # prime: a repetition never falls together with a cluster


def pattern_file_bytes(rng):
    return rng.randbytes(PATTERN_BYTES)


class Phase:
    def __init__(self, rng, layer, model, side, noise):
        self.rng, self.layer, self.model, self.side, self.noise = rng, layer, model, side, noise
        self.kill = layer.format == 'qcow2' and rng.random() < 0.12
        self.unmap = rng.random() < 0.7
        self.aligned = False
        # What comes now may be lost when the program is killed.
        self.doubtful = False
        self.commands = []
        # Compressed writes: must it succeed, where, what. Where it may fail, nothing else touches the place
        # in this phase, and the model learns of it from the outcome.
        self.compressed = []
        self.unsure = Ranges()
        # What was compressed in this phase, and whether some of it may have been freed since.
        self.coded = Ranges()
        self.freed_coded = False
        self.in_flight = Ranges()
        self.spots = self.choose_spots()

    # Places

    def choose_spots(self):
        """Places that several commands come back to."""
        layer, rng, size = self.layer, self.rng, self.layer.size
        table = layer.cluster * layer.cluster // 8
        spots = [0, size, table, rng.randrange(size), rng.randrange(size)]
        if layer.backing is not None:
            spots.append(layer.backing.size)
        return [min(spot, size) // layer.cluster * layer.cluster for spot in spots]

    def range(self, most, unit=None):
        """A range inside the image, of at most `most` bytes."""
        rng, layer = self.rng, self.layer
        unit = unit or rng.choice([1, SECTOR, SECTOR, 4 * KIB, layer.cluster, layer.cluster])
        if self.aligned:
            unit = max(unit, SECTOR)
        size = layer.size
        offset = rng.choice(self.spots) + rng.randrange(-3 * layer.cluster, 6 * layer.cluster)
        offset = max(0, min(offset, size - 1)) // unit * unit
        spans = [min(unit, most), layer.cluster, 3 * layer.cluster, 64 * KIB, most]
        span = min(rng.choice(spans), most)
        length = (rng.randrange(span) // unit + 1) * unit
        return offset, max(1, min(length, size - offset))

    def most(self):
        return min(max(4 * self.layer.cluster, 256 * KIB), 4 * MIB)

    # Commands

    def say(self, text):
        self.commands.append(text)

    def may_touch(self, offset, length):
        """Whether what is there is known; waits for requests in flight there."""
        if self.unsure.overlaps(offset, length) or self.may_show_others(offset, length):
            return False
        self.freed_coded |= self.coded.overlaps(offset, length)
        if self.in_flight.overlaps(offset, length):
            self.say('aio_flush')
            self.in_flight.clear()
        return True

    def may_show_others(self, offset, length):
        """Whether a write there, if the program is killed, may show another range's bytes. QEMU writes to a
        freed cluster before the link to it is gone from the disk. We must not."""
        return self.side == 'qemu' and self.doubtful and self.layer.coded.overlaps(offset, length)

    def fill(self, length, file_allowed):
        """Words that name what is written, and the bytes."""
        if file_allowed and self.rng.random() < 0.3:
            return f'-s {PATTERN_FILE}', (self.noise * (length // len(self.noise) + 1))[:length]
        value = self.rng.choice([0, self.rng.randrange(1, 256), self.rng.randrange(1, 256)])
        return f'-P {value}', bytes([value]) * length

    def write(self):
        rng = self.rng
        offset, length = self.range(self.most())
        if not self.may_touch(offset, length):
            return
        kind = rng.choice(['write', 'write', 'writev', 'aio_write', 'aio_write'])
        words, data = self.fill(length, kind == 'write')
        if rng.random() < 0.1:
            words = '-f ' + words
        lengths = str(length)
        if kind != 'write' and length > 2 and rng.random() < 0.4:
            first = rng.randrange(1, length)
            lengths = f'{first} {length - first}'
        self.say(f'{kind} -q {words} {offset} {lengths}')
        self.wrote(offset, data, kind)

    def wrote(self, offset, data, kind):
        self.layer.touched.add(offset, len(data))
        self.model.write(offset, data)
        if kind == 'aio_write':
            self.in_flight.add(offset, len(data))

    def zero(self):
        # A version 2 image has no zero clusters: zeroes are written.
        most = self.most() if self.layer.version == 2 else max(self.most(), self.layer.most())
        offset, length = self.range(most)
        if not self.may_touch(offset, length):
            return
        kind = self.rng.choice(['write', 'aio_write'])
        unmap = self.rng.choice(['', '-u '])
        if self.side == 'qemu' and self.doubtful:
            unmap = ''      # see may_show_others
        fua = '-f ' if self.rng.random() < 0.1 else ''
        self.say(f'{kind} -q -z {unmap}{fua}{offset} {length}')
        self.layer.touched.add(offset, length)
        self.model.zero(offset, length)
        if kind == 'aio_write':
            self.in_flight.add(offset, length)

    def discard(self):
        layer = self.layer
        offset, length = self.range(max(self.most(), layer.most()))
        if layer.format == 'raw' or not self.may_touch(offset, length):
            return
        self.say(f'discard -q {offset} {length}')
        if not self.unmap or (layer.version == 2 and layer.backing is not None):
            return
        # Whole clusters only, of which the last may be cut by the end of the image.
        start = (offset + layer.cluster - 1) // layer.cluster * layer.cluster
        end = offset + length
        if end < layer.size:
            end = end // layer.cluster * layer.cluster
        if start < end:
            self.model.zero(start, end - start)

    def compress(self):
        layer = self.layer
        if layer.format == 'raw' or self.kill:
            return
        if self.side == 'qemu' and self.freed_coded:
            # QEMU 7.2 goes on filling the cluster that its last compressed write left half empty, even if
            # that one was freed meanwhile and handed out again as a data cluster.
            return
        offset, length = self.range(min(3 * layer.cluster, 2 * MIB + layer.cluster), unit=layer.cluster)
        if not layer.touched.overlaps(offset, 3 * layer.cluster):
            length = (length + layer.cluster - 1) // layer.cluster * layer.cluster
            must = True
        else:
            length = layer.cluster
            must = not layer.touched.overlaps(offset, length)
        length = min(length, layer.size - offset)
        if not self.may_touch(offset, length):
            return
        words, data = self.fill(length, True)
        self.say(f'write -c {words} {offset} {length}')
        self.compressed.append((must, offset, data))
        self.coded.add(offset, length)
        layer.coded.add(offset, (length + layer.cluster - 1) // layer.cluster * layer.cluster)
        if must:
            self.wrote(offset, data, 'write')
        else:
            self.unsure.add(offset, length)

    def flush(self):
        self.say(self.rng.choice(['flush', 'aio_flush']))
        if self.commands[-1] == 'aio_flush':
            self.in_flight.clear()

    def read(self):
        """Checks what is there, as far as it is of one value."""
        offset, length = self.range(64 * KIB)
        if not self.may_touch(offset, length):
            return
        data = self.model.read(offset, length)
        same = length - len(data.lstrip(data[:1]))
        kind = self.rng.choice(['read', 'readv'])
        self.say(f'{kind} -q -P {data[0]} {offset} {same}')

    def truncate(self):
        layer = self.layer
        size = layer.resized(self.rng, self.side)
        if size is None or self.compressed or self.kill:
            return
        self.say('aio_flush')
        self.in_flight.clear()
        self.say(f'truncate {size}')
        layer.resize(size)
        self.model.resize(size)

    def draw(self):
        """Draws the commands, and changes the model as they must."""
        rng = self.rng
        kinds = [self.write] * 8 + [self.zero] * 3 + [self.discard] * 3 + [self.compress] * 2 \
            + [self.flush] * 2 + [self.read] * 3 + [self.truncate]
        weights = [rng.random() for _ in kinds]
        for kind in rng.choices(kinds, weights, k=rng.randrange(4, 30)):
            kind()
        if self.kill:
            self.draw_kill()

    def draw_kill(self):
        """What comes after a flush may be lost, each sector for itself."""
        self.commands += ['aio_flush', 'flush']
        self.in_flight.clear()
        self.aligned = True
        self.doubtful = True
        self.model.doubt()
        kinds = [self.write] * 5 + [self.zero] * 2
        if self.side == 'ashlar':
            # See may_show_others.
            kinds += [self.discard] * 2
        for kind in self.rng.choices(kinds, k=self.rng.randrange(1, 8)):
            kind()
        if self.side == 'qemu':
            # A write in flight that begins in a zero cluster: QEMU makes all of its clusters zero, those too
            # that hold data, before it writes to them. We must not.
            for start, end in self.in_flight.list:
                self.model.may_be_zero(start, end - start)
        self.say('sigraise 9')

    # Outcome

    def words(self):
        """The arguments of the program."""
        words = ['-f', self.layer.format, '-d', 'unmap' if self.unmap else 'ignore',
                 '-t', self.rng.choice(['writeback', 'writeback', 'writethrough', 'unsafe'])]
        for command in self.commands:
            words += ['-c', command]
        return words + [self.layer.name]

    def judge(self, result):
        """Whether the program did what it must, by what it said. Compressed writes may be refused where
        something was written before."""
        if self.kill:
            if result.code != -9:
                raise Failed(f'exit status {result.code} of a process that kills itself')
            return
        outcomes = [line for line in result.out.splitlines() if line.startswith(('wrote ', 'write failed'))]
        noise = [line for line in result.out.splitlines()
                 if line not in outcomes and not re.match(r'[\d.]+ \w+, 1 ops; ', line)]
        if noise or result.err or len(outcomes) != len(self.compressed):
            raise Failed(f'unexpected output:\n{result.out}{result.err}')
        refused = 0
        for (must, offset, data), outcome in zip(self.compressed, outcomes):
            if outcome.startswith('wrote '):
                if not must:
                    self.layer.touched.add(offset, len(data))
                    self.model.write(offset, data)
            elif must:
                raise Failed(f'compressed write at {offset} refused: nothing was there')
            else:
                refused += 1
        if result.code != (1 if refused else 0):
            raise Failed(f'exit status {result.code} with {refused} refused writes')
