# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws a script: commands of qemu-img and sessions of qemu-io over a handful of images, of which most make
sense and some do not. What is drawn depends on the seed alone.

What no script does, because there the programs differ on purpose, differences.py says."""

import shlex

KIB, MIB = 1 << 10, 1 << 20
CLUSTERS = [512, 1024, 4096, 4096, 16384, 65536, 65536, 65536, 1 << 19, 2 << 20]
PATTERN_FILE = 'pattern'
SWITCH = ['on', 'off']
RUNTIME_OPTIONS = [
    [f'lazy-refcounts={value}' for value in SWITCH],
    [f'{name}={value}' for name in ('cache-size', 'l2-cache-size', 'refcount-cache-size')
     for value in ('0', '1', '4k', '100000', '1M')],
    ['l2-cache-entry-size=512'] * 5 + ['l2-cache-entry-size=4k', 'l2-cache-entry-size=64k'],
    ['cache-clean-interval=0', 'cache-clean-interval=1', 'cache-clean-interval=600'],
    [f'pass-discard-{name}={value}' for name in ('request', 'snapshot', 'other') for value in SWITCH],
    [f'overlap-check{part}={value}' for part in ('', '.template')
     for value in ('none', 'constant', 'cached', 'all')],
    [f'overlap-check.{kind}={value}' for value in SWITCH for kind in (
        'main-header', 'active-l1', 'active-l2', 'refcount-table', 'refcount-block', 'snapshot-table',
        'inactive-l1', 'inactive-l2', 'bitmap-directory')],
]
WRONG_OPTIONS = ['lazy-refcounts=x', 'cache-size=x', 'l2-cache-entry-size=3', 'cache-clean-interval=x',
                 'pass-discard-request=', 'overlap-check=x', 'overlap-check.x=on', 'bogus=1']
BLOCK = 4 * KIB     # what O_DIRECT may ask for


class Step:
    """One command. `lines`: what a session of ashlar-io is told; it comes by -c or by standard input."""

    def __init__(self, tool, words, lines=None, by_input=False, zeroed=False):
        self.tool = tool
        self.zeroed = zeroed        # it asks what is there, of a chain that zeroes were written to
        self.words = [str(word) for word in words]
        self.lines = lines
        self.by_input = by_input

    def argv(self):
        if self.lines is None or self.by_input:
            return self.words
        return self.words + [word for line in self.lines for word in ('-c', line)]

    def given(self):
        return '\n'.join(self.lines) + '\n' if self.by_input else ''

    def without_line(self, index):
        return Step(self.tool, self.words, self.lines[:index] + self.lines[index + 1:], self.by_input,
                    self.zeroed)

    def command(self):
        """What the command of ashlar-img is called; '' for ashlar-io."""
        return self.words[0] if self.tool == 'img' else ''

    def json(self):
        return '--output=json' in self.words

    def text(self):
        given = f" <<< {shlex.quote(self.given()[:-1])}" if self.by_input else ''
        return f'{self.tool} {shlex.join(self.argv())}{given}'


class Image:
    def __init__(self, name, fmt, size, cluster=1, backing=None):
        self.name, self.format, self.size, self.cluster, self.backing = name, fmt, size, cluster, backing
        self.version = 3
        self.zeroed = False      # an entry may say zero where the other program needs none
        self.tail = False        # shrunk inside a cluster: must not grow again
        self.filled = False      # written to, or created with places for all
        self.written = []        # ranges with their pattern, newest last

    def chain(self):
        images = []
        image = self
        while image and image not in images:
            images.append(image)
            image = image.backing
        return images

    def names(self):
        return [image.name for image in self.chain()]

    def chain_zeroed(self):
        """Or with the rest of a sector in it."""
        return any(image.zeroed or image.size % 512 for image in self.chain())

    def direct(self):
        """Whether QEMU takes O_DIRECT for it."""
        return all(image.format == 'qcow2' or image.size % 4096 == 0 for image in self.chain())


class Drawer:
    def __init__(self, rng):
        self.rng = rng
        self.images = []
        self.names = 0

    def chance(self, one_in):
        return self.rng.randrange(one_in) == 0

    def zeroed(self, name):
        """Whether zeroes were written to the chain of that image."""
        return any(image.name == name and image.chain_zeroed() for image in self.images) or \
            not any(image.name == name for image in self.images)

    def script(self):
        steps = [self.create(), self.create(), self.session()]
        kinds = [self.create] * 3 + [self.session] * 7 + [self.convert] * 4 + [self.compare] * 2 \
            + [self.resize] * 2 + [self.dd, self.check, self.check, self.measure, self.measure] \
            + [self.map] * 3 + [self.info] * 2 + [self.misuse]
        for _ in range(self.rng.randrange(2, 7)):
            steps.append(self.rng.choice(kinds)())
        return steps

    # Images

    def any(self):
        return self.rng.choice(self.images[-3:] if self.images and not self.chance(3) else self.images)

    def new_name(self, fmt):
        self.names += 1
        return f'{chr(96 + self.names)}.{fmt}'

    def keep(self, image):
        self.images = [old for old in self.images if old.name != image.name] + [image]

    def size(self):
        rng = self.rng
        unit = rng.choice([1, 512, 512, 4 * KIB, 64 * KIB, 64 * KIB, MIB])
        return rng.randrange(1, max(2, rng.choice([100 * KIB, MIB, 4 * MIB]) // unit)) * unit

    @staticmethod
    def spelled(rng, size):
        """A size as one might type it."""
        if size % KIB == 0 and rng.randrange(2):
            return f'{size // KIB}{rng.choice("kK")}'
        return str(size)

    def qcow2_options(self, backing):
        rng = self.rng
        cluster = rng.choice(CLUSTERS)
        options = [f'cluster_size={cluster}']
        old = self.chance(5)
        if old:
            options.append(f'compat={rng.choice(["0.10", "v2"])}')
        if self.chance(3) and (not old or self.chance(6)):
            options.append(f'refcount_bits={rng.choice([1, 2, 4, 8, 16, 32, 64])}')
        if self.chance(5) and (not old or self.chance(6)):
            options.append('lazy_refcounts=on')
        if self.chance(4) and (not old or self.chance(6)):
            options.append(f'compression_type={rng.choice(["zlib", "zstd"])}')
        preallocated = self.chance(7) and not backing
        if preallocated:
            options.append(f'preallocation={rng.choice(["metadata", "falloc", "full"])}')
        if self.chance(25):
            options.append(rng.choice(['cluster_size=3', 'bogus=1', 'refcount_bits=5', 'compat=7', 'x']))
        rng.shuffle(options)
        if self.chance(5):
            options, cluster, old, preallocated = [], 64 * KIB, False, False
        return options, cluster, 2 if old else 3, preallocated

    def create(self):
        rng = self.rng
        backing = self.any() if self.images and self.chance(2) else None
        backing = None if backing and backing.size % 512 else backing
        fmt = 'qcow2' if backing or not self.chance(3) else 'raw'
        name, size = self.new_name(fmt), self.size()
        words = ['create', '-f', fmt] + (['-q'] if self.chance(4) else [])
        image = Image(name, fmt, size)
        if fmt == 'qcow2':
            options, image.cluster, image.version, image.zeroed = self.qcow2_options(backing)
            image.filled = image.zeroed
            words += ['-o', ','.join(options)] if options else []
        elif self.chance(4):
            words += ['-o', f'preallocation={rng.choice(["off", "falloc", "full"])}']
        if backing and backing.name != name:
            image.backing = backing
            words += ['-b', backing.name]
            wrong = 'qcow2' if backing.format == 'raw' else 'foo'
            words += [] if self.chance(20) else ['-F', rng.choice([backing.format] * 15 + [wrong])]
            if self.chance(2):
                self.keep(image)
                image.size = (backing.size + 511) // 512 * 512
                return Step('img', words + [name])
        self.keep(image)
        return Step('img', words + [name, self.spelled(rng, size)])

    # Commands that make or change images

    def convert(self):
        rng = self.rng
        sources = [self.any()] + ([self.any()] if self.chance(6) else [])
        fmt = rng.choice(['qcow2', 'qcow2', 'raw'])
        size = sum((source.size + 511) // 512 * 512 for source in sources)
        target = Image(self.new_name(fmt), fmt, size)
        if any(target.name in source.names() for source in sources):
            target.name = f'z.{fmt}'
        words = ['convert', '-O', fmt]
        if not self.chance(4):
            words += ['-f', sources[0].format] if len({s.format for s in sources}) == 1 else []
        if fmt == 'qcow2':
            options, target.cluster, target.version, _ = self.qcow2_options(self.chance(2))
            words += ['-o', ','.join(options)] if options else []
            words += ['-c'] if self.chance(4) else []
            below = sources[0].backing
            if below and self.chance(3) and len(sources) == 1:
                words += ['-B', below.name, '-F', below.format]
                target.backing = below
        words += rng.choice([[], [], ['-S', '0'], ['-S', '4k'], ['-S', '64k'], ['-S', '100'], ['-C']])
        words += rng.choice([[], [], ['-m', '1'], ['-m', '16'], ['-W'], ['-q'], ['-p']])
        words += rng.choice([[], [], [], ['-t', 'writethrough'], ['-U'],
                             ['-T', 'none'] if all(source.direct() for source in sources) else []])
        existing = self.any()
        if self.chance(8) and existing not in sources and not self.below_any(existing, sources):
            words = ['convert', '-n', '-O', existing.format]
            words += ['--target-is-zero'] if self.chance(9) else []
            existing.zeroed = existing.filled = True
            existing.written = []
            target = None
        elif self.chance(30):
            words.append(rng.choice(['--bogus', '-m99', '-S1G', '-r', '--target-is-zero']))
        names = [source.name for source in sources]
        if target is None:
            return Step('img', words + names + [existing.name])
        target.zeroed = target.filled = True
        self.keep(target)
        return Step('img', words + names + [target.name])

    def below_any(self, image, tops):
        return any(image.name in top.names() for top in tops)

    def below_zeroes(self, image):
        """Whether zeroes were written to an image that stands on this one."""
        return any(above.zeroed and above is not image and image in above.chain() for above in self.images)

    def new_size(self, image):
        """None: leave it."""
        rng = self.rng
        if self.chance(2):
            if image.tail or (image.version == 2 and image.backing):
                return None
            size = image.size + rng.choice([1, 512, 513, 4 * KIB, 64 * KIB, 300 * KIB])
            return self.whole_sectors(image, size)
        size = rng.randrange(image.size + 1)
        if image.format == 'qcow2' and not self.chance(4):
            size = size // image.cluster * image.cluster
        return self.whole_sectors(image, size)

    def whole_sectors(self, image, size):
        return (size + 511) // 512 * 512 if any(above.backing is image for above in self.images) else size

    def resized(self, image, size):
        if image.format == 'qcow2':
            size = (size + 511) // 512 * 512
            image.tail |= size < image.size and size % image.cluster != 0
        image.zeroed = True
        image.size = size

    def resize(self):
        image, rng = self.any(), self.rng
        size = self.new_size(image)
        if size is None:
            size = image.size
        words = ['resize'] + ([] if self.chance(9) else ['-f', image.format])
        words += ['-q'] if self.chance(3) else []
        shrinks = size < image.size
        if shrinks and not self.chance(8):
            words.append('--shrink')
        elif self.chance(4) and not image.backing:
            words.append(f'--preallocation={rng.choice(["off", "metadata", "falloc", "full"])}')
        if not shrinks or '--shrink' in words:
            self.resized(image, size)
        change = size - image.size
        how = f'{change:+}' if change and self.chance(3) else size
        if isinstance(how, str) and shrinks:
            words.append('--') if self.chance(2) else None
        return Step('img', words + [image.name, how])

    def dd(self):
        rng = self.rng
        source, fmt = self.any(), rng.choice(['raw', 'qcow2'])
        target = Image(f'y.{fmt}', fmt, source.size, 64 * KIB)
        if target.name in source.names():
            return self.info()
        words = ['dd', '-f', source.format, '-O', fmt, f'if={source.name}', f'of={target.name}']
        block = rng.choice([4096, 65536, 65536, 1 << 20])
        words += [f'bs={block}']
        words += [f'count={rng.randrange(0, 40)}'] if self.chance(3) else []
        words += [f'skip={rng.randrange(0, 20)}'] if self.chance(3) else []
        words += [rng.choice(['bs=0', 'count=x', 'seek=3', 'foo'])] if self.chance(20) else []
        # How long it gets, who knows: nothing more is made of it but this.
        return Step('img', words)

    def check(self):
        image = self.any()
        words = ['check'] + (['-f', image.format] if self.chance(2) else [])
        words += ['--output=json'] if self.chance(2) else []
        words += ['-r', self.rng.choice(['leaks', 'all'])] if self.chance(3) else []
        words += ['-q'] if self.chance(6) else []
        return Step('img', words + [image.name])

    # Commands that look

    def compare(self):
        a, b = self.any(), self.any()
        words = ['compare'] + (['-s'] if a is b else [])
        words += ['-f', a.format, '-F', b.format] if not self.chance(4) else []
        words += ['-q'] if self.chance(6) else []
        words += ['-U'] if self.chance(6) else []
        return Step('img', words + [a.name, b.name])

    def measure(self):
        image = self.any()
        words = ['measure', '-O', self.rng.choice(['qcow2', 'qcow2', 'raw'])]
        words += ['--output=json'] if self.chance(2) else []
        options, *_ = self.qcow2_options(self.chance(2))
        options = [option for option in options if option != 'compat=v2']  # QEMU only knows 0.10 here
        if words[2] == 'qcow2' and options and not any('compression' in option for option in options):
            words += ['-o', ','.join(options)]
        if self.chance(4):
            return Step('img', words + ['--size', self.spelled(self.rng, self.size() * 100)])
        loose = image.chain_zeroed() or any(below.format == 'raw' for below in image.chain())
        return Step('img', words + ['-f', image.format, image.name], zeroed=loose)

    def map(self):
        image = self.any()
        words = ['map', '-f', image.format] + (['--output=json'] if not self.chance(4) else [])
        if self.chance(4):
            words += [f'--start-offset={self.rng.randrange(image.size + 1)}']
        if self.chance(4):
            words += [f'--max-length={self.rng.randrange(image.size + 1)}']
        return Step('img', words + [image.name], zeroed=image.chain_zeroed())

    def info(self):
        image = self.any()
        words = ['info'] + (['--output=json'] if not self.chance(3) else [])
        words += ['--backing-chain'] if self.chance(2) else []
        words += ['-f', image.format] if not self.chance(4) else []
        words += ['-U'] if self.chance(6) else []
        return Step('img', words + [image.name])

    def misuse(self):
        rng, name = self.rng, self.any().name
        return Step('img', rng.choice([
            ['info', 'nope'], ['resize', name], ['map', '--output=xml', name], ['check', '-r', 'x', name],
            ['compare', name], ['create', '-f', 'foo', 'q', '1M'], ['convert', name], ['measure'],
            ['resize', name, 'x'], ['resize', name, '+'], ['convert', '-O', 'foo', name, 'q'],
            ['create', '-f', 'qcow2', '-b', 'nope', '-F', 'raw', 'q.qcow2'], ['frob', name],
            ['info', '-f', 'qcow3', name], ['measure', '--size', '7X'], ['dd', 'if=' + name],
            ['create', '-f', 'raw', 'q.raw', rng.choice(['9E', '-1', '1.5', 'k'])], ['map', name, name]]))

    def session(self):
        image, rng = self.any(), self.rng
        words = ['-f', image.format]
        options = runtime_options(rng) if image.format == 'qcow2' and self.chance(4) else []
        if options or (self.chance(12) and image.format == 'qcow2'):
            words = ['--image-opts']
        read_only = self.chance(10) or self.below_zeroes(image)
        words += ['-r'] if read_only else []
        words += rng.choice([[], [], [], ['-t', 'writethrough'], ['-t', 'unsafe'],
                             *([['-n'], ['-t', 'none']] if image.direct() else [])])
        words += rng.choice([[], [], ['-d', 'unmap'], ['-d', 'on'], ['-d', 'ignore']])
        described = ','.join([f'driver={image.format}', f'file.filename={image.name}', *options])
        name = described if '--image-opts' in words else image.name
        direct = image.format == 'raw' and ('-n' in words or 'none' in words)
        lines = Session(self, image, read_only, direct).draw()
        return Step('io', words + [name], lines, self.chance(2))


def runtime_options(rng):
    """Of an open qcow2 image; few of them make no sense. We refuse overlap-check=X beside
    overlap-check.KIND=, as one option that is set twice."""
    drawn = [rng.choice(choice) for choice in rng.sample(RUNTIME_OPTIONS, rng.randrange(1, 4))]
    if any(option.startswith('overlap-check=') for option in drawn):
        drawn = [option for option in drawn if not option.startswith('overlap-check.')]
    return drawn + [rng.choice(WRONG_OPTIONS)] if rng.randrange(12) == 0 else drawn


class Session:
    """The commands of one run of ashlar-io on one image."""

    def __init__(self, drawer, image, read_only, direct):
        self.drawer, self.rng, self.image = drawer, drawer.rng, image
        self.read_only, self.direct = read_only, direct
        self.lines = []
        # Compressed writes are alone with reads; the others may ask what is allocated or write zeroes.
        self.compresses = image.format == 'qcow2' and not image.filled and drawer.chance(3)
        self.compressed_end = 0
        image.filled = True
        self.asks = not image.zeroed and drawer.chance(3)

    def draw(self):
        if self.compresses:
            kinds = [self.compress] * 3 + [self.read, self.flush]
        elif self.asks:
            kinds = [self.write] * 4 + [self.vector, self.read, self.read, self.ask, self.flush, self.odd]
        else:
            kinds = [self.write] * 3 + [self.zero] * 2 + [self.vector, self.together, self.lone_aio,
                                                         self.read, self.read, self.discard, self.flush,
                                                         self.truncate, self.reopen, self.odd]
        for _ in range(self.rng.randrange(2, 14)):
            self.rng.choice(kinds)()
        return self.lines

    def say(self, *words):
        self.lines.append(' '.join(str(word) for word in words if word != ''))

    def range(self, unit=None):
        rng, size, cluster = self.rng, self.image.size, self.image.cluster
        unit = unit or rng.choice([1, 512, 512, 4096, cluster, cluster])
        most = rng.choice([4 * KIB, 64 * KIB, 400 * KIB])
        length = rng.randrange(1, max(2, most // unit + 1)) * unit
        if rng.randrange(30) == 0:
            return rng.randrange(size * 2 + 2), length
        offset = rng.randrange(size + 1) // unit * unit
        return offset, max(min(length, size - offset), 0)

    def flag(self, *names):
        return self.rng.choice(['', '', '', *names])

    def fill(self):
        rng = self.rng
        return f'-s {PATTERN_FILE}' if rng.randrange(5) == 0 else f'-P {rng.choice([0, rng.randrange(256)])}'

    def note(self, offset, length, words):
        if words.startswith('-P') and length:
            self.image.written.append((offset, length, words))

    def write(self):
        offset, length = self.range()
        fill = self.fill()
        self.say('write', self.flag('-q', '-C', '-f', '-p'), fill, offset, length)
        self.note(offset, length, fill)

    def zero(self):
        self.image.zeroed = not self.read_only or self.image.zeroed
        fast = '-n' if self.image.version == 3 and not self.image.backing else ''
        self.say('write -z', self.flag('-u', '-f', fast, '-q', '-u -f'), *self.range())

    def vector(self):
        offset, length = self.range()
        first = self.rng.randrange(length + 1)
        if self.rng.randrange(3) == 0:
            self.say('readv', self.flag('-q', '-C', '-P 0'), offset, first, length - first)
            return
        fill = f'-P {self.rng.randrange(256)}'
        self.say('writev', self.flag('-q', '-f'), fill, offset, first, length - first)
        self.note(offset, length, fill)

    def compress(self):
        """One behind the other: QEMU 7.2 refuses those to what is allocated."""
        cluster = self.image.cluster
        offset = self.compressed_end + self.rng.randrange(3) * cluster
        length = min(self.rng.randrange(1, 4) * cluster, self.image.size - offset)
        if length > 0:
            self.say('write -c', self.fill(), offset, length)
            self.compressed_end = (offset + length + cluster - 1) // cluster * cluster

    def read(self):
        if self.image.written and self.rng.randrange(2):
            offset, length, pattern = self.rng.choice(self.image.written[-4:])
            inside = self.rng.randrange(length)
            self.say('read', self.flag('-q', '-C'), pattern, offset + inside,
                     self.rng.randrange(1, length - inside + 1))
            return
        offset, length = self.range()
        if self.rng.randrange(3) == 0:
            self.say('read -v', offset, min(length, 300))
        else:
            self.say('read', self.flag('-q', '-P 0', '-P 7', '-p'), offset, length)

    def discard(self):
        self.image.zeroed = True
        flag, (offset, length) = self.flag('-q', '-C'), self.range()
        if self.image.format == 'raw':
            offset, length = offset // BLOCK * BLOCK, length // BLOCK * BLOCK
        self.say('discard', flag, offset, length)

    def flush(self):
        self.say(self.rng.choice(['flush', 'aio_flush', 'length', 'help flush']))

    def ask(self):
        offset, length = self.range()
        self.say(*self.rng.choice([('map',), ('alloc', offset, length), ('alloc', offset)]))

    def together(self):
        """Asynchronous writes that do not overlap: what two that do leave behind is not defined."""
        size = self.image.size
        lanes = self.rng.randrange(2, 5)
        self.image.zeroed = True
        for lane in range(lanes):
            start, end = size * lane // lanes, size * (lane + 1) // lanes
            if start < end:
                offset = self.rng.randrange(start, end)
                length = min(self.rng.randrange(1, end - offset + 1), 200 * KIB)
                kind = self.rng.choice(['-z', '-z -u', f'-P {self.rng.randrange(256)}'])
                self.say(f'aio_write -q {kind}', offset, length)
        self.say('aio_flush')

    def lone_aio(self):
        offset, length = self.range()
        self.image.zeroed = True
        self.say(self.rng.choice(['aio_read', 'aio_read -P 0', 'aio_read -v', 'aio_write -P 9',
                                  'aio_write -z', 'aio_write -f', 'aio_write -u']), offset, min(length, 300))
        self.say('aio_flush')

    def truncate(self):
        size = self.drawer.new_size(self.image)
        if size is None or self.read_only:
            return
        if self.direct:
            size = (size + BLOCK - 1) // BLOCK * BLOCK
        self.drawer.resized(self.image, size)
        self.say('truncate', size)
        self.say('length')

    def reopen(self):
        if self.image.format == 'qcow2' and self.rng.randrange(2):
            self.say('reopen -o', ','.join(runtime_options(self.rng)))
        elif not self.read_only:
            self.say('reopen -r')
            self.say('reopen -w')

    def odd(self):
        """Nothing that works."""
        self.say(self.rng.choice([
            'write', 'read 0', 'write -P 999 0 512', 'read -x 0 512', 'frob', 'write -P 1 0 4G',
            'read -1 512', 'alloc', 'discard 0', 'write -u 0 512', 'write -z -P 1 0 512', 'read 8E 512',
            'truncate', 'readv 0', 'write 0 x', 'read -P x 0 512', 'writev 0', 'aio_write 0', 'aio_read x 1',
            'read 1e3 1', 'write -b -z 0 512', 'length 3', 'flush 1', 'write -c 3 5', 'help frob']))
