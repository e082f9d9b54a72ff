/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 images on simulated disks, and a checker of its own: it reads the file's bytes and shares
 * no code with the driver. */
#ifndef ASH_TESTS_UNIT_QCOW2_RIG_H
#define ASH_TESTS_UNIT_QCOW2_RIG_H

#include "tests/unit/unit.h"
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/graph/open.h"
#include "block/image/image.h"
#include "util/engine/sim.h"
#include "util/prng.h"

struct rig {
    struct ash_sim_world *world;
    struct ash_loop *loop;
    uint64_t metadata_bytes_max; /* of the loop; 0: the default */
};

static inline void rig_world(struct rig *rig, const struct ash_sim_config *config)
{
    rig->world = ash_sim_world_new(config);
    rig->loop = NULL;
}

static inline void rig_boot(struct rig *rig)
{
    struct ash_engine_config config = {.depth = 64};
    struct ash_engine *engine;
    assert_int_equal(ash_engine_sim_new(rig->world, &config, &engine, NULL), 0);
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    loop_config.metadata_bytes_max = rig->metadata_bytes_max;
    assert_int_equal(ash_loop_new_with_engine(engine, &loop_config, &rig->loop, NULL), 0);
    assert_int_equal(ash_loop_bind(rig->loop), 0);
}

static inline void rig_halt(struct rig *rig)
{
    ash_loop_free(rig->loop);
    rig->loop = NULL;
}

static inline void rig_end(struct rig *rig)
{
    if (rig->loop && ash_loop_in_turn(rig->loop)) {
        return; /* a test failed in the middle of a turn: nothing can be taken down */
    }
    if (rig->loop) {
        rig_halt(rig);
    }
    ash_sim_world_free(rig->world);
}

/* "name=value,..." into an object of strings. */
static inline json_t *rig_options(const char *text)
{
    json_t *object = json_object();
    char **pairs = g_strsplit(text, ",", 0);
    for (char **pair = pairs; *pair && **pair; pair++) {
        char **two = g_strsplit(*pair, "=", 2);
        json_object_set_new(object, two[0], json_string(two[1]));
        g_strfreev(two);
    }
    g_strfreev(pairs);
    return object;
}

ASH_CO_FN static inline int rig_create(struct rig *rig, const char *name, uint64_t bytes,
                                       const char *options)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *object = rig_options(options);
    int ret = ash_image_create(rig->loop, name, "qcow2", bytes, object, &error);
    json_decref(object);
    if (ret < 0) {
        print_message("create: %s\n", error.message);
    }
    return ret;
}

ASH_CO_FN static inline int rig_open(struct rig *rig, const char *name, uint32_t flags,
                                     struct ash_disk **disk, struct ash_error *error)
{
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", name);
    int ret = ash_co_disk_open(rig->loop, description, flags, disk, error);
    json_decref(description);
    return ret;
}

/* --- the checker --- */

struct audit {
    uint8_t *bytes;
    uint64_t size;
    uint32_t cluster_bits;
    uint32_t order;
    uint64_t clusters;    /* of the file, rounded up */
    uint64_t *references; /* found, by cluster */
    uint64_t corruptions;
    uint64_t leaks;
    char first[200]; /* the first corruption */
};

static inline uint64_t audit_u64(const struct audit *a, uint64_t at)
{
    uint64_t value = 0;
    if (at + 8 <= a->size) {
        memcpy(&value, a->bytes + at, 8);
    }
    return be64toh(value);
}

static inline uint32_t audit_u32(const struct audit *a, uint64_t at)
{
    uint32_t value = 0;
    if (at + 4 <= a->size) {
        memcpy(&value, a->bytes + at, 4);
    }
    return be32toh(value);
}

static inline void audit_bad(struct audit *a, const char *what, uint64_t at)
{
    if (a->corruptions++ == 0) {
        snprintf(a->first, sizeof(a->first), "%s at 0x%" PRIx64, what, at);
    }
}

static inline void audit_refer(struct audit *a, uint64_t offset, uint64_t bytes, bool shared,
                               const char *what)
{
    if (!shared && (offset & ((UINT64_C(1) << a->cluster_bits) - 1))) {
        audit_bad(a, what, offset);
    }
    for (uint64_t c = offset >> a->cluster_bits;
         bytes && c <= (offset + bytes - 1) >> a->cluster_bits; c++) {
        if (c >= a->clusters) {
            audit_bad(a, what, offset);
            return;
        }
        if (a->references[c] != 0 && !shared) {
            audit_bad(a, "second reference", offset);
        }
        a->references[c]++;
    }
}

