# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules of the house, one function each: it takes the tree and yields (file, line, sentence)."""

import ast
import re

from source import functions

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
COLUMNS_MAX = 110  # clang-format breaks code at 100; a comment may hang over a little

TOP_LEVEL = {'meson.build', 'meson_options.txt', 'include', 'block', 'job', 'util', 'tests', 'docs',
             'tools', 'README.md', 'COPYING.LIB'}

# Who may include whom: an include points down or stays in its layer.
RANK = {'util': 0, 'block': 1, 'job': 2, 'tools': 3, 'tests': 4}

# The directories of block that drivers share. Every other one is a driver.
SHARED_BLOCK = {'graph', 'io', 'map', 'image', 'bitmap', 'copy', 'disk', 'export', 'filter'}

# What reaches the outside world, which only the engines and the loop may do.
OUTSIDE = re.compile(r'''(?<![\w.>])(
    p?readv?2?|p?writev?2?|pread64|pwrite64|open|openat|creat|close|f?truncate|fallocate|posix_fallocate|
    lseek|f?stat|lstat|statx|fstatat|ioctl|fcntl|flock|fsync|fdatasync|sync|rename|renameat2?|
    unlink|unlinkat|readlink|mkstemp|fopen|fdopen|fclose|fread|fwrite|
    poll|ppoll|select|epoll_\w+|eventfd|timerfd_\w+|io_\w+_submit|io_uring_\w+|io_submit|io_getevents|
    time|gettimeofday|clock|clock_\w+|times|sleep|usleep|nanosleep|g_get_monotonic_time|
    g_get_real_time|g_usleep|s?rand|rand_r|random|srandom|[delmn]rand48|getrandom|getentropy|g_random_\w+|
    pthread_\w+|thrd_\w+|g_thread_\w+|g_mutex_\w+|fork|vfork|system|popen|signal|sigaction
    )\s*\(''', re.X)
OUTSIDE_ALLOWED = ('util/engine/', 'util/loop/')

# The library's only output is the log hook, and nothing aborts but by an assertion.
OUTPUT = re.compile(r'(?<![\w.>])(v?printf|v?fprintf|puts|fputs|putchar|perror|exit|_exit|abort|'
                    r'g_print|g_printerr|g_error|g_warning|g_critical|g_message|g_assert\w*)\s*\(')
OUTPUT_ALLOWED = ('util/assert.c', 'util/log.c')

UNBOUNDED = re.compile(r'(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|alloca)\s*\(')

# An unchecked malloc is a crash: small things come from g_malloc, large ones from ash_buffer_alloc.
MALLOC = re.compile(r'(?<![\w.>])(malloc|calloc|realloc|strdup|strndup|aligned_alloc|posix_memalign)\s*\(')

# Put together here, so that this file does not offend.
UNFINISHED = re.compile(r'\b(' + '|'.join(('TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X')) + r')\b')


