/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps in the public API.
 *
 * Each function is a call (block/disk/call.h) that acts on one node. What the host's callbacks get
 * is collected on the loop and told afterwards: by `tell`, on the plain stack of the owner thread,
 * or, of a _sync twin, on the caller's. So a list is that of one instant, and so is what is saved.
 */
#include <ashlar/bitmap.h>
#include <errno.h>
#include <glib.h>
#include "block/bitmap/bitmap.h"
#include "block/bitmap/stream.h"
#include "block/disk/call.h"
#include "block/disk/disk.h"
#include "block/driver.h"
#include "util/assert.h"
#include "util/error.h"
#include "util/sized.h"

struct bitmap_call;
typedef int act_fn(struct bitmap_call *call, struct ash_node *node);

struct bitmap_call {
    struct ash_call call;
    struct ash_disk *disk;
    act_fn *act;                           /* on the loop */
    int (*tell)(struct bitmap_call *call); /* after it, unless it failed; may be NULL */
    char *node;
    char *name;
    uint32_t flags;
    uint64_t granularity_bytes;
    uint64_t size_bytes;               /* load: of the node */
    struct ash_bitmap_source *sources; /* merge: own copies */
    uint32_t source_count;
    GArray *infos;                     /* list: of struct ash_bitmap_info, their names own copies */
    struct ash_bitmap_picture picture; /* save, load */
    ash_bitmap_visit_fn *visit;
    ash_bitmap_sink_fn *sink;
    ash_bitmap_source_fn *source;
    ash_done_fn *done;
    void *opaque;
};

/* The life of a call. */

static int find_node(const struct bitmap_call *call, const char *name, struct ash_node **node,
                     struct ash_error *error)
{
    if (name != NULL) {
        *node = ash_node_find(call->call.loop, name);
        return *node != NULL ? 0 : ash_error_set(error, -ENOENT, "There is no node '%s'", name);
    }
    *node = ash_disk_node(call->disk);
    while ((*node)->driver->kind == ASH_DRIVER_FILTER) {
        *node = (*node)->file->child;
    }
    return 0;
}

static int run(struct ash_call *base)
{
    struct bitmap_call *call = ash_container_of(base, struct bitmap_call, call);
    struct ash_node *node;
    int ret = find_node(call, call->node, &node, &base->error);
    return ret < 0 ? ret : call->act(call, node);
}

static void call_clear(struct bitmap_call *call)
{
    for (uint32_t i = 0; i < call->source_count; i++) {
        g_free((char *)call->sources[i].node);
        g_free((char *)call->sources[i].name);
    }
    for (uint32_t i = 0; call->infos != NULL && i < call->infos->len; i++) {
        g_free((char *)g_array_index(call->infos, struct ash_bitmap_info, i).name);
    }
    if (call->infos != NULL) {
        g_array_free(call->infos, TRUE);
    }
    g_free(call->sources);
    g_free(call->node);
    g_free(call->name);
    ash_bitmap_picture_free(&call->picture);
}

static void finish(struct ash_call *base)
{
    struct bitmap_call *call = ash_container_of(base, struct bitmap_call, call);
    int ret = base->ret;
    if (ret == 0 && call->tell != NULL) {
        ret = call->tell(call);
    }
    if (call->done != NULL) {
        call->done(call->opaque, ret, &base->error);
    }
    call_clear(call);
    g_free(call);
}

static struct bitmap_call *call_new(struct ash_disk *disk, act_fn *act, const char *node,
                                    const char *name)
{
    struct bitmap_call *call = g_new0(struct bitmap_call, 1);
    ash_call_init(&call->call, disk->loop, run, finish);
    call->disk = disk;
    call->act = act;
    call->node = g_strdup(node);
    call->name = g_strdup(name);
    return call;
}

static int post(struct bitmap_call *call, ash_done_fn *done, void *opaque)
{
    call->done = done;
    call->opaque = opaque;
    int ret = ash_call_post(&call->call);
    if (ret < 0) {
        call_clear(call);
        g_free(call);
    }
    return ret;
}

static int run_sync(struct bitmap_call *call, struct ash_error *error)
{
    int ret = ash_call_sync(&call->call, error);
    if (ret == 0 && call->tell != NULL) {
        ret = call->tell(call);
        if (ret < 0 && error != NULL) {
            ash_error_set(error, ret, "%s", call->call.error.message);
        }
    }
    call_clear(call);
    g_free(call);
    return ret;
}

/* What the calls do. */

static int find_bitmap(const struct ash_node *node, const char *name, uint32_t not_allowed,
                       struct ash_bitmap **bitmap, struct ash_error *error)
{
    *bitmap = name != NULL ? ash_bitmap_find(node, name) : NULL;
    if (*bitmap == NULL) {
        return ash_error_set(error, -ENOENT, "'%s' has no bitmap '%s'", node->filename,
                             name != NULL ? name : "");
    }
    return ash_bitmap_check(*bitmap, not_allowed, error);
}

