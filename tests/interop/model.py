# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk must hold: a sparse file that is changed by plain writes, and what may hold one of several
states after its writer was killed."""

import os

SECTOR = 512
PIECE = 1 << 20


def data_ranges(fd, start, end):
    """The parts of start..end that are not holes."""
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:
            return
        if start >= end:
            return
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, stop
        start = stop


class Model:
    def __init__(self, path, size):
        self.path = path
        self.size = size
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.snapshots = None
        os.ftruncate(self.fd, size)

    def close(self):
        os.close(self.fd)

    def overlay(self, path, size):
        """The model of a new layer above this one."""
        above = Model(path, size)
        for start, end in data_ranges(self.fd, 0, min(size, self.size)):
            while start < end:
                piece = os.pread(self.fd, min(PIECE, end - start), start)
                os.pwrite(above.fd, piece, start)
                start += len(piece)
        return above

    def read(self, offset, length):
        data = os.pread(self.fd, length, offset)
        return data + bytes(length - len(data))

    def write(self, offset, data):
        self.remember(offset, len(data))
        os.pwrite(self.fd, data, offset)

    def zero(self, offset, length):
        self.remember(offset, length)
        for start, end in list(data_ranges(self.fd, offset, min(offset + length, self.size))):
            while start < end:
                piece = min(PIECE, end - start)
                os.pwrite(self.fd, bytes(piece), start)
                start += piece

    def resize(self, size):
        os.ftruncate(self.fd, size)
        self.size = size

    # From `doubt` on, a sector may hold what it held then or anything that was written to it since.

    def doubt(self):
        self.snapshots = []

    def remember(self, offset, length):
        if self.snapshots is not None:
            start = offset // SECTOR * SECTOR
            end = min((offset + length + SECTOR - 1) // SECTOR * SECTOR, self.size)
            self.snapshots.append((start, self.read(start, end - start)))

    def may_be_zero(self, offset, length):
        """Whole sectors that may hold zeroes too."""
        self.snapshots.append((offset, bytes(length)))

    def settle(self, got_path):
        """Takes over from a raw file what the sectors in doubt turned out to hold. Returns the
        first that holds none of what it may: its offset, what it holds, and what it may."""
        snapshots, self.snapshots = self.snapshots, None
        got_fd = os.open(got_path, os.O_RDONLY)
        try:
            for start, end in joined((start, min(start + len(data), self.size)) for start, data in snapshots):
                while start < end:
                    bad = self.settle_piece(snapshots, got_fd, start, min(PIECE, end - start))
                    if bad is not None:
                        return bad
                    start += PIECE
        finally:
            os.close(got_fd)
        return None

    def settle_piece(self, snapshots, got_fd, offset, length):
        """Looks at sectors one by one only where something differs: most of what is in doubt is large."""
        got, now = os.pread(got_fd, length, offset), self.read(offset, length)
        if got == now:
            return None
        for at in range(0, length, SECTOR):
            sector, held = got[at:at + SECTOR], now[at:at + SECTOR]
            if sector != held:
                where = offset + at
                allowed = {data[where - start:where - start + len(held)] for start, data in snapshots
                           if start <= where < start + len(data)}
                if sector not in allowed:
                    return where, sector, sorted(allowed | {held})
                os.pwrite(self.fd, sector, where)
        return None


def joined(ranges):
    """The same bytes in ascending ranges that do not touch."""
    result = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1][1] = max(end, result[-1][1])
        else:
            result.append([start, end])
    return result


class Ranges:
    """A few ranges, in any order."""

    def __init__(self):
        self.list = []

    def add(self, start, length):
        self.list.append((start, start + length))

    def overlaps(self, start, length):
        return any(start < b and a < start + length for a, b in self.list)

    def clear(self):
        self.list = []
