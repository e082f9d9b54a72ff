#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ashlar-img promises on its own: where it means to differ from qemu-img, and how it ends badly."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import fixture

PROGRAM = None
SEED = int(os.environ.get('ASHLAR_SEED', random.randrange(1 << 32)))
TRIES = 3 if 'ASAN_OPTIONS' in os.environ else 12
COMMANDS = ['bench', 'check', 'commit', 'compare', 'convert', 'create', 'dd', 'info', 'map', 'measure',
            'rebase', 'resize']


class Tool(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix='ashlar-cli-')
        cls.pristine = os.path.join(cls.directory.name, 'pristine')
        fixture.make(cls.pristine)

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def setUp(self):
        self.where = tempfile.mkdtemp(dir=self.directory.name)
        fixture.sh('cp', '-a', '--sparse=always', self.pristine + '/.', self.where)

    def path(self, name):
        return os.path.join(self.where, name)

    def run_tool(self, *args, program=None, **kwargs):
        if program is None and not kwargs:
            return fixture.completed(PROGRAM, args, self.where)
        return subprocess.run([program or PROGRAM, *args], cwd=self.where, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                              **kwargs)

    def fails(self, *args, saying=(), status=1, **kwargs):
        result = self.run_tool(*args, **kwargs)
        self.assertEqual(result.returncode, status, result.stderr)
        for word in saying:
            self.assertIn(word, result.stderr)
        return result

    def works(self, *args, **kwargs):
        result = self.run_tool(*args, **kwargs)
        self.assertEqual((result.returncode, result.stderr), (0, ''), result.stdout)
        return result.stdout

    def alike(self, a, b):
        result = subprocess.run(['qemu-img', 'compare', a, b], cwd=self.where, text=True,
                                stdout=subprocess.PIPE)
        self.assertEqual(result.returncode, 0, result.stdout)


