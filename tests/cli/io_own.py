#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ashlar-io promises on its own: where it means to differ from qemu-io, and that nothing it is told
makes it crash or hang.

    io_own.py ASHLAR-IO [TEST...]
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import unittest

import fixture

PROGRAM = None


class Tool(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix='ashlar-cli-')
        self.where = self.directory.name
        with open(self.path('a.raw'), 'wb') as file:
            file.write(b'\1' * 65536)
            file.truncate(1 << 20)

    def tearDown(self):
        self.directory.cleanup()

    def path(self, name):
        return os.path.join(self.where, name)

    def run_tool(self, *commands, options=('-f', 'raw', 'a.raw'), given='', **kwargs):
        args = [arg for command in commands for arg in ('-c', command)]
        if not kwargs and len(given) < fixture.programs.INPUT_BYTES_MAX:
            return fixture.completed(PROGRAM, [*options, *args], self.where, given)
        return subprocess.run([PROGRAM, *options, *args], cwd=self.where, input=given,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8',
                              errors='replace', timeout=60, **kwargs)

    def fails(self, *commands, saying=(), **kwargs):
        result = self.run_tool(*commands, **kwargs)
        self.assertEqual(result.returncode, 1, result)
        for word in saying:
            self.assertIn(word, result.stdout + result.stderr)
        return result

    def works(self, *commands, **kwargs):
        result = self.run_tool(*commands, **kwargs)
        self.assertEqual((result.returncode, result.stderr), (0, ''), result.stdout)
        return result.stdout


