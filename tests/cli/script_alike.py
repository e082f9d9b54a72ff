#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs random scripts of ashlar-img and ashlar-io commands in one directory, and the same of qemu-img and
qemu-io in another. After each command the exit status and what was said must be the same, at the end the
images. What can only be compared loosely there (map, measure) is asked of QEMU about our images too.

    script_alike.py ASHLAR-IMG ASHLAR-IO [--first N] [--count M]    the scripts of M seeds
    script_alike.py ASHLAR-IMG ASHLAR-IO --seed N                   one; a failing one is made smaller

differences.py lists what may differ."""

import argparse
import difflib
import os
import random
import re
import shutil
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import differences
import fixture
import io_alike
from script_draw import PATTERN_FILE, Drawer, Step

LOOKING = ('map', 'measure')
SHRINK_SECONDS = 40


def plain(text):
    """Without the program's name and how long it took; each prompt on a line of its own."""
    text = re.sub(r'\b(ashlar|qemu)-(img|io)\b', r'\2', text)
    return io_alike.plain(text.replace('io> ', 'io>\n'))


class Programs:
    def __init__(self, img, io, where):
        self.ours = {'img': os.path.abspath(img), 'io': os.path.abspath(io)}
        self.theirs = {'img': 'qemu-img', 'io': 'qemu-io'}
        self.where = where

    def place(self, name):
        return os.path.join(self.where, name)

    def run(self, programs, step, place):
        status, out, err = fixture.run(programs[step.tool], step.argv(), self.place(place),
                                       step.given().encode())
        return status, plain(out), plain(err)

    def fresh(self):
        for place in ('theirs', 'ours'):
            shutil.rmtree(self.place(place), ignore_errors=True)
            os.makedirs(self.place(place))
            with open(os.path.join(self.place(place), PATTERN_FILE), 'wb') as file:
                file.write(bytes(range(1, 252)) * 17)


def diff(what, theirs, ours):
    if theirs == ours:
        return []
    lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), 'qemu', 'ashlar', lineterm='', n=1)
    return [what + ':'] + ['    ' + line for line in lines]


def faults_of_step(programs, step):
    theirs = programs.run(programs.theirs, step, 'theirs')
    ours = programs.run(programs.ours, step, 'ours')
    faults = compared(differences.TWIN, step, theirs, ours)
    if step.command() in LOOKING:
        again = programs.run(programs.theirs, step, 'ours')
        faults += ['both on ours: ' + fault for fault in compared(differences.SAME, step, again, ours)]
    return faults


def compared(list_, step, theirs, ours):
    faults = [] if theirs[0] == ours[0] else [f'exit status: theirs {theirs[0]}, ours {ours[0]}']
    faults += diff('stdout', *(differences.plain(list_, step, text[1]) for text in (theirs, ours)))
    faults += diff('stderr', *(differences.plain_errors(step, text[2]) for text in (theirs, ours)))
    return faults


def faults_of_images(programs, zeroed):
    """At the end: the same files, of which each side says the same, and which QEMU finds to read alike and to
    be clean."""
    places = [programs.place(name) for name in ('theirs', 'ours')]
    names = [sorted(os.listdir(place)) for place in places]
    faults = [] if names[0] == names[1] else [f'files: theirs {names[0]}, ours {names[1]}']
    for name in sorted(set(names[0]) & set(names[1]) - {PATTERN_FILE}):
        equal = fixture.byte_for_byte(name, places)
        steps = [] if equal else [Step('img', ['info', '-U', '--output=json', name])]
        steps += [] if zeroed(name) else [Step('img', ['map', '--output=json', name])]
        for step in steps:
            looks = [programs.run(programs.theirs, step, 'theirs'), programs.run(programs.ours, step, 'ours')]
            faults += [f'{name}: {step.command()}: {fault}'
                       for fault in compared(differences.TWIN, step, *looks)]
        if equal:
            continue
        fmt = 'qcow2' if name.endswith('.qcow2') else 'raw'
        paths = [os.path.join(place, name) for place in places]
        step = Step('img', ['compare', '-f', fmt, '-F', fmt, *paths])
        status, out, err = programs.run(programs.theirs, step, 'ours')
        if looks[0][0] == 0 and status != 0:
            faults.append(f'{name}: {out}{err}')
        check = Step('img', ['check', name])
        ours = programs.run(programs.theirs, check, 'ours') if fmt == 'qcow2' else (0,)
        if ours[0] != 0 and ours[0] != programs.run(programs.theirs, check, 'theirs')[0]:
            faults.append(f'{name}: check: {ours}')
    return faults


def faults_of(programs, steps, zeroed):
    programs.fresh()
    for index, step in enumerate(steps):
        faults = faults_of_step(programs, step)
        if faults:
            return [f'step {index}: {step.text()}'] + faults
    return faults_of_images(programs, zeroed)


def smaller(programs, steps, zeroed):
    """Leaves out steps and lines of sessions as long as it fails."""
    end = time.monotonic() + SHRINK_SECONDS
    changed = True
    while changed and time.monotonic() < end:
        changed = False
        for index in reversed(range(len(steps))):
            trial = steps[:index] + steps[index + 1:]
            if trial and time.monotonic() < end and faults_of(programs, trial, zeroed):
                steps, changed = trial, True
        for index, step in enumerate(steps):
            for line in reversed(range(len(step.lines or []))):
                if steps[index].lines[line] == 'aio_flush':
                    continue  # without it the order of what is said is anybody's
                trial = steps[:index] + [steps[index].without_line(line)] + steps[index + 1:]
                if time.monotonic() < end and faults_of(programs, trial, zeroed):
                    steps, changed = trial, True
    return steps


def run_seed(programs, seed, shrink, verbose):
    drawer = Drawer(random.Random(seed))
    steps = drawer.script()
    if verbose:
        print('\n'.join(step.text() for step in steps))
    faults = faults_of(programs, steps, drawer.zeroed)
    if not faults:
        return True
    if shrink:
        steps = smaller(programs, steps, drawer.zeroed)
        faults = faults_of(programs, steps, drawer.zeroed)
    print(f'NOT ALIKE: seed {seed}')
    print('\n'.join('    ' + step.text() for step in steps))
    print('\n'.join('  ' + line for fault in faults for line in fault.rstrip().splitlines()))
    print(f'repeat: {" ".join(sys.argv[:3])} --seed {seed}', flush=True)
    return False


def work_root():
    """Memory where there is some: this is about bytes, not about disks."""
    return os.environ.get('TMPDIR') or ('/dev/shm' if os.access('/dev/shm', os.W_OK) else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('img')
    parser.add_argument('io')
    parser.add_argument('--seed', type=int)
    parser.add_argument('--first', type=int, default=1)
    parser.add_argument('--count', type=int, default=100)
    parser.add_argument('--shrink', action='store_true')
    parser.add_argument('--verbose', '-v', action='store_true')
    args = parser.parse_args()
    missing = fixture.missing_tools()
    if missing:
        print('missing: ' + ' '.join(missing))
        return fixture.SKIP
    seeds = [args.seed] if args.seed is not None else range(args.first, args.first + args.count)
    with tempfile.TemporaryDirectory(prefix='ashlar-cli-', dir=work_root()) as where:
        programs = Programs(args.img, args.io, where)
        failed = [seed for seed in seeds
                  if not run_seed(programs, seed, args.shrink or args.seed is not None, args.verbose)]
    print(f'{len(seeds)} scripts, {len(failed)} not alike' + ''.join(f' {seed}' for seed in failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
