#!/usr/bin/env python3
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
        for option in (['-s'], ['-T', 'x'], ['--object', 'secret,id=x']):
            self.fails('length', options=option + ['-f', 'raw', 'a.raw'], saying=['ashlar-io: ' + option[0]])
        for option in ('-s',):
            self.fails(f'open {option} a.raw', options=[], saying=['ashlar-io: ' + option])

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
