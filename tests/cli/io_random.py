#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random sessions: the same commands to ashlar-io and qemu-io on equal images, which must read alike and
check clean afterwards; and what was said must be the same. Zeroes where zeroes are need no place, and the
programs differ in when they give it one: a session either writes zeroes and changes the length, or asks what
is allocated.

    io_random.py ASHLAR-IO [SESSIONS]

ASHLAR_SEED=N repeats the sessions of a run that failed.
"""

import os
import random
import sys
import tempfile

import fixture
import io_alike
import programs

LINES = 60
LANE = 1 << 20


class Session:
    """Commands for a disk of so many bytes, most of them within it."""

    def __init__(self, prng, bytes_, zeroes):
        self.prng = prng
        self.bytes = bytes_
        self.zeroes = zeroes

    def range_of(self):
        """An offset and a length: aligned to a cluster, to a sector, or not at all."""
        unit = self.prng.choice((1, 1, 512, 4096, 65536))
        length = self.prng.randrange(1, max(2, self.prng.choice((4096, 65536, 400000)) // unit)) * unit
        if self.prng.randrange(30) == 0:
            return f'{self.prng.randrange(self.bytes * 2)} {length}'
        length = min(length, self.bytes // unit * unit)
        return f'{self.prng.randrange((self.bytes - length) // unit + 1) * unit} {length}'

    def overlapping(self):
        """Asynchronous writes that do not overlap: what two that do leave behind is not defined."""
        lines = []
        for lane in range(self.bytes // LANE):
            offset = lane * LANE + self.prng.randrange(LANE // 2)
            kind = self.prng.choice(('-z', '-z -u')) if self.zeroes and self.prng.randrange(2) else \
                f'-P {self.prng.randrange(256)}'
            lines.append(f'aio_write -q {kind} {offset} {self.prng.randrange(1, LANE // 2)}')
        return lines + ['aio_flush']

    def commands(self):
        pattern = self.prng.randrange(256)
        cluster = self.prng.randrange(self.bytes // 65536) * 65536
        kind = self.prng.randrange(40)
        if kind == 0 and self.zeroes:
            # Never shorter: QEMU 7.2 shows what was cut off again when the disk grows.
            self.bytes = self.prng.randrange(self.bytes, self.bytes * 3 // 2) // 512 * 512
            return [f'truncate {self.bytes}', 'length']
        if kind == 1:
            return self.overlapping()
        if kind == 2:
            return ['reopen -r', 'reopen -w']
        if kind < 10 and self.zeroes:
            return [(f'write -z {self.range_of()}', f'write -z -u {self.range_of()}',
                     f'discard {cluster} {self.prng.randrange(1, 5) * 65536}')[kind % 3]]
        if kind < 10:
            return [('map', f'alloc {self.range_of()}')[kind % 2]]
        return [(f'write -P {pattern} {self.range_of()}', f'read -v {self.range_of()}',
                 f'writev -f -P {pattern} {self.range_of()} 512', f'read -P {pattern} {self.range_of()}',
                 f'write -P {pattern} {self.range_of()}', 'flush')[kind % 6]]

    def text(self):
        return '\n'.join(line for _ in range(LINES) for line in self.commands()) + '\n'


def faults_of(program, arguments, text, places):
    theirs = io_alike.run('qemu-io', arguments, text.encode(), places[0])
    ours = io_alike.run(program, arguments, text.encode(), places[1])
    faults = io_alike.diff('stdout', io_alike.plain(theirs[1]), io_alike.plain(ours[1]))
    if theirs[0] != ours[0] or theirs[2] or ours[2]:
        faults.append(f'theirs {theirs[0]} {theirs[2]}, ours {ours[0]} {ours[2]}')
    return faults + io_alike.same_image(arguments.split()[-1], places)


def main():
    if not io_alike.have_peer():
        sys.exit(io_alike.SKIP)
    program = os.path.abspath(sys.argv[1])
    sessions = int(sys.argv[2]) if len(sys.argv) > 2 else 6 if programs.SANITIZED else 24
    seed = int(os.environ.get('ASHLAR_SEED', random.randrange(1 << 32)))
    prng = random.Random(seed)
    images = (('-f raw a.raw', 1 << 20), ('base.qcow2', 4 << 20), ('top.qcow2', 8 << 20),
              ('-n top.qcow2', 8 << 20))
    with tempfile.TemporaryDirectory(prefix='ashlar-cli-') as where:
        pristine = os.path.join(where, 'pristine')
        io_alike.make(pristine)
        places = [fixture.Place(pristine, os.path.join(where, name)) for name in ('theirs', 'ours')]
        for number in range(sessions):
            arguments, bytes_ = images[number % len(images)]
            text = Session(prng, bytes_, number % 8 < 4).text()
            faults = faults_of(program, arguments, text, [place.path for place in places])
            for place in places:
                place.restore()
            if faults:
                print(f'ASHLAR_SEED={seed}: session {number}, {arguments}:\n{text}')
                print('\n'.join(faults))
                sys.exit(1)
    print(f'{sessions} sessions alike')


if __name__ == '__main__':
    main()
