/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shell of ashlar-io: at most one disk, and commands on it. Commands run on the plain stack of
 * the main thread; what they ask of the disk runs in coroutines, and asynchronous requests go on
 * between the commands. */
#ifndef ASH_TOOLS_IO_SHELL_H
#define ASH_TOOLS_IO_SHELL_H

#include <glib.h>
#include "tools/common/tool.h"

/* The longest request; what a signed 32-bit number holds, in whole sectors. */
#define ASH_SHELL_BYTES_MAX ((UINT64_C(1) << 31) - 512)

/* What a read leaves where it delivers nothing, and what a write writes. */
#define ASH_SHELL_READ_FILL 0xab
#define ASH_SHELL_WRITE_FILL 0xcd

struct ash_job;

struct ash_shell {
    struct ash_loop *loop;
    struct ash_disk *disk; /* NULL: no file is open */
    char *filename;        /* of the disk, for messages */
    bool misalign;         /* buffers lie beside the alignment that O_DIRECT wants */
    bool quit;
    bool failed;              /* some command did: the exit status */
    uint32_t in_flight;       /* asynchronous requests */
    struct ash_co_queue idle; /* who waits for in_flight to become 0 */
    GPtrArray *jobs;          /* of tools/io/job.c; NULL: none */
};

#define ASH_COMMAND_NO_FILE (1u << 0) /* works without a disk */
#define ASH_COMMAND_WRITES (1u << 1)  /* needs a disk that is open for writing */

struct ash_command {
    const char *name;
    const char *alias;  /* or NULL */
    uint32_t flags;     /* ASH_COMMAND_* */
    int arguments_min;  /* besides the name; options count too */
    int arguments_max;  /* -1: any number */
    const char *syntax; /* what follows the name */
    const char *help;   /* one line */
    const char *more;   /* the options, a line each, or NULL */
    bool (*run)(struct ash_shell *shell, int argc,
                char **argv); /* false: it failed, and said why */
};

/* Sorted; ends with a name of NULL. */
extern const struct ash_command ash_commands[];

const struct ash_command *ash_command_find(const char *name);

/* "read [-bCqv] ... -- reads ...", for help and for who got it wrong. Returns false. */
bool ash_command_usage(const char *name);

/* Runs one line. Returns false if it failed. */
bool ash_shell_line(struct ash_shell *shell, const char *line);

/* Reads lines from standard input until it ends or quit. */
void ash_shell_interactive(struct ash_shell *shell);

/* Lets what is ready go on, without waiting. */
void ash_shell_turn(struct ash_shell *shell);

/* Waits for all asynchronous requests. */
void ash_shell_wait(struct ash_shell *shell);

/* --- Opening: also for the program's own options. --- */

struct ash_shell_open {
    const char *filename; /* or NULL: the options say it all */
    const char *format;   /* NULL: probe */
    bool image_opts;      /* filename is key=value text */
    json_t *options;      /* -o, or NULL; owned */
    json_t *job;          /* -j: one that is in its place before the first request; or NULL; owned */
    uint32_t flags;       /* ASH_NODE_* */
    bool write_through;
    bool copy_on_read;
    const char *aio; /* NULL: as described */
    bool snapshot;   /* what is written goes to an overlay that nobody keeps */
};

/* For reading and writing, and discards are passed on. */
#define ASH_SHELL_OPEN_FLAGS (ASH_NODE_WRITE | ASH_NODE_DISCARD)

/* The options that the program and `open` share: C d: i: k n r s t: U. False after saying why. */
bool ash_shell_open_option(struct ash_shell_open *request, int option, const char *value);
bool ash_shell_open(struct ash_shell *shell, const struct ash_shell_open *request);

/* Waits for what is in flight and closes the disk, if there is one. */
bool ash_shell_close(struct ash_shell *shell);

/* --- Arguments and output. --- */

