#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""check.py DOCUMENT GUEST ASHLAR-IMG ENGINE: runs the guest under the filters that the document's
lists give, one phase after another. The lists are the table under "System calls" in DOCUMENT: a row is a
phase, a set of engines or "all", and names of system calls. A name that this architecture does not have
is left out, as the document says."""
import os
import re
import subprocess
import sys
import tempfile

PHASES = ['set-up', 'bind', 'control', 'run']


def numbers():
    """Of this architecture's system calls, by name."""
    text = subprocess.run(['cc', '-E', '-dM', '-include', 'sys/syscall.h', '-x', 'c', '/dev/null'],
                          check=True, capture_output=True, text=True).stdout
    return {name: int(value)
            for name, value in re.findall(r'^#define __NR_(\w+) (\d+)$', text, re.MULTILINE)}


def lists(document, engine):
    """Names by phase."""
    found = {phase: set() for phase in PHASES}
    with open(document) as file:
        section = file.read().split('## System calls\n', 1)[1].split('\n## ', 1)[0]
    rows = re.findall(r'^\| ([\w-]+) \| ([\w, ]+) \| (.*) \|$', section, re.MULTILINE)
    for phase, engines, names in rows:
        if phase in found and (engines == 'all' or engine in engines.split(', ')):
            found[phase] |= set(re.findall(r'`(\w+)`', names))
    return found


def run(guest, phase, where, allowed, engine):
    files = [os.path.join(where, name) for name in ('top.qcow2', 'disk.raw')]
    env = dict(os.environ, ASHLAR_ENGINE=engine)
    env.pop('PWD', None)    # whoever starts a jail need not set it, and then the kernel is asked
    return subprocess.run([guest, phase, *files, *map(str, allowed)], capture_output=True, text=True, env=env,
                          timeout=60)


def make(img, where):
    base, top, raw = (os.path.join(where, name) for name in ('base.raw', 'top.qcow2', 'disk.raw'))
    subprocess.run([img, 'create', '-q', '-f', 'raw', base, '4M'], check=True)
    subprocess.run([img, 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', top], check=True)
    subprocess.run([img, 'create', '-q', '-f', 'raw', raw, '4M'], check=True)


def main():
    document, guest, img, engine = sys.argv[1:]
    known, names = numbers(), lists(document, engine)
    by_number = {number: name for name, number in known.items()}
    failed = False
    for index, phase in enumerate(PHASES):
        allowed = set().union(*(names[later] for later in PHASES[index:]))
        if not names[phase]:
            sys.exit(f'{document} has no list of the phase {phase} with the engine {engine}')
        with tempfile.TemporaryDirectory(dir='.') as where:
            make(img, where)
            done = run(guest, phase, where, [known[name] for name in sorted(allowed) if name in known],
                       engine)
        if done.returncode == 77:
            print(f'no seccomp here: {done.stderr.strip()}')
            sys.exit(77)
        if done.returncode == 99:
            call = by_number.get(int(done.stdout.split()[-1]), done.stdout)
            print(f'{engine}, from {phase} on: {call} is not in the lists of {document}')
            failed = True
        elif done.returncode != 0:
            print(f'{engine}, from {phase} on: status {done.returncode}\n{done.stdout}{done.stderr}')
            failed = True
    sys.exit(failed)


if __name__ == '__main__':
    main()