def function_length(tree):
    for file in tree.c_files:
        for name, first, last, _ in functions(file):
            if last - first + 1 > FUNCTION_LINES_MAX:
                yield file, first, f'{name} has {last - first + 1} lines, more than {FUNCTION_LINES_MAX}'
    for file in tree.files:
        if file.is_script and ('python' in file.lines[0] or file.path.endswith('.py')):
            for node in ast.walk(ast.parse(file.text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    lines = node.end_lineno - node.lineno + 1
                    if lines > FUNCTION_LINES_MAX:
                        yield file, node.lineno, f'{node.name} has {lines} lines, more than ' \
                            f'{FUNCTION_LINES_MAX}'


def file_length(tree):
    for file in tree.files:
        if file.is_checked and len(file.lines) > FILE_LINES_MAX:
            yield file, FILE_LINES_MAX + 1, f'{len(file.lines)} lines, more than {FILE_LINES_MAX}'


def line_length(tree):
    for file in tree.files:
        if not file.is_checked:
            continue
        for number, line in enumerate(file.lines, 1):
            if len(line) > COLUMNS_MAX:
                yield file, number, f'{len(line)} columns, more than {COLUMNS_MAX}'
            if '\t' in line:
                yield file, number, 'a tab'
            if line != line.rstrip():
                yield file, number, 'space at the end of the line'


def spdx(tree):
    for file in tree.files:
        if not file.bears_licence:
            continue
        line = 1 if file.lines[:1] and file.lines[0].startswith('#!') else 0
        if len(file.lines) <= line or \
                'SPDX-License-Identifier: LGPL-2.1-or-later' not in file.lines[line]:
            yield file, line + 1, 'no SPDX line'


def design(tree):
    """A .c file opens with what it is, what it owns and its invariants."""
    for file in tree.in_library():
        if file.path.endswith('.c') and not (len(file.lines) > 1 and file.lines[1].startswith('/*')):
            yield file, 2, 'no comment that says what this file is'


def includes(tree):
    for file in tree.c_files:
        for number, line in enumerate(file.lines, 1):
            match = re.match(r'\s*#\s*include\s+([<"])([^">]+)[">]', line)
            if match:
                yield from ((file, number, text) for text in include_faults(file, *match.groups()))


def include_faults(file, kind, path):
    """What is wrong with one include of a file: layers first, then drivers."""
    here, there = file.path.split('/'), path.split('/')
    if '..' in there:
        yield f'"{path}" climbs: name it from the root'
    if file.top == 'include':
        if kind == '"' or there[0] in RANK or path.startswith(('glib', 'liburing', 'jansson')):
            yield f'a public header includes {path}: only <ashlar/...> and the system\'s'
        return
    if kind == '<' or there[0] not in RANK:
        if kind == '"' and len(there) == 1 and file.top in ('util', 'block', 'job'):
            yield f'"{path}": name it from the root'
        return
    if RANK[there[0]] > RANK.get(file.top, len(RANK)):
        yield f'{file.top} includes {path}, which is above it'
    if here[0] == 'block' and len(here) > 2 and there[0] == 'block' and len(there) > 2:
        if there[1] not in SHARED_BLOCK and there[1] != here[1]:
            yield f'block/{here[1]} includes {path}: a driver is known to its table only'


def top_level(tree):
    seen = set()
    for file in tree.files:
        if file.top not in TOP_LEVEL and not file.top.startswith('.') and file.top not in seen:
            seen.add(file.top)
            yield file, 1, f'{file.top} does not belong at the top level'


def banned_calls(tree):
    for file in tree.c_files:
        library = file.top in ('util', 'block', 'job')
        for number, line in enumerate(file.code, 1):
            if line.lstrip().startswith('#'):
                continue
            for match in UNBOUNDED.finditer(line):
                yield file, number, f'{match.group(1)}() does not know where its buffer ends'
            if not library:
                continue
            if not file.path.startswith(OUTSIDE_ALLOWED):
                for match in OUTSIDE.finditer(line):
                    yield file, number, f'{match.group(1)}() outside util/engine and util/loop'
            if file.path not in OUTPUT_ALLOWED:
                for match in OUTPUT.finditer(line):
                    yield file, number, f'{match.group(1)}(): the library logs, and asserts'
            if file.top != 'util':
                for match in MALLOC.finditer(line):
                    yield file, number, f'{match.group(1)}(): g_malloc or ash_buffer_alloc'


def prefix(tree):
    for file in tree.in_library():
        for name, first, _, static in functions(file):
            if not static and not name.startswith('ash_'):
                yield file, first, f'{name} is not static and does not start with ash_'


def unfinished(tree):
    for file in tree.files:
        for number, line in enumerate(file.lines, 1):
            match = UNFINISHED.search(line)
            if match and file.path != 'COPYING.LIB':
                yield file, number, f'{match.group(1)}: finish it, or open an issue'


def declarations(file):
    """(name, line) of each function that a public header declares."""
    for number, line in enumerate(file.code, 1):
        match = re.match(r'(?!typedef\b)[a-z][\w\s*]*?\b(ash_\w+)\(', line)
        if match:
            yield match.group(1), number


def documented(tree):
    """Before a public function stands a comment, or another line of its documented group."""
    for file in tree.c_files:
        if file.top != 'include':
            continue
        for name, line in declarations(file):
            above = line - 1
            while above > 0 and file.lines[above - 1].strip() and '*/' not in file.lines[above - 1]:
                above -= 1
            if above == 0 or '*/' not in file.lines[above - 1]:
                yield file, line, f'{name} is not documented'


def exports(tree):
    """The version script, the public headers and the ASH_PUBLIC definitions name the same functions."""
    script = [file for file in tree.files if file.path == 'util/ashlar.map']
    if not script:
        return
    script = script[0]
    listed, declared, defined = {}, {}, {}
    for number, line in enumerate(script.lines, 1):
        match = re.match(r'\s*(ash_\w+);', line)
        if match:
            listed[match.group(1)] = (script, number)
    for file in tree.c_files:
        if file.top == 'include':
            declared.update((name, (file, line)) for name, line in declarations(file))
        elif file.top in ('util', 'block', 'job') and file.path.endswith('.c'):
            for number, line in enumerate(file.code, 1):
                match = re.match(r'ASH_PUBLIC\b.*?\b(ash_\w+)\(', ' '.join(file.code[number - 1:number + 1]))
                if match:
                    defined[match.group(1)] = (file, number)
    yield from missing(declared, listed, 'is declared for the public, but not in util/ashlar.map')
    yield from missing(listed, declared, 'is exported, but no public header declares it')
    yield from missing(defined, declared, 'is ASH_PUBLIC, but no public header declares it')


# Elements of arrays: they cannot grow, and so say nothing of their size. Their headers say that they keep it.
ELEMENTS = ('ash_req', 'ash_cqe', 'ash_bitmap_source')


def sized(tree):
    """A public struct that one side fills for the other begins with its size, so that it can grow."""
    for file in tree.c_files:
        if file.top != 'include':
            continue
        for number, line in enumerate(file.code, 1):
            match = re.match(r'\s*(?:typedef\s+)?(?:struct|union)\s+(\w+)?\s*{(.*)', line)
            if not match or file.code[number - 1].startswith((' ', '\t')) or match.group(1) in ELEMENTS:
                continue
            first = ' '.join([match.group(2), *file.code[number:]]).split(';')[0].split()
            if first != ['uint32_t', 'size']:
                yield file, number, f'struct {match.group(1)} does not begin with "uint32_t size"'


def missing(these, those, sentence):
    for name in sorted(set(these) - set(those)):
        yield (*these[name], f'{name} {sentence}')


RULES = (function_length, file_length, line_length, spdx, design, includes, top_level, banned_calls,
         prefix, unfinished, documented, exports, sized)
