#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs ashlar-img and qemu-img on the same arguments and compares what scripts see: the exit status,
stdout, stderr, and the images that were made.

    img_alike.py ASHLAR-IMG [WORD...]    only the cases whose line contains all words

A case is a line as one would type it, without the program's name. Marks before it, separated by "|":

    loose    stderr is not compared word by word: both say something or both say nothing, and ours begins
             with the program's name
    findings stderr is not compared: it is the findings of a check
    status   only the exit status is compared
    silent   as loose, but ours may say something where qemu-img says nothing, and the other way round
    made:X   the image X was made or changed: both must read alike, have the same info, and check clean

What a sanitized program says is what the other build's test compares; there it only has to end without a
finding.
"""

import difflib
import json
import os
import re
import shlex
import sys
import tempfile

import img_cases
import fixture
import programs


def run(program, line, where):
    return fixture.run(program, shlex.split(line), where)


def plain(text):
    """Without the program's name, and without how long it took."""
    text = re.sub(r'\b(ashlar|qemu)-img\b', 'NAME', text)
    return re.sub(r'Run completed in [0-9.]+', 'Run completed in N', text)


def diff(what, theirs, ours):
    if theirs.splitlines() == ours.splitlines():
        return []
    lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), 'qemu-img', 'ashlar-img',
                                 lineterm='')
    return [what + ':'] + ['    ' + line for line in lines]


def faults_of_stderr(marks, theirs, ours):
    if 'findings' in marks:
        return []
    if 'silent' not in marks and 'loose' not in marks:
        return diff('stderr', plain(theirs), plain(ours))
    if ours and not ours.startswith('ashlar-img: '):
        return ['stderr does not begin with the name: ' + ours]
    if 'loose' in marks and bool(theirs) != bool(ours):
        return [f'stderr: theirs {theirs!r}, ours {ours!r}']
    return []


def info_of(name, where):
    status, out, err = run('qemu-img', f'info --output=json {name}', where)
    if status != 0:
        return err
    info = json.loads(out)
    info.pop('actual-size', None)
    return json.dumps(info, indent=1, sort_keys=True)


def faults_of_made(name, theirs, ours):
    """What differs between two images that were made by the two programs."""
    paths = [os.path.join(where, name) for where in (theirs, ours)]
    if not all(os.path.exists(path) for path in paths):
        both = [os.path.exists(path) for path in paths]
        return [] if both[0] == both[1] else [f'{name}: exists {both}']
    if name.endswith('.raw') and fixture.byte_for_byte(name, (theirs, ours)):
        return []
    faults = diff('info of ' + name, info_of(name, theirs), info_of(name, ours))
    status, out, err = run('qemu-img', f'compare {paths[0]} {paths[1]}', theirs)
    if status != 0:
        faults.append(f'{name}: {out}{err}')
    status, out, err = run('qemu-img', f'check {name}', ours)
    if status not in (0, 63):
        faults.append(f'{name}: check: {out}{err}')
    return faults


def faults_of(program, case, places):
    *marks, line = case.split('|')
    theirs = run('qemu-img', line, places[0])
    ours = run(program, line, places[1])
    faults = []
    if theirs[0] != ours[0]:
        faults.append(f'exit status: theirs {theirs[0]}, ours {ours[0]}')
    if 'status' in marks:
        return faults
    faults += diff('stdout', plain(theirs[1]), plain(ours[1]))
    faults += faults_of_stderr(marks, theirs[2], ours[2])
    if faults and ours[2]:
        faults.append('our stderr: ' + ours[2].rstrip())
    for mark in marks:
        if mark.startswith('made:'):
            faults += faults_of_made(mark[5:], *places)
    return faults


def findings_of(program, case, places):
    return fixture.findings(run(program, case.split('|')[-1], places[-1]))


def compare_all(program, chosen, where):
    pristine = os.path.join(where, 'pristine')
    fixture.make(pristine)
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
    program = os.path.abspath(sys.argv[1])
    missing = fixture.missing_tools()
    if missing:
        print('missing: ' + ' '.join(missing))
        sys.exit(fixture.SKIP)
    chosen = fixture.cases(img_cases.CASES, sys.argv[2:])
    with tempfile.TemporaryDirectory(prefix='ashlar-cli-') as where:
        failed = compare_all(program, chosen, where)
    print(f'{len(chosen)} cases, {failed} not alike')
    sys.exit(1 if failed or not chosen else 0)


if __name__ == '__main__':
    main()
