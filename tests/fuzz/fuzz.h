/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the fuzzing targets share: limits on time and memory, a simulated machine, and bytes taken
 * from an input.
 *
 * A target is one file with fuzz_one(). Linked with libFuzzer it is a fuzzer; linked with replay.c
 * it runs inputs that are there. What fuzz_one() may not do:
 *  1. take more than FUZZ_SECONDS_MAX of processor time or FUZZ_BYTES_MAX of memory,
 *  2. leave anything behind, in memory or on the host: the machine is simulated,
 *  3. behave differently when it runs the same input again. */
#ifndef ASH_TESTS_FUZZ_FUZZ_H
#define ASH_TESTS_FUZZ_FUZZ_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "block/disk/disk.h"
#include "block/driver.h"
#include "util/engine/sim.h"

#define FUZZ_SECONDS_MAX 1
#define FUZZ_BUFFER_BYTES_MAX (36 * MiB) /* of one buffer: then memory is short */
#define FUZZ_DISK_BYTES_MAX (24 * MiB)   /* of all files: then the disk is full */
#define FUZZ_BYTES_MAX (64 * MiB)        /* more than there was when the input began */

/* The target's own. */
void fuzz_one(const uint8_t *data, size_t bytes);

/* libFuzzer's, and the replay's, way in. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A finding: says what is wrong and ends the program as an assertion would. */
void fuzz_fail(const char *format, ...) __attribute__((format(printf, 1, 2)))
__attribute__((noreturn));

/* Where it says so: libFuzzer may close the usual place. */
extern int fuzz_errors_fd;

/* Whether an input is running: for what a target puts in the place of library functions. */
extern bool fuzz_running;

/* From the next input on, what is printed to stdout and stderr goes nowhere. */
void fuzz_be_quiet(void);

/* --- Bytes of an input; zero when there are none left. --- */

struct fuzz_input {
    const uint8_t *data;
    size_t bytes;
};

uint8_t fuzz_u8(struct fuzz_input *input);
uint16_t fuzz_u16(struct fuzz_input *input);
/* A copy of the rest, cut at the first NUL, as a string. To be freed with g_free(). */
char *fuzz_text(struct fuzz_input *input);
/* The same up to the next semicolon, which is taken too; NULL when nothing is left. */
char *fuzz_part(struct fuzz_input *input);

/* --- A simulated machine. --- */

struct fuzz_machine {
    struct ash_sim_world *world;
    struct ash_loop *loop; /* NULL: it is halted */
    uint32_t changes;      /* requests that change a file, submitted since the start */
    const char *changed;   /* the file that the last of them was for */
    uint32_t errors_logged;
    const char *only; /* the one file that may be changed; NULL: any, "": none */
};

/* A machine with an empty disk, halted. */
void fuzz_machine_init(struct fuzz_machine *machine, uint64_t seed);
void fuzz_machine_free(struct fuzz_machine *machine);
void fuzz_boot(struct fuzz_machine *machine, uint64_t metadata_bytes_max);
/* No file may have been left open. */
void fuzz_halt(struct fuzz_machine *machine);
/* Runs fn(opaque) in a coroutine. That it waits for ever is a finding. */
int fuzz_call(struct fuzz_machine *machine, int (*fn)(void *opaque), void *opaque);

/* Opens "image" by a driver's name, or NULL: it is probed. That a failure is not explained is a
 * finding. */
ASH_CO_FN int fuzz_open(struct fuzz_machine *machine, const char *format, uint32_t flags,
                        struct ash_disk **disk);

#endif
