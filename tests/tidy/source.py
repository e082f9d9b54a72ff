# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree that is checked: its files, and C text with comments and strings blanked out."""

import os
import re
import subprocess

TEXT_SUFFIXES = ('.c', '.h', '.S', '.py', '.sh', '.map', '.build', '.1', '.supp')
# An attribute, or a macro that stands for one.
MARK = re.compile(r'__attribute__\s*\(\(.*?\)\)|\b[A-Z][A-Z0-9_]*\b\([^)]*\)')
LITERAL = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank(match):
    """Spaces in place of a comment or string, so that lines and columns stay what they were."""
    text = match.group(0)
    keep = text[0] if text[0] in '"\'' else ' '
    return keep + re.sub(r'[^\n]', ' ', text[1:-1]) + keep


class File:
    """A file of the tree. `path` is relative to the root, with slashes."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), 'rb') as stream:
            self.text = stream.read().decode('utf-8', 'replace')
        self.lines = self.text.split('\n')
        if self.lines and self.lines[-1] == '':
            self.lines.pop()
        self._code = None

    @property
    def code(self):
        """The lines of C code without comments and what strings say."""
        if self._code is None:
            self._code = LITERAL.sub(blank, self.text).split('\n')
        return self._code

    @property
    def top(self):
        return self.path.split('/')[0]

    @property
    def is_c(self):
        return self.path.endswith(('.c', '.h'))

    @property
    def is_script(self):
        return self.path.endswith(('.py', '.sh')) or self.lines[:1] and self.lines[0].startswith('#!')

    @property
    def bears_licence(self):
        """Whether it was written by hand and can say so. Test data and the licence itself cannot."""
        lists = ('suppressions', '/known', '.clang-format', '.gitignore')
        return self.is_checked or self.path.endswith(('.md', *lists))

    @property
    def is_checked(self):
        """Whether it is written by hand in a language that has comments. Prose and test data are not."""
        return self.path.endswith(TEXT_SUFFIXES) or self.path == 'meson_options.txt' or self.is_script


class Tree:
    """All files that git tracks or would track; without git, all but build directories."""

    def __init__(self, root):
        self.root = root
        self.files = [File(root, path) for path in self._paths() if self._is_text(path)]

    def _paths(self):
        if os.path.exists(os.path.join(self.root, '.git')):
            listed = subprocess.run(
                ['git', '-c', 'safe.directory=*', '-C', self.root, 'ls-files', '-z', '-co',
                 '--exclude-standard'], check=True, stdout=subprocess.PIPE).stdout.decode()
            found = set(path for path in listed.split('\0') if path)
        else:
            found = set()
            for folder, folders, names in os.walk(self.root):
                if folder == self.root:
                    folders[:] = [name for name in folders if not name.startswith('build')]
                found.update(os.path.relpath(os.path.join(folder, name), self.root) for name in names)
        return sorted(path for path in found if '__pycache__' not in path)

    def _is_text(self, path):
        full = os.path.join(self.root, path)
        if not os.path.isfile(full) or os.path.islink(full):
            return False
        with open(full, 'rb') as stream:
            return b'\0' not in stream.read(4096)

    @property
    def c_files(self):
        return [file for file in self.files if file.is_c]

    def in_library(self):
        return [file for file in self.c_files if file.top in ('util', 'block', 'job')]


def functions(file):
    """(name, first line, last line, is static) of each function of a C file; lines count from 1.

    A function's braces stand alone in the first column: the house style, which clang-format keeps."""
    code = file.code
    start = None
    for number, line in enumerate(code):
        if line.rstrip() == '{':
            start = number
        elif start is not None and line.startswith('}'):
            head = start
            while head > 0 and code[head - 1].strip() and not code[head - 1].startswith(('#', '}')):
                head -= 1
            signature = ' '.join(code[head:start])
            name = re.search(r'(\w+)\s*\(', MARK.sub('', signature))
            if name:
                static = re.search(r'\bstatic\b', signature) is not None
                yield name.group(1), start + 1, number + 1, static
            start = None