class Speaking(Tool):
    def test_help_names_every_command_and_explains_each(self):
        names = [line.split()[0] for line in self.works('help').splitlines() if ' -- ' in line]
        self.assertEqual(names, sorted(names))
        self.assertIn('aio_write', names)
        for name in names:
            self.assertTrue(self.works('help ' + name).startswith(name + ' '))

    def test_help_and_version_of_the_program(self):
        self.assertIn('--cmd', self.works(options=['--help']))
        self.assertRegex(self.works(options=['-V']), r'^ashlar-io version \d+\.\d+\.\d+\n$')

    def test_two_files_are_refused(self):
        self.fails(options=['a.raw', 'a.raw'], saying=['ashlar-io: ', '--help'])

    def test_what_is_not_supported_is_refused_by_name(self):
        for option in (['-T', 'x'], ['--object', 'iothread,id=x']):
            self.fails('length', options=option + ['-f', 'raw', 'a.raw'], saying=['ashlar-io: ' + option[0]])

    def test_a_temporary_snapshot_leaves_the_image_and_no_file_behind(self):
        with tempfile.TemporaryDirectory(dir=self.where) as temporary:
            os.environ['TMPDIR'] = temporary
            try:
                self.works('write -q -P 9 0 64k', 'read -q -P 9 0 64k', 'read -q -P 0 64k 64k',
                           options=['-s', '-f', 'raw', 'a.raw'])
                self.fails('write 0 512', options=['-s', '-r', '-f', 'raw', 'a.raw'], saying=['read-only'])
                self.assertEqual(os.listdir(temporary), [])
            finally:
                del os.environ['TMPDIR']
        self.works('read -q -P 1 0 64k', options=['-f', 'raw', 'a.raw'])

    def test_a_full_output_is_an_error(self):
        with open('/dev/full', 'w', encoding='ascii') as full:
            result = subprocess.run([PROGRAM, '-f', 'raw', '-c', 'length', 'a.raw'], cwd=self.where,
                                    stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn('ashlar-io: ', result.stderr)

    def test_a_refused_write_names_the_file(self):
        self.fails('write 0 512', options=['-r', '-f', 'raw', 'a.raw'],
                   saying=['ashlar-io: ', "'a.raw'", 'read-only'])


class Differing(Tool):
    def test_a_verified_part_far_outside_does_not_crash(self):
        self.fails('read -P 1 -s 9223372036854775807 -l 9223372036854775807 0 1', saying=['exceeds'])

    def test_a_second_length_does_not_shorten_the_disk(self):
        self.fails('truncate 1 2', saying=['truncate '])
        self.assertEqual(os.path.getsize(self.path('a.raw')), 1 << 20)

    def test_abort_does_not_lose_what_was_said(self):
        result = self.run_tool('length', 'abort')
        self.assertEqual((result.returncode, result.stdout), (-signal.SIGABRT, '1 MiB\n'))

    def test_read_only_by_option_and_back(self):
        result = self.fails('reopen -o read-only=on', 'write 0 512', 'reopen -o read-only=off',
                            'write -q -P 2 0 512', 'read -q -P 2 0 512', saying=['read-only'])
        self.assertEqual(result.stdout, '')

    def test_an_image_without_locks_is_not_reopened_for_writing(self):
        self.fails('reopen -w', options=['-r', '-U', '-f', 'raw', 'a.raw'], saying=['force-share', "'a.raw'"])

    def test_copy_on_read_keeps_what_was_read(self):
        self.works('write -q -P 7 0 128k', options=['-f', 'raw', 'a.raw'])
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw', 'o.qcow2'],
                       cwd=self.where, check=True)
        held = '64 KiB (0x10000) bytes     allocated at offset 0 bytes (0x0)'
        self.assertNotIn(held, self.works('read -q 0 512', 'map', options=['o.qcow2']))
        self.works('read -q -P 7 0 512', options=['-C', 'o.qcow2'])
        self.assertIn(held, self.works('map', 'read -q -P 7 0 128k', options=['o.qcow2']))

    def chain(self):
        for args in (['b.qcow2', '8M'], ['-b', 'b.qcow2', '-F', 'qcow2', 't.qcow2'], ['m.qcow2', '8M']):
            subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', *args], cwd=self.where, check=True)
        self.works('write -q -P 1 0 4M', options=['-f', 'qcow2', 'b.qcow2'])

    def test_a_job_runs_between_the_requests_of_a_script(self):
        self.chain()
        out = self.works('job start type=stream job-id=j speed=64k auto-dismiss=off', 'job list',
                         'write -q -P 2 64k 64k', 'read -q -P 1 1M 1M', 'job pause j', 'job wait j paused',
                         'job resume j', 'job speed j 0', 'job wait j', 'job list', 'job dismiss j',
                         'job list', 'read -q -P 2 64k 64k', 'nodes', options=['t.qcow2'])
        self.assertRegex(out, r'^started j\nj stream running \d+/8388608\nj: paused\nj: concluded ok\n'
                              r'j stream concluded 8388608/8388608 ok\n'
                              r'root \S+ qcow2 rw t.qcow2\nfile \S+ file rw t.qcow2\n$')
        self.assertNotIn('backing', subprocess.run(['qemu-img', 'info', 't.qcow2'], cwd=self.where,
                                                   stdout=subprocess.PIPE, text=True).stdout)

    def test_a_mirror_gets_ready_and_leads_the_shell_to_its_target(self):
        self.chain()
        out = self.works('job start {"type": "mirror", "job-id": "m", "sync": "full", "target": "m.qcow2", '
                         '"format": "qcow2"}', 'job wait -p m ready', 'write -q -P 3 5M 1M', 'job complete m',
                         'job wait m', 'nodes', 'read -q -P 1 0 4M', 'read -q -P 3 5M 1M',
                         options=['t.qcow2'])
        self.assertTrue(out.startswith('started m\n    (0.00/100%)\n'), out)
        self.assertIn('    (100.00/100%)\nm: ready\nm: concluded ok\nroot ', out)
        self.assertRegex(out, r'\nroot \S+ qcow2 rw m.qcow2\n')

    def test_nodes_have_the_names_they_are_given_and_jobs_find_them(self):
        self.chain()
        out = self.works('nodes', 'job start type=stream job-id=j device=top base-node=low', 'job wait j',
                         options=['--image-opts', 'driver=qcow2,node-name=top,file.filename=t.qcow2,'
                                  'backing.driver=qcow2,backing.node-name=low,backing.file.filename=b.qcow2'])
        self.assertRegex(out, r'^root top qcow2 rw t.qcow2\nfile #\S+ file rw t.qcow2\n'
                              r'backing low qcow2 ro b.qcow2\nfile #\S+ file ro b.qcow2\n'
                              r'started j\nj: concluded ok\n$')

    def test_a_wait_ends_when_the_job_waits_for_a_verb(self):
        self.chain()
        start = 'job start type=mirror job-id=m sync=full target=m.qcow2 format=qcow2'
        self.fails(start, 'job wait m', 'job cancel m', 'job wait m', options=['t.qcow2'],
                   saying=["Job 'm' is ready, not concluded", 'm: concluded ok'])
        self.fails(start, 'job wait m ready', 'job pause m', 'job wait m standby', 'job wait m ready',
                   'job resume m', 'job force-cancel m', 'job wait m', options=['t.qcow2'],
                   saying=['m: standby', "Job 'm' is standby, not ready", "Job 'm' failed: "])
        self.fails('job start type=stream job-id=j auto-finalize=off', 'job wait j', 'job finalize j',
                   'job wait j', options=['t.qcow2'],
                   saying=["Job 'j' is pending, not concluded", 'j: concluded ok'])

    def test_jobs_that_run_when_the_file_is_closed_are_cancelled(self):
        self.chain()
        start = 'job start type=stream job-id=j speed=64k'
        for end in ('close', 'quit', 'job list'):
            result = self.fails(start, end, options=['t.qcow2'], saying=["Job 'j' is cancelled"])
            self.assertTrue(result.stdout.startswith('started j\n'))
        self.works('read -q -P 1 0 4M', options=['t.qcow2'])

    def test_what_is_wrong_with_a_job_is_said(self):
        self.chain()
        for command, word in (('start type=nix', "'nix'"), ('start {', 'understood'), ('start', 'job start|'),
                              ('start type=mirror', 'target'), ('wait x', "'x'"), ('pause x', "'x'"),
                              ('start type=stream device=nix', "'nix'"), ('bogus', 'job start|'),
                              ('speed', 'job start|'), ('wait -x j', 'job start|'),
                              ('start []', 'at least one')):
            self.fails('job ' + command, options=['t.qcow2'], saying=[word])
        self.fails('job start type=stream job-id=j', 'job wait j nowhere', 'job wait j', options=['t.qcow2'],
                   saying=["no state 'nowhere'", 'j: concluded ok'])

    def test_an_open_image_is_locked(self):
        result = self.fails('length', 'open -o driver=raw a.raw', 'close', 'open -o driver=raw a.raw',
                            saying=['file open already'])
        self.assertNotIn('lock', result.stderr)
        with subprocess.Popen([PROGRAM, '-f', 'raw', 'a.raw'], cwd=self.where, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as holder:
            self.assertEqual(holder.stdout.read(11), b'ashlar-io> ')
            self.fails('length', saying=["can't open device a.raw", 'lock'])
            self.works('length', options=['-r', '-U', '-f', 'raw', 'a.raw'])
            holder.communicate(b'quit\n')
        self.works('length')


class Asynchronous(Tool):
    def test_completions_are_told_while_input_is_awaited(self):
        with subprocess.Popen([PROGRAM, '-f', 'raw', 'a.raw'], cwd=self.where, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as shell:
            shell.stdin.write(b'aio_write -P 9 0 64k\n')
            shell.stdin.flush()
            told = b''
            while b'ops/sec' not in told:
                byte = shell.stdout.read(1)
                self.assertNotEqual(byte, b'')
                told += byte
            self.assertIn(b'wrote 65536/65536 bytes at offset 0', told)
            shell.communicate(b'quit\n')

    def test_hundreds_at_once(self):
        commands = [f'aio_write -q -P {i % 251 + 1} {i * 2048} 2048' for i in range(512)]
        checks = [f'read -q -P {i % 251 + 1} {i * 2048} 2048' for i in range(512)]
        self.works(*commands, 'aio_flush', *checks)

    def test_quit_waits_for_them(self):
        out = self.works(*['aio_write -P 3 0 1M'] * 3, 'quit')
        self.assertEqual(out.count('wrote 1048576/1048576'), 3)


class Hostile(Tool):
    """Lines put together at random: each may fail, none may crash or hang."""

    NAMES = """read readv write writev aio_read aio_write aio_flush flush length alloc map discard info open
        close reopen help truncate r w ? xyz""".split()
    WORDS = ['', '"', "'", '"0"', '\\', '%s%n', 'x' * 300, '\t', '\x01', '\xff', 'é'] + """
        - -- -1 0 1 511 512 513 64k 1M 1048575 2147483136 2147483137 4G 7E 8E 9223372036854775807
        18446744073709551616 99999999999999999999999 1.5 1.5k .5k 0x 0xg 1e9 inf nan
        -P -P1 -s -l -z -u -n -q -v -C -c -b -f -i -m -o -r -w -t -k -U -h -zu -zn
        a.raw a=b driver=raw driver= , = ,,=,, off full none json:{ nofile / /dev/null /dev/zero""".split()

    def line(self, prng):
        words = [prng.choice(self.NAMES)] + [prng.choice(self.WORDS) for _ in range(prng.randrange(6))]
        return ' '.join(words)

    def test_random_lines(self):
        seed = int(os.environ.get('ASHLAR_SEED', random.randrange(1 << 32)))
        prng = random.Random(seed)
        for _ in range(30):
            lines = [self.line(prng) for _ in range(40)]
            # No buffer of gigabytes, and no image of exabytes to walk through.
            lines = [line for line in lines if not ('2147483136' in line and 'z' not in line)
                     and not line.startswith('truncate')]
            given = '\n'.join(lines) + '\n'
            result = self.run_tool(given=given)
            self.assertIn(result.returncode, (0, 1),
                          f'ASHLAR_SEED={seed}: {given!r}: {result.stderr[-2000:]}')
            os.truncate(self.path('a.raw'), 1 << 20)

    def test_random_arguments_of_the_program(self):
        seed = int(os.environ.get('ASHLAR_SEED', random.randrange(1 << 32)))
        prng = random.Random(seed)
        for _ in range(100):
            args = [prng.choice(self.WORDS) for _ in range(prng.randrange(5))]
            result = self.run_tool('length', options=args)
            self.assertIn(result.returncode, (0, 1),
                          f'ASHLAR_SEED={seed}: {args!r}: {result.stderr[-2000:]}')

    def test_input_of_zero_bytes_and_without_an_end(self):
        self.run_tool(given='\0\0length\0\nlength\n\0')
        self.fails(given='x' * (3 << 20), saying=['bytes'])

    def test_thousands_of_words(self):
        self.fails(given='readv 0' + ' 1' * 70000 + '\n', saying=['too many'])
        self.works(given='readv -q 0' + ' 16' * 5000 + '\n')


if __name__ == '__main__':
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
