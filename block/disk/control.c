/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control calls of the public API, from any thread.
 *
 * Each is a struct control that begins with a call (block/disk/call.h). */
#include <ashlar/disk.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/disk/call.h"
#include "block/disk/disk.h"
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "util/assert.h"
#include "util/error.h"
#include "util/sized.h"

enum verb { VERB_OPEN, VERB_CLOSE, VERB_RESIZE, VERB_INSERT, VERB_REMOVE };

struct control {
    struct ash_call call;
    enum verb verb;
    char *description;               /* or the name of a node */
    struct ash_disk_options options; /* open */
    uint32_t flags;                  /* resize */
    uint64_t bytes;
    struct ash_disk *disk;
    ash_disk_opened_fn *opened;
    ash_done_fn *done;
    void *opaque;
};

static int node_flags(const struct ash_disk_options *options, uint32_t *flags, bool *write_through,
                      struct ash_error *error)
{
    static const struct {
        uint32_t disk;
        uint32_t node;
    } map[] = {
        {ASH_DISK_WRITE, ASH_NODE_WRITE | ASH_NODE_DISCARD},
        {ASH_DISK_NO_BACKING, ASH_NODE_NO_BACKING},
        {ASH_DISK_FORCE_SHARE, ASH_NODE_FORCE_SHARE},
        {ASH_DISK_NO_LOCK, ASH_NODE_NO_LOCK},
    };
    uint32_t left = options->flags;
    *flags = 0;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(map); i++) {
        if ((left & map[i].disk) != 0) {
            *flags |= map[i].node;
            left &= ~map[i].disk;
        }
    }
    if (left != 0) {
        return ash_error_set(error, -EINVAL, "Unknown disk flags 0x%x", left);
    }
    *write_through = false;
    if (options->cache != NULL && ash_cache_mode(options->cache, flags, write_through) < 0) {
        return ash_error_set(error, -EINVAL, "Unknown cache mode '%s'", options->cache);
    }
    return 0;
}

void ash_disk_options_copy(struct ash_disk_options *copy, const struct ash_disk_options *options,
                           struct ash_error *error)
{
    struct ash_disk_options known = ASH_DISK_OPTIONS_INIT;
    if (options != NULL &&
        ash_sized_read(&known, sizeof(known), options, offsetof(struct ash_disk_options, format),
                       "disk options", error) < 0) {
        known = (struct ash_disk_options)ASH_DISK_OPTIONS_INIT;
    }
    *copy = known;
    copy->format = g_strdup(known.format);
    copy->cache = g_strdup(known.cache);
}

void ash_disk_options_clear(struct ash_disk_options *copy)
{
    g_free((char *)copy->format);
    g_free((char *)copy->cache);
}

int ash_co_disk_open_public(struct ash_loop *loop, const char *text,
                            const struct ash_disk_options *options, struct ash_disk **disk,
                            struct ash_error *error)
{
    uint32_t flags;
    bool write_through;
    int ret = node_flags(options, &flags, &write_through, error);
    if (ret < 0) {
        return ret;
    }
    json_t *description = ash_describe(text, options->format, error);
    if (description == NULL) {
        return error->code;
    }
    ret = ash_co_disk_open(loop, description, flags, disk, error);
    json_decref(description);
    if (ret == 0 && write_through) {
        (*disk)->write_through = true;
    }
    return ret;
}

ASH_CO_FN static int run_open(struct control *control)
{
    return ash_co_disk_open_public(control->call.loop, control->description, &control->options,
                                   &control->disk, &control->call.error);
}

ASH_CO_FN static int run_insert(struct control *control)
{
    json_error_t where;
    json_t *description = json_loads(control->description, JSON_REJECT_DUPLICATES, &where);
    if (description == NULL) {
        return ash_error_set(&control->call.error, -EINVAL,
                             "The description of a filter is not JSON: %s", where.text);
    }
    int ret = ash_graft_insert_filter(control->call.loop, description, &control->call.error);
    json_decref(description);
    return ret;
}

static int run(struct ash_call *call)
{
    struct control *control = ash_container_of(call, struct control, call);
    ash_co_assert_inside();
    switch (control->verb) {
    case VERB_OPEN:
        return run_open(control);
    case VERB_CLOSE:
        return ash_co_disk_close(control->disk, &control->call.error);
    case VERB_INSERT:
        return run_insert(control);
    case VERB_REMOVE:
        return ash_graft_remove_filter(control->call.loop, control->description,
                                       &control->call.error);
    default:
        if ((control->flags & ~ASH_RESIZE_SHRINK) != 0) {
            return ash_error_set(&control->call.error, -EINVAL, "Unknown resize flags 0x%x",
                                 control->flags);
        }
        return ash_co_disk_resize(control->disk, control->bytes, control->flags, ASH_PREALLOC_OFF,
                                  &control->call.error);
    }
}

static void control_clear(struct control *control)
{
    g_free(control->description);
    ash_disk_options_clear(&control->options);
}

