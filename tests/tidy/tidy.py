#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Style as a test: prints each breach of a rule as file:line: text, and fails if there is one.

    tidy.py [ROOT]    checks the tree that it belongs to, or another"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from rules import RULES
from source import Tree


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), '../..')
    tree = Tree(root)
    breaches = sorted({(file.path, line, text, rule.__name__)
                       for rule in RULES for file, line, text in rule(tree)})
    for path, line, text, rule in breaches:
        print(f'{path}:{line}: {text} [{rule}]')
    print(f'{len(tree.files)} files, {len(RULES)} rules, {len(breaches)} breaches')
    return 1 if breaches else 0


if __name__ == '__main__':
    sys.exit(main())