class Speaking(Tool):
    def test_help_of_the_program_and_of_each_command(self):
        result = self.run_tool('--help')
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        for command in COMMANDS:
            self.assertIn(f'\n  {command} ', result.stdout)
            own = self.run_tool(command, '--help')
            self.assertEqual((own.returncode, own.stderr), (0, ''))
            self.assertIn(f'usage: ashlar-img {command} ', own.stdout)

    def test_version(self):
        result = self.run_tool('--version')
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, r'^ashlar-img version \d+\.\d+')

    def test_errors_begin_with_the_name_it_was_called_by(self):
        os.symlink(PROGRAM, self.path('other-name'))
        result = self.fails('info', 'nope', program=self.path('other-name'))
        self.assertTrue(result.stderr.startswith('other-name: '), result.stderr)
        self.assertIn("'nope'", result.stderr)
        self.assertIn('No such file or directory', result.stderr)

    def test_output_that_cannot_be_written_is_an_error(self):
        with open('/dev/full', 'w') as full:
            result = subprocess.run([PROGRAM, 'info', 'data.raw'], cwd=self.where, stdout=full,
                                    stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn('cannot be written', result.stderr)

    def test_commands_that_do_not_exist_yet_are_unknown(self):
        for command in ('snapshot', 'amend', 'bitmap'):
            self.fails(command, 'base.qcow2', saying=['Command not found: ' + command])

    def test_options_of_later_work_are_refused_by_name(self):
        refused = [('convert', '-l', 'snapshot'), ('measure', '-l', 'snapshot')]
        refused += [(command, '--object', 'iothread,id=x') for command in ('info', 'create', 'check', 'map')]
        for command, option, *value in refused:
            result = self.fails(command, option, *value, 'data.raw', 'x.raw')
            self.assertIn(option + ': ', result.stderr)
            self.assertFalse(os.path.exists(self.path('x.raw')))
        self.fails('-T', 'enable=x', 'info', 'data.raw', saying=['-T: '])
        for option, word in (('encryption=on', 'encryption'), ('encrypt.format=luks', 'encrypt'),
                             ('data_file=d', 'data file'), ('extended_l2=on', 'extended L2')):
            self.fails('create', '-f', 'qcow2', '-o', option, 'x.qcow2', '1M', saying=['x.qcow2: ', word])
            self.assertFalse(os.path.exists(self.path('x.qcow2')))


class Bench(Tool):
    def test_depth_zero_is_refused(self):
        self.fails('bench', '-d', '0', 'data.raw', saying=['queue depth'])

    def test_an_empty_image_is_an_error_not_a_crash(self):
        self.fails('bench', '-c', '3', 'nothing.raw', saying=['nothing.raw'])


class Untrusted(Tool):
    """Images whose header names what must not be opened."""

    def unsafe_overlay(self, backing):
        fixture.img(self.where, 'create', '-q', '-f', 'qcow2', '-u', '-b', backing, '-F', 'raw', 'x.qcow2',
                    '1M')

    def test_info_does_not_open_the_backing_file(self):
        os.mkfifo(self.path('fifo'))
        self.unsafe_overlay('fifo')
        result = self.run_tool('info', 'x.qcow2')
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('backing file: fifo', result.stdout)

    def test_info_writes_nothing(self):
        os.chmod(self.path('base.qcow2'), 0o444)
        before = os.stat(self.path('base.qcow2'))
        self.assertEqual(self.run_tool('info', 'base.qcow2').returncode, 0)
        after = os.stat(self.path('base.qcow2'))
        self.assertEqual(before.st_mtime_ns, after.st_mtime_ns)

    def test_a_backing_name_is_a_path_and_no_description(self):
        for name in ('json:{"driver":"null-co"}', 'nbd://localhost/x'):
            self.unsafe_overlay(name)
            self.assertEqual(self.run_tool('info', 'x.qcow2').returncode, 0)
            self.fails('info', '--backing-chain', 'x.qcow2', saying=['not a path'])
            self.fails('map', 'x.qcow2', saying=[name])
            self.fails('convert', 'x.qcow2', 'y.raw', saying=[name])

    def test_a_chain_that_bites_its_tail_ends(self):
        fixture.img(self.where, 'create', '-q', '-f', 'qcow2', '-u', '-b', './x.qcow2', '-F', 'qcow2',
                    'x.qcow2', '1M')
        for command in (['info', '--backing-chain'], ['map'], ['check'], ['compare', 'zero.raw']):
            result = self.run_tool(*command, 'x.qcow2')
            self.assertIn(result.returncode, (1, 2), command)
            self.assertIn('x.qcow2', result.stderr)

    def test_cut_images_give_errors(self):
        size = os.path.getsize(self.path('base.qcow2'))
        lengths = [0, 3, 4, 71, 72, 103, 104, 512, 65536, 65537, 131072, 200000, 262144, size - 65536]
        for length in fixture.cases(lengths, []):
            fixture.sh('cp', 'base.qcow2', 'cut.qcow2', cwd=self.where)
            os.truncate(self.path('cut.qcow2'), length)
            for command in (['info'], ['check'], ['map'], ['check', '-r', 'all'], ['compare', 'base.qcow2']):
                result = self.run_tool(*command, '-f', 'qcow2', 'cut.qcow2')
                self.assertIn(result.returncode, range(0, 5), f'{command} of {length} bytes: {result.stderr}')
            result = self.run_tool('convert', '-f', 'qcow2', '-O', 'raw', 'cut.qcow2', 'cut.raw')
            self.assertIn(result.returncode, (0, 1), result.stderr)


class Converting(Tool):
    def start(self, *args):
        return subprocess.Popen([PROGRAM, *args], cwd=self.where, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_a_signal_ends_it_and_removes_the_target(self):
        fixture.file_of(self.where, 'big.raw', 64 << 20, *((i << 20, b'x' * 4096) for i in range(64)))
        for fmt in ('raw', 'qcow2'):
            process = self.start('convert', '-m', '2', '-r', '1M', '-O', fmt, 'big.raw', 'x.img')
            for _ in range(100):
                if os.path.exists(self.path('x.img')):
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            self.assertEqual(process.returncode, -signal.SIGINT, errors)
            self.assertFalse(os.path.exists(self.path('x.img')))

    @staticmethod
    def moment(seconds, args):
        return f'ASHLAR_SEED={SEED}: {" ".join(args)} after {seconds} s: '

    def end_early(self, seconds, target, *args):
        """The result of a run that gets SIGINT then; what it leaves behind must be sound."""
        process = self.start(*args)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, -signal.SIGINT), errors)
        if os.path.exists(self.path(target)):
            for check in ([PROGRAM], ['qemu-img']):
                found = subprocess.run([*check, 'check', '-f', 'qcow2', target], cwd=self.where, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                self.assertIn(found.returncode, (0, 3), self.moment(seconds, args) + found.stdout)
        return process.returncode

    def test_a_signal_at_any_moment_leaves_no_half_written_metadata(self):
        fixture.file_of(self.where, 'big.raw', 64 << 20, *((i << 18, b'x' * 9000) for i in range(256)))
        commands = (
            ('convert', '-O', 'qcow2', '-o', 'cluster_size=4k', 'big.raw', 'x.qcow2'),
            ('convert', '-n', '-O', 'qcow2', 'big.raw', 'there.qcow2'),
            ('create', '-q', '-f', 'qcow2', '-o', 'preallocation=full', 'x.qcow2', '64M'),
            ('create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata,cluster_size=512', 'x.qcow2',
             '16M'))
        rng, ends = random.Random(SEED), set()
        for args in commands:
            target = next(word for word in args if word.endswith('.qcow2'))
            for _ in range(TRIES):
                fixture.qcow2(self.where, 'there.qcow2', '64M')
                seconds = rng.choice([0.02, 0.1]) * rng.random()
                code = self.end_early(seconds, target, *args)
                ends.add(code)
                if code == 0 and args[0] == 'convert':
                    self.alike('big.raw', target)
                if code != 0 and '-n' not in args:
                    self.assertFalse(os.path.exists(self.path(target)), self.moment(seconds, args))
                if target == 'x.qcow2' and code == 0:
                    os.unlink(self.path(target))
        self.assertIn(-signal.SIGINT, ends)

    def test_a_failure_names_the_target_and_removes_it(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
        fixture.file_of(self.where, 'big.raw', 8 << 20, *((i << 20, b'x' * 1048576) for i in range(8)))
        for fmt in ('raw', 'qcow2'):
            self.fails('convert', '-O', fmt, 'big.raw', 'x.img', saying=['x.img', 'File too large'],
                       preexec_fn=limit)
            self.assertFalse(os.path.exists(self.path('x.img')))
        self.fails('dd', 'if=big.raw', 'of=x.img', saying=['x.img', 'File too large'], preexec_fn=limit)
        self.assertFalse(os.path.exists(self.path('x.img')))

    def test_a_target_that_was_there_before_is_kept_with_n(self):
        self.fails('convert', '-n', 'data.raw', 'zero.raw', saying=['zero.raw', 'smaller'])
        self.assertEqual(os.path.getsize(self.path('zero.raw')), 1 << 20)

    def test_a_target_with_a_backing_file_is_not_taken_for_zeroes(self):
        """qemu-img says so too, and exits with 0."""
        self.fails('convert', '-n', '--target-is-zero', '-O', 'qcow2', '-B', 'data.raw', '-F', 'raw',
                   'other.raw', 'onraw.qcow2', saying=['Cannot use --target-is-zero'])

    def test_bitmaps_are_not_left_behind(self):
        subprocess.run(['qemu-img', 'bitmap', '--add', 'base.qcow2', 'b0'], cwd=self.where, check=True)
        self.fails('convert', '--bitmaps', '-O', 'qcow2', 'base.qcow2', 'x.qcow2',
                   saying=["--bitmaps: 'base.qcow2' has dirty bitmaps"])
        self.assertFalse(os.path.exists(self.path('x.qcow2')))

    def test_a_source_is_never_made_anew(self):
        before = self.run_tool('map', '--output=json', 'top.qcow2').stdout
        for target in ('top.qcow2', 'mid.qcow2', './base.qcow2', self.path('mid.qcow2')):
            for share in ([], ['-U']):
                self.fails('convert', *share, '-O', 'qcow2', 'zero.raw', 'top.qcow2', target, saying=[target])
                self.fails('dd', *share, 'if=top.qcow2', 'of=' + target, saying=[target])
        self.assertEqual(self.run_tool('map', '--output=json', 'top.qcow2').stdout, before)

    def convert_onto_base(self, source):
        result = self.run_tool('convert', '-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2', source, 'x.qcow2')
        self.assertEqual(result.returncode, 0, result.stderr)
        self.alike(source, 'x.qcow2')

    def test_the_backing_file_is_found_deeper_in_the_chain(self):
        self.convert_onto_base('top.qcow2')

    def test_zeroes_over_a_backing_file_are_written(self):
        fixture.overlay(self.where, 'over.qcow2', 'base.qcow2', 'write -z 0 64k', 'write -P 0 128k 64k')
        self.convert_onto_base('over.qcow2')

    def test_unreadable_parts_become_zeroes_with_salvage(self):
        with open(self.path('base.qcow2'), 'r+b') as file:
            file.truncate(0x60000)  # data clusters from here on are gone
        whole = self.run_tool('convert', '--salvage', '-q', '-O', 'raw', 'base.qcow2', 'x.raw')
        self.assertEqual(whole.returncode, 0, whole.stderr)
        with open(self.path('x.raw'), 'rb') as file:
            self.assertEqual(file.read(65536), b'\1' * 65536)

    def test_many_windows_end_up_in_place(self):
        pieces = [(i * 300001, bytes([i % 251 + 1]) * (1 + i * 997 % 150000)) for i in range(100)]
        fixture.file_of(self.where, 'big.raw', 32 << 20, *pieces)
        for options in ([], ['-o', 'cluster_size=512'], ['-o', 'cluster_size=2M'], ['-c'], ['-S', '0']):
            result = self.run_tool('convert', '-m', '16', '-O', 'qcow2', *options, 'big.raw', 'x.qcow2')
            self.assertEqual(result.returncode, 0, result.stderr)
            self.alike('big.raw', 'x.qcow2')
            fixture.img(self.where, 'check', '-q', 'x.qcow2')

    def test_what_the_kernel_copies_is_the_same(self):
        """Between clusters of other sizes, with holes, odd ends, data that is in no file as it is, and
        files that the kernel does not copy (direct I/O)."""
        fixture.file_of(self.where, 'big.raw', (8 << 20) + 700, (0, b'a' * 3000001), (5 << 20, b'b' * 70000),
                        (8 << 20, b'c' * 700))
        for source in ('big.raw', 'top.qcow2', 'small.qcow2', 'comp.qcow2', 'onraw.qcow2', 'odd.raw'):
            for options in (['-O', 'raw'], ['-O', 'qcow2'], ['-O', 'qcow2', '-o', 'cluster_size=512'],
                            ['-O', 'qcow2', '-o', 'cluster_size=2M'], ['-t', 'none', '-O', 'raw'],
                            ['-T', 'none', '-O', 'qcow2']):
                result = self.run_tool('convert', '-C', *options, source, 'x.img')
                self.assertEqual(result.returncode, 0, result.stderr)
                compared = self.run_tool('compare', '-F', options[options.index('-O') + 1], source, 'x.img')
                self.assertEqual(compared.returncode, 0, compared.stdout)
                if 'qcow2' in options:
                    fixture.img(self.where, 'check', '-q', 'x.img')
        result = self.run_tool('convert', '-C', '-O', 'raw', 'big.raw', 'odd.raw', 'small.qcow2', 'x.img')
        self.assertEqual(result.returncode, 0, result.stderr)
        plain = self.run_tool('convert', '-O', 'raw', 'big.raw', 'odd.raw', 'small.qcow2', 'y.img')
        self.assertEqual(plain.returncode, 0, plain.stderr)
        self.alike('x.img', 'y.img')


class Locks(Tool):
    """Another program, qemu-io, has the image open for writing."""

    def setUp(self):
        super().setUp()
        self.other = subprocess.Popen(['qemu-io', '-f', 'qcow2', 'base.qcow2'], cwd=self.where, text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL)
        self.addCleanup(self.other.communicate)
        self.other.stdin.write('read 0 512\n')
        self.other.stdin.flush()
        self.other.stdout.readline()  # it has read, so it has opened

    def test_an_image_in_use_is_refused_by_name(self):
        for command in (['info'], ['check'], ['map'], ['convert', '-O', 'raw', 'base.qcow2'],
                        ['resize', '-q'], ['bench', '-c', '1', '-w'], ['compare', 'zero.raw']):
            name = {'convert': 'x.raw', 'resize': '+1M'}.get(command[0], 'base.qcow2')
            if command[0] == 'resize':
                command.append('base.qcow2')
            result = self.run_tool(*command, name)
            self.assertIn(result.returncode, (1, 2), f'{command}: {result.stderr}')
            self.assertIn('base.qcow2', result.stderr)
            self.assertIn('lock', result.stderr)

    def test_force_share_reads_all_the_same(self):
        for command in (['info'], ['check'], ['map'], ['compare', 'base.qcow2'], ['bench', '-c', '1']):
            result = self.run_tool(command[0], '-U', *command[1:], 'base.qcow2')
            self.assertEqual(result.returncode, 0, f'{command}: {result.stderr}')

    def test_a_file_in_use_is_not_made_anew(self):
        before = os.path.getsize(self.path('base.qcow2'))
        self.fails('create', '-q', '-f', 'qcow2', 'base.qcow2', '1M', saying=['base.qcow2', 'lock'])
        self.fails('convert', '-O', 'qcow2', 'data.raw', 'base.qcow2', saying=['base.qcow2', 'lock'])
        self.assertEqual(os.path.getsize(self.path('base.qcow2')), before)


class Committing(Tool):
    def test_the_image_is_emptied_and_reads_the_same(self):
        fixture.img(self.where, 'convert', '-O', 'raw', 'top.qcow2', 'before.raw')
        self.works('commit', 'top.qcow2')
        self.assertNotIn('top.qcow2', self.works('map', 'top.qcow2'))
        fixture.sh('qemu-img', 'check', '-q', 'top.qcow2', cwd=self.where)
        for name in ('top.qcow2', 'mid.qcow2'):
            self.alike(name, 'before.raw')

    def test_an_image_of_version_2_is_emptied(self):
        fixture.img(self.where, 'create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', '-b', 'base.qcow2', '-F',
                    'qcow2', 'o.qcow2')
        fixture.io(self.where, 'o.qcow2', 'write -P 9 0 3M')
        self.works('commit', 'o.qcow2')
        self.assertNotIn('o.qcow2', self.works('map', 'o.qcow2'))
        fixture.io(self.where, 'base.qcow2', 'read -P 9 0 3M')

    def test_a_base_that_is_longer_keeps_what_lies_beyond(self):
        fixture.overlay(self.where, 'o.qcow2', 'long.raw', 'write -P 9 0 64k', fmt='raw', size='1M')
        self.works('commit', 'o.qcow2')
        self.assertEqual(os.path.getsize(self.path('long.raw')), 3 << 20)
        with open(self.path('long.raw'), 'rb') as file:
            self.assertEqual(file.read(65536), bytes([9]) * 65536)
            file.seek(2500000)
            self.assertEqual(file.read(3), b'abc')

    def test_progress_goes_to_100(self):
        shown = self.works('commit', '-p', 'top.qcow2').replace('\r', '\n').split('\n')
        self.assertEqual(shown[0], '    (0.00/100%)')
        self.assertEqual(shown[-3:], ['    (100.00/100%)', 'Image committed.', ''])

    def test_a_base_that_cannot_be_written_fails_and_nothing_is_lost(self):
        fixture.img(self.where, 'convert', '-O', 'raw', 'top.qcow2', 'before.raw')
        failing = {'driver': 'qcow2', 'file': {'driver': 'file', 'filename': self.path('top.qcow2')},
                   'backing': {'driver': 'qcow2', 'file': {
                       'driver': 'fault', 'inject-error': [{'iotype': 'write', 'errno': 28}],
                       'file': {'driver': 'file', 'filename': self.path('mid.qcow2')}}}}
        result = self.fails('commit', 'json:' + json.dumps(failing), saying=['No space left on device'])
        self.assertEqual(result.stdout, '')
        self.alike('top.qcow2', 'before.raw')

    def test_a_signal_leaves_everything_readable(self):
        fixture.img(self.where, 'convert', '-O', 'raw', 'top.qcow2', 'before.raw')
        process = subprocess.Popen([PROGRAM, 'commit', '-r', '1k', 'top.qcow2'], cwd=self.where,
                                   stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=30), -signal.SIGINT)
        self.alike('top.qcow2', 'before.raw')


class Rebasing(Tool):
    def test_an_old_image_without_a_backing_file_goes_on_reading_zeroes(self):
        """qemu-img 7.2 lets an image of version 2 show the new backing file."""
        self.works('rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'old.qcow2')
        fixture.img(self.where, 'create', '-q', '-f', 'raw', 'zero8.raw', '8M')
        self.alike('old.qcow2', 'zero8.raw')

    def test_progress_goes_to_100_and_is_not_shown_with_q(self):
        shown = self.works('rebase', '-p', '-b', '', 'top.qcow2').replace('\r', '\n').split('\n')
        self.assertEqual(shown[0], '    (0.00/100%)')
        self.assertEqual(shown[-2:], ['    (100.00/100%)', ''])
        self.assertEqual(self.works('rebase', '-p', '-q', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2'), '')

    def test_where_both_are_zeroes_nothing_is_allocated(self):
        self.works('rebase', '-b', 'zero.raw', '-F', 'raw', 'empty.qcow2')
        mapped = self.works('map', '--output=json', 'empty.qcow2')
        self.assertNotIn('"depth": 0', mapped)

    def test_zeroes_that_hide_a_new_backing_file_take_no_space(self):
        fixture.overlay(self.where, 'o.qcow2', 'empty.qcow2')
        self.works('rebase', '-b', 'short.qcow2', '-F', 'qcow2', 'o.qcow2')
        self.assertEqual(self.works('map', 'o.qcow2').splitlines()[1:], [])
        self.alike('o.qcow2', 'empty.qcow2')

    def test_an_image_that_fails_to_be_rebased_reads_as_before(self):
        fixture.img(self.where, 'convert', '-O', 'raw', 'top.qcow2', 'before.raw')
        failing = {'driver': 'fault', 'inject-error': [{'iotype': 'read', 'offset': 1 << 20}],
                   'file': {'driver': 'file', 'filename': self.path('data.raw')}}
        self.fails('rebase', '-b', 'json:' + json.dumps(failing), '-F', 'raw', 'top.qcow2',
                   saying=['new backing file', 'Input/output error'])
        self.alike('top.qcow2', 'before.raw')


class Comparing(Tool):
    def test_the_first_of_several_differences_is_told(self):
        fixture.file_of(self.where, 'a.raw', 64 << 20)
        spots = (50 << 20, (20 << 20) + 7 * 512, 60 << 20)
        fixture.file_of(self.where, 'b.raw', 64 << 20, *((spot, b'x') for spot in spots))
        for names in (('a.raw', 'b.raw'), ('b.raw', 'a.raw')):
            result = self.run_tool('compare', *names)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stdout, f'Content mismatch at offset {spots[1]}!\n')


if __name__ == '__main__':
    if fixture.missing_tools():
        print('missing: ' + ' '.join(fixture.missing_tools()))
        sys.exit(fixture.SKIP)
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