static int check_options(const struct bitmap_call *call, struct ash_error *error)
{
    if (call->name == NULL) {
        return ash_error_set(error, -EINVAL, "A bitmap needs a name");
    }
    if ((call->flags & ~ASH_BITMAP_DISABLED) != 0) {
        return ash_error_set(error, -EINVAL, "Unknown bitmap flags 0x%x", call->flags);
    }
    return 0;
}

/* Makes the bitmap of the options. */
static int make(struct bitmap_call *call, struct ash_node *node, uint64_t granularity_bytes,
                struct ash_bitmap **bitmap)
{
    int ret = check_options(call, &call->call.error);
    if (ret == 0) {
        ret = ash_bitmap_new(node, call->name, granularity_bytes, bitmap, &call->call.error);
    }
    if (ret == 0 && (call->flags & ASH_BITMAP_DISABLED) != 0) {
        ash_bitmap_disable(*bitmap);
    }
    return ret;
}

static int act_create(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    uint64_t granularity_bytes = call->granularity_bytes;
    if (granularity_bytes == 0) {
        granularity_bytes = ash_bitmap_default_granularity(node);
    }
    return make(call, node, granularity_bytes, &bitmap);
}

static int act_delete(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    int ret = find_bitmap(node, call->name, ASH_BITMAP_TO_DELETE, &bitmap, &call->call.error);
    if (ret == 0) {
        ash_bitmap_free(bitmap);
    }
    return ret;
}

static int act_enable(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    int ret = find_bitmap(node, call->name, ASH_BITMAP_TO_CHANGE, &bitmap, &call->call.error);
    if (ret == 0) {
        ash_bitmap_enable(bitmap);
    }
    return ret;
}

static int act_disable(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    int ret = find_bitmap(node, call->name, ASH_BITMAP_TO_CHANGE, &bitmap, &call->call.error);
    if (ret == 0) {
        ash_bitmap_disable(bitmap);
    }
    return ret;
}

static int act_clear(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    int ret = find_bitmap(node, call->name, ASH_BITMAP_TO_CHANGE, &bitmap, &call->call.error);
    return ret < 0 ? ret : ash_bitmap_clear(bitmap, NULL);
}

static int merge_source(const struct bitmap_call *call, struct ash_bitmap *bitmap,
                        const struct ash_bitmap_source *source, struct ash_error *error)
{
    struct ash_node *node;
    struct ash_bitmap *from = NULL;
    int ret = find_node(call, source->node, &node, error);
    if (ret == 0) {
        ret = find_bitmap(node, source->name, ASH_BITMAP_TO_READ, &from, error);
    }
    return ret < 0 ? ret : ash_bitmap_merge(bitmap, from, NULL, error);
}

static int act_merge(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    struct ash_bitmap_undo undo;
    struct ash_error *error = &call->call.error;
    int ret = find_bitmap(node, call->name, ASH_BITMAP_TO_CHANGE, &bitmap, error);
    if (ret == 0) {
        ret = ash_bitmap_merge(bitmap, bitmap, &undo, error); /* of itself: only the undo */
    }
    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < call->source_count && ret == 0; i++) {
        ret = merge_source(call, bitmap, &call->sources[i], error);
    }
    if (ret < 0) {
        ash_bitmap_undo_restore(&undo);
    } else {
        ash_bitmap_undo_drop(&undo);
    }
    return ret;
}

static int act_list(struct bitmap_call *call, struct ash_node *node)
{
    call->infos = g_array_new(FALSE, FALSE, sizeof(struct ash_bitmap_info));
    ash_list_for_each (bitmap, &node->bitmaps, struct ash_bitmap, link) {
        if (bitmap->name == NULL) {
            continue;
        }
        struct ash_bitmap_info info = {
            .size = sizeof(info),
            .flags = (bitmap->marks != NULL ? ASH_BITMAP_INFO_RECORDING : 0) |
                     (bitmap->busy ? ASH_BITMAP_INFO_BUSY : 0) |
                     (bitmap->persistent ? ASH_BITMAP_INFO_PERSISTENT : 0) |
                     (bitmap->inconsistent ? ASH_BITMAP_INFO_INCONSISTENT : 0) |
                     (bitmap->read_only ? ASH_BITMAP_INFO_READ_ONLY : 0),
            .name = g_strdup(bitmap->name),
            .granularity_bytes = ash_bitmap_granularity(bitmap),
            .dirty_bytes = ash_bitmap_dirty_bytes(bitmap)};
        g_array_append_val(call->infos, info);
    }
    return 0;
}

