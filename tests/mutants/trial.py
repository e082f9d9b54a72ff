# SPDX-License-Identifier: LGPL-2.1-or-later
"""A copy of the tree with a build beside it, programs of it with a defect, and a test that runs with limits.

A program with a defect is linked of what the build has, but for the objects that the defect changes. So
nothing in copy or build changes, any number of trials can share them, and a trial costs one object and one
link."""

import contextlib
import json
import os
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
import time

SECONDS_MAX = 300  # of a test without a defect
OUTPUT_MAX = 1 << 16
MEMORY_MAX = 16 << 30  # of addresses: the stacks of coroutines reserve many
FILE_MAX = 1 << 32

# What names the test that failed, in the output of cmocka, Python's unittest and the crash runs.
FAILED = [re.compile(pattern, re.M) for pattern in
          (r'^\[  FAILED  \] (\w+)', r'^(?:FAIL|ERROR): (\w+) \(', r'^to repeat: \S+ (.*)')]
RUNNING = re.compile(r'^\[ RUN      \] (\w+)', re.M)


def split(command):
    """(variables, program, arguments) of what a mutant says under "caught-by"."""
    words = shlex.split(command)
    count = 0
    while re.match(r'[A-Z_]+=', words[count]):
        count += 1
    return dict(word.split('=', 1) for word in words[:count]), words[count], words[count + 1:]


def target_of(command):
    """What has to be built for the command, as ninja calls it."""
    _, program, _ = split(command)
    if program.startswith('cli/'):
        return 'tools/ashlar-img' if '/img' in program else 'tools/ashlar-io'
    if program in ('crash', 'malformed', 'replay', 'sim'):
        return f'tests/{program}/{program}'
    return f'tests/unit/{program}'


class Outcome:
    def __init__(self, seconds, status, output, timed_out):
        self.seconds = seconds
        self.status = status
        self.output = output
        self.timed_out = timed_out
        self.skipped = status == 77
        self.passed = status == 0 and not timed_out

    @property
    def what(self):
        """The test that failed and how, as far as the output tells."""
        for pattern in FAILED:
            failed = pattern.search(self.output)
            if failed:
                return failed.group(1)
        running = RUNNING.findall(self.output)
        where = running[-1] + ' ' if running else ''
        if self.timed_out:
            return where + 'hangs'
        if self.status is not None and self.status < 0:
            return where + 'dies of ' + signal.Signals(-self.status).name
        return where + f'ends with {self.status}'


def limit():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_MAX, FILE_MAX))


class Build:
    """The copy of the tree, as it is, and what was built of it."""

    def __init__(self, root):
        self.root = root
        self.tree = os.path.join(root, 'tree')
        self.folder = os.path.join(root, 'build')
        self.objects = {}  # {object: (its source, the arguments of the compiler)}
        self.dependents = {}  # {file: [objects made of it or with it]}
        os.makedirs(self.tree, exist_ok=True)

    def _ninja(self, *arguments):
        return subprocess.run(['ninja', '-C', self.folder, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def make(self, targets, jobs):
        """Builds; None, or what the compiler said."""
        result = self._ninja('--quiet', f'-j{jobs}', *targets)
        if result.returncode != 0:
            return result.stdout.decode(errors='replace')
        self._learn()
        return None

    def _in_tree(self, path):
        return os.path.relpath(os.path.join(self.folder, path), self.tree)

    def _learn(self):
        """How each object is compiled, and of what."""
        with open(os.path.join(self.folder, 'compile_commands.json'), encoding='utf-8') as stream:
            for entry in json.load(stream):
                self.objects[entry['output']] = (entry['file'], shlex.split(entry['command']))
        made = None
        for line in self._ninja('-t', 'deps').stdout.decode().splitlines():
            if line.startswith(' '):
                self.dependents.setdefault(self._in_tree(line.strip()), []).append(made)
            elif line:
                made = line.split(': #deps')[0]

    def link_of(self, target):
        """The arguments of the linker for the program."""
        commands = self._ninja('-t', 'commands', '-s', target).stdout.decode()
        return shlex.split(commands.strip().splitlines()[-1])


class Place:
    """Where one trial after another is made and run."""

    def __init__(self, build, folder):
        self.build = build
        self.folder = folder
        self.output = None  # what the compiler said, if it failed

    def _call(self, arguments):
        result = subprocess.run(arguments, cwd=self.build.folder, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode != 0:
            self.output = result.stdout.decode(errors='replace')
        return result.returncode == 0

    def _compile(self, path, texts):
        """Compiles an object of the build with the texts in place of the tree's; where it is."""
        source, arguments = self.build.objects[path]
        source_in_tree = os.path.relpath(os.path.join(self.build.folder, source), self.build.tree)
        if source_in_tree in texts:
            arguments = [os.path.join(self.folder, source_in_tree) if argument == source else argument
                         for argument in arguments]
        made = os.path.join(self.folder, path.replace('/', '_'))
        at = arguments.index('-o')
        arguments = [arguments[0], '-I' + self.folder, *arguments[1:at], '-o', made, *arguments[at + 2:]]
        for option in ('-MQ', '-MF'):
            at = arguments.index(option)
            del arguments[at:at + 2]
        arguments.remove('-MD')
        return made if self._call(arguments) else None

    def plant(self, texts, target):
        """Makes the program with these texts; None, or why not."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path, text in texts.items():
            full = os.path.join(self.folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, 'w', encoding='utf-8') as stream:
                stream.write(text)
        arguments = self.build.link_of(target)
        changed = sorted({path for file in texts for path in self.build.dependents.get(file, [])
                          if path in arguments or os.path.dirname(path)[:-len('.p')] in arguments})
        if not changed:
            return f'nothing of it is in {target}'
        added = []
        for path in changed:
            made = self._compile(path, texts)
            if made is None:
                return 'it does not compile\n' + self.output
            if path in arguments:
                arguments[arguments.index(path)] = made
            else:
                added.append(made)  # the one in the archive is then not asked for
        at = arguments.index('-o')
        program = os.path.join(self.folder, 'program')
        arguments = arguments[:at] + ['-o', program, *added] + arguments[at + 2:]
        return None if self._call(arguments) else 'it does not link\n' + self.output

    def run(self, command, seconds_max, planted=True):
        """Runs the test until it ends, tells of a failure, or its time is up."""
        variables, program, rest = split(command)
        path = os.path.join(self.folder, 'program') if planted else \
            os.path.join(self.build.folder, target_of(command))
        arguments = [path, *rest]
        if program.startswith('cli/'):
            arguments.insert(0, os.path.join(self.build.tree, 'tests', program + '.py'))
        begin = time.monotonic()
        process = subprocess.Popen(
            arguments, env=dict(os.environ, PYTHONDONTWRITEBYTECODE='1', **variables), cwd=self.build.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=limit)
        output, timed_out = self._watch(process, begin + seconds_max)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        process.stdout.close()
        return Outcome(time.monotonic() - begin, status, output, timed_out)

    def _watch(self, process, deadline):
        """(the end of the output, whether the time was up). Stops at the first test that fails."""
        output = b''
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return output.decode(errors='replace'), True
            if not select.select([process.stdout], [], [], left)[0]:
                continue
            more = os.read(process.stdout.fileno(), 1 << 16)
            output = (output + more)[-OUTPUT_MAX:]
            if not more:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))
                return output.decode(errors='replace'), process.poll() is None
            if re.search(rb'^\[  FAILED  \] [^\n]*\n', output, re.M):
                return output.decode(errors='replace'), False
