#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Resumable jobs whose process is killed. ashlar-io writes to an image while a job runs, and is killed with
SIGKILL at a random moment; started again with the same state file it goes on. In the end the target is the
same as the source (mirror), or as the moment of the first start (backup), or the overlay holds alone what it
held with its chain (stream). Now and then somebody else writes to the source in between, and the job is
refused.

    job_killed.py ASHLAR_IMG ASHLAR_IO [--count N] [--seed S] [--only mirror|backup|stream]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

DISK_BYTES = 16 << 20
ENGINES = ['uring', 'aio', 'threads']
JOBS = ['mirror', 'backup', 'stream']


class Failed(Exception):
    pass


class Round:
    def __init__(self, args, job, seed, where):
        self.args = args
        self.job = job
        self.rng = random.Random(f'{job} {seed}')
        self.where = where
        self.env = {**os.environ, 'ASHLAR_ENGINE': self.rng.choice(ENGINES)}

    def path(self, name):
        return os.path.join(self.where, name)

    def img(self, *words, ok=True):
        done = subprocess.run([self.args.ashlar_img, *words], cwd=self.where, env=self.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        if ok and done.returncode != 0:
            raise Failed(f'{words}: {done.stdout}')
        return done

    def write(self):
        bytes_ = self.rng.randrange(1, 64) * 512
        offset = self.rng.randrange(0, DISK_BYTES - bytes_) // 512 * 512
        kind = self.rng.choice(['write -P %d' % self.rng.randrange(1, 256)] * 3 + ['write -z', 'discard'])
        return f'{kind} {offset} {bytes_}\n'

    def described(self):
        target = [] if self.job == 'stream' else ['target=target.qcow2', 'format=qcow2']
        return [f'type={self.job}', 'job-id=j', *target, 'state-file=state', 'auto-dismiss=off',
                f'speed={self.speed}']

    def start(self):
        return f'job start {" ".join(self.described())}\n'

    def run_io(self, text, *names):
        return subprocess.run([self.args.ashlar_io, *names], cwd=self.where, env=self.env, text=True,
                              input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)

    def make(self):
        noise = self.rng.randbytes(DISK_BYTES // 4)
        with open(self.path('raw'), 'wb') as file:
            file.write(noise)
            file.truncate(DISK_BYTES)
        self.img('convert', '-O', 'qcow2', 'raw', 'source.qcow2')
        if self.job == 'stream':
            os.rename(self.path('source.qcow2'), self.path('base.qcow2'))
            self.img('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'source.qcow2')
        self.img('create', '-q', '-f', 'qcow2', 'target.qcow2', str(DISK_BYTES))
        shutil.copyfile(self.path('source.qcow2'), self.path('moment.qcow2'))

    def live_and_die(self):
        """Writes beside the job until it is killed."""
        self.speed = self.rng.choice([2 << 20, 20 << 20])
        with subprocess.Popen([self.args.ashlar_io, 'source.qcow2'], cwd=self.where, env=self.env, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            process.stdin.write(self.start())
            end = time.monotonic() + self.rng.uniform(0.02, 1.5)
            while time.monotonic() < end:
                process.stdin.write(self.write())
                process.stdin.flush()
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            try:
                process.stdin.close()
            except BrokenPipeError:
                pass

    def phase(self):
        """What the state file says: 0 nothing, 1 begun, 2 ended."""
        if not os.path.exists(self.path('state')):
            return 0
        with open(self.path('state'), 'rb') as file:
            head = file.read(512)
        return head[16] if head[:8] == b'ASHLARJ1' else 0

    def finish(self):
        self.speed = 0
        writes = ''.join(self.write() for i in range(20))
        if self.rng.random() < 0.5:  # as a part of opening the disk
            names = []
            text = f'open -j {",".join(self.described())} source.qcow2\n' + writes
        else:
            names = ['source.qcow2']
            text = self.start() + writes
        if self.job == 'mirror':
            text += 'job wait j ready\njob cancel j\n'
        text += 'job wait j\njob dismiss j\n'
        done = self.run_io(text, *names)
        if done.returncode != 0:
            raise Failed(f'going on: {done.stdout[-2000:]}')
        if self.job == 'stream':
            done = self.run_io(writes, 'moment.qcow2')
            if done.returncode != 0:
                raise Failed(f'the same on its chain: {done.stdout[-2000:]}')

    def meddle(self):
        before = self.rng.choice(['ashlar', 'qemu'])
        tool = self.args.ashlar_io if before == 'ashlar' else shutil.which('qemu-io')
        if tool is None:
            return
        subprocess.run([tool, '-c', 'write -P 1 0 512', 'source.qcow2'], cwd=self.where, check=True,
                       stdout=subprocess.DEVNULL, timeout=60)
        self.speed = 0
        done = self.run_io(self.start(), 'source.qcow2')
        if 'may have been changed' not in done.stdout:
            raise Failed(f'after a write by {before} it was not refused: {done.stdout[-2000:]}')

    def run(self):
        """Whether there was something to go on from."""
        self.make()
        self.live_and_die()
        phase = self.phase()
        if phase == 0 or self.job == 'stream':
            shutil.copyfile(self.path('source.qcow2'), self.path('moment.qcow2'))
        if phase == 1 and self.rng.random() < 0.15:
            self.meddle()
            return True
        if phase != 2:
            self.finish()
        want = 'source.qcow2' if self.job == 'mirror' else 'moment.qcow2'
        got = 'source.qcow2' if self.job == 'stream' else 'target.qcow2'
        if self.job == 'stream':  # what it shows must be its own
            self.img('convert', '-O', 'raw', want, 'want')
            os.remove(self.path('base.qcow2'))
            want = 'want'
        same = self.img('compare', want, got, ok=False)
        if same.returncode != 0:
            raise Failed(f'{want} and {got}: {same.stdout}')
        for name in ('source.qcow2', 'target.qcow2'):
            found = self.img('check', name, ok=False)
            if found.returncode not in (0, 3):
                raise Failed(f'check {name}: {found.stdout}')
        return phase == 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ashlar_img', type=os.path.abspath)
    parser.add_argument('ashlar_io', type=os.path.abspath)
    parser.add_argument('--count', type=int, default=5)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--only', choices=JOBS)
    args = parser.parse_args()
    root = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
    failed = 0
    for job in [args.only] if args.only else JOBS:
        begun = 0
        for seed in range(args.seed, args.seed + args.count):
            where = tempfile.mkdtemp(prefix='ashlar-killed-', dir=root)
            try:
                begun += Round(args, job, seed, where).run()
            except Failed as error:
                failed += 1
                print(f'{job}, seed {seed}: {error}')
            finally:
                shutil.rmtree(where)
        print(f'{job}: killed {args.count} times, {begun} with something to go on from')
        failed += begun == 0
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
