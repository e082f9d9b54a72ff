#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs ashlar-io and qemu-io on the same arguments and compares what scripts see: the exit status, stdout,
stderr, and what the images hold afterwards.

    io_alike.py ASHLAR-IO [WORD...]    only the cases whose line contains all words

What a sanitized program says is what the other build's test compares; there it only has to end without a
finding.

A case is a line as one would type it, without the program's name. Words before it, separated by "|":

    loose    stderr is not compared word by word: both say something or both say nothing
    own      neither is stdout: only whether it fails, and that we say something on stderr if theirs do
    <TEXT    goes to standard input, with \\n for a new line
"""

import difflib
import filecmp
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import fixture
import io_cases
import programs

SKIP = 77
RATE = re.compile(r'(, \d+ ops; )\S+( sec)? \(\S+ \S+/sec and \S+ ops/sec\)')
MACHINE = re.compile(r'^(\d+,\d+),\d+:\d+:\d+\.\d+,\d+\.\d{3},\d+\.\d{3}$', re.M)
USAGE = re.compile(r'^([\w?]+) .*-- .*$', re.M)


def have_peer():
    missing = [name for name in ('qemu-img', 'qemu-io') if shutil.which(name) is None]
    if missing:
        print('missing: ' + ' '.join(missing))
    return not missing


def sh(*args, cwd):
    subprocess.run(args, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def make(where):
    """The images, the same for every case."""
    os.makedirs(where)
    with open(os.path.join(where, 'a.raw'), 'wb') as file:
        file.truncate(1 << 20)
        file.write(b'\1' * 65536)
    for name, bytes_ in (('odd.raw', 1537), ('none.raw', 0), ('big.raw', 10 << 40)):
        with open(os.path.join(where, name), 'wb') as file:
            file.truncate(bytes_)
    with open(os.path.join(where, 'bytes'), 'wb') as file:
        file.write(bytes(range(256)))
    with open(os.path.join(where, 'short'), 'wb') as file:
        file.write(b'abc')
    with open(os.path.join(where, 'junk'), 'wb') as file:
        file.write(b'junk' * 200)
    sh('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '4M', cwd=where)
    sh('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 64k 128k', '-c', 'write -z 1M 64k', 'base.qcow2',
       cwd=where)
    sh('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2', '8M',
       cwd=where)
    sh('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 128k 128k', 'top.qcow2', cwd=where)


def run(program, line, given, where):
    return fixture.run(program, shlex.split(line), where, given)


def plain(text):
    """Without the program's name, how long it took, and how the commands are explained."""
    text = re.sub(r'\b(ashlar|qemu)-io\b', 'NAME', text)
    text = RATE.sub(r'\1T', text)
    text = MACHINE.sub(r'\1,T', text)
    return USAGE.sub(r'\1 USAGE', text)


def diff(what, theirs, ours):
    if theirs == ours:
        return []
    lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), 'qemu-io', 'ashlar-io', lineterm='')
    return [what + ':'] + ['    ' + line for line in lines]


def same_image(name, places):
    paths = [os.path.join(where, name) for where in places]
    if name.endswith('.qcow2'):
        for words in (['compare', '-f', 'qcow2', '-F', 'qcow2', *paths], ['check', paths[1]]):
            status, out, err = fixture.run('qemu-img', words, places[0])
            if status != 0:
                return [f'{name}: {words[0]}: {out}{err}']
        return []
    if os.path.getsize(paths[0]) != os.path.getsize(paths[1]):
        return [f'{name}: lengths {[os.path.getsize(path) for path in paths]}']
    return [] if name == 'big.raw' or filecmp.cmp(*paths, shallow=False) else [f'{name}: contents differ']


def given_to(marks):
    return b''.join(mark[1:].replace('\\n', '\n').encode() for mark in marks if mark.startswith('<'))


def findings_of(program, case, places):
    *marks, line = case.split('|')
    return fixture.findings(run(program, line, given_to(marks), places[-1]))


def faults_of(program, case, places):
    *marks, line = case.split('|')
    given = given_to(marks)
    theirs = run('qemu-io', line, given, places[0])
    ours = run(program, line, given, places[1])
    faults = []
    if theirs[0] != ours[0]:
        faults.append(f'exit status: theirs {theirs[0]}, ours {ours[0]}')
    if 'own' not in marks:
        faults += diff('stdout', plain(theirs[1]), plain(ours[1]))
    if 'loose' not in marks and 'own' not in marks:
        faults += diff('stderr', plain(theirs[2]), plain(ours[2]))
    elif bool(theirs[2]) != bool(ours[2]):
        faults.append(f'stderr: theirs {theirs[2]!r}, ours {ours[2]!r}')
    for name in sorted(os.listdir(places[0])):
        if name.endswith(('.raw', '.qcow2')) and name in line:
            faults += same_image(name, places)
    return faults


def compare_all(program, chosen, where):
    pristine = os.path.join(where, 'pristine')
    make(pristine)
    names = ('ours',) if programs.SANITIZED else ('theirs', 'ours')
    places = [fixture.Place(pristine, os.path.join(where, name)) for name in names]
    look = findings_of if programs.SANITIZED else faults_of
    failed = 0
    for case in chosen:
        faults = look(program, case, [place.path for place in places])
        for place in places:
            place.restore()
        if faults:
            failed += 1
            print(f'not alike: {case}')
            print(''.join(f'    {fault}\n' for fault in faults))
    return failed


def main():
    if not have_peer():
        sys.exit(SKIP)
    program = os.path.abspath(sys.argv[1])
    chosen = fixture.cases(io_cases.CASES, sys.argv[2:])
    with tempfile.TemporaryDirectory(prefix='ashlar-cli-') as where:
        failed = compare_all(program, chosen, where)
    print(f'{len(chosen)} cases, {failed} not alike')
    sys.exit(1 if failed or not chosen else 0)


if __name__ == '__main__':
    main()
