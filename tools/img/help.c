/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands of ashlar-img and what --help says of them. */
#include <stdio.h>
#include <string.h>
#include <ashlar/version.h>
#include "block/driver.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

const struct ash_img_command ash_img_commands[] = {
    {"bench", ash_img_bench,
     "[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] "
     "[-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] "
     "filename",
     "  -c count              number of requests (default: 75000)\n"
     "  -d depth              requests in flight (default: 64)\n"
     "  -i aio                threads, native (Linux AIO) or io_uring\n"
     "  -n                    as -i native\n"
     "  -o offset             where the first request begins\n"
     "  -s buffer_size        bytes of a request (default: 4k)\n"
     "  -S step_size          bytes from one request to the next (default: buffer_size)\n"
     "  -w                    write instead of reading\n"
     "  --pattern=pattern     byte to write (default: 0)\n"
     "  --flush-interval=n    flush every n write requests\n"
     "  --no-drain            do not wait for the queue before such a flush\n"},
    {"check", ash_img_check,
     "[--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename",
     "  -r leaks              repair leaked clusters\n"
     "  -r all                repair all that can be repaired\n"
     "Exit status: 0 consistent, 1 the check failed, 2 corrupt, 3 leaked clusters only, 63 the "
     "format\n"
     "has no checks.\n"},
    {"commit", ash_img_commit,
     "[--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename",
     "  -b base               commit to this image of the chain, not to the next one; implies -d\n"
     "  -d                    do not empty the image afterwards\n"
     "  -r rate_limit         bytes a second at most\n"},
    {"compare", ash_img_compare,
     "[--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2",
     "  -f fmt, -F fmt        formats of the first and the second image\n"
     "  -s                    strict: differences in size and allocation count too\n"
     "Exit status: 0 identical, 1 different, 2 cannot be opened, 3 allocation cannot be read, 4 "
     "contents\n"
     "cannot be read.\n"},
    {"convert", ash_img_convert,
     "[--image-opts] [--target-image-opts] [--target-is-zero] [-U] [-C] [-c] [-p] [-q] [-n] [-f "
     "fmt] "
     "[-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] "
     "[-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 "
     "[...]] "
     "output_filename",
     "  -c                    compress the target\n"
     "  -C                    accepted; copies as without it\n"
     "  -n                    the target exists already\n"
     "  --target-is-zero      the target reads as zeroes (with -n)\n"
     "  -S sparse_size        shortest run of zeroes left out of the target (default: 4k); 0: "
     "none\n"
     "  -r rate_limit         bytes a second at most\n"
     "  -m num_coroutines     pieces in flight (1 to 16)\n"
     "  -W                    accepted; writes go out of order anyway\n"
     "  --salvage             go on after read errors; what cannot be read becomes zeroes\n"},
    {"create", ash_img_create,
     "[-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]",
     "  -b backing_file       the image holds only what differs from this one\n"
     "  -F backing_fmt        its format\n"
     "  -u                    do not open the backing file\n"},
    {"dd", ash_img_dd,
     "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] "
     "if=input of=output",
     "  bs=BYTES              read and write up to BYTES bytes at a time (default: 512)\n"
     "  count=N               copy only the first N blocks of the input (those skipped count)\n"
     "  skip=N                skip N blocks at the start of the input\n"},
    {"info", ash_img_info,
     "[--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename",
     "  --backing-chain       the images below it too\n"},
    {"map", ash_img_map,
     "[--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] "
     "filename",
     NULL},
    {"measure", ash_img_measure,
     "[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--image-opts] [-f fmt] filename]",
     "  --size N              of a new, empty image of this size\n"},
    {"rebase", ash_img_rebase,
     "[--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F "
     "backing_fmt] filename",
     "  -b backing_file       what the image is to stand on; '' for nothing\n"
     "  -F backing_fmt        its format\n"
     "  -u                    unsafe: only the header changes, and no backing file is opened\n"
     "  -T src_cache          cache mode of the new backing file\n"},
    {"resize", ash_img_resize,
     "[--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size",
     "  --shrink              allow losing what lies beyond the new end\n"},
    {NULL, NULL, NULL, NULL},
};

static const char parameters[] =
    "Parameters of several commands:\n"
    "  filename              a path, driver:..., or json:{...}\n"
    "  --image-opts          filename is a list: driver=qcow2,file.filename=...\n"
    "  -f fmt, -O fmt        format of the image; it is guessed where it is not given (target: "
    "raw)\n"
    "  -o options            list of create options, name=value,...; -o help lists them\n"
    "  -t cache, -T cache    cache mode of the target, of the source: none, writeback (default),\n"
    "                        writethrough, directsync, unsafe (default for the target of convert)\n"
    "  -U, --force-share     open although another program writes to the image\n"
    "  -p                    show progress\n"
    "  -q                    print errors only\n"
    "  --output=ofmt         human or json\n"
    "  size                  bytes, or with a suffix k, M, G, T, P, E (powers of 1024)\n";

static void print_formats(void)
{
    printf("\nSupported formats:");
    for (const struct ash_driver *const *driver = ash_drivers; *driver != NULL; driver++) {
        printf(" %s", (*driver)->name);
    }
    printf("\n");
}

int ash_img_help(const char *name)
{
    printf("%s version %s\n", ash_tool_name(), ash_version_string());
    if (name == NULL) {
        printf("usage: %s [standard options] command [command options]\n"
               "Disk image utility\n\n"
               "    '-h', '--help'       display this help and exit\n"
               "    '-V', '--version'    output version information and exit\n\n"
               "Command syntax:\n",
               ash_tool_name());
    }
    for (const struct ash_img_command *command = ash_img_commands; command->name != NULL;
         command++) {
        if (name == NULL) {
            printf("  %s %s\n", command->name, command->syntax);
        } else if (strcmp(name, command->name) == 0) {
            printf("usage: %s %s %s\n\n%s", ash_tool_name(), command->name, command->syntax,
                   command->options != NULL ? command->options : "");
        }
    }
    printf("\n%s", parameters);
    print_formats();
    return 0;
}

int ash_img_unsupported(const char *option, const char *what)
{
    ash_tool_error("%s: %s not supported by this version", option, what);
    return 1;
}
