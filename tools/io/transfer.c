/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A transfer: one request to the disk, the memory for it, and what is said about it.
 *
 *  1. The buffer is filled before the clock starts, so its pages are there and only the request is
 *     measured; and what a read did not deliver shows as a value of its own.
 *  2. Users of images know whole sectors of 512 bytes only. A disk that ends within one reads as
 *     zeroes from there on, and a write into the rest makes it longer. */
#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/shell.h"
#include "util/range.h"

#define NS_PER_S UINT64_C(1000000000)
#define DUMP_COLUMNS 16

/* Any multiple of 16 that is none of what O_DIRECT wants. */
#define MISALIGNED_BY 16

static size_t alignment_of(const struct ash_shell *shell)
{
    return ASH_MAX(4096u, ash_disk_node(shell->disk)->limits.memory_alignment);
}

/* The vector, or the buffer, as one cursor; `one` must live as long. */
static struct ash_iov cursor(const struct ash_transfer *transfer, struct iovec *one)
{
    *one = (struct iovec){transfer->buffer, transfer->bytes};
    return transfer->vec != NULL ? ash_iov_of(transfer->vec, transfer->vec_count)
                                 : ash_iov_of(one, 1);
}

bool ash_transfer_buffer(struct ash_transfer *transfer, uint8_t fill)
{
    const struct ash_shell *shell = transfer->shell;
    size_t skip = shell->misalign ? MISALIGNED_BY : 0;
    transfer->buffer_bytes = ASH_MAX(transfer->bytes, 1u) + skip;
    char *memory = ash_buffer_alloc(shell->loop, transfer->buffer_bytes, alignment_of(shell));
    if (memory == NULL) {
        ash_tool_error("'%s': no memory for a buffer of %" PRIu64 " bytes", shell->filename,
                       transfer->bytes);
        return false;
    }
    transfer->buffer = memory + skip;
    memset(transfer->buffer, fill, transfer->bytes);
    char *piece = transfer->buffer;
    for (uint32_t i = 0; i < transfer->vec_count; i++) {
        transfer->vec[i].iov_base = piece;
        piece += transfer->vec[i].iov_len;
    }
    return true;
}

void ash_transfer_clear(struct ash_transfer *transfer)
{
    if (transfer->buffer != NULL) {
        size_t skip = transfer->shell->misalign ? MISALIGNED_BY : 0;
        ash_buffer_free(transfer->shell->loop, (char *)transfer->buffer - skip,
                        transfer->buffer_bytes);
    }
    g_free(transfer->vec);
    transfer->buffer = NULL;
    transfer->vec = NULL;
}

bool ash_transfer_pieces(struct ash_transfer *transfer, int argc, char **argv)
{
    transfer->vec = g_new0(struct iovec, argc);
    transfer->vec_count = 0;
    transfer->bytes = 0;
    for (int i = 0; i < argc; i++) {
        uint64_t bytes;
        if (!ash_shell_size(argv[i], &bytes)) {
            return false;
        }
        if (bytes > ASH_SHELL_BYTES_MAX) {
            printf("Argument '%s' exceeds maximum size %" PRIu64 "\n", argv[i],
                   ASH_SHELL_BYTES_MAX);
            return false;
        }
        if (bytes > ASH_SHELL_BYTES_MAX - transfer->bytes) {
            printf("The total number of bytes exceed the maximum size %" PRIu64 "\n",
                   ASH_SHELL_BYTES_MAX);
            return false;
        }
        transfer->vec[transfer->vec_count++].iov_len = bytes;
        transfer->bytes += bytes;
    }
    return true;
}

/* What lies between the end of the disk and the end of its last sector. */
ASH_CO_FN static int reach_end(struct ash_transfer *transfer, struct ash_io *io)
{
    struct ash_disk *disk = transfer->shell->disk;
    uint64_t end = io->offset + io->bytes;
    if (io->op == ASH_WRITE || io->op == ASH_ZERO) {
        int ret = ash_co_disk_resize(disk, end, 0, 0, NULL);
        /* Another request may have made it longer meanwhile, which is as good. */
        return end <= ash_disk_bytes(disk) ? 0 : ret;
    }
    uint64_t inside = io->offset < ash_disk_bytes(disk) ? ash_disk_bytes(disk) - io->offset : 0;
    if (io->op == ASH_READ) {
        ash_iov_fill(ash_iov_advance(io->iov, inside), 0, io->bytes - inside);
    }
    io->bytes = inside;
    return 0;
}

