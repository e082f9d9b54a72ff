#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks that the mutants still fit the code, in well under a second; nothing is built.

    check.py [ROOT]          prints each that does not, and fails if there is one
    check.py --uncovered     prints the numbered rules of util, block and job that no mutant breaks"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import mutant


def read(root, path):
    with open(os.path.join(root, path), encoding='utf-8') as stream:
        return stream.read()


def class_fault(root, classes, name):
    """What is wrong with one class of a mutant; None."""
    path, _, number = name.rpartition(' ')
    if not path:
        return None if name in classes else f'"{name}" is not in tests/mutants/classes'
    if not os.path.isfile(os.path.join(root, path)):
        return f'there is no file {path}; update it'
    if not number.isdigit() or int(number) not in mutant.numbered_rules(read(root, path)):
        return f'{path} has no rule {number}; update it'
    return None


def faults_of(root, classes, one):
    try:
        one.texts(root)
    except mutant.Bad as bad:
        yield str(bad)
    for name in one.classes:
        fault = class_fault(root, classes, name)
        if fault:
            yield fault


def check(root):
    mutants, faults = mutant.load_all()
    classes = mutant.load_classes()
    faults += [(one.name + '.mutant', fault) for one in mutants for fault in faults_of(root, classes, one)]
    used = {name for one in mutants for name in one.classes}
    faults += [('classes', f'no mutant is of class {key}') for key in classes if key not in used]
    for name, fault in sorted(faults):
        print(f'tests/mutants/{name}: {fault}')
    print(f'{len(mutants)} mutants, {len(faults)} faults')
    return 1 if faults or not mutants else 0


def uncovered(root):
    mutants, _ = mutant.load_all()
    used = {name for one in mutants for name in one.classes}
    for top in ('util', 'block', 'job', 'docs'):
        for folder, _, names in sorted(os.walk(os.path.join(root, top))):
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), root)
                if not name.endswith(('.c', '.h')) and path != 'docs/concurrency.md':
                    continue
                missing = [n for n in sorted(mutant.numbered_rules(read(root, path)))
                           if f'{path} {n}' not in used]
                if missing:
                    print(f'{path}: ' + ', '.join(map(str, missing)))
    return 0


if __name__ == '__main__':
    if sys.argv[1:] == ['--uncovered']:
        sys.exit(uncovered(mutant.TOP))
    sys.exit(check(sys.argv[1] if len(sys.argv) > 1 else mutant.TOP))
