/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk may hold after its power was cut: for each sector of 512 bytes, all that was put
 * there, in order.
 *
 * 1. A sector's entries from `durable` on are what may be found after a cut; those from `completed`
 *    on, what may be read before one.
 * 2. At most one request that changes a sector is under way: see model_claim().
 * 3. A sector's bytes name the entry and the sector, so that another's are known. */
#ifndef ASH_TESTS_CRASH_MODEL_H
#define ASH_TESTS_CRASH_MODEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define MODEL_SECTOR 512
#define MODEL_BASE 1 /* the value of the backing file */
#define MODEL_SIZES_MAX 16

struct model_sector {
    GArray *values; /* of uint32_t; 0: zeroes */
    uint32_t completed;
    uint32_t durable;
    bool busy;
};

struct model {
    struct model_sector *all;
    uint32_t sectors_max; /* that the disk ever has */
    uint32_t sectors;     /* now */
    uint32_t sizes[MODEL_SIZES_MAX];
    uint32_t size_count; /* lengths that may be found after a cut */
    uint32_t next_value;
};

void model_init(struct model *model, uint32_t sectors, uint32_t sectors_max, uint32_t base_sectors);
void model_free(struct model *model);

/* Claims a range for one request; false: another has a part of it. */
bool model_claim(struct model *model, uint32_t first, uint32_t count);
void model_release(struct model *model, uint32_t first, uint32_t count);

/* A new value, and the bytes that a sector with it has. */
uint32_t model_new_value(struct model *model);
void model_stamp(uint8_t *bytes, uint32_t value, uint32_t sector);

/* A request puts this there; then, that it has ended well, and that a flush covers it. */
void model_begin(struct model *model, uint32_t first, uint32_t count, uint32_t value);
void model_completed(struct model *model, uint32_t first, uint32_t count);
void model_durable(struct model *model, uint32_t first, uint32_t count);

/* A flush: what had completed when it began is durable if it ends well. */
uint32_t *model_flush_begin(const struct model *model);
void model_flush_end(struct model *model, uint32_t *mark, bool good);

/* A change of the length. `unit`: sectors of a cluster: the rest of the last one keeps its bytes
 * when the disk shrinks, and shows them again after a cut until a flush after growing. */
void model_resize_begin(struct model *model, uint32_t sectors);
void model_resize_end(struct model *model, uint32_t sectors, uint32_t unit);

/* What is wrong with these bytes of a sector, or NULL. The sentence is valid until the next call.
 * *value: what they say. */
const char *model_check(const struct model *model, uint32_t sector, const uint8_t *bytes,
                        bool after_cut, uint32_t *value);

/* Reading showed that it is this now, and stable if a cut was before. */
void model_settle(struct model *model, uint32_t sector, uint32_t value, bool after_cut);

/* The length after a cut; false: cannot be. */
bool model_settle_size(struct model *model, uint32_t sectors);

#endif