/* An offset or a length. False after saying why. */
bool ash_shell_size(const char *text, uint64_t *bytes);

/* A byte to fill with, or to compare with. */
bool ash_shell_pattern(const char *text, uint8_t *pattern);

/* A count of bytes, or a rate, "1.500 KiB". */
const char *ash_shell_bytes(double bytes, char text[static 64]);

/* --- Transfers: reads, writes, zeroes and discards. --- */

struct ash_transfer {
    struct ash_shell *shell;
    const char *name; /* in messages of failure: "readv" */
    const char *done; /* in the report: "read" */
    uint8_t op;       /* enum ash_op */
    uint32_t flags;   /* ASH_REQ_*, ASH_IO_* */
    uint64_t offset;
    uint64_t bytes;
    void *buffer; /* or NULL */
    size_t buffer_bytes;
    struct iovec *vec; /* g_malloc'ed, or NULL: the buffer as one piece */
    uint32_t vec_count;
    bool quiet;
    bool machine;     /* -C */
    bool dump;        /* -v */
    bool vm_state;    /* -b: there is none */
    bool has_pattern; /* -P: to fill with, or to verify */
    uint8_t pattern;
    uint64_t verify_offset; /* within the transfer */
    uint64_t verify_bytes;  /* 0: to the end */
    uint64_t elapsed_ns;
    int result; /* 0 or a negative errno */
};

/* Allocates the buffer and fills it. False after saying why. */
bool ash_transfer_buffer(struct ash_transfer *transfer, uint8_t fill);

/* Takes the lengths of the pieces of a vector from `argv`, adds up `bytes`. False after saying why.
 */
bool ash_transfer_pieces(struct ash_transfer *transfer, int argc, char **argv);

/* Carries it out and fills elapsed_ns and result. */
ASH_CO_FN void ash_transfer_co(struct ash_transfer *transfer);
void ash_transfer_run(struct ash_transfer *transfer);

/* Says how it went: failure, verification, dump and report. False if it failed. */
bool ash_transfer_report(const struct ash_transfer *transfer);

/* Frees what it holds. */
void ash_transfer_clear(struct ash_transfer *transfer);

/* --- Requests: what the commands that make them take from their arguments. --- */

struct ash_shell_request {
    struct ash_transfer transfer;
    const char *source; /* -s of writes: a file */
    bool zeroes;        /* -z */
    bool compress;      /* -c */
    bool verify_part;   /* -s, -l of reads */
    bool inject;        /* -i: the options behind it were not looked at */
};

/* Takes the options that `letters` lists, in getopt()'s way. False after saying why. */
bool ash_shell_request_options(struct ash_shell_request *request, const char *command,
                               const char *letters, int argc, char **argv);

/* What its buffer holds at first. */
uint8_t ash_shell_request_fill(const struct ash_shell_request *request);

/* Takes an offset and the lengths of the pieces of a vector, and allocates the buffer. False after
 * saying why; then it holds nothing. */
bool ash_shell_request_vector(struct ash_shell_request *request, int argc, char **argv);

/* --- Jobs. --- */

/* Whether some may be running. */
bool ash_shell_has_jobs(const struct ash_shell *shell);

/* Keeps a job that was started, and says so; takes the reference. */
void ash_shell_add_job(struct ash_shell *shell, struct ash_job *job);

/* Cancels those that run, with a message and false, and forgets all. */
bool ash_shell_end_jobs(struct ash_shell *shell);

/* --- The commands. --- */

bool ash_shell_abort(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_aio_flush(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_aio_read(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_aio_write(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_alloc(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_close_command(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_discard(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_flush(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_help(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_info(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_job(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_length(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_map(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_nodes(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_open_command(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_quit(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_read(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_readv(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_reopen(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_sigraise(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_sleep(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_truncate(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_write(struct ash_shell *shell, int argc, char **argv);
bool ash_shell_writev(struct ash_shell *shell, int argc, char **argv);

#endif
