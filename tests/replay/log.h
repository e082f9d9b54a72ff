/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The write and flush log of a simulated machine, and what its files may be after a power cut.
 *
 * 1. A file is what is stable and, in the order of carrying out, what was done since the flush that
 *    made it so was submitted. A cut keeps any of these and drops the others; a write may be torn.
 * 2. Files appear at once (directories have no unsynced state), and are never removed.
 * 3. After each entry the log tells of all states that a cut at this moment could leave: nothing
 *    kept, all kept, each of the last LOG_TAIL entries kept or dropped in every combination, each
 *    older one dropped alone, and the newest torn. */
#ifndef ASH_TESTS_REPLAY_LOG_H
#define ASH_TESTS_REPLAY_LOG_H

#include <glib.h>
#include "util/engine/sim.h"

#define LOG_TAIL 4
#define LOG_FILES 5

/* A file: what is behind `data` up to its length are zeroes. Formats make their files long ahead of
 * need. */
struct log_bytes {
    GByteArray *data;
    uint64_t length;
};

struct log_file {
    char name[8];
    struct log_bytes stable;
    GPtrArray *pending; /* of struct log_entry */
};

struct log {
    struct log_file file[LOG_FILES];
    uint32_t file_count;
    uint64_t entries; /* so far */
    uint32_t tear_bytes;
    /* What the files are. Valid during the call. */
    void (*state)(void *opaque, const struct log_bytes *files, uint32_t count);
    void *opaque;
};

/* Observes the world from now on. */
void log_begin(struct log *log, struct ash_sim_world *world, uint32_t tear_bytes);
/* A file that is there, stable as it is. */
void log_take_file(struct log *log, struct ash_sim_world *world, const char *name);
void log_end(struct log *log, struct ash_sim_world *world);

#endif
