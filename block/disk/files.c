/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which files a disk needs, told before it is opened.
 *
 * Each image is opened by itself, read-only, without locks and without what it stands on; what it
 * names is found by the function that opening chains asks (ash_node_backing()), so the two cannot
 * differ.
 *
 * Invariants:
 *  1. One image is open at a time.
 *  2. The host is told on its plain stack, when the walk is over; of a walk that failed, what it
 * found. */
#include <ashlar/disk.h>
#include <errno.h>
#include <glib.h>
#include "block/disk/call.h"
#include "block/disk/disk.h"
#include "block/driver.h"
#include "block/graph/open.h"
#include "util/assert.h"
#include "util/error.h"

struct found {
    char *filename;
    const char *format;
    uint32_t depth;
};

struct layer {
    json_t *description;
    uint32_t depth;
};

struct files_call {
    struct ash_call call;
    char *description;
    struct ash_disk_options options;
    GArray *found;  /* struct found */
    GArray *layers; /* struct layer, yet to be read; the next one is the last */
    GHashTable *seen;
    ash_disk_file_fn *visit;
    ash_done_fn *done;
    void *opaque;
};

static void add_file(struct files_call *files, const struct ash_node *leaf, const char *format,
                     uint32_t depth)
{
    if (json_object_get(leaf->options, "filename") == NULL) {
        return; /* null and the like */
    }
    struct found found = {g_strdup(leaf->filename), format, depth};
    g_array_append_val(files->found, found);
}

/* What stands below `node`, to be read next. */
static int add_backing(struct files_call *files, struct ash_node *node, uint32_t depth)
{
    struct layer below = {.depth = depth + 1};
    struct ash_node *existing;
    int ret = ash_node_backing(node, &below.description, &existing, &files->call.error);
    if (ret <= 0 || existing != NULL) {
        return ret < 0 ? ret : 0; /* an existing node's files are open */
    }
    char *text = json_dumps(below.description, JSON_SORT_KEYS | JSON_COMPACT);
    bool repeated = text == NULL || !g_hash_table_add(files->seen, g_strdup(text));
    free(text);
    if (repeated || below.depth >= ASH_CHAIN_DEPTH_MAX) {
        json_decref(below.description);
        return ash_error_set(&files->call.error, -ELOOP, "The backing chain of '%s' has no end",
                             node->filename);
    }
    g_array_append_val(files->layers, below);
    return 0;
}

/* The files of an open image, and what it stands on. */
static int look_at(struct files_call *files, struct ash_node *layer, uint32_t depth)
{
    const char *format = NULL;
    int ret = 0;
    for (struct ash_node *node = layer; node != NULL && ret == 0;
         node = node->file != NULL ? node->file->child : NULL) {
        if (node->driver->kind == ASH_DRIVER_PROTOCOL) {
            add_file(files, node, format != NULL ? format : node->driver->name, depth);
        } else if (format == NULL && node->driver->kind == ASH_DRIVER_FORMAT) {
            format = node->driver->name;
        }
        if (node->data != NULL) {
            ret = look_at(files, node->data->child, depth);
        }
        if (ret == 0 && (files->options.flags & ASH_DISK_NO_BACKING) == 0) {
            ret = add_backing(files, node, depth);
        }
    }
    return ret;
}

ASH_CO_FN static int read_layer(struct files_call *files, const struct layer *layer)
{
    struct ash_node *node;
    int ret = ash_node_open(files->call.loop, layer->description,
                            ASH_NODE_NO_BACKING | ASH_NODE_BACKING_TOLD | ASH_NODE_FORCE_SHARE |
                                ASH_NODE_NO_LOCK,
                            &node, &files->call.error);
    if (ret < 0) {
        return ret;
    }
    ret = look_at(files, node, layer->depth);
    int closed = ash_node_unref(node);
    return ret < 0 ? ret : closed;
}

ASH_CO_FN static int walk(struct files_call *files)
{
    struct layer top = {
        .description = ash_describe(files->description, files->options.format, &files->call.error)};
    if (top.description == NULL) {
        return files->call.error.code;
    }
    g_array_append_val(files->layers, top);
    int ret = 0;
    while (ret == 0 && files->layers->len > 0) {
        struct layer layer = g_array_index(files->layers, struct layer, files->layers->len - 1);
        g_array_set_size(files->layers, files->layers->len - 1);
        ret = read_layer(files, &layer);
        json_decref(layer.description);
    }
    return ret;
}

static int run(struct ash_call *call)
{
    ash_co_assert_inside();
    return walk(ash_container_of(call, struct files_call, call));
}

static void tell(struct files_call *files)
{
    for (guint i = 0; i < files->found->len; i++) {
        const struct found *found = &g_array_index(files->found, struct found, i);
        struct ash_disk_file file = {sizeof(file), found->depth, found->filename, found->format};
        files->visit(files->opaque, &file);
    }
}

static void files_free(struct files_call *files)
{
    for (guint i = 0; i < files->found->len; i++) {
        g_free(g_array_index(files->found, struct found, i).filename);
    }
    for (guint i = 0; i < files->layers->len; i++) {
        json_decref(g_array_index(files->layers, struct layer, i).description);
    }
    g_array_free(files->found, TRUE);
    g_array_free(files->layers, TRUE);
    g_hash_table_destroy(files->seen);
    g_free(files->description);
    ash_disk_options_clear(&files->options);
    g_free(files);
}

static void finish(struct ash_call *call)
{
    struct files_call *files = ash_container_of(call, struct files_call, call);
    tell(files);
    if (files->done != NULL) {
        files->done(files->opaque, call->ret, &call->error);
    }
    files_free(files);
}

static struct files_call *files_new(struct ash_loop *loop, const char *description,
                                    const struct ash_disk_options *options, ash_disk_file_fn *visit,
                                    void *opaque)
{
    struct files_call *files = g_new0(struct files_call, 1);
    ash_call_init(&files->call, loop, run, finish);
    files->description = g_strdup(description);
    ash_disk_options_copy(&files->options, options, &files->call.error);
    files->found = g_array_new(FALSE, FALSE, sizeof(struct found));
    files->layers = g_array_new(FALSE, FALSE, sizeof(struct layer));
    files->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    files->visit = visit;
    files->opaque = opaque;
    return files;
}

ASH_PUBLIC int ash_disk_files(struct ash_loop *loop, const char *description,
                              const struct ash_disk_options *options, ash_disk_file_fn *visit,
                              ash_done_fn *done, void *opaque)
{
    struct files_call *files = files_new(loop, description, options, visit, opaque);
    files->done = done;
    int ret = ash_call_post(&files->call);
    if (ret < 0) {
        files_free(files);
    }
    return ret;
}

ASH_PUBLIC int ash_disk_files_sync(struct ash_loop *loop, const char *description,
                                   const struct ash_disk_options *options, ash_disk_file_fn *visit,
                                   void *opaque, struct ash_error *error)
{
    struct files_call *files = files_new(loop, description, options, visit, opaque);
    int ret = ash_call_sync(&files->call, error);
    tell(files);
    files_free(files);
    return ret;
}
