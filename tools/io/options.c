/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the commands that make requests have in common: their options, and how they name a range. A
 * command says which options it takes by their letters; what a letter means is said once, here. */
#include <getopt.h>
#include <stdio.h>
#include "tools/io/shell.h"

/* -s and -l of reads name the part that is compared, -s of writes a file. */
static bool take_part(struct ash_shell_request *request, int option)
{
    struct ash_transfer *transfer = &request->transfer;
    if (transfer->op != ASH_READ) {
        request->source = optarg;
        return true;
    }
    request->verify_part = true;
    return ash_shell_size(optarg,
                          option == 's' ? &transfer->verify_offset : &transfer->verify_bytes);
}

static bool take(struct ash_shell_request *request, int option, const char *command)
{
    struct ash_transfer *transfer = &request->transfer;
    switch (option) {
    case 'b':
        transfer->vm_state = true;
        return true;
    case 'c':
        request->compress = true;
        return true;
    case 'C':
        transfer->machine = true;
        return true;
    case 'f':
        transfer->flags |= ASH_REQ_FUA;
        return true;
    case 'i':
        request->inject = true;
        return true;
    case 'n':
        transfer->flags |= ASH_REQ_NO_FALLBACK;
        return true;
    case 'p': /* what once meant another way to the same place */
        return true;
    case 'q':
        transfer->quiet = true;
        return true;
    case 'u':
        transfer->flags |= ASH_REQ_UNMAP;
        return true;
    case 'v':
        transfer->dump = true;
        return true;
    case 'z':
        request->zeroes = true;
        return true;
    case 'P':
        transfer->has_pattern = true;
        return ash_shell_pattern(optarg, &transfer->pattern);
    case 's':
    case 'l':
        return take_part(request, option);
    default:
        return ash_command_usage(command);
    }
}

bool ash_shell_request_options(struct ash_shell_request *request, const char *command,
                               const char *letters, int argc, char **argv)
{
    int option;
    while (!request->inject && (option = getopt(argc, argv, letters)) != -1) {
        if (!take(request, option, command)) {
            return false;
        }
    }
    return true;
}

uint8_t ash_shell_request_fill(const struct ash_shell_request *request)
{
    if (request->transfer.op == ASH_READ) {
        return ASH_SHELL_READ_FILL;
    }
    return request->transfer.has_pattern ? request->transfer.pattern : ASH_SHELL_WRITE_FILL;
}

bool ash_shell_request_vector(struct ash_shell_request *request, int argc, char **argv)
{
    struct ash_transfer *transfer = &request->transfer;
    if (ash_shell_size(argv[0], &transfer->offset) &&
        ash_transfer_pieces(transfer, argc - 1, argv + 1) &&
        ash_transfer_buffer(transfer, ash_shell_request_fill(request))) {
        return true;
    }
    ash_transfer_clear(transfer);
    return false;
}
