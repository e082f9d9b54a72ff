#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each rule of tidy.py can fail: a tree without a fault passes, and with one fault put in, the rule that
is meant to see it does, at the line it is on, and no other rule speaks."""

import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from rules import FILE_LINES_MAX, FUNCTION_LINES_MAX, RULES
from source import Tree

SPDX = '/* SPDX-License-Identifier: LGPL-2.1-or-later */\n'
PROSE = '<!-- SPDX-License-Identifier: LGPL-2.1-or-later -->\n'
HEAD = SPDX + '/* What it is. */\n'

CLEAN = {
    'meson.build': '# SPDX-License-Identifier: LGPL-2.1-or-later\n',
    'README.md': PROSE + 'Prose is not checked.\n',
    'include/ashlar/a.h': SPDX + '#include <stdint.h>\n#include <ashlar/b.h>\n'
                                 '/* Does a. */\nint ash_a(void);\nint ash_a_sync(void);\n',
    'include/ashlar/b.h': SPDX + 'struct ash_b {\n    uint32_t size;\n    void (*log)(void);\n};\n',
    'util/ashlar.map': SPDX + 'ASHLAR_0 {\n    ash_a;\n    ash_a_sync;\n};\n',
    'util/a.c': HEAD + '#include "util/a.h"\n\nASH_PUBLIC int ash_a(void)\n{\n'
                       '    /* It does not read(2). */\n    return ops->read("open()");\n}\n',
    'util/engine/threads.c': HEAD + 'int ash_e(void)\n{\n    return read(0, 0, 0);\n}\n',
    'block/drivers.c': HEAD + '#include "block/raw/raw.h"\n',
    'block/raw/raw.c': HEAD + '#include "block/raw/raw.h"\n#include "block/map/map.h"\n'
                              '#include "util/a.h"\n',
    'tools/img/main.c': HEAD + '#include "block/disk/disk.h"\nint main(void)\n{\n    printf("");\n}\n',
    'build/generated.c': 'int x;\t\n',
}

LONG = '    x();\n'

# rule, file, what is put at its end, line of the breach counted from there
FAULTS = (
    ('function_length', 'util/a.c', 'static int f(void)\n{\n' + LONG * (FUNCTION_LINES_MAX - 1) + '}\n', 2),
    ('function_length', 'tests/a.py', '# SPDX-License-Identifier: LGPL-2.1-or-later\ndef f():\n'
     + '    x()\n' * FUNCTION_LINES_MAX, 2),
    ('file_length', 'util/b.c', HEAD + '/* */\n' * FILE_LINES_MAX, FILE_LINES_MAX + 1),
    ('line_length', 'util/a.c', '/* ' + 'x' * 120 + ' */\n', 1),
    ('line_length', 'util/a.c', '\tint x;\n', 1),
    ('line_length', 'util/a.c', 'int x; \n', 1),
    ('spdx', 'util/b.h', 'int x;\n', 1),
    ('spdx', 'tests/x/run', '#!/bin/sh\necho\n', 2),
    ('design', 'util/b.c', SPDX + 'int x;\n', 2),
    ('includes', 'util/a.c', '#include "block/map/map.h"\n', 1),
    ('includes', 'block/raw/raw.c', '#include "job/job.h"\n', 1),
    ('includes', 'job/job.c', HEAD + '#include "tools/common/x.h"\n', 3),
    ('includes', 'block/raw/raw.c', '#include "block/qcow2/qcow2.h"\n', 1),
    ('includes', 'block/graph/node.c', HEAD + '#include "block/qcow2/qcow2.h"\n', 3),
    ('includes', 'block/raw/raw.c', '#include "../map/map.h"\n', 1),
    ('includes', 'block/raw/raw.c', '#include "raw.h"\n', 1),
    ('includes', 'include/ashlar/a.h', '#include <glib.h>\n', 1),
    ('includes', 'include/ashlar/a.h', '#include <util/a.h>\n', 1),
    ('top_level', 'Makefile', 'all:\n', 1),
    ('top_level', 'contrib/x.md', PROSE, 1),
    ('spdx', 'docs/x.md', '# X\n', 1),
    ('banned_calls', 'util/a.c', 'static int f(void)\n{\n    return open("x", 0);\n}\n', 3),
    ('banned_calls', 'block/raw/raw.c', 'static int f(void)\n{\n    return pthread_self();\n}\n', 3),
    ('banned_calls', 'block/raw/raw.c', 'static int f(void)\n{\n    return clock_gettime(0, 0);\n}\n', 3),
    ('banned_calls', 'job/job.c', HEAD + 'static int f(void)\n{\n    return rand ();\n}\n', 5),
    ('banned_calls', 'util/a.c', 'static int f(void)\n{\n    return fprintf(stderr, "");\n}\n', 3),
    ('banned_calls', 'block/raw/raw.c', 'static void *f(void)\n{\n    return malloc(1);\n}\n', 3),
    ('banned_calls', 'tools/img/main.c', 'static int f(void)\n{\n    return sprintf(x, "");\n}\n', 3),
    ('prefix', 'util/a.c', 'int f(void)\n{\n}\n', 2),
    ('unfinished', 'util/a.c', '/* TO' 'DO */\n', 1),
    ('unfinished', 'README.md', PROSE + 'FIX' 'ME\n', 2),
    ('documented', 'include/ashlar/b.h', '\nint ash_a_sync(void);\n', 2),
    ('sized', 'include/ashlar/b.h', 'struct ash_b {\n    uint64_t size;\n};\n', 1),
    ('sized', 'include/ashlar/b.h', 'struct ash_b {\n    uint32_t flags;\n    uint32_t size;\n};\n', 1),
    ('exports', 'include/ashlar/b.h', '/* Does b. */\nint ash_b(void);\n', 2),
    ('exports', 'util/ashlar.map', '    ash_b;\n', 1),
    ('exports', 'util/a.c', 'ASH_PUBLIC int\nash_b(void)\n{\n}\n', 1),
)


def breaches(root):
    tree = Tree(root)
    return {(rule.__name__, file.path, line) for rule in RULES for file, line, _ in rule(tree)}


def plant(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, 'a', encoding='utf-8') as stream:
            stream.write(text)


class Tidy(unittest.TestCase):
    def test_a_clean_tree_passes(self):
        with tempfile.TemporaryDirectory() as root:
            plant(root, CLEAN)
            self.assertEqual(breaches(root), set())

    def test_each_fault_is_seen_by_its_rule_alone(self):
        for rule, path, text, line in FAULTS:
            with self.subTest(rule=rule, text=text[:60]), tempfile.TemporaryDirectory() as root:
                plant(root, CLEAN)
                plant(root, {path: text})
                line += CLEAN.get(path, '').count('\n')
                self.assertEqual(breaches(root), {(rule, path, line)})

    def test_each_rule_has_a_fault(self):
        self.assertEqual({rule.__name__ for rule in RULES}, {fault[0] for fault in FAULTS})


if __name__ == '__main__':
    unittest.main()
