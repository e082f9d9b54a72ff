/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: what O_DIRECT demands of offsets, lengths and memory.
 *
 * The kernel tells (statx), or the sector size of a device tells, or it is found out by reading.
 *
 * Invariants:
 *  1. Only reads of data tell something: file systems serve a hole or the end of a file without
 * looking at the alignment. Where there is no data, the larger of a page and the file system's
 * block is taken, which fits everywhere.
 *  2. A read that fails for another reason than its alignment tells nothing either. */
#include <errno.h>
#include <unistd.h>
#include "block/file/file.h"
#include "util/range.h"

#define PROBE_BYTES ((size_t)4096)
#define ALIGNMENT_MAX ((size_t)64 * 1024)

static const uint32_t candidates[] = {1, 512, 1024, 2048, PROBE_BYTES};

/* One read, in two pieces of which the first is as short as `piece`. */
ASH_CO_FN static int64_t read_once(struct ash_file *file, uint8_t *memory, uint32_t piece,
                                   uint64_t offset, uint32_t bytes)
{
    struct iovec vec[2] = {
        {memory + piece, ASH_MIN(piece, bytes)},
        {memory + 2 * PROBE_BYTES + piece, bytes - ASH_MIN(piece, bytes)},
    };
    struct ash_aio aio = {
        .op = ASH_AIO_READ,
        .file = file,
        .iov = ash_iov_of(vec, vec[1].iov_len > 0 ? 2 : 1),
        .offset = offset,
        .bytes = bytes,
        .adopt_fd = -1,
    };
    return ash_co_aio(file->engine, &aio);
}

/* A place at which data begins that is a multiple of PROBE_BYTES; false if none is found at once.
 */
ASH_CO_FN static bool find_data(struct ash_file *file, uint64_t size, uint64_t *offset)
{
    int64_t data = ash_co_seek(file, SEEK_DATA, 0);
    if (data < 0) {
        return false;
    }
    *offset = ash_align_up((uint64_t)data, PROBE_BYTES);
    if (*offset == (uint64_t)data) {
        return *offset < size;
    }
    int64_t hole = ash_co_seek(file, SEEK_HOLE, (uint64_t)data);
    return hole > 0 && *offset < (uint64_t)hole && *offset < size;
}

ASH_CO_FN static int probe(struct ash_file *file, uint64_t offset, uint8_t *memory,
                           uint32_t *request_alignment, uint32_t *memory_alignment)
{
    int64_t ret = -EINVAL;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(candidates) && ret == -EINVAL; i++) {
        ret = read_once(file, memory, candidates[i], offset, PROBE_BYTES);
        *memory_alignment = candidates[i];
    }
    if (ret < 0) {
        return (int)ret;
    }
    ret = -EINVAL;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(candidates) && ret == -EINVAL; i++) {
        ret = read_once(file, memory, PROBE_BYTES, offset, candidates[i]);
        *request_alignment = candidates[i];
    }
    return ret < 0 ? (int)ret : 0;
}

int ash_file_probe_alignment(struct ash_loop *loop, struct ash_file *file,
                             const struct ash_file_status *about, uint32_t *request_alignment,
                             uint32_t *memory_alignment)
{
    if (ash_is_power_of_2(about->direct_offset_alignment) &&
        ash_is_power_of_2(about->direct_memory_alignment)) {
        *request_alignment = about->direct_offset_alignment;
        *memory_alignment = about->direct_memory_alignment;
        return 0;
    }
    uint32_t block = ash_is_power_of_2(about->block_bytes) ? about->block_bytes : 0;
    if (about->block_device && block != 0) {
        *request_alignment = block;
        *memory_alignment = block;
        return 0;
    }
    uint64_t offset;
    if (find_data(file, about->bytes, &offset)) {
        uint8_t *memory = ash_buffer_alloc(loop, 4 * PROBE_BYTES, 2 * PROBE_BYTES);
        if (memory == NULL) {
            return -ENOMEM;
        }
        int ret = probe(file, offset, memory, request_alignment, memory_alignment);
        ash_buffer_free(loop, memory, 4 * PROBE_BYTES);
        if (ret == 0 || ret == -EINVAL) {
            return ret;
        }
    }
    *request_alignment = ASH_MIN(ASH_MAX(PROBE_BYTES, block), ALIGNMENT_MAX);
    *memory_alignment = PROBE_BYTES;
    return 0;
}