static inline uint64_t audit_refcount(const struct audit *a, uint64_t table, uint64_t entries,
                                      uint64_t cluster)
{
    uint32_t block_bits = a->cluster_bits + 3 - a->order;
    uint64_t index = cluster >> block_bits;
    uint64_t block = index < entries ? audit_u64(a, table + index * 8) : 0;
    if (!block) {
        return 0;
    }
    uint64_t bit = (cluster & ((UINT64_C(1) << block_bits) - 1)) << a->order;
    uint32_t width = 1u << a->order;
    if (block + bit / 8 + (width + 7) / 8 > a->size) {
        return 0;
    }
    const uint8_t *at = a->bytes + block + bit / 8;
    if (width < 8) {
        return at[0] >> (bit % 8) & ((1u << width) - 1);
    }
    uint64_t value = 0;
    for (uint32_t i = 0; i < width / 8; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static inline void audit_l2(struct audit *a, uint64_t table, uint32_t version)
{
    uint64_t cluster_bytes = UINT64_C(1) << a->cluster_bits;
    for (uint64_t i = 0; i < cluster_bytes / 8; i++) {
        uint64_t entry = audit_u64(a, table + i * 8);
        uint64_t place = entry & UINT64_C(0x00fffffffffffe00);
        if (entry >> 62 & 1) {
            uint32_t shift = 62 - (a->cluster_bits - 8);
            uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
            uint64_t sectors = (entry >> shift & ((UINT64_C(1) << (a->cluster_bits - 8)) - 1)) + 1;
            audit_refer(a, offset, sectors * 512 - (offset & 511), true, "compressed cluster");
        } else if (place) {
            audit_refer(a, place, cluster_bytes, false, "data cluster");
        } else if (entry & ~(version >= 3 ? UINT64_C(1) : UINT64_C(0))) {
            audit_bad(a, "L2 entry", table + i * 8);
        }
    }
}

static inline void audit_l1(struct audit *a, uint32_t version)
{
    uint64_t l1 = audit_u64(a, 40);
    uint32_t entries = audit_u32(a, 36);
    audit_refer(a, l1, (uint64_t)entries * 8, false, "L1 table");
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t entry = audit_u64(a, l1 + i * UINT64_C(8));
        uint64_t table = entry & UINT64_C(0x00fffffffffffe00);
        if (table) {
            audit_refer(a, table, UINT64_C(1) << a->cluster_bits, false, "L2 table");
            audit_l2(a, table, version);
        }
    }
}

/* Memory for a copy of the file, kept from one time to the next: there are thousands of them, and
 * new memory costs more than what is done with it. */
static inline uint8_t *audit_memory(uint64_t bytes)
{
    static uint8_t *kept;
    static uint64_t kept_bytes;
    if (bytes > kept_bytes) {
        g_free(kept);
        kept_bytes = 2 * bytes;
        kept = g_malloc(kept_bytes);
    }
    return kept;
}

/* Whether what the file says is consistent; `counted`: refcounts count too (not with the dirty
 * bit). */
static inline void audit_image(struct rig *rig, const char *name, bool counted, struct audit *a)
{
    memset(a, 0, sizeof(*a));
    a->size = ash_sim_file_bytes(rig->world, name);
    a->bytes = audit_memory(a->size);
    assert_int_equal(ash_sim_file_read(rig->world, name, 0, a->bytes, a->size), 0);
    uint32_t version = audit_u32(a, 4);
    assert_int_equal(audit_u32(a, 0), 0x514649fb);
    a->cluster_bits = audit_u32(a, 20);
    a->order = version >= 3 ? audit_u32(a, 96) : 4;
    a->clusters = (a->size >> a->cluster_bits) + 1;
    a->references = g_new0(uint64_t, a->clusters);
    uint64_t table = audit_u64(a, 48);
    uint64_t entries = (uint64_t)audit_u32(a, 56) << (a->cluster_bits - 3);
    audit_refer(a, 0, 1, false, "header");
    audit_refer(a, table, entries * 8, false, "refcount table");
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t block = audit_u64(a, table + i * 8);
        if (block) {
            audit_refer(a, block, UINT64_C(1) << a->cluster_bits, false, "refcount block");
        }
    }
    audit_l1(a, version);
    for (uint64_t c = 0; counted && c < a->clusters; c++) {
        uint64_t count = audit_refcount(a, table, entries, c);
        if (count < a->references[c]) {
            audit_bad(a, "refcount too low", c << a->cluster_bits);
        } else if (count > a->references[c]) {
            a->leaks++;
        }
    }
    g_free(a->references);
}

#endif