static void finish(struct ash_call *call)
{
    struct control *control = ash_container_of(call, struct control, call);
    if (control->opened != NULL) {
        control->opened(control->opaque, call->ret, call->ret == 0 ? control->disk : NULL,
                        &call->error);
    } else if (control->done != NULL) {
        control->done(control->opaque, call->ret, &call->error);
    }
    control_clear(control);
    g_free(control);
}

static void control_init(struct control *control, struct ash_loop *loop, enum verb verb)
{
    *control = (struct control){.verb = verb};
    ash_call_init(&control->call, loop, run, finish);
}

static void control_open(struct control *control, struct ash_loop *loop, const char *description,
                         const struct ash_disk_options *options)
{
    control_init(control, loop, VERB_OPEN);
    control->description = g_strdup(description);
    ash_disk_options_copy(&control->options, options, &control->call.error);
}

static int post(struct control *control)
{
    int ret = ash_call_post(&control->call);
    if (ret < 0) {
        control_clear(control);
        g_free(control);
    }
    return ret;
}

ASH_PUBLIC int ash_disk_open(struct ash_loop *loop, const char *description,
                             const struct ash_disk_options *options, ash_disk_opened_fn *done,
                             void *opaque)
{
    struct control *control = g_new0(struct control, 1);
    control_open(control, loop, description, options);
    control->opened = done;
    control->opaque = opaque;
    return post(control);
}

ASH_PUBLIC int ash_disk_open_sync(struct ash_loop *loop, const char *description,
                                  const struct ash_disk_options *options, struct ash_disk **disk,
                                  struct ash_error *error)
{
    struct control control;
    control_open(&control, loop, description, options);
    int ret = ash_call_sync(&control.call, error);
    if (ret == 0) {
        *disk = control.disk;
    }
    control_clear(&control);
    return ret;
}

ASH_PUBLIC int ash_disk_close(struct ash_disk *disk, ash_done_fn *done, void *opaque)
{
    struct control *control = g_new0(struct control, 1);
    control_init(control, disk->loop, VERB_CLOSE);
    control->disk = disk;
    control->done = done;
    control->opaque = opaque;
    return post(control);
}

ASH_PUBLIC int ash_disk_close_sync(struct ash_disk *disk, struct ash_error *error)
{
    struct control control;
    control_init(&control, disk->loop, VERB_CLOSE);
    control.disk = disk;
    return ash_call_sync(&control.call, error);
}

ASH_PUBLIC int ash_disk_resize(struct ash_disk *disk, uint64_t bytes, uint32_t flags,
                               ash_done_fn *done, void *opaque)
{
    struct control *control = g_new0(struct control, 1);
    control_init(control, disk->loop, VERB_RESIZE);
    control->disk = disk;
    control->bytes = bytes;
    control->flags = flags;
    control->done = done;
    control->opaque = opaque;
    return post(control);
}

ASH_PUBLIC int ash_disk_resize_sync(struct ash_disk *disk, uint64_t bytes, uint32_t flags,
                                    struct ash_error *error)
{
    struct control control;
    control_init(&control, disk->loop, VERB_RESIZE);
    control.disk = disk;
    control.bytes = bytes;
    control.flags = flags;
    return ash_call_sync(&control.call, error);
}

static void control_filter(struct control *control, struct ash_disk *disk, enum verb verb,
                           const char *text)
{
    control_init(control, disk->loop, verb);
    control->disk = disk;
    control->description = g_strdup(text);
}

static int post_filter(struct ash_disk *disk, enum verb verb, const char *text, ash_done_fn *done,
                       void *opaque)
{
    struct control *control = g_new0(struct control, 1);
    control_filter(control, disk, verb, text);
    control->done = done;
    control->opaque = opaque;
    return post(control);
}

static int sync_filter(struct ash_disk *disk, enum verb verb, const char *text,
                       struct ash_error *error)
{
    struct control control;
    control_filter(&control, disk, verb, text);
    int ret = ash_call_sync(&control.call, error);
    control_clear(&control);
    return ret;
}

ASH_PUBLIC int ash_disk_insert_filter(struct ash_disk *disk, const char *description,
                                      ash_done_fn *done, void *opaque)
{
    return post_filter(disk, VERB_INSERT, description, done, opaque);
}

ASH_PUBLIC int ash_disk_insert_filter_sync(struct ash_disk *disk, const char *description,
                                           struct ash_error *error)
{
    return sync_filter(disk, VERB_INSERT, description, error);
}

ASH_PUBLIC int ash_disk_remove_filter(struct ash_disk *disk, const char *node_name,
                                      ash_done_fn *done, void *opaque)
{
    return post_filter(disk, VERB_REMOVE, node_name, done, opaque);
}

ASH_PUBLIC int ash_disk_remove_filter_sync(struct ash_disk *disk, const char *node_name,
                                           struct ash_error *error)
{
    return sync_filter(disk, VERB_REMOVE, node_name, error);
}