ASH_CO_FN static int transfer_io(struct ash_transfer *transfer)
{
    struct ash_disk *disk = transfer->shell->disk;
    struct iovec one;
    struct ash_io io = {.op = transfer->op,
                        .flags = transfer->flags,
                        .offset = transfer->offset,
                        .bytes = transfer->bytes,
                        .iov = cursor(transfer, &one)};
    if (transfer->vm_state) {
        return -ENOTSUP;
    }
    if (!ash_range_valid(io.offset, io.bytes) || io.offset + io.bytes > ash_tool_bytes(disk)) {
        return -EIO;
    }
    if (io.offset + io.bytes > ash_disk_bytes(disk)) {
        int ret = reach_end(transfer, &io);
        if (ret < 0 || io.bytes == 0) {
            return ret;
        }
    }
    return ash_disk_io(disk, &io);
}

void ash_transfer_co(struct ash_transfer *transfer)
{
    uint64_t begin_ns = ash_loop_now(transfer->shell->loop);
    transfer->result = transfer_io(transfer);
    transfer->elapsed_ns = ash_loop_now(transfer->shell->loop) - begin_ns;
}

ASH_CO_FN static int run_co(void *opaque)
{
    ash_transfer_co(opaque);
    return 0;
}

void ash_transfer_run(struct ash_transfer *transfer)
{
    int ret = ash_loop_run_sync(transfer->shell->loop, run_co, transfer);
    if (ret < 0) {
        transfer->result = ret;
    }
}

static bool verify(const struct ash_transfer *transfer)
{
    uint64_t bytes = transfer->verify_bytes;
    if (bytes == 0) {
        bytes = transfer->bytes - transfer->verify_offset;
    }
    const uint8_t *data = (const uint8_t *)transfer->buffer + transfer->verify_offset;
    if (bytes == 0 || (data[0] == transfer->pattern && memcmp(data, data + 1, bytes - 1) == 0)) {
        return true;
    }
    printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
           transfer->offset + transfer->verify_offset, bytes);
    return false;
}

static void dump(const struct ash_transfer *transfer)
{
    const uint8_t *data = transfer->buffer;
    for (uint64_t i = 0; i < transfer->bytes; i += DUMP_COLUMNS) {
        uint64_t count = ASH_MIN(transfer->bytes - i, (uint64_t)DUMP_COLUMNS);
        printf("%08" PRIx64 ":  ", transfer->offset + i);
        for (uint64_t k = 0; k < count; k++) {
            printf("%02x ", data[i + k]);
        }
        putchar(' ');
        for (uint64_t k = 0; k < count; k++) {
            putchar(isascii(data[i + k]) && isalnum(data[i + k]) ? data[i + k] : '.');
        }
        putchar('\n');
    }
}

static void print_statistics(const struct ash_transfer *transfer)
{
    uint64_t elapsed_ns = ASH_MAX(transfer->elapsed_ns, 1u);
    uint64_t seconds = elapsed_ns / NS_PER_S;
    unsigned hundredths = (unsigned)(elapsed_ns % NS_PER_S / (NS_PER_S / 100));
    double per_second = (double)NS_PER_S / (double)elapsed_ns;
    char time[48], size[64], rate[64];
    if (seconds == 0 && !transfer->machine) {
        snprintf(time, sizeof(time), "00.%02u sec", hundredths);
    } else {
        snprintf(time, sizeof(time), "%" PRIu64 ":%02u:%02u.%02u", seconds / 3600,
                 (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60), hundredths);
    }
    if (transfer->machine) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", transfer->bytes, time,
               (double)transfer->bytes * per_second, per_second);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", transfer->done,
           transfer->bytes, transfer->bytes, transfer->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
           ash_shell_bytes((double)transfer->bytes, size), time,
           ash_shell_bytes((double)transfer->bytes * per_second, rate), per_second);
}

bool ash_transfer_report(const struct ash_transfer *transfer)
{
    if (transfer->result < 0) {
        printf("%s failed: %s\n", transfer->name, strerror(-transfer->result));
        return false;
    }
    bool right = transfer->op != ASH_READ || !transfer->has_pattern || verify(transfer);
    if (!transfer->quiet) {
        if (transfer->dump) {
            dump(transfer);
        }
        print_statistics(transfer);
    }
    return right;
}
