# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs ashlar-img, ashlar-io and their counterparts, and keeps a log that can be run again by hand."""

import json
import os
import resource
import shlex
import shutil
import subprocess

SKIP = 77
SANITIZED = 'ASAN_OPTIONS' in os.environ
HERE = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    pass


def build_directory():
    return os.environ.get('ASHLAR_BUILD', os.path.join(HERE, '../../build'))


def add_arguments(parser):
    build = build_directory()
    parser.add_argument('--ashlar-img', default=os.path.join(build, 'tools/ashlar-img'))
    parser.add_argument('--ashlar-io', default=os.path.join(build, 'tools/ashlar-io'))
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


def limit():
    """A program that runs wild must not take the machine with it."""
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out.decode(errors='replace'), err.decode(errors='replace')

    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise Failed(f'not JSON: {error}\n{self.out}{self.err}') from error


class Programs:
    """side is 'ashlar' or 'qemu', tool is 'img' or 'io'."""

    def __init__(self, args, where):
        self.where = where
        self.verbose = args.verbose
        self.log = []
        self.paths = {('ashlar', 'img'): os.path.abspath(args.ashlar_img),
                      ('ashlar', 'io'): os.path.abspath(args.ashlar_io),
                      ('qemu', 'img'): 'qemu-img', ('qemu', 'io'): 'qemu-io'}
        self.timeout = 60 * (4 if SANITIZED else 1)

    def run(self, side, tool, *words, expect=(0,), engine=None):
        argv = [self.paths[side, tool], *(str(word) for word in words)]
        env = {**os.environ, 'LC_ALL': 'C'}
        prefix = ''
        if engine is not None and side == 'ashlar':
            env['ASHLAR_ENGINE'] = engine
            prefix = f'ASHLAR_ENGINE={engine} '
        line = prefix + shlex.join(argv)
        self.log.append(line)
        if self.verbose:
            print(line, flush=True)
        try:
            done = subprocess.run(argv, cwd=self.where, env=env, stdin=subprocess.DEVNULL, preexec_fn=limit,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=self.timeout)
        except subprocess.TimeoutExpired as error:
            raise Failed(f'no end after {self.timeout} s: {line}') from error
        result = Result(done.returncode, done.stdout, done.stderr)
        if expect is not None and done.returncode not in expect:
            raise Failed(f'exit status {done.returncode}, not one of {list(expect)}:\n{line}\n'
                         f'{result.out}{result.err}')
        return result

    def note(self, text):
        self.log.append('# ' + text)
