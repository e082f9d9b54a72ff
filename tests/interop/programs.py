# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs ashlar-img, ashlar-io and their counterparts, and keeps a log that can be run again by hand."""

import fcntl
import json
import os
import resource
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import time

SKIP = 77
SANITIZED = 'ASAN_OPTIONS' in os.environ
# To look for leaks is much of what a short run of a sanitized program costs, and what leaks in a tool leaks
# in the library's own tests, which always look: so only one run of so many does.
LEAKS_EVERY = 4
HERE = os.path.dirname(os.path.abspath(__file__))
OUTPUT_BYTES_MAX = 16 << 20
INPUT_BYTES_MAX = 1 << 20
ANSWER = struct.Struct('4q')    # of fork_server.c
LOCKS = (100, 200)              # the bytes of a file that programs lock: first, count


class Failed(Exception):
    pass


class Late(Exception):
    """A program did not end in time and was killed."""


def build_directory():
    return os.environ.get('ASHLAR_BUILD', os.path.join(HERE, '../../build'))


def add_arguments(parser):
    build = build_directory()
    parser.add_argument('--ashlar-img', default=os.path.join(build, 'tools/ashlar-img'))
    parser.add_argument('--ashlar-io', default=os.path.join(build, 'tools/ashlar-io'))
    parser.add_argument('--fork-server', default=os.path.join(build, 'tests/interop/libfork_server.so'),
                        help='starts programs faster (fork_server.c); empty: without')
    parser.add_argument('--verbose', '-v', action='store_true', help='print each command')
    parser.add_argument('--keep', action='store_true', help='keep the images of a failure')


def missing():
    return [name for name in ('qemu-img', 'qemu-io') if shutil.which(name) is None]


def work_root():
    """Memory, where there is some: these tests are about bytes, not about disks."""
    if 'TMPDIR' in os.environ:
        return os.environ['TMPDIR']
    shm = '/dev/shm'
    if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30:
        return shm
    return '/tmp'


class Result:
    """How a run ended and what it took."""

    def __init__(self, status, out, err, cpu_s, memory_kib):
        self.code = os.waitstatus_to_exitcode(status)
        self.out, self.err = (text.decode(errors='backslashreplace') for text in (out, err))
        self.cpu_s, self.memory_kib = cpu_s, memory_kib

    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise Failed(f'not JSON: {error}\n{self.out}{self.err}') from error


class Output:
    """Takes what programs print, one after the other."""

    def __init__(self):
        self.fd = os.memfd_create('output')

    def clear(self):
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)

    def bytes(self):
        return os.pread(self.fd, OUTPUT_BYTES_MAX, 0)


class Input:
    """What a program is told by standard input: a pipe that was filled and closed before it starts."""

    def __init__(self, given):
        self.fd, end = os.pipe()
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, INPUT_BYTES_MAX)
        assert len(given) <= INPUT_BYTES_MAX
        os.write(end, given)
        os.close(end)
        # Another process opens it by this name.
        self.path = f'/proc/{os.getpid()}/fd/{self.fd}'

    def close(self):
        os.close(self.fd)


def is_peer(path):
    return os.path.basename(path).startswith('qemu-')


def environment(path, **more):
    """For a program. Meson has malloc() fill memory, to show what is used before it is written; of peers that
    shows nothing, and it takes them twice as many page faults, which is most of what a short run costs."""
    env = {**os.environ, **more}
    if is_peer(path):
        env.pop('MALLOC_PERTURB_', None)
    return env


class Plain:
    """Starts a program in the usual way."""

    def __init__(self, path, out, err, env):
        self.path, self.out, self.err, self.env = path, out, err, env

    def close(self):
        pass

    def run(self, words, where, env, given, timeout_s):
        """(wait status, seconds of the processor, KiB of memory)"""
        process = subprocess.Popen([self.path, *words], cwd=where,
                                   env=environment(self.path, **self.env, **env),
                                   stdin=given.fd if given else subprocess.DEVNULL,
                                   stdout=self.out.fd, stderr=self.err.fd)
        watch = os.pidfd_open(process.pid)
        in_time = select.select([watch], [], [], timeout_s)[0]
        os.close(watch)
        if not in_time:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if not in_time:
            raise Late()
        return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


