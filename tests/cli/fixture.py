# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the tools and their peers, on images made by qemu-img and qemu-io that are the same for every run."""

import atexit
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../interop'))

import programs
from model import PIECE, data_ranges

SKIP = 77
SECONDS_MAX = 60
LAUNCHER = programs.Launcher(os.environ.get('FORK_SERVER', ''))
atexit.register(LAUNCHER.close)


def run(program, argv, where, given=b''):
    """(exit status, stdout, stderr)"""
    try:
        result = LAUNCHER.run([program, *argv], where, {}, SECONDS_MAX, given)
    except programs.Late:
        return f'none after {SECONDS_MAX} s', '', ''
    return result.code, result.out, result.err


def completed(program, argv, where, given=''):
    """The same as subprocess.run() returns it of text."""
    status, *texts = run(program, argv, where, given.encode())
    out, err = (text.replace('\r\n', '\n').replace('\r', '\n') for text in texts)
    return subprocess.CompletedProcess([program, *argv], status, out, err)


CRASHES = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGSEGV, -signal.SIGKILL}


def cases(all_cases, words):
    """Those that contain all words. Sanitized programs start slowly: there each third must do."""
    chosen = [case for case in all_cases if all(word in case for word in words)]
    return chosen if words or not programs.SANITIZED else chosen[::3]


def findings(result):
    """Of a sanitized program, in what run() returned."""
    status, _, err = result
    bad = not isinstance(status, int) or status in CRASHES or 'Sanitizer' in err or 'runtime error' in err
    return [f'exit status {status}: {err}'] if bad else []


def missing_tools():
    return [name for name in ('qemu-img', 'qemu-io') if shutil.which(name) is None]


class Place:
    """A directory that starts as a copy of another, and is made one again."""

    def __init__(self, pristine, path):
        self.pristine, self.path = pristine, path
        self.stamps = {}
        os.makedirs(path)
        self.restore()

    @staticmethod
    def stamp(path):
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            return status.st_mode
        return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    @staticmethod
    def names(where, below=''):
        """Of what is below it, a directory before what is in it."""
        found = []
        with os.scandir(where) as entries:
            for entry in entries:
                found.append(below + entry.name)
                if entry.is_dir(follow_symlinks=False):
                    found += Place.names(entry.path, found[-1] + '/')
        return found

    def restore(self):
        """Makes anew what was changed, and only that."""
        there, wanted = self.names(self.path), self.names(self.pristine)
        for name in reversed(there):
            path = os.path.join(self.path, name)
            if name not in wanted or self.stamp(path) != self.stamps.get(name):
                remove(path)
        for name in wanted:
            path = os.path.join(self.path, name)
            if not os.path.lexists(path):
                copy(os.path.join(self.pristine, name), path)
                self.stamps[name] = self.stamp(path)


def same_bytes(one, other):
    with open(one, 'rb') as left, open(other, 'rb') as right:
        while True:
            piece = left.read(PIECE)
            if piece != right.read(PIECE):
                return False
            if not piece:
                return True


def byte_for_byte(name, places):
    """Whether a file is the same in both places. What is asked of a raw one then cannot differ, except where
    its holes are; nor of a qcow2 one that has no backing file."""
    paths = [os.path.join(place, name) for place in places]
    if not same_bytes(*paths):
        return False
    if name.endswith('.raw'):
        return True
    with open(paths[0], 'rb') as file:
        header = file.read(20)
    return header[:4] == b'QFI\xfb' and header[8:20] == bytes(12)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def copy(source, target):
    """Holes stay holes."""
    if os.path.isdir(source):
        os.mkdir(target)
        return
    with open(source, 'rb') as there, open(target, 'wb') as here:
        size = os.fstat(there.fileno()).st_size
        here.truncate(size)
        for start, end in data_ranges(there.fileno(), 0, size):
            there.seek(start)
            here.seek(start)
            here.write(there.read(end - start))
    shutil.copystat(source, target)


def sh(*args, cwd=None):
    subprocess.run(args, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def img(where, *args):
    sh('qemu-img', *args, cwd=where)


def qcow2(where, name, *args):
    img(where, 'create', '-q', '-f', 'qcow2', *args[:-1], name, args[-1])


def io(where, name, *commands, fmt='qcow2'):
    args = []
    for command in commands:
        args += ['-c', command]
    sh('qemu-io', '-f', fmt, *args, name, cwd=where)


def overlay(where, name, backing, *commands, fmt='qcow2', size=None):
    args = ['create', '-q', '-f', 'qcow2', '-b', backing, '-F', fmt, name]
    img(where, *args, *([size] if size else []))
    if commands:
        io(where, name, *commands)


def file_of(where, name, size, *pieces):
    """A sparse file with pieces of (offset, bytes)."""
    with open(os.path.join(where, name), 'wb') as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)


