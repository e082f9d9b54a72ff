/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The subcommands of ashlar-img. Each gets its arguments with its own name as argv[0], and returns
 * the exit status. */
#ifndef ASH_TOOLS_IMG_IMG_H
#define ASH_TOOLS_IMG_IMG_H

int ash_img_bench(int argc, char **argv);
int ash_img_check(int argc, char **argv);
int ash_img_commit(int argc, char **argv);
int ash_img_compare(int argc, char **argv);
int ash_img_convert(int argc, char **argv);
int ash_img_create(int argc, char **argv);
int ash_img_dd(int argc, char **argv);
int ash_img_info(int argc, char **argv);
int ash_img_map(int argc, char **argv);
int ash_img_measure(int argc, char **argv);
int ash_img_rebase(int argc, char **argv);
int ash_img_resize(int argc, char **argv);

struct ash_img_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *syntax;  /* what follows the name */
    const char *options; /* explained, a line each; may be NULL */
};

/* Ends with a name of NULL. */
extern const struct ash_img_command ash_img_commands[];

/* --help: of the program (NULL) or of one command. Returns 0. */
int ash_img_help(const char *command);

/* Options of 7.2 that are not there yet are refused by this. Returns 1. */
int ash_img_unsupported(const char *option, const char *what);

#endif