static int tell_list(struct bitmap_call *call)
{
    for (uint32_t i = 0; i < call->infos->len; i++) {
        call->visit(call->opaque, &g_array_index(call->infos, struct ash_bitmap_info, i));
    }
    return 0;
}

static int act_save(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    int ret = find_bitmap(node, call->name, ASH_BITMAP_TO_READ, &bitmap, &call->call.error);
    if (ret < 0) {
        return ret;
    }
    ret = ash_bitmap_picture_take(bitmap, &call->picture);
    return ret < 0
               ? ash_error_set(&call->call.error, ret, "No memory to save bitmap '%s'", call->name)
               : 0;
}

static int tell_save(struct bitmap_call *call)
{
    int ret = ash_bitmap_stream_write(&call->picture, call->sink, call->opaque);
    return ret < 0
               ? ash_error_errno(&call->call.error, ret, "Bitmap '%s' cannot be saved", call->name)
               : 0;
}

/* Load goes to the loop twice: to learn the node's length, and, the stream read, to make the
 * bitmap. */

static int act_load_begin(struct bitmap_call *call, struct ash_node *node)
{
    int ret = check_options(call, &call->call.error);
    if (ret < 0) {
        return ret;
    }
    if (call->granularity_bytes != 0) {
        return ash_error_set(&call->call.error, -EINVAL,
                             "The granularity of a bitmap that is loaded is that of the stream");
    }
    call->size_bytes = node->size_bytes;
    return 0;
}

static int act_load_end(struct bitmap_call *call, struct ash_node *node)
{
    struct ash_bitmap *bitmap;
    if (node->size_bytes != call->size_bytes) {
        return ash_error_set(&call->call.error, -EINVAL,
                             "'%s' has another length than when the loading of a bitmap began",
                             node->filename);
    }
    int ret = make(call, node, UINT64_C(1) << call->picture.shift, &bitmap);
    if (ret == 0) {
        ash_hbitmap_merge(&bitmap->bits, &call->picture.bits);
    }
    return ret;
}

static int read_stream(struct bitmap_call *call)
{
    return ash_bitmap_stream_read(&call->picture, call->size_bytes, call->source, call->opaque,
                                  &call->call.error);
}

/* On the owner thread: nothing of the second half waits. */
static int tell_load(struct bitmap_call *call)
{
    struct ash_node *node;
    int ret = read_stream(call);
    if (ret == 0) {
        ret = find_node(call, call->node, &node, &call->call.error);
    }
    return ret < 0 ? ret : act_load_end(call, node);
}

/* On any thread. */
static int tell_load_sync(struct bitmap_call *call)
{
    int ret = read_stream(call);
    if (ret < 0) {
        return ret;
    }
    call->act = act_load_end;
    return ash_call_sync(&call->call, NULL);
}

/* The public functions. */

static struct bitmap_call *call_of_options(struct ash_disk *disk, act_fn *act,
                                           const struct ash_bitmap_options *options)
{
    struct ash_bitmap_options known = ASH_BITMAP_OPTIONS_INIT;
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_sized_read(&known, sizeof(known), options, offsetof(struct ash_bitmap_options, node),
                       "bitmap options", &error) < 0) {
        known = (struct ash_bitmap_options)ASH_BITMAP_OPTIONS_INIT;
    }
    struct bitmap_call *call = call_new(disk, act, known.node, known.name);
    call->call.error = error;
    call->flags = known.flags;
    call->granularity_bytes = known.granularity_bytes;
    return call;
}