def poke(where, name, offset, data):
    with open(os.path.join(where, name), 'r+b') as file:
        file.seek(offset)
        file.write(data)


def refcounts(where, name):
    """The offset of the first refcount block."""
    with open(os.path.join(where, name), 'rb') as file:
        file.seek(48)
        file.seek(struct.unpack('>Q', file.read(8))[0])
        return struct.unpack('>Q', file.read(8))[0]


def damaged(where):
    """Leaks and wrong refcounts, put into copies of base.qcow2."""
    for name in ('leak.qcow2', 'corrupt.qcow2'):
        shutil.copy(os.path.join(where, 'base.qcow2'), os.path.join(where, name))
    clusters = os.path.getsize(os.path.join(where, 'leak.qcow2')) // 65536
    with open(os.path.join(where, 'leak.qcow2'), 'ab') as file:
        file.write(b'x' * 131072)
    poke(where, 'leak.qcow2', refcounts(where, 'leak.qcow2') + 2 * clusters, struct.pack('>HH', 1, 1))
    poke(where, 'corrupt.qcow2', refcounts(where, 'corrupt.qcow2') + 2 * 5, struct.pack('>HH', 0, 3))


def make(where):
    os.makedirs(os.path.join(where, 'sub'))
    qcow2(where, 'base.qcow2', '64M')
    io(where, 'base.qcow2', 'write -P 1 0 1M', 'write -P 2 10M 64k')
    overlay(where, 'mid.qcow2', 'base.qcow2', 'write -P 3 64k 128k', 'write -z 20M 1M')
    overlay(where, 'top.qcow2', 'mid.qcow2', 'write -P 4 512k 128k', 'write -z -u 10M 64k')
    img(where, 'convert', '-c', '-O', 'qcow2', 'base.qcow2', 'comp.qcow2')
    img(where, 'convert', '-c', '-O', 'qcow2', '-o', 'compression_type=zstd', 'base.qcow2', 'zstd.qcow2')
    qcow2(where, 'old.qcow2', '-o', 'compat=0.10', '8M')
    qcow2(where, 'empty.qcow2', '1M')
    qcow2(where, 'small.qcow2', '-o', 'cluster_size=512,refcount_bits=1', '1M')
    io(where, 'small.qcow2', 'write -P 5 100k 300k')
    qcow2(where, 'short.qcow2', '1M')
    io(where, 'short.qcow2', 'write -P 6 0 1M')
    overlay(where, 'longer.qcow2', 'short.qcow2', 'write -P 7 2M 64k', size='4M')
    img(where, 'create', '-q', '-f', 'qcow2', '-u', '-b', '/nope/x', '-F', 'qcow2', 'orphan.qcow2', '8M')
    img(where, 'create', '-q', '-f', 'qcow2', '-u', '-b', 'nbd://host/x', '-F', 'raw', 'url.qcow2', '8M')
    file_of(where, 'data.raw', 4 << 20, (1 << 20, b'\1' * 65536), (3 << 20, bytes(range(256)) * 256))
    file_of(where, 'zero.raw', 1 << 20)
    file_of(where, 'other.raw', 1 << 20, (512345, b'abc'))
    file_of(where, 'long.raw', 3 << 20, (2500000, b'abc'))
    file_of(where, 'odd.raw', 1000, (0, b'odd' * 333))
    file_of(where, 'nothing.raw', 0)
    with open(os.path.join(where, 'full.raw'), 'wb') as file:
        file.write(bytes(1 << 20))
    overlay(where, 'onraw.qcow2', 'data.raw', 'write -P 8 64k 64k', fmt='raw', size='8M')
    for name in ('base.qcow2', 'mid.qcow2'):
        shutil.copy(os.path.join(where, name), os.path.join(where, 'sub', name))
    overlay(where, 'sub/top.qcow2', 'mid.qcow2', 'write -P 9 1M 64k')
    damaged(where)
    for name, bit in (('dirty.qcow2', 1), ('marked.qcow2', 2)):
        shutil.copy(os.path.join(where, 'base.qcow2'), os.path.join(where, name))
        poke(where, name, 79, bytes([bit]))
