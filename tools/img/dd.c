/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dd: copies a part of an image into a new one, block by block.
 *
 * As users of qemu-img know it, `count` is counted from the start of the input, so that blocks that
 * are skipped count. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/image/image.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"
#include "util/range.h"

#define BLOCK_BYTES_DEFAULT 512u
/* Small blocks are moved several at a time. */
#define MOVE_BYTES (1 * MiB)

struct dd {
    struct ash_tool_image input;
    struct ash_tool_image output;
    const char *output_format;
    uint64_t block_bytes;
    uint64_t count; /* UINT64_MAX: all */
    uint64_t skip;
};

/* Copies [from, end) of the input to the start of the output. */
ASH_CO_FN static int copy(const struct dd *dd, struct ash_disk *input, struct ash_disk *output,
                          uint64_t from, uint64_t end)
{
    struct ash_loop *loop = ash_co_loop();
    uint64_t step = ASH_MAX(MOVE_BYTES, dd->block_bytes);
    uint8_t *buffer = ash_buffer_alloc(loop, step, 4096);
    if (buffer == NULL) {
        ash_tool_error("No memory for a block of %" PRIu64 " bytes", step);
        return 1;
    }
    int ret = 0;
    for (uint64_t at = from; at < end && ret == 0 && !ash_tool_interrupted(); at += step) {
        uint64_t bytes = ASH_MIN(step, end - at);
        ret = ash_tool_read(input, at, buffer, bytes);
        if (ret < 0) {
            ash_tool_error("error while reading from input image file '%s' at offset %" PRIu64
                           ": %s",
                           dd->input.filename, at, strerror(-ret));
            break;
        }
        ret = ash_disk_write(output, at - from, buffer, bytes, 0);
        if (ret < 0) {
            ash_tool_error("error while writing to output image file '%s' at offset %" PRIu64
                           ": %s",
                           dd->output.filename, at - from, strerror(-ret));
        }
    }
    ash_buffer_free(loop, buffer, step);
    return ret < 0 || ash_tool_interrupted() ? 1 : 0;
}

ASH_CO_FN static int make_output(const struct dd *dd, struct ash_disk *input, uint64_t from,
                                 uint64_t end)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_tool_reads_from(input, dd->output.filename)) {
        ash_tool_error("%s: it is a file of the input '%s', and would be lost", dd->output.filename,
                       dd->input.filename);
        return 1;
    }
    int ret = ash_image_create(ash_co_loop(), dd->output.filename, dd->output_format, end - from,
                               NULL, &error);
    if (ret < 0) {
        ash_tool_error("%s: error while creating output image: %s", dd->output.filename,
                       error.message);
        return 1;
    }
    struct ash_disk *output = ash_tool_open(&dd->output);
    int status = output != NULL ? copy(dd, input, output, from, end) : 1;
    if (ash_tool_close(output, dd->output.filename) < 0) {
        status = 1;
    }
    if (status != 0) {
        ash_tool_remove_made(dd->output.filename);
    }
    return status;
}

ASH_CO_FN static int dd_co(void *opaque)
{
    const struct dd *dd = opaque;
    struct ash_disk *input = ash_tool_open(&dd->input);
    if (input == NULL) {
        return 1;
    }
    uint64_t end = ash_tool_bytes(input);
    uint64_t bound, from;
    if (!__builtin_mul_overflow(dd->count, dd->block_bytes, &bound)) {
        end = ASH_MIN(end, bound);
    }
    if (__builtin_mul_overflow(dd->skip, dd->block_bytes, &from) || from > end) {
        ash_tool_error("%s: cannot skip to specified offset", dd->input.filename);
        from = end;
    }
    int status = make_output(dd, input, from, end);
    return ash_tool_close(input, dd->input.filename) < 0 ? 1 : status;
}

/* One "name=value". */
static bool take_operand(struct dd *dd, char *operand)
{
    char *equals = strchr(operand, '=');
    if (equals == NULL) {
        ash_tool_error("unrecognized operand %s", operand);
        return false;
    }
    *equals = '\0';
    const char *value = equals + 1;
    if (strcmp(operand, "if") == 0) {
        dd->input.filename = value;
    } else if (strcmp(operand, "of") == 0) {
        dd->output.filename = value;
    } else if (strcmp(operand, "bs") == 0) {
        return ash_tool_size(value, "bs", 1, INT32_MAX, &dd->block_bytes);
    } else if (strcmp(operand, "count") == 0) {
        return ash_tool_size(value, "count", 0, INT64_MAX, &dd->count);
    } else if (strcmp(operand, "skip") == 0) {
        return ash_tool_size(value, "skip", 0, INT64_MAX, &dd->skip);
    } else {
        ash_tool_error("unrecognized operand %s", operand);
        return false;
    }
    return true;
}

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
};

static int run_dd(struct dd *dd, int argc, char **argv)
{
    for (int i = optind; i < argc; i++) {
        if (!take_operand(dd, argv[i])) {
            return 1;
        }
    }
    if (dd->input.filename == NULL || dd->output.filename == NULL) {
        ash_tool_error("Must specify both input and output files");
        return 1;
    }
    if (dd->input.image_opts && dd->input.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return 1;
    }
    dd->output.format = dd->output_format;
    ash_tool_catch_signals();
    return ash_tool_run(dd_co, dd, 1);
}

int ash_img_dd(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {NULL, 0, NULL, 0},
    };
    struct dd dd = {
        .output_format = "raw",
        .output.flags = ASH_NODE_WRITE,
        .block_bytes = BLOCK_BYTES_DEFAULT,
        .count = UINT64_MAX,
    };
    int c;
    while ((c = getopt_long(argc, argv, ":hf:O:U", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            return ash_img_help("dd");
        case 'f':
            dd.input.format = optarg;
            break;
        case 'O':
            dd.output_format = optarg;
            break;
        case 'U':
            dd.input.flags |= ASH_NODE_FORCE_SHARE;
            break;
        case OPTION_OBJECT:
            if (!ash_tool_object(optarg)) {
                return 1;
            }
            break;
        case OPTION_IMAGE_OPTS:
            dd.input.image_opts = true;
            break;
        default:
            return ash_tool_bad_option(c, argv);
        }
    }
    return run_dd(&dd, argc, argv);
}