ASH_PUBLIC int ash_disk_bitmap_create(struct ash_disk *disk,
                                      const struct ash_bitmap_options *options, ash_done_fn *done,
                                      void *opaque)
{
    return post(call_of_options(disk, act_create, options), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_create_sync(struct ash_disk *disk,
                                           const struct ash_bitmap_options *options,
                                           struct ash_error *error)
{
    return run_sync(call_of_options(disk, act_create, options), error);
}

ASH_PUBLIC int ash_disk_bitmap_delete(struct ash_disk *disk, const char *node, const char *name,
                                      ash_done_fn *done, void *opaque)
{
    return post(call_new(disk, act_delete, node, name), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_delete_sync(struct ash_disk *disk, const char *node,
                                           const char *name, struct ash_error *error)
{
    return run_sync(call_new(disk, act_delete, node, name), error);
}

ASH_PUBLIC int ash_disk_bitmap_enable(struct ash_disk *disk, const char *node, const char *name,
                                      ash_done_fn *done, void *opaque)
{
    return post(call_new(disk, act_enable, node, name), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_enable_sync(struct ash_disk *disk, const char *node,
                                           const char *name, struct ash_error *error)
{
    return run_sync(call_new(disk, act_enable, node, name), error);
}

ASH_PUBLIC int ash_disk_bitmap_disable(struct ash_disk *disk, const char *node, const char *name,
                                       ash_done_fn *done, void *opaque)
{
    return post(call_new(disk, act_disable, node, name), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_disable_sync(struct ash_disk *disk, const char *node,
                                            const char *name, struct ash_error *error)
{
    return run_sync(call_new(disk, act_disable, node, name), error);
}

ASH_PUBLIC int ash_disk_bitmap_clear(struct ash_disk *disk, const char *node, const char *name,
                                     ash_done_fn *done, void *opaque)
{
    return post(call_new(disk, act_clear, node, name), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_clear_sync(struct ash_disk *disk, const char *node, const char *name,
                                          struct ash_error *error)
{
    return run_sync(call_new(disk, act_clear, node, name), error);
}

static struct bitmap_call *call_of_merge(struct ash_disk *disk, const char *node, const char *name,
                                         const struct ash_bitmap_source *sources, uint32_t count)
{
    struct bitmap_call *call = call_new(disk, act_merge, node, name);
    call->sources = g_new0(struct ash_bitmap_source, count);
    call->source_count = count;
    for (uint32_t i = 0; i < count; i++) {
        call->sources[i].node = g_strdup(sources[i].node);
        call->sources[i].name = g_strdup(sources[i].name);
    }
    return call;
}

ASH_PUBLIC int ash_disk_bitmap_merge(struct ash_disk *disk, const char *node, const char *name,
                                     const struct ash_bitmap_source *sources, uint32_t count,
                                     ash_done_fn *done, void *opaque)
{
    return post(call_of_merge(disk, node, name, sources, count), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_merge_sync(struct ash_disk *disk, const char *node, const char *name,
                                          const struct ash_bitmap_source *sources, uint32_t count,
                                          struct ash_error *error)
{
    return run_sync(call_of_merge(disk, node, name, sources, count), error);
}

static struct bitmap_call *call_of_list(struct ash_disk *disk, const char *node,
                                        ash_bitmap_visit_fn *visit, void *opaque)
{
    struct bitmap_call *call = call_new(disk, act_list, node, NULL);
    call->tell = tell_list;
    call->visit = visit;
    call->opaque = opaque;
    return call;
}

ASH_PUBLIC int ash_disk_bitmap_list(struct ash_disk *disk, const char *node,
                                    ash_bitmap_visit_fn *visit, ash_done_fn *done, void *opaque)
{
    return post(call_of_list(disk, node, visit, opaque), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_list_sync(struct ash_disk *disk, const char *node,
                                         ash_bitmap_visit_fn *visit, void *opaque,
                                         struct ash_error *error)
{
    return run_sync(call_of_list(disk, node, visit, opaque), error);
}

static struct bitmap_call *call_of_save(struct ash_disk *disk, const char *node, const char *name,
                                        ash_bitmap_sink_fn *sink, void *opaque)
{
    struct bitmap_call *call = call_new(disk, act_save, node, name);
    call->tell = tell_save;
    call->sink = sink;
    call->opaque = opaque;
    return call;
}

ASH_PUBLIC int ash_disk_bitmap_save(struct ash_disk *disk, const char *node, const char *name,
                                    ash_bitmap_sink_fn *sink, ash_done_fn *done, void *opaque)
{
    return post(call_of_save(disk, node, name, sink, opaque), done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_save_sync(struct ash_disk *disk, const char *node, const char *name,
                                         ash_bitmap_sink_fn *sink, void *opaque,
                                         struct ash_error *error)
{
    return run_sync(call_of_save(disk, node, name, sink, opaque), error);
}

static struct bitmap_call *call_of_load(struct ash_disk *disk,
                                        const struct ash_bitmap_options *options,
                                        ash_bitmap_source_fn *source, void *opaque)
{
    struct bitmap_call *call = call_of_options(disk, act_load_begin, options);
    call->source = source;
    call->opaque = opaque;
    return call;
}

ASH_PUBLIC int ash_disk_bitmap_load(struct ash_disk *disk, const struct ash_bitmap_options *options,
                                    ash_bitmap_source_fn *source, ash_done_fn *done, void *opaque)
{
    struct bitmap_call *call = call_of_load(disk, options, source, opaque);
    call->tell = tell_load;
    return post(call, done, opaque);
}

ASH_PUBLIC int ash_disk_bitmap_load_sync(struct ash_disk *disk,
                                         const struct ash_bitmap_options *options,
                                         ash_bitmap_source_fn *source, void *opaque,
                                         struct ash_error *error)
{
    struct bitmap_call *call = call_of_load(disk, options, source, opaque);
    call->tell = tell_load_sync;
    return run_sync(call, error);
}
