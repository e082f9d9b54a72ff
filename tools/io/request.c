/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that make one request and wait for it: read, readv, write, writev, discard, flush. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/shell.h"

static bool is_whole_sectors(uint64_t value, const char *what)
{
    if (value % 512 != 0) {
        printf("%" PRIu64 " is not a sector-aligned value for '%s'\n", value, what);
        return false;
    }
    return true;
}

static bool take_offset_and_length(struct ash_transfer *transfer, char **argv, bool sectors,
                                   const char *unless)
{
    if (!ash_shell_size(argv[0], &transfer->offset) || !ash_shell_size(argv[1], &transfer->bytes)) {
        return false;
    }
    if (transfer->bytes > ASH_SHELL_BYTES_MAX && unless != NULL) {
        printf("length cannot exceed %" PRIu64 "%s, given %s\n", ASH_SHELL_BYTES_MAX, unless,
               argv[1]);
        return false;
    }
    return !sectors || (is_whole_sectors(transfer->offset, "offset") &&
                        is_whole_sectors(transfer->bytes, "count"));
}

/* Runs it and says how it went. */
static bool finish(struct ash_transfer *transfer)
{
    ash_transfer_run(transfer);
    bool right = ash_transfer_report(transfer);
    ash_transfer_clear(transfer);
    return right;
}

/* -s and -l of read: which part is compared. */
static bool check_verified(struct ash_transfer *transfer)
{
    if (transfer->verify_offset > transfer->bytes ||
        transfer->verify_bytes > transfer->bytes - transfer->verify_offset) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

bool ash_shell_read(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_request request = {
        .transfer = {.shell = shell, .name = "read", .done = "read", .op = ASH_READ}};
    struct ash_transfer *transfer = &request.transfer;
    if (!ash_shell_request_options(&request, "read", "bCl:pP:qs:v", argc, argv)) {
        return false;
    }
    if (optind != argc - 2 || (request.verify_part && !transfer->has_pattern)) {
        return ash_command_usage("read");
    }
    if (!take_offset_and_length(transfer, argv + optind, transfer->vm_state, "") ||
        !check_verified(transfer) ||
        !ash_transfer_buffer(transfer, ash_shell_request_fill(&request))) {
        return false;
    }
    return finish(transfer);
}

/* readv and writev. */
static bool run_vector(struct ash_shell_request *request, const char *letters, int argc,
                       char **argv)
{
    const char *name = request->transfer.name;
    if (!ash_shell_request_options(request, name, letters, argc, argv)) {
        return false;
    }
    if (optind > argc - 2) {
        return ash_command_usage(name);
    }
    return ash_shell_request_vector(request, argc - optind, argv + optind) &&
           finish(&request->transfer);
}

bool ash_shell_readv(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_request request = {
        .transfer = {.shell = shell, .name = "readv", .done = "read", .op = ASH_READ}};
    return run_vector(&request, "CP:qv", argc, argv);
}

bool ash_shell_writev(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_request request = {
        .transfer = {.shell = shell, .name = "writev", .done = "wrote", .op = ASH_WRITE}};
    return run_vector(&request, "CfP:q", argc, argv);
}

/* Fills the buffer with a file's bytes, again and again. */
static bool fill_from_file(struct ash_transfer *transfer, const char *filename)
{
    FILE *file = fopen(filename, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", filename, strerror(errno));
        return false;
    }
    char *data = transfer->buffer;
    errno = 0;
    size_t got = fread(data, 1, transfer->bytes, file);
    if (ferror(file) != 0) {
        fprintf(stderr, "%s: %s\n", filename, strerror(errno));
    } else if (got == 0) {
        fprintf(stderr, "%s: file is empty\n", filename);
    }
    bool right = ferror(file) == 0 && got > 0;
    fclose(file);
    for (uint64_t at = got; right && at < transfer->bytes; at += got) {
        uint64_t left = transfer->bytes - at;
        memcpy(data + at, data, left < got ? left : got);
    }
    return right;
}

/* Which options go together. */
static bool check_write(const struct ash_shell_request *write)
{
    const struct ash_transfer *transfer = &write->transfer;
    const char *wrong = NULL;
    if (transfer->vm_state && write->zeroes) {
        wrong = "-b and -z cannot be specified at the same time";
    } else if ((transfer->flags & ASH_REQ_FUA) != 0 && (transfer->vm_state || write->compress)) {
        wrong = "-f and -b or -c cannot be specified at the same time";
    } else if ((transfer->flags & ASH_REQ_NO_FALLBACK) != 0 && !write->zeroes) {
        wrong = "-n requires -z to be specified";
    } else if ((transfer->flags & ASH_REQ_UNMAP) != 0 && !write->zeroes) {
        wrong = "-u requires -z to be specified";
    } else if (write->zeroes + transfer->has_pattern + (write->source != NULL) > 1) {
        wrong = "Only one of -z, -P, and -s can be specified at the same time";
    }
    if (wrong != NULL) {
        printf("%s\n", wrong);
    }
    return wrong == NULL;
}

bool ash_shell_write(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_request write = {
        .transfer = {.shell = shell, .name = "write", .done = "wrote", .op = ASH_WRITE}};
    struct ash_transfer *transfer = &write.transfer;
    if (!ash_shell_request_options(&write, "write", "bcCfnpP:qs:uz", argc, argv)) {
        return false;
    }
    if (optind != argc - 2) {
        return ash_command_usage("write");
    }
    /* Only zeroes that nobody writes one by one may be more than a buffer could hold. */
    const char *unless = (transfer->flags & ASH_REQ_NO_FALLBACK) != 0 ? NULL : " without -n";
    if (!check_write(&write) ||
        !take_offset_and_length(transfer, argv + optind, transfer->vm_state || write.compress,
                                unless)) {
        return false;
    }
    if (write.zeroes) {
        transfer->op = ASH_ZERO;
    } else {
        transfer->flags |= write.compress ? ASH_IO_COMPRESS : 0;
        if (!ash_transfer_buffer(transfer, ash_shell_request_fill(&write)) ||
            (write.source != NULL && !fill_from_file(transfer, write.source))) {
            ash_transfer_clear(transfer);
            return false;
        }
    }
    return finish(transfer);
}

bool ash_shell_discard(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_request request = {
        .transfer = {.shell = shell, .name = "discard", .done = "discard", .op = ASH_DISCARD}};
    if (!ash_shell_request_options(&request, "discard", "Cq", argc, argv)) {
        return false;
    }
    if (optind != argc - 2) {
        return ash_command_usage("discard");
    }
    return take_offset_and_length(&request.transfer, argv + optind, false, "") &&
           finish(&request.transfer);
}

ASH_CO_FN static int flush_co(void *opaque)
{
    return ash_disk_flush(opaque);
}

bool ash_shell_flush(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    int ret = ash_loop_run_sync(shell->loop, flush_co, shell->disk);
    if (ret < 0) {
        ash_tool_error("Flushing '%s' failed: %s", shell->filename, strerror(-ret));
    }
    return ret == 0;
}