class Forked:
    """Starts a program that has loaded its libraries already: fork_server.c says how."""

    def __init__(self, path, out, err, env, preload):
        self.path, self.err = path, err
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            env = environment(path, **env, LD_PRELOAD=preload, LD_BIND_NOW='1',
                              ASHLAR_FORK_SERVER=str(theirs.fileno()))
            if is_peer(path):   # ours run as they would: their threads may well be on all processors
                env['ASHLAR_FORK_PINNED'] = '1'
            self.server = subprocess.Popen([path], env=env, stdin=subprocess.DEVNULL, stdout=out.fd,
                                           stderr=err.fd, pass_fds=[theirs.fileno()])

    def close(self):
        self.socket.close()
        self.server.wait()

    def answer(self, timeout_s=None):
        """What the server says next, or None."""
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return None
        answer = self.socket.recv(ANSWER.size)
        if len(answer) < ANSWER.size:
            raise Failed(f'the fork server of {self.path} is gone: {self.err.bytes().decode()}')
        return ANSWER.unpack(answer)

    def run(self, words, where, env, given, timeout_s):
        settings = (f'{name}={value}' for name, value in env.items())
        strings = [where, given.path if given else os.devnull, *settings, '', self.path, *words]
        self.socket.send(b''.join(os.fsencode(string) + b'\0' for string in strings))
        pid = self.answer()[0]
        ended = self.answer(timeout_s)
        if ended is None:
            os.kill(pid, signal.SIGKILL)
            self.answer()
            raise Late()
        return ended[1], ended[2] / 1e6, ended[3]


class Launcher:
    """Starts programs. One serves all tests of a process."""

    def __init__(self, fork_server):
        self.preload = os.path.abspath(fork_server) if os.path.exists(fork_server) else None
        self.out, self.err = Output(), Output()
        self.starters = {}
        self.runs = 0
        # A program that runs wild must not take the machine with it.
        if not SANITIZED:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def starter(self, path):
        env = {}
        if SANITIZED and not is_peer(path):
            self.runs += 1
            if self.runs % LEAKS_EVERY != 0:
                env['ASAN_OPTIONS'] = os.environ['ASAN_OPTIONS'] + ':detect_leaks=0'
        key = path, *env.values()
        if key not in self.starters:
            found = shutil.which(path)
            self.starters[key] = Forked(found, self.out, self.err, env, self.preload) if self.preload \
                else Plain(found, self.out, self.err, env)
        return self.starters[key]

    def close(self):
        for starter in self.starters.values():
            starter.close()

    def run(self, argv, where, env, timeout_s, given=None):
        """`given`: bytes for standard input, which is empty otherwise."""
        starter = self.starter(argv[0])
        self.out.clear()
        self.err.clear()
        input_ = Input(given) if given is not None else None
        try:
            status, cpu_s, memory_kib = starter.run(argv[1:], where, {'LC_ALL': 'C', **env}, input_,
                                                    timeout_s)
        finally:
            if input_:
                input_.close()
        return Result(status, self.out.bytes(), self.err.bytes(), cpu_s, memory_kib)


class Programs:
    """side is 'ashlar' or 'qemu', tool is 'img' or 'io'."""

    def __init__(self, args, launcher, where):
        self.where = where
        self.launcher = launcher
        self.verbose = args.verbose
        self.log = []
        self.paths = {('ashlar', 'img'): os.path.abspath(args.ashlar_img),
                      ('ashlar', 'io'): os.path.abspath(args.ashlar_io),
                      ('qemu', 'img'): 'qemu-img', ('qemu', 'io'): 'qemu-io'}
        self.timeout_s = 60 * (4 if SANITIZED else 1)

    def run(self, side, tool, *words, expect=(0,), engine=None):
        argv = [self.paths[side, tool], *(str(word) for word in words)]
        env = {'ASHLAR_ENGINE': engine} if engine is not None and side == 'ashlar' else {}
        line = ''.join(f'{name}={value} ' for name, value in env.items()) + shlex.join(argv)
        self.log.append(line)
        if self.verbose:
            print(line, flush=True)
        try:
            result = self.launcher.run(argv, self.where, env, self.timeout_s)
        except Late as late:
            raise Failed(f'no end after {self.timeout_s} s: {line}') from late
        if expect is not None and result.code not in expect:
            raise Failed(f'exit status {result.code}, not one of {list(expect)}:\n{line}\n'
                         f'{result.out}{result.err}')
        return result

    def wait_for_locks(self, name):
        """A program that used io_uring and was killed with requests in flight is gone before they are: until
        the kernel has dropped them, they hold the file, and the file its locks."""
        lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, *LOCKS, 0)
        end = time.monotonic() + self.timeout_s
        with open(os.path.join(self.where, name), 'r+b') as file:
            while struct.unpack('hhqqi4x', fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock))[0] != fcntl.F_UNLCK:
                if time.monotonic() > end:
                    raise Failed(f'{name} is locked by a program that was killed')
                time.sleep(0.001)
