/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the command line tools share: how they speak, run coroutines, open images, take options and
 * show progress. All of it belongs to a program with one main thread and one loop. */
#ifndef ASH_TOOLS_COMMON_TOOL_H
#define ASH_TOOLS_COMMON_TOOL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "block/disk/disk.h"
#include "util/co/co.h"
#include "util/compiler.h"
#include "util/error.h"
#include "util/loop/loop.h"

/* --- Speaking. Every message begins with the name that the program was called by. --- */

void ash_tool_set_name(const char *argv0);
const char *ash_tool_name(void);

void ash_tool_error(const char *format, ...) ASH_PRINTF(1, 2);
void ash_tool_warning(const char *format, ...) ASH_PRINTF(1, 2);

/* An error in how the program was called: points to --help. Returns 1, for main() to return. */
int ash_tool_usage(const char *format, ...) ASH_PRINTF(1, 2);

/* What getopt_long() returned ':' or '?' for. Returns 1. */
int ash_tool_bad_option(int c, char *const *argv);

/* --- Numbers. --- */

/* A size; `what` is for the message ("image size"). Prints what is wrong with it and returns false.
 */
bool ash_tool_size(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *bytes);

/* A plain number in decimal, octal or hexadecimal; prints nothing. */
bool ash_tool_number(const char *text, uint64_t max, uint64_t *number);

/* --- Running. --- */

/* The loop of the program, bound to this thread; messages of the library go to stderr. `engine`:
 * NULL for the default. NULL after printing why. */
struct ash_loop *ash_tool_loop_new(const char *engine);

/* Runs fn(opaque) in a coroutine on a loop of its own. Returns what fn returned, an exit status, or
 * `failure` when there was no loop to be had. */
int ash_tool_run(int (*fn)(void *opaque), void *opaque, int failure);

/* From now on SIGINT, SIGTERM and SIGHUP only set a flag (the second one ends the program as
 * usual), so that what writes can close its images properly. */
void ash_tool_catch_signals(void);
bool ash_tool_interrupted(void);
/* What was to be made is whole: the signals are ignored from now on, so that it stays and the
 * program says so. False: one came before; what was made is to be removed. */
bool ash_tool_completed(void);

/* To be called last: dies of the signal that was caught, if one was; otherwise returns `status`. */
int ash_tool_finish(int status);

/* --- Opening. --- */

struct ash_tool_image {
    const char *filename; /* a path, a name with a prefix, json:{...}; or key=value text */
    const char *format;   /* NULL: probe */
    bool image_opts;      /* filename is key=value text */
    bool path_only;       /* filename came from an image: it is a path, whatever it looks like */
    bool write_through;
    uint32_t flags; /* ASH_NODE_* */
};

/* NULL and an error. */
json_t *ash_tool_describe(const struct ash_tool_image *image, struct ash_error *error);

/* Opens it, or prints why not and returns NULL. */
ASH_CO_FN struct ash_disk *ash_tool_open(const struct ash_tool_image *image);

/* Closes it; prints what failed. NULL is harmless. 0 or a negative errno. */
ASH_CO_FN int ash_tool_close(struct ash_disk *disk, const char *filename);

/* The length in whole sectors of 512 bytes, as users of images know it. Reads reach that far. */
uint64_t ash_tool_bytes(const struct ash_disk *disk);

/* Reads; what lies between the end of the disk and the end of its last sector is zeroes. */
ASH_CO_FN int ash_tool_read(struct ash_disk *disk, uint64_t offset, void *buffer, uint64_t bytes);

/* Block status within ash_tool_bytes(); what lies beyond the end of the disk is zeroes. */
ASH_CO_FN int ash_tool_status(struct ash_disk *disk, const struct ash_node *base, uint64_t offset,
                              uint64_t bytes, struct ash_status *status);

/* Whether a range of that status reads as zeroes. */
bool ash_tool_status_is_zero(const struct ash_status *status);

/* --- Files that are made. --- */

/* The path of that name on the host, or NULL. To be freed with g_free(). */
char *ash_tool_host_path(const char *filename);

/* Removes a file that this run has made and that did not become what it should. */
ASH_CO_FN void ash_tool_remove_made(const char *filename);

/* Whether that name denotes a file of the disk's chain: what is read must not be emptied, locks or
 * not. */
ASH_CO_FN bool ash_tool_reads_from(struct ash_disk *disk, const char *filename);

/* --- Option lists (-o), several of which add up. --- */

struct ash_driver;
struct ash_option;

struct ash_tool_options {
    json_t *list; /* object of name: text, in the order given; NULL: none was given */
    const char *help; /* "help" or "?" if it was among them; NULL */
};

/* Prints what is wrong and returns false. */
bool ash_tool_options_add(struct ash_tool_options *options, const char *text);
void ash_tool_options_clear(struct ash_tool_options *options);
/* The value of an option, or NULL. */
const char *ash_tool_options_get(const struct ash_tool_options *options, const char *name);
void ash_tool_options_set(struct ash_tool_options *options, const char *name, const char *value);

/* Checks names and types against the create options of a format and of the protocol of `filename`
 * (NULL: of the format only), and brings sizes and booleans into one form. The sentence ends up in
 * `error`. */
int ash_tool_options_check(struct ash_tool_options *options, const struct ash_driver *format,
                           const char *filename, struct ash_error *error);

/* --object: whether it is one that can be taken, or an error was printed. */
bool ash_tool_object(const char *text);

/* -o help. */
void ash_tool_options_help(const struct ash_driver *format, const char *filename);

/* The create option of that name of the format or the protocol, or NULL. */
const struct ash_option *ash_tool_create_option(const struct ash_driver *format,
                                                const char *filename, const char *name);

/* Looks up a format that can be created. -EINVAL, -ENOTSUP. */
int ash_tool_format(const char *name, const struct ash_driver **driver, struct ash_error *error);

/* --- Progress (-p). --- */

struct ash_progress {
    bool on;
    double percent;
    double printed;
};

/* Without `on` it is shown when the process gets SIGUSR1. */
void ash_progress_begin(struct ash_progress *progress, bool on);
void ash_progress_set(struct ash_progress *progress, double percent);
/* Ends the line. */
void ash_progress_end(struct ash_progress *progress);

/* --- Output. --- */

/* JSON over several lines, as scripts know it. */
void ash_tool_print_json(const json_t *json);

/* What a driver tells of an image, a line each; nested lists are set in. */
void ash_tool_print_specific(const json_t *data, int indent);

enum ash_output {
    ASH_OUTPUT_HUMAN,
    ASH_OUTPUT_JSON,
};

/* --output=; prints what is wrong and returns false. */
bool ash_tool_output(const char *text, enum ash_output *output);

#endif
