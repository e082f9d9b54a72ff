# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mutant: a deliberate defect, as a file NAME.mutant says it.

    # SPDX-License-Identifier: LGPL-2.1-or-later
    class: block/map/map.h 2; read-meets-discard
    defect: One sentence: what is wrong now.
    caught-by: test_map_ops
    file: block/map/pin.c
    --- old
    text that occurs exactly once in the file
    --- new
    what stands there instead
    --- end

`class` names the rules that are broken: a file with numbered rules and the number, or a key of the file
`classes`. `caught-by` is a command: variables, a program of the tests, its arguments. `hang: yes` says that
running out of time is how the defect shows. `file` with old and new may come several times."""

import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
KEYS = {'class', 'defect', 'caught-by', 'hang', 'file'}


class Bad(Exception):
    """A mutant that cannot be used, and why."""


class Edit:
    def __init__(self, file):
        self.file = file
        self.old = []
        self.new = []

    def replace(self, text):
        """The text of the file with the defect."""
        old = '\n'.join(self.old)
        count = text.count(old)
        if count == 0:
            raise Bad(f'its text no longer occurs in {self.file}; update it')
        if count > 1:
            raise Bad(f'its text occurs {count} times in {self.file}; take more lines of it')
        return text.replace(old, '\n'.join(self.new))


class Mutant:
    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)[:-len('.mutant')]
        self.fields = {}
        self.edits = []
        self._parse()

    def _parse(self):
        with open(self.path, encoding='utf-8') as stream:
            lines = stream.read().split('\n')
        part = None
        for number, line in enumerate(lines, 1):
            if line in ('--- old', '--- new', '--- end'):
                part = {'--- old': 'old', '--- new': 'new'}.get(line)
                if not self.edits:
                    raise Bad(f'line {number}: no file is named before')
            elif part is not None:
                getattr(self.edits[-1], part).append(line)
            elif line and not line.startswith('#'):
                self._take(number, line)
        if part is not None:
            raise Bad('the last "--- end" is missing')
        for key in ('class', 'defect', 'caught-by', 'file'):
            if key not in self.fields:
                raise Bad(f'it does not say "{key}:"')
        if any(not ''.join(edit.old).strip() or edit.old == edit.new for edit in self.edits):
            raise Bad('it changes nothing')

    def _take(self, number, line):
        key, colon, value = line.partition(':')
        if not colon or key not in KEYS:
            raise Bad(f'line {number}: {line!r} is none of ' + ', '.join(sorted(KEYS)))
        self.fields[key] = value.strip()
        if key == 'file':
            self.edits.append(Edit(value.strip()))

    @property
    def defect(self):
        return self.fields['defect']

    @property
    def classes(self):
        return [part.strip() for part in self.fields['class'].split(';')]

    @property
    def command(self):
        return self.fields['caught-by']

    @property
    def may_hang(self):
        return self.fields.get('hang') == 'yes'

    @property
    def files(self):
        return sorted({edit.file for edit in self.edits})

    def texts(self, root):
        """{file: its text with the defect}, of the tree at `root`."""
        texts = {}
        for edit in self.edits:
            if edit.file not in texts:
                full = os.path.join(root, edit.file)
                if not os.path.isfile(full):
                    raise Bad(f'there is no file {edit.file}; update it')
                with open(full, encoding='utf-8') as stream:
                    texts[edit.file] = stream.read()
            texts[edit.file] = edit.replace(texts[edit.file])
        return texts


def load_all(folder=HERE):
    """(mutants in order of their names, [(name, what is wrong)])."""
    mutants, faults = [], []
    for name in sorted(os.listdir(folder)):
        if name.endswith('.mutant'):
            try:
                mutants.append(Mutant(os.path.join(folder, name)))
            except Bad as bad:
                faults.append((name, str(bad)))
    return mutants, faults


def load_classes(folder=HERE):
    """{key: sentence} of the file `classes`."""
    classes = {}
    with open(os.path.join(folder, 'classes'), encoding='utf-8') as stream:
        for line in stream:
            if line.strip() and not line.startswith('#'):
                key, _, sentence = line.partition(':')
                classes[key.strip()] = sentence.strip()
    return classes


def numbered_rules(text):
    """The numbers of the rules that a file states: in the comment that a source opens with, or in prose."""
    if text.startswith('/*'):
        text = re.sub(r'^/\*.*?\*/\s*', '', text, count=1, flags=re.S) if 'SPDX' in text[:80] else text
        end = text.find('*/')
        text = text[:end + 2] if end > 0 else text
    return {int(match.group(1)) for match in re.finditer(r'^(?: \* *)?(\d+)\. ', text, re.M)}
