#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""binding.py LIBASHLAR.SO: uses the shared library by ctypes alone, as any language's binding would:
opens, writes, reads back, verifies, and hears of errors. The structs are declared from the headers by
hand once; that they are plain is the point."""
import ctypes
import errno
import os
import sys
import tempfile
from ctypes import (CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_int, c_int32, c_int64,
                    c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, sizeof)

READ, WRITE, FLUSH, DISCARD, ZERO, STATUS = range(6)
DISK_WRITE = 1
RESIZE_SHRINK = 1
MIB = 1 << 20


class Error(Structure):
    _fields_ = [('size', c_uint32), ('code', c_int32), ('message', c_char * 1016)]


class Iovec(Structure):
    _fields_ = [('base', c_void_p), ('bytes', c_size_t)]


LOG = CFUNCTYPE(None, c_void_p, c_int, c_char_p)


class Hooks(Structure):
    _fields_ = [('size', c_uint32), ('reserved', c_uint32), ('opaque', c_void_p), ('log', LOG),
                ('fatal', c_void_p), ('alloc', c_void_p), ('free', c_void_p), ('open_file', c_void_p),
                ('thread_started', c_void_p)]


class LoopConfig(Structure):
    _fields_ = [('size', c_uint32), ('flags', c_uint32), ('engine', c_char_p), ('depth', c_uint32),
                ('workers', c_uint32), ('busy_poll_ns', c_uint64), ('metadata_bytes_max', c_uint64),
                ('hooks', POINTER(Hooks))]


class DiskOptions(Structure):
    _fields_ = [('size', c_uint32), ('flags', c_uint32), ('format', c_char_p), ('cache', c_char_p)]


class DiskInfo(Structure):
    _fields_ = [('size', c_uint32), ('flags', c_uint32), ('bytes', c_uint64),
                ('request_alignment_bytes', c_uint32), ('memory_alignment_bytes', c_uint32),
                ('optimal_bytes', c_uint32), ('cluster_bytes', c_uint32),
                ('transfer_bytes_max', c_uint64), ('discard_bytes_max', c_uint64),
                ('zero_bytes_max', c_uint64), ('discard_alignment_bytes', c_uint32),
                ('reserved', c_uint32)]


class Req(Structure):
    _fields_ = [('op', c_uint8), ('reserved0', c_uint8), ('reserved1', c_uint16), ('flags', c_uint32),
                ('offset', c_uint64), ('bytes', c_uint64), ('iov', POINTER(Iovec)),
                ('iov_count', c_uint32), ('reserved2', c_uint32), ('user_data', c_uint64)]


class Cqe(Structure):
    _fields_ = [('user_data', c_uint64), ('result', c_int32), ('reserved', c_uint32),
                ('status_bytes', c_uint64)]


ON_COMPLETE = CFUNCTYPE(None, c_void_p, POINTER(Cqe), c_uint32)
OPENED = CFUNCTYPE(None, c_void_p, c_int, c_void_p, POINTER(Error))


def load(path):
    lib = ctypes.CDLL(path)
    lib.ash_version_string.restype = c_char_p
    lib.ash_loop_engine.restype = c_char_p
    lib.ash_loop_engine.argtypes = [c_void_p]
    lib.ash_loop_new.argtypes = [POINTER(LoopConfig), POINTER(c_void_p), POINTER(Error)]
    lib.ash_loop_bind.argtypes = [c_void_p]
    lib.ash_loop_free.argtypes = [c_void_p]
    lib.ash_loop_run_once.argtypes = [c_void_p, c_int64, c_uint32]
    lib.ash_memory_add.argtypes = [c_void_p, c_void_p, c_size_t, c_uint32, POINTER(c_uint32)]
    lib.ash_memory_remove.argtypes = [c_void_p, c_uint32]
    lib.ash_disk_open.argtypes = [c_void_p, c_char_p, POINTER(DiskOptions), OPENED, c_void_p]
    lib.ash_disk_open_sync.argtypes = [c_void_p, c_char_p, POINTER(DiskOptions), POINTER(c_void_p),
                                       POINTER(Error)]
    lib.ash_disk_close_sync.argtypes = [c_void_p, POINTER(Error)]
    lib.ash_disk_resize_sync.argtypes = [c_void_p, c_uint64, c_uint32, POINTER(Error)]
    lib.ash_disk_info.argtypes = [c_void_p, POINTER(DiskInfo)]
    lib.ash_queue_new.argtypes = [c_void_p, c_uint32, POINTER(c_void_p), POINTER(Error)]
    lib.ash_queue_submit.argtypes = [c_void_p, POINTER(Req), c_uint32]
    lib.ash_queue_reap.argtypes = [c_void_p, POINTER(Cqe), c_uint32]
    lib.ash_queue_on_complete.argtypes = [c_void_p, ON_COMPLETE, c_void_p]
    lib.ash_queue_free.argtypes = [c_void_p]
    return lib


def new_error():
    return Error(size=sizeof(Error))


def check(ret, error=None):
    if ret < 0:
        sys.exit(f'binding: {errno.errorcode.get(-ret, ret)} {error.message.decode() if error else ""}')
    return ret


def block(offset, buffer, op, mark):
    vec = (Iovec * 1)(Iovec(ctypes.addressof(buffer), len(buffer)))
    req = Req(op=op, offset=offset, bytes=len(buffer), iov=vec, iov_count=1, user_data=mark)
    return req, vec


def run(lib, loop, queue, requests):
    """Submits a batch and waits; the results by user_data."""
    batch = (Req * len(requests))(*requests)
    assert check(lib.ash_queue_submit(queue, batch, len(batch))) == len(batch)
    results, cqe = {}, (Cqe * 8)()
    while len(results) < len(batch):
        count = lib.ash_queue_reap(queue, cqe, 8)
        for i in range(count):
            assert cqe[i].user_data not in results, 'completed twice'
            results[cqe[i].user_data] = (cqe[i].result, cqe[i].status_bytes)
        if count == 0:
            check(lib.ash_loop_run_once(loop, -1, 0))
    return results


def write_and_verify(lib, loop, queue):
    data = [bytearray(os.urandom(65536)) for _ in range(16)]
    out = [(c_char * 65536).from_buffer(piece) for piece in data]
    memory_id = c_uint32()
    check(lib.ash_memory_add(loop, ctypes.addressof(out[0]) & ~4095, 4096, 0, byref(memory_id)))
    kept = [block(i * 65536, out[i], WRITE, i) for i in range(16)]
    assert all(result == (0, 0) for result in run(lib, loop, queue, [r for r, _ in kept]).values())
    assert run(lib, loop, queue, [Req(op=FLUSH, user_data=99)])[99][0] == 0
    back = [(c_char * 65536)() for _ in range(16)]
    kept = [block(i * 65536, back[i], READ, i) for i in range(16)]
    run(lib, loop, queue, [r for r, _ in kept])
    assert all(back[i].raw == bytes(data[i]) for i in range(16)), 'what was read is not what was written'
    check(lib.ash_memory_remove(loop, memory_id))
    status = run(lib, loop, queue, [Req(op=STATUS, offset=0, bytes=65536, user_data=1)])[1]
    assert status[0] & 1 and status[1] >= 512, status
    beyond, keep = block(1 << 40, back[0], READ, 7)
    assert run(lib, loop, queue, [beyond])[7][0] == -errno.EIO
    del keep
    return b''.join(bytes(piece) for piece in data)


def main():
    lib = load(sys.argv[1])
    assert lib.ash_version_string().count(b'.') == 2
    lines = []
    hooks = Hooks(size=sizeof(Hooks), log=LOG(lambda opaque, level, text: lines.append(text)))
    config = LoopConfig(size=sizeof(LoopConfig), busy_poll_ns=0, hooks=ctypes.pointer(hooks))
    loop, disk, queue, error = c_void_p(), c_void_p(), c_void_p(), new_error()
    check(lib.ash_loop_new(byref(config), byref(loop), byref(error)), error)
    check(lib.ash_loop_bind(loop))
    with tempfile.TemporaryDirectory() as where:
        path = os.path.join(where, 'disk.img')
        with open(path, 'wb') as file:
            file.truncate(MIB)
        options = DiskOptions(size=sizeof(DiskOptions), flags=DISK_WRITE)
        ret = lib.ash_disk_open_sync(loop, b'/no/such/file', byref(options), byref(disk), byref(error))
        assert ret == -errno.ENOENT and error.code == ret and b'/no/such/file' in error.message

        opened = []
        done = OPENED(lambda opaque, ret, disk, error: opened.append((ret, disk)))
        description = ('json:{"driver": "raw", "file": {"driver": "file", "filename": "%s"}}' % path)
        check(lib.ash_disk_open(loop, description.encode(), byref(options), done, None))
        assert not opened, 'called back inside the call'
        while not opened:
            check(lib.ash_loop_run_once(loop, -1, 0))
        assert len(opened) == 1 and opened[0][0] == 0
        disk = c_void_p(opened[0][1])
        info = DiskInfo(size=sizeof(DiskInfo))
        check(lib.ash_disk_info(disk, byref(info)))
        assert info.bytes == MIB and not info.flags & 1
        check(lib.ash_queue_new(disk, 32, byref(queue), byref(error)), error)
        written = write_and_verify(lib, loop, queue)

        seen = []
        callback = ON_COMPLETE(lambda opaque, cqe, count: seen.extend(cqe[i].result for i in range(count)))
        lib.ash_queue_on_complete(queue, callback, None)
        assert check(lib.ash_queue_submit(queue, (Req * 1)(Req(op=FLUSH)), 1)) == 1
        assert not seen
        while not seen:
            check(lib.ash_loop_run_once(loop, -1, 0))
        assert seen == [0]
        check(lib.ash_disk_resize_sync(disk, 2 * MIB, 0, byref(error)), error)
        lib.ash_queue_free(queue)
        check(lib.ash_disk_close_sync(disk, byref(error)), error)
        with open(path, 'rb') as file:
            assert file.read() == written + bytes(MIB), 'the file is not what was written'
    lib.ash_loop_free(loop)
    assert not lines, lines


if __name__ == '__main__':
    main()
