# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds qcow2 images with everything in them, and finds the fields in their bytes."""

import os
import struct
import subprocess

KIB = 1 << 10
UNKNOWN_EXTENSION = 0x41534831
UNKNOWN_BYTES = b'kept as it is'
HEADER = [  # name, offset, bytes; from 72 on in version 3 only
    ('magic', 0, 4), ('version', 4, 4), ('backing_file_offset', 8, 8), ('backing_file_size', 16, 4),
    ('cluster_bits', 20, 4), ('size', 24, 8), ('crypt_method', 32, 4), ('l1_size', 36, 4),
    ('l1_table_offset', 40, 8), ('refcount_table_offset', 48, 8), ('refcount_table_clusters', 56, 4),
    ('nb_snapshots', 60, 4), ('snapshots_offset', 64, 8), ('incompatible_features', 72, 8),
    ('compatible_features', 80, 8), ('autoclear_features', 88, 8), ('refcount_order', 96, 4),
    ('header_length', 100, 4), ('compression_type', 104, 1),
]
OFFSET_MASK = 0x00fffffffffffe00
# name -> create options, size. The base is longer than one of them and shorter than the others.
BASES = {
    'v3-4k': ('cluster_size=4096,compression_type=zstd', 3 << 20),
    'v3-64k': ('cluster_size=65536,lazy_refcounts=on', 2 << 20),
    'v2-512': ('cluster_size=512,compat=0.10', 100 << 10),
    'v3-1bit': ('cluster_size=512,refcount_bits=1', 40 << 10),
    'v3-64bit': ('cluster_size=1024,refcount_bits=64', 200 << 10),
}


def number(data, offset, length):
    return int.from_bytes(data[offset:offset + length], 'big')


def put(data, offset, length, value):
    data[offset:offset + length] = (value & ((1 << (8 * length)) - 1)).to_bytes(length, 'big')


class Field:
    def __init__(self, name, offset, length, kind):
        self.name, self.offset, self.length, self.kind = name, offset, length, kind


class Image:
    """An image's bytes and where what is in it."""

    def __init__(self, path):
        with open(path, 'rb') as file:
            self.data = bytearray(file.read())
        self.version = self.header('version')
        self.cluster = 1 << self.header('cluster_bits')
        self.width = 1 << (self.header('refcount_order') if self.version == 3 else 4)

    def header(self, name):
        _, offset, length = next(field for field in HEADER if field[0] == name)
        return number(self.data, offset, length)

    def table(self, offset, count):
        return [number(self.data, offset + 8 * index, 8) for index in range(count)]

    def extensions(self):
        """(offset, type, length) of each, the end marker included."""
        at = self.header('header_length') if self.version == 3 else 72
        found = []
        while at + 8 <= self.cluster:
            kind, length = struct.unpack_from('>II', self.data, at)
            found.append((at, kind, length))
            if kind == 0:
                break
            at += 8 + (length + 7) // 8 * 8
        return found

    def add_extension(self, kind, content):
        """In front of the others. The backing file's name moves up."""
        at = self.extensions()[0][0]
        new = struct.pack('>II', kind, len(content)) + content + bytes(-len(content) % 8)
        name_offset = self.header('backing_file_offset')
        self.data[at:self.cluster] = new + self.data[at:self.cluster - len(new)]
        if name_offset:
            put(self.data, 8, 8, name_offset + len(new))

    def l2_tables(self):
        entries = self.table(self.header('l1_table_offset'), self.header('l1_size'))
        return [entry & OFFSET_MASK for entry in entries if entry]

    def refcount_blocks(self):
        count = self.header('refcount_table_clusters') * self.cluster // 8
        return [entry for entry in self.table(self.header('refcount_table_offset'), count) if entry]

    def metadata(self):
        """Offsets of the clusters that no guest data belongs into."""
        tables = [(0, self.cluster), (self.header('l1_table_offset'), 8 * self.header('l1_size')),
                  (self.header('refcount_table_offset'),
                   self.header('refcount_table_clusters') * self.cluster)]
        tables += [(offset, self.cluster) for offset in self.l2_tables() + self.refcount_blocks()]
        return sorted({at for start, length in tables
                       for at in range(start, start + length, self.cluster)})

    def fields(self):
        known = [Field(name, offset, length, 'header') for name, offset, length in HEADER
                 if offset < 72 or self.version == 3]
        for index, (at, _, _) in enumerate(self.extensions()):
            known += [Field(f'extension{index}.type', at, 4, 'extension'),
                      Field(f'extension{index}.length', at + 4, 4, 'extension')]
        for index in range(min(3, self.header('l1_size'))):
            known.append(Field(f'l1[{index}]', self.header('l1_table_offset') + 8 * index, 8, 'l1'))
        for table in self.l2_tables()[:1]:
            # The order of build(): data, zero, zero in its place, compressed twice, nothing.
            for index, what in enumerate(['data', 'data', 'zero', 'zero_data', 'coded', 'coded', 'none']):
                known.append(Field(f'l2[{index}].{what}', table + 8 * index, 8, 'l2'))
        for index in range(2):
            known.append(Field(f'refcount_table[{index}]',
                               self.header('refcount_table_offset') + 8 * index, 8, 'refcount_table'))
        for index in range(0, 24, 3):
            bytes_ = max(self.width // 8, 1)
            known.append(Field(f'refcount[{index}]', self.refcount_blocks()[0] + index * bytes_,
                               bytes_, 'refcount'))
        name = self.header('backing_file_offset')
        if name:
            known.append(Field('backing_file_name', name, self.header('backing_file_size'), 'name'))
        known.append(Field('coded_data', self.coded_offset(), 8, 'content'))
        return known

    def coded_offset(self):
        entry = number(self.data, self.l2_tables()[0] + 8 * 4, 8)
        bits = self.cluster.bit_length() - 1
        return entry & ((1 << (62 - (bits - 8))) - 1)


def build(where, name):
    options, size = BASES[name]
    path = os.path.join(where, name + '.qcow2')
    base = os.path.join(where, 'base.raw')
    if not os.path.exists(base):
        with open(base, 'wb') as file:
            file.write(b'\x33' * (1 << 20))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, '-b', 'base.raw', '-F', 'raw',
                    path, str(size)], check=True, cwd=where)
    cluster = 1 << number(open(path, 'rb').read(24), 20, 4)
    zero = ['-c', f'write -q -z {2 * cluster} {2 * cluster}'] if 'compat=0.10' not in options else []
    subprocess.run(['qemu-io', '-f', 'qcow2', '-c', f'write -q -P 1 0 {2 * cluster}',
                    '-c', f'write -q -P 2 {3 * cluster} {cluster}', *zero,
                    '-c', f'write -q -c -P 3 {4 * cluster} {cluster}',
                    '-c', f'write -q -c -P 4 {5 * cluster} {cluster}',
                    '-c', f'write -q -P 5 {size - cluster} {cluster}', path], check=True, cwd=where)
    image = Image(path)
    image.add_extension(UNKNOWN_EXTENSION, UNKNOWN_BYTES)
    with open(path, 'wb') as file:
        file.write(image.data)
    subprocess.run(['qemu-img', 'check', '-q', path], check=True, cwd=where)
    return image
