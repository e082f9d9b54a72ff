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
    struct ash_shell_request request = {
        .transfer = {.shell = shell, .name = "readv", .done = "read", .op = ASH_READ}};
    if (!ash_shell_request_options(&request, "aio_read", "CP:iqv", argc, argv)) {
        return false;
    }
    if (request.inject) {
        printf("injecting invalid read request\n");
        return true;
    }
    if (optind > argc - 2) {
        return ash_command_usage("aio_read");
    }
    return ash_shell_request_vector(&request, argc - optind, argv + optind) &&
           begin(&request.transfer);
}

static bool begin_zeroes(struct ash_transfer *transfer, char **argv)
{
    transfer->op = ASH_ZERO;
    return ash_shell_size(argv[0], &transfer->offset) &&
           ash_shell_size(argv[1], &transfer->bytes) && begin(transfer);
}

bool ash_shell_aio_write(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_request request = {
        .transfer = {.shell = shell, .name = "aio_write", .done = "wrote", .op = ASH_WRITE}};
    if (!ash_shell_request_options(&request, "aio_write", "CfiP:quz", argc, argv)) {
        return false;
    }
    if (request.inject) {
        printf("injecting invalid write request\n");
        return true;
    }
    if (optind > argc - 2) {
        return ash_command_usage("aio_write");
    }
    if (request.zeroes && optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return false;
    }
    if ((request.transfer.flags & ASH_REQ_UNMAP) != 0 && !request.zeroes) {
        printf("-u requires -z to be specified\n");
        return false;
    }
    if (request.zeroes) {
        return begin_zeroes(&request.transfer, argv + optind);
    }
    return ash_shell_request_vector(&request, argc - optind, argv + optind) &&
           begin(&request.transfer);
}

bool ash_shell_aio_flush(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    ash_shell_wait(shell);
    return true;
}
