/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img: operations on whole disk images, with the command lines, output and exit statuses
 * that scripts for qemu-img 7.2 rely on. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <ashlar/version.h>
#include "tools/common/tool.h"
#include "tools/img/img.h"

static int run_command(int argc, char **argv)
{
    for (const struct ash_img_command *command = ash_img_commands; command->name != NULL;
         command++) {
        if (strcmp(argv[0], command->name) == 0) {
            optind = 0; /* glibc: begin anew, and read the option string again */
            return command->run(argc, argv);
        }
    }
    return ash_tool_usage("Command not found: %s", argv[0]);
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {"trace", required_argument, NULL, 'T'},
        {NULL, 0, NULL, 0},
    };
    int c;
    if (argc < 2) {
        return ash_tool_usage("Not enough arguments");
    }
    while ((c = getopt_long(argc, argv, "+:hVT:", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            return ash_img_help(NULL);
        case 'V':
            printf("%s version %s\n", ash_tool_name(), ash_version_string());
            return 0;
        case 'T':
            return ash_img_unsupported("-T", "Tracing is");
        default:
            return ash_tool_bad_option(c, argv);
        }
    }
    if (optind >= argc) {
        return ash_tool_usage("Not enough arguments");
    }
    return run_command(argc - optind, argv + optind);
}

int main(int argc, char **argv)
{
    ash_tool_set_name(argv[0]);
    opterr = 0;
    return ash_tool_finish(run(argc, argv));
}
