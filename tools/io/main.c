/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-io: requests to a disk, from the command line, with the command lines, output and exit
 * statuses that scripts for qemu-io 7.2 rely on. */
#include <getopt.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <ashlar/version.h>
#include "tools/io/shell.h"

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
};

struct program {
    struct ash_shell shell;
    struct ash_shell_open open;
    GPtrArray *lines;   /* of -c; not owned */
    const char *engine; /* NULL: the loop's choice */
};

static int help(void)
{
    printf("Usage: %s [OPTIONS]... [-c STRING]... [file]\n"
           "Makes requests to a disk image.\n\n"
           "  -c, --cmd STRING      runs a command; more than one can be given\n"
           "  -f, --format FMT      the format of the image; otherwise it is guessed\n"
           "      --image-opts      the file is named by options: driver=...,file.filename=...\n"
           "  -r, --read-only       opens the image for reading only\n"
           "  -U, --force-share     without locks; needs -r\n"
           "  -t, --cache MODE      none, writeback (default), unsafe, directsync, writethrough\n"
           "  -n, --nocache         the same as -t none\n"
           "  -C, --copy-on-read    the image keeps what is read from its backing file\n"
           "  -d, --discard MODE    what discards do: ignore (off), unmap (on, default)\n"
           "  -i, --aio MODE        the engine: threads, native, io_uring\n"
           "  -k, --native-aio      the same as -i native\n"
           "  -m, --misalign        buffers are not aligned as direct I/O wants them\n"
           "  -h, --help            shows this\n"
           "  -V, --version         shows the version\n\n"
           "Not supported, and refused: -T (--trace), and objects that are no secrets.\n"
           "Without -c, commands are read from standard input; 'help' lists them.\n",
           ash_tool_name());
    return 0;
}

static const char *engine_of(const char *mode)
{
    static const char *const names[][2] = {
        {"threads", "threads"}, {"native", "aio"}, {"io_uring", "uring"}};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(names); i++) {
        if (strcmp(names[i][0], mode) == 0) {
            return names[i][1];
        }
    }
    return NULL; /* ash_shell_open_option() refuses it */
}

/* One option. -1: go on; otherwise the exit status. */
static int take_option(struct program *program, int c, char **argv)
{
    switch (c) {
    case 'c':
        g_ptr_array_add(program->lines, optarg);
        return -1;
    case 'f':
        program->open.format = optarg;
        return -1;
    case 'm':
        program->shell.misalign = true;
        return -1;
    case 'h':
        return help();
    case 'V':
        printf("%s version %s\n", ash_tool_name(), ash_version_string());
        return 0;
    case 'T':
        ash_tool_error("-T: tracing is not supported");
        return 1;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_IMAGE_OPTS:
        program->open.image_opts = true;
        return -1;
    case '?':
    case ':':
        return ash_tool_bad_option(c, argv);
    case 'i':
        program->engine = engine_of(optarg);
        break;
    case 'k':
        program->engine = engine_of("native");
        break;
    default:
        break;
    }
    return ash_shell_open_option(&program->open, c, optarg) ? -1 : 1;
}

/* All options and the file. -1: go on; otherwise the exit status. */
static int take_arguments(struct program *program, int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {"cmd", required_argument, NULL, 'c'},
        {"format", required_argument, NULL, 'f'},
        {"read-only", no_argument, NULL, 'r'},
        {"snapshot", no_argument, NULL, 's'},
        {"nocache", no_argument, NULL, 'n'},
        {"copy-on-read", no_argument, NULL, 'C'},
        {"misalign", no_argument, NULL, 'm'},
        {"native-aio", no_argument, NULL, 'k'},
        {"aio", required_argument, NULL, 'i'},
        {"cache", required_argument, NULL, 't'},
        {"discard", required_argument, NULL, 'd'},
        {"trace", required_argument, NULL, 'T'},
        {"force-share", no_argument, NULL, 'U'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {NULL, 0, NULL, 0},
    };
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":hVc:d:f:rsnCmki:t:T:U", options, NULL)) != -1) {
        int status = take_option(program, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (argc - optind > 1) {
        return ash_tool_usage("Expecting one file name at most");
    }
    if (program->open.image_opts && program->open.format != NULL) {
        ash_tool_error("--image-opts and -f are mutually exclusive");
        return 1;
    }
    program->open.filename = argv[optind];
    return -1;
}

static void run_lines(struct program *program)
{
    struct ash_shell *shell = &program->shell;
    if (program->lines->len == 0) {
        ash_shell_interactive(shell);
    }
    for (guint i = 0; i < program->lines->len && !shell->quit; i++) {
        ash_shell_line(shell, program->lines->pdata[i]);
    }
}

static int run(struct program *program, int argc, char **argv)
{
    struct ash_shell *shell = &program->shell;
    int status = take_arguments(program, argc, argv);
    if (status >= 0) {
        return status;
    }
    shell->loop = ash_tool_loop_new(program->engine);
    if (shell->loop == NULL) {
        return 1;
    }
    if (program->open.filename == NULL || ash_shell_open(shell, &program->open)) {
        run_lines(program);
    } else {
        shell->failed = true;
    }
    if (!ash_shell_close(shell)) {
        shell->failed = true;
    }
    ash_loop_free(shell->loop);
    return shell->failed ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct program program = {.open = {.flags = ASH_SHELL_OPEN_FLAGS}, .lines = g_ptr_array_new()};
    ash_tool_set_name(argv[0]);
    ash_co_queue_init(&program.shell.idle);
    int status = run(&program, argc, argv);
    g_ptr_array_free(program.lines, TRUE);
    return ash_tool_finish(status);
}
