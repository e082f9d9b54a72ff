/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Chains of test-map or qcow2 images with a model of what they hold. */
#ifndef ASH_TESTS_CHAIN_RIG_H
#define ASH_TESTS_CHAIN_RIG_H

#include "block/image/image.h"
#include "tests/unit/core_rig.h"
#include "tests/unit/guest_model.h"
#include "tests/unit/map_format.h"

#define LAYERS_MAX 6

struct chain {
    unsigned depth;
    bool qcow2;
    uint64_t delay_ns;
    uint64_t slots_max; /* of the top */
    unsigned commit_fails;
    bool no_zero;
    bool no_coded; /* guests write nothing compressed */
    bool copy_on_read;
    uint64_t unit[LAYERS_MAX];
    uint64_t bytes[LAYERS_MAX]; /* 0: the top. The last one is the base */
    struct guest_model model;
    struct ash_disk *disk;
};

static inline void chain_write_file(struct core *core, const char *name, const void *data,
                                    size_t bytes)
{
    const char *path = core_file(core, name, -1);
    if (core->world != NULL) {
        assert_int_equal(ash_sim_file_write(core->world, path, 0, data, bytes), 0);
        return;
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static inline void chain_image(struct core *core, const char *name, uint64_t bytes, uint64_t unit,
                               const char *backing, const char *backing_format)
{
    struct map_header header;
    map_header_init(&header, bytes, unit, backing, backing_format);
    chain_write_file(core, name, &header, sizeof(header));
}

static inline const char *chain_name(unsigned layer)
{
    static const char *const names[LAYERS_MAX] = {"top", "b1", "b2", "b3", "b4", "b5"};
    return names[layer];
}

ASH_CO_FN static inline void chain_create(struct core *core, const struct chain *chain,
                                          unsigned layer)
{
    static const unsigned refcount_bits[] = {1, 2, 4, 8, 16, 32, 64};
    const char *path = core_file(core, chain_name(layer), -1);
    if (!chain->qcow2) {
        chain_image(core, chain_name(layer), chain->bytes[layer], chain->unit[layer], NULL, NULL);
        return;
    }
    struct ash_error error = ASH_ERROR_INIT;
    /* Compressed clusters share places, which takes more than one bit. */
    json_t *options = json_pack("{s:I, s:i, s:b}", "cluster_size", (json_int_t)chain->unit[layer],
                                "refcount_bits", refcount_bits[1 + ash_prng_below(&core->prng, 6)],
                                "lazy_refcounts", (int)ash_prng_below(&core->prng, 2));
    int ret = ash_image_create(core->loop, path, "qcow2", chain->bytes[layer], options, &error);
    json_decref(options);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, error.message);
    }
    assert_int_equal(ret, 0);
}

static inline json_t *chain_describe_qcow2(struct core *core, const struct chain *chain,
                                           unsigned first)
{
    json_t *below = json_null();
    for (unsigned layer = chain->depth; layer-- > first;) {
        below = json_pack("{s:s, s:{s:s, s:s}, s:o}", "driver", "qcow2", "file", "driver", "file",
                          "filename", core_file(core, chain_name(layer), -1), "backing", below);
    }
    return below;
}

/* The layers from `first` down. */
static inline json_t *chain_describe(struct core *core, const struct chain *chain, unsigned first)
{
    if (chain->qcow2) {
        return chain_describe_qcow2(core, chain, first);
    }
    json_t *below = json_null();
    for (unsigned layer = chain->depth; layer-- > first;) {
        json_t *own =
            json_pack("{s:s, s:{s:s, s:s}, s:I, s:I}", "driver", "test-map", "file", "driver",
                      "file", "filename", core_file(core, chain_name(layer), -1), "delay-ns",
                      (json_int_t)chain->delay_ns, "seed", (json_int_t)(core->seed * 8 + layer));
        json_object_set_new(own, "backing", below);
        if (layer == 0) {
            json_object_set_new(own, "slots-max", json_integer((json_int_t)chain->slots_max));
            json_object_set_new(own, "commit-fails", json_integer(chain->commit_fails));
            json_object_set_new(own, "no-zero", json_boolean(chain->no_zero));
        }
        below = own;
    }
    return below;
}

ASH_CO_FN static inline struct ash_disk *chain_open(struct core *core, const struct chain *chain,
                                                    unsigned first, uint32_t flags)
{
    json_t *description = chain_describe(core, chain, first);
    if (chain->copy_on_read && first == 0) {
        json_object_set_new(description, "copy-on-read", json_true());
    }
    return core_open_disk(core, description, flags);
}

/* Writes `times` random ranges to a layer, alone, with numbers of its own. */
ASH_CO_FN static inline void chain_fill_layer(struct core *core, struct chain *chain,
                                              unsigned layer, unsigned times)
{
    struct ash_disk *disk = chain_open(core, chain, layer, ASH_NODE_WRITE | ASH_NODE_DISCARD);
    uint8_t *buffer = g_malloc(chain->bytes[layer]);
    for (unsigned i = 0; i < times; i++) {
        struct guest_op op;
        uint64_t offset = ash_prng_below(&core->prng, chain->bytes[layer]);
        uint64_t bytes =
            ash_prng_between(&core->prng, 1, ASH_MIN(chain->bytes[layer] - offset, 20000));
        unsigned id = ash_prng_chance(&core->prng, 200) ? 0 : 1 + layer;
        int ret;
        guest_write_begin(&chain->model, &op, id, offset, bytes);
        guest_fill(id, offset, buffer, bytes);
        if (id == 0) {
            ret = ash_disk_zero(disk, offset, bytes, 0);
        } else {
            ret = ash_disk_write(disk, offset, buffer, bytes, 0);
        }
        assert_int_equal(ret, 0);
        guest_write_end(&chain->model, &op, true);
    }
    g_free(buffer);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Makes the images, bottom first, and opens the top. */
ASH_CO_FN static inline void chain_up(struct core *core, struct chain *chain)
{
    uint64_t delay_ns = chain->delay_ns;
    guest_model_init(&chain->model, 1);
    chain->delay_ns = 0;
    for (unsigned layer = chain->depth; layer-- > 0;) {
        guest_model_resize(&chain->model, chain->bytes[layer]);
        chain_create(core, chain, layer);
        if (layer > 0) {
            chain_fill_layer(core, chain, layer, 5);
        }
    }
    chain->delay_ns = delay_ns;
    chain->disk = chain_open(core, chain, 0, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

/* Reads all of it, in pieces, and compares. */
ASH_CO_FN static inline void chain_verify(struct core *core, struct chain *chain)
{
    uint64_t size = ash_disk_bytes(chain->disk);
    uint8_t *buffer = g_malloc(size);
    assert_int_equal(size, chain->model.bytes);
    for (uint64_t offset = 0; offset < size;) {
        struct guest_op op;
        uint64_t bytes = ash_prng_between(&core->prng, 1, size - offset);
        guest_read_begin(&chain->model, &op, offset, bytes);
        assert_int_equal(ash_disk_read(chain->disk, offset, buffer, bytes), 0);
        int64_t wrong = guest_read_end(&chain->model, &op, buffer);
        if (wrong >= 0) {
            print_message("seed %lu: byte %ld is %u\n", (unsigned long)core->seed, (long)wrong,
                          buffer[(uint64_t)wrong - offset]);
        }
        assert_int_equal(wrong, -1);
        offset += bytes;
    }
    g_free(buffer);
}

ASH_CO_FN static inline void chain_down(struct chain *chain)
{
    assert_int_equal(ash_co_disk_close(chain->disk, NULL), 0);
    guest_model_free(&chain->model);
}

#endif
