/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control calls of the public API, from any thread.
 *
 * A call becomes a struct control, posted to the loop; there it runs in a coroutine; at the end of
 * the turn in which it ended, its completion is called on the plain stack, once, and it is freed.
 * The _sync twins run the same functions through ash_loop_run_sync(). */
#include <ashlar/disk.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/driver.h"
#include "block/graph/open.h"
#include "util/assert.h"
#include "util/error.h"

enum verb { VERB_OPEN, VERB_CLOSE, VERB_RESIZE };

struct control {
    struct ash_turn_hook hook;
    struct ash_loop *loop;
    enum verb verb;
    char *description;
    char *format;
    char *cache;
    uint32_t flags;
    uint64_t bytes;
    struct ash_disk *disk;
    int ret;
    struct ash_error error;
    ash_disk_opened_fn *opened;
    ash_done_fn *done;
    void *opaque;
};

static int node_flags(const struct control *control, uint32_t *flags, bool *write_through,
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
    uint32_t left = control->flags;
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
    if (control->cache != NULL && ash_cache_mode(control->cache, flags, write_through) < 0) {
        return ash_error_set(error, -EINVAL, "Unknown cache mode '%s'", control->cache);
    }
    return 0;
}

ASH_CO_FN static int run_open(struct control *control)
{
    uint32_t flags;
    bool write_through;
    int ret = node_flags(control, &flags, &write_through, &control->error);
    if (ret < 0) {
        return ret;
    }
    json_t *description = ash_describe(control->description, control->format, &control->error);
    if (description == NULL) {
        return control->error.code;
    }
    ret = ash_co_disk_open(control->loop, description, flags, &control->disk, &control->error);
    json_decref(description);
    if (ret == 0 && write_through) {
        control->disk->write_through = true;
    }
    return ret;
}

static int run(void *opaque)
{
    struct control *control = opaque;
    ash_co_assert_inside();
    switch (control->verb) {
    case VERB_OPEN:
        return run_open(control);
    case VERB_CLOSE:
        return ash_co_disk_close(control->disk, &control->error);
    default:
        return ash_co_disk_resize(control->disk, control->bytes, control->flags, ASH_PREALLOC_OFF,
                                  &control->error);
    }
}

static void control_clear(struct control *control)
{
    g_free(control->description);
    g_free(control->format);
    g_free(control->cache);
}

static void finish(struct ash_turn_hook *hook)
{
    struct control *control = ash_container_of(hook, struct control, hook);
    if (control->opened != NULL) {
        control->opened(control->opaque, control->ret, control->ret == 0 ? control->disk : NULL,
                        &control->error);
    } else if (control->done != NULL) {
        control->done(control->opaque, control->ret, &control->error);
    }
    control_clear(control);
    g_free(control);
}

static void control_coroutine(void *opaque)
{
    struct control *control = opaque;
    control->ret = run(control);
    ash_loop_at_turn_end(control->loop, &control->hook);
}

static void control_posted(void *opaque)
{
    struct control *control = opaque;
    int ret = ash_co_spawn(&control->loop->sched, control_coroutine, control);
    if (ret < 0) {
        control->ret = ash_error_set(&control->error, ret, "No coroutine can be had");
        ash_loop_at_turn_end(control->loop, &control->hook);
    }
}

static void control_init(struct control *control, struct ash_loop *loop, enum verb verb)
{
    *control = (struct control){.loop = loop, .verb = verb, .error = ASH_ERROR_INIT};
    ash_turn_hook_init(&control->hook, finish);
}

static void control_open(struct control *control, struct ash_loop *loop, const char *description,
                         const struct ash_disk_options *options)
{
    control_init(control, loop, VERB_OPEN);
    control->description = g_strdup(description);
    if (options != NULL) {
        control->flags = options->flags;
        control->format = g_strdup(options->format);
        control->cache = g_strdup(options->cache);
    }
}

static int post(struct control *control)
{
    int ret = ash_loop_post(control->loop, control_posted, control);
    if (ret < 0) {
        control_clear(control);
        g_free(control);
    }
    return ret;
}

static int sync_run(struct control *control, struct ash_error *error)
{
    int ret = ash_loop_run_sync(control->loop, run, control);
    if (ret < 0 && error != NULL) {
        uint32_t size = error->size;
        if (control->error.code == 0) {
            ash_error_errno(&control->error, ret, "The call could not be made");
        }
        *error = control->error;
        error->size = size;
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
    int ret = sync_run(&control, error);
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
    return sync_run(&control, error);
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
    return sync_run(&control, error);
}
