# SPDX-License-Identifier: LGPL-2.1-or-later
"""A copy of the tree with a build beside it, and a test that runs there under limits."""

import contextlib
import os
import re
import resource
import select
import shlex
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


def targets_of(command):
    """What has to be built for the command, as ninja calls it."""
    _, program, _ = split(command)
    if program.startswith('cli/'):
        return ['tools/ashlar-img' if '/img' in program else 'tools/ashlar-io']
    if program == 'crash':
        return ['tests/crash/crash']
    return [f'tests/unit/{program}']


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


class Copy:
    def __init__(self, root):
        self.root = root
        self.tree = os.path.join(root, 'tree')
        self.build = os.path.join(root, 'build')
        os.makedirs(self.tree, exist_ok=True)

    def make(self, targets, jobs=1):
        """Builds; None, or what the compiler said."""
        result = subprocess.run(['ninja', '-C', self.build, f'-j{jobs}', *targets], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return None if result.returncode == 0 else result.stdout.decode(errors='replace')

    @contextlib.contextmanager
    def planted(self, texts):
        """The files hold these texts meanwhile."""
        before = {}
        for path, text in texts.items():
            full = os.path.join(self.tree, path)
            with open(full, encoding='utf-8') as stream:
                before[full] = stream.read()
            with open(full, 'w', encoding='utf-8') as stream:
                stream.write(text)
        try:
            yield
        finally:
            for full, text in before.items():
                with open(full, 'w', encoding='utf-8') as stream:
                    stream.write(text)

    def _arguments(self, command):
        variables, program, rest = split(command)
        target = os.path.join(self.build, targets_of(command)[0])
        if program.startswith('cli/'):
            return variables, [os.path.join(self.tree, 'tests', program + '.py'), target, *rest]
        return variables, [target, *rest]

    def run(self, command, seconds_max):
        """Runs the test until it ends, tells of a failure, or its time is up."""
        variables, arguments = self._arguments(command)
        begin = time.monotonic()
        process = subprocess.Popen(
            arguments, env=dict(os.environ, PYTHONDONTWRITEBYTECODE='1', **variables), cwd=self.build,
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
