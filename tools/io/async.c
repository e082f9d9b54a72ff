/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asynchronous requests. Each is a coroutine that owns its transfer, says how it went when it is
 * done, and wakes who waits when it was the last. A failure is told and changes no exit status: the
 * command was to begin the request, and did. */
#include <getopt.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/shell.h"

ASH_CO_FN static void transfer_main(void *opaque)
{
    struct ash_transfer *transfer = opaque;
    struct ash_shell *shell = transfer->shell;
    ash_transfer_co(transfer);
    ash_transfer_report(transfer);
    ash_transfer_clear(transfer);
    g_free(transfer);
    if (--shell->in_flight == 0) {
        ash_co_queue_wake_all(&shell->idle);
    }
}

/* Takes over what `transfer` holds. */
static bool begin(const struct ash_transfer *transfer)
{
    struct ash_shell *shell = transfer->shell;
    struct ash_transfer *own = g_new(struct ash_transfer, 1);
    *own = *transfer;
    int ret = ash_co_spawn(&shell->loop->sched, transfer_main, own);
    if (ret < 0) {
        printf("%s failed: %s\n", own->name, strerror(-ret));
        ash_transfer_clear(own);
        g_free(own);
        return false;
    }
    shell->in_flight++;
    ash_loop_kick(shell->loop);
    return true;
}

bool ash_shell_aio_read(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_transfer transfer = {
        .shell = shell, .name = "readv", .done = "read", .op = ASH_READ};
    int c;
    while ((c = getopt(argc, argv, "CP:iqv")) != -1) {
        switch (c) {
        case 'C':
            transfer.machine = true;
            break;
        case 'i':
            printf("injecting invalid read request\n");
            return true;
        case 'q':
            transfer.quiet = true;
            break;
        case 'v':
            transfer.dump = true;
            break;
        case 'P':
            transfer.has_pattern = true;
            if (!ash_shell_pattern(optarg, &transfer.pattern)) {
                return false;
            }
            break;
        default:
            return ash_command_usage("aio_read");
        }
    }
    if (optind > argc - 2) {
        return ash_command_usage("aio_read");
    }
    if (!ash_shell_size(argv[optind], &transfer.offset) ||
        !ash_transfer_pieces(&transfer, argc - optind - 1, argv + optind + 1) ||
        !ash_transfer_buffer(&transfer, ASH_SHELL_READ_FILL)) {
        ash_transfer_clear(&transfer);
        return false;
    }
    return begin(&transfer);
}

static bool begin_zeroes(struct ash_transfer *transfer, char **argv)
{
    transfer->op = ASH_ZERO;
    return ash_shell_size(argv[0], &transfer->offset) &&
           ash_shell_size(argv[1], &transfer->bytes) && begin(transfer);
}

static bool begin_write(struct ash_transfer *transfer, int argc, char **argv)
{
    if (!ash_shell_size(argv[0], &transfer->offset) ||
        !ash_transfer_pieces(transfer, argc - 1, argv + 1) ||
        !ash_transfer_buffer(transfer,
                             transfer->has_pattern ? transfer->pattern : ASH_SHELL_WRITE_FILL)) {
        ash_transfer_clear(transfer);
        return false;
    }
    return begin(transfer);
}

bool ash_shell_aio_write(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_transfer transfer = {
        .shell = shell, .name = "aio_write", .done = "wrote", .op = ASH_WRITE};
    bool zeroes = false;
    int c;
    while ((c = getopt(argc, argv, "CfiP:quz")) != -1) {
        switch (c) {
        case 'C':
            transfer.machine = true;
            break;
        case 'f':
            transfer.flags |= ASH_REQ_FUA;
            break;
        case 'i':
            printf("injecting invalid write request\n");
            return true;
        case 'q':
            transfer.quiet = true;
            break;
        case 'u':
            transfer.flags |= ASH_REQ_UNMAP;
            break;
        case 'z':
            zeroes = true;
            break;
        case 'P':
            transfer.has_pattern = true;
            if (!ash_shell_pattern(optarg, &transfer.pattern)) {
                return false;
            }
            break;
        default:
            return ash_command_usage("aio_write");
        }
    }
    if (optind > argc - 2) {
        return ash_command_usage("aio_write");
    }
    if (zeroes && optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return false;
    }
    if ((transfer.flags & ASH_REQ_UNMAP) != 0 && !zeroes) {
        printf("-u requires -z to be specified\n");
        return false;
    }
    return zeroes ? begin_zeroes(&transfer, argv + optind)
                  : begin_write(&transfer, argc - optind, argv + optind);
}

bool ash_shell_aio_flush(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    ash_shell_wait(shell);
    return true;
}
