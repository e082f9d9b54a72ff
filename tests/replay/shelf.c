/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/replay/shelf.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/driver.h"
#include "tests/unit/qcow2_rig.h"

static char sentence[1200];

uint64_t shelf_hash(const void *bytes, size_t count, uint64_t seed)
{
    const uint8_t *at = bytes;
    uint64_t hash = seed ^ count * UINT64_C(0x9e3779b97f4a7c15);
    for (; count >= 8; at += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    for (; count > 0; at++, count--) {
        hash = (hash ^ *at) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 29;
    }
    return hash ^ hash >> 31;
}

static uint64_t *key_of(uint64_t hash)
{
    return g_memdup2(&hash, sizeof(hash));
}

static void image_free(void *opaque)
{
    struct shelf_image *image = opaque;
    for (uint32_t i = 0; i < image->file_count; i++) {
        g_bytes_unref(image->file[i]);
    }
    g_free(image->story);
    g_free(image->content);
    g_hash_table_unref(image->judged);
    g_free(image);
}

void shelf_init(struct shelf *shelf)
{
    memset(shelf, 0, sizeof(*shelf));
    shelf->files =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_bytes_unref);
    shelf->images = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, image_free);
    shelf->tables = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    shelf->fresh = g_ptr_array_new();
}

void shelf_free(struct shelf *shelf)
{
    g_hash_table_unref(shelf->files);
    g_hash_table_unref(shelf->images);
    g_hash_table_unref(shelf->tables);
    g_ptr_array_unref(shelf->fresh);
}

static GBytes *file_put(struct shelf *shelf, const GByteArray *bytes, uint64_t hash)
{
    GBytes *known = g_hash_table_lookup(shelf->files, &hash);
    if (known == NULL) {
        known = g_bytes_new(bytes->data, bytes->len);
        g_hash_table_insert(shelf->files, key_of(hash), known);
    }
    return g_bytes_ref(known);
}

struct shelf_image *shelf_put(struct shelf *shelf, const struct log_bytes *files, uint32_t count,
                              const char *story)
{
    uint64_t hash[LOG_FILES];
    for (uint32_t i = 0; i < count; i++) {
        hash[i] = shelf_hash(files[i].data->data, files[i].data->len, files[i].length);
    }
    shelf->states++;
    uint64_t key = shelf_hash(hash, count * sizeof(hash[0]), 2);
    struct shelf_image *image = g_hash_table_lookup(shelf->images, &key);
    if (image) {
        return image;
    }
    image = g_new0(struct shelf_image, 1);
    image->key = key;
    image->file_count = count;
    image->story = g_strdup(story);
    image->judged = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    for (uint32_t i = 0; i < count; i++) {
        image->file[i] = file_put(shelf, files[i].data, hash[i]);
        image->length[i] = files[i].length;
    }
    g_hash_table_insert(shelf->images, &image->key, image);
    g_ptr_array_add(shelf->fresh, image);
    return image;
}

/* --- our own look --- */

static void first_finding(struct ash_check *check, const char *text)
{
    char *first = check->opaque;
    if (first[0] == '\0') {
        g_strlcpy(first, text, 300);
    }
}

struct look {
    struct ash_loop *loop;
    struct shelf_image *image;
    const char *wrong;
};

static int look_co(void *opaque)
{
    ash_co_assert_inside();
    struct look *look = opaque;
    struct shelf_image *image = look->image;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk;
    char name[8];
    char first[300] = "";
    snprintf(name, sizeof(name), "f%u", image->file_count - 1);
    struct rig rig = {.loop = look->loop};
    if (rig_open(&rig, name, 0, &disk, &error) < 0) {
        snprintf(sentence, sizeof(sentence), "we cannot open it: %s", error.message);
        look->wrong = sentence;
        return 0;
    }
    struct ash_node *node = ash_disk_node(disk);
    struct ash_check check = {.report = first_finding, .opaque = first};
    if (!image->dirty && node->driver->check(node, &check, &error) < 0) {
        snprintf(sentence, sizeof(sentence), "our check fails: %s", error.message);
        look->wrong = sentence;
    } else if (check.corruptions > 0 || check.check_errors > 0) {
        snprintf(sentence, sizeof(sentence), "our check finds %" PRIu64 " corruptions: %s",
                 check.corruptions, first);
        look->wrong = sentence;
    }
    image->leaks = check.leaks > 0;
    image->bytes = ash_disk_bytes(disk);
    image->content = g_malloc(image->bytes + 1);
    int ret = image->bytes > 0 ? ash_disk_read(disk, 0, image->content, image->bytes) : 0;
    if (ret < 0 && !look->wrong) {
        snprintf(sentence, sizeof(sentence), "reading it fails with %d", ret);
        look->wrong = sentence;
    }
    ash_co_disk_close(disk, &error);
    return 0;
}

const char *shelf_look(struct shelf_image *image)
{
    struct ash_sim_config config = {.latency_ns_min = 1000, .latency_ns_max = 1000};
    struct rig rig = {0};
    if (image->content != NULL) {
        return NULL;
    }
    rig_world(&rig, &config);
    for (uint32_t i = 0; i < image->file_count; i++) {
        char name[8];
        gsize bytes;
        const void *data = g_bytes_get_data(image->file[i], &bytes);
        snprintf(name, sizeof(name), "f%u", i);
        ash_sim_file_write(rig.world, name, 0, data, bytes);
        if (image->length[i] > bytes) {
            ash_sim_file_write(rig.world, name, image->length[i] - 1, "", 1);
        }
        if (i == image->file_count - 1) {
            image->dirty =
                bytes > 79 && ((const uint8_t *)data)[7] >= 3 && (((const uint8_t *)data)[79] & 1);
        }
    }
    rig_boot(&rig);
    struct look look = {.loop = rig.loop, .image = image};
    ash_loop_run_sync(rig.loop, look_co, &look);
    rig_halt(&rig);
    ash_sim_world_free(rig.world);
    return look.wrong;
}
