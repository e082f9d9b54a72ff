/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The distinct images that cuts left, each with the chain below it, and what is thought of them: by
 * our own check and reads on a simulated machine, and by qemu-img check and qemu-io on real files.
 *
 * 1. Most cuts leave what another cut left already: an image is looked at once, however often it is
 * put here.
 * 2. qemu-img check reads tables only, so it is shown one image for each that differ in data alone.
 * 3. qemu-io reads many images in one process. */
#ifndef ASH_TESTS_REPLAY_SHELF_H
#define ASH_TESTS_REPLAY_SHELF_H

#include "tests/replay/log.h"
#include "tests/replay/starter.h"

struct shelf_image {
    uint64_t key;
    uint32_t file_count;
    GBytes *file[LOG_FILES];    /* the last is the top */
    uint64_t length[LOG_FILES]; /* of the file: zeroes follow its bytes */
    char *story;                /* what first led to it */
    uint8_t *content;           /* what our reads found; NULL: not looked at yet */
    uint64_t bytes;
    bool dirty;
    bool leaks;
    GHashTable *judged; /* hashes of the expectations that it has met */
};

struct shelf {
    GHashTable *files;  /* hash -> GBytes */
    GHashTable *images; /* hash -> struct shelf_image */
    GHashTable *tables; /* hashes of tables that qemu-img was shown */
    GPtrArray *fresh;   /* not shown to QEMU yet */
    uint64_t states;
    uint32_t checks;
    uint32_t read;
    char directory[40];
    struct starter starter; /* while they are shown */
};

void shelf_init(struct shelf *shelf);
void shelf_free(struct shelf *shelf);
struct shelf_image *shelf_put(struct shelf *shelf, const struct log_bytes *files, uint32_t count,
                              const char *story);

/* Opens it, checks it and reads it, unless that was done. A sentence if it does not hold. */
const char *shelf_look(struct shelf_image *image);
/* Shows all that are fresh to QEMU, if there is one. A sentence, and which image, if they do not agree. */
const char *shelf_show(struct shelf *shelf, struct shelf_image **which);

uint64_t shelf_hash(const void *bytes, size_t count, uint64_t seed);

#endif
