/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a transaction does to dirty bitmaps at its moment: jobs that are over at once.
 *
 *     {"type": "bitmap-add", "device": "n", "bitmap": "b", "granularity": 65536, "disabled": true}
 *     {"type": "bitmap-clear" | "bitmap-enable" | "bitmap-disable", "device": "n", "bitmap": "b"}
 *     {"type": "bitmap-merge", "device": "n", "bitmap": "b", "source": "c"}
 *
 * Each can be taken back until all of the transaction have begun. */
#include <errno.h>
#include <glib.h>
#include "block/bitmap/bitmap.h"
#include "job/chain.h"
#include "job/job.h"
#include "util/assert.h"

struct action {
    struct ash_job job;
    char *device;
    char *name;
    char *from;
    uint64_t granularity_bytes;
    bool disabled;

    struct ash_node *node;
    struct ash_bitmap *bitmap;
    struct ash_bitmap_undo undo;
    bool was_enabled;
};

#define COMMON                                                                                     \
    ASH_OPTION_STRING("device", struct action, device, .help = "node of the bitmap"),              \
        ASH_OPTION_STRING("bitmap", struct action, name, .help = "its name")

static const struct ash_option action_options[] = {COMMON, ASH_OPTION_END};
static const struct ash_option add_options[] = {
    COMMON,
    ASH_OPTION_SIZE("granularity", struct action, granularity_bytes, .help = "a power of two"),
    ASH_OPTION_BOOL("disabled", struct action, disabled, .help = "it does not record yet"),
    ASH_OPTION_END,
};
static const struct ash_option merge_options[] = {
    COMMON,
    ASH_OPTION_STRING("source", struct action, from,
                      .help = "the bitmap of the node whose marks are added"),
    ASH_OPTION_END,
};

static struct action *action_of(struct ash_job *job)
{
    return ash_container_of(job, struct action, job);
}

ASH_CO_FN static int action_start(struct ash_job *job, struct ash_error *error)
{
    struct action *action = action_of(job);
    int ret = ash_job_find_node(job->loop, "device", action->device, &action->node, error);
    if (ret == 0 && action->name == NULL) {
        ret = ash_error_set(error, -EINVAL, "Parameter 'bitmap' is missing");
    }
    if (ret == 0) {
        ash_node_ref(action->node);
        job->moment = action->node;
    }
    return ret;
}

ASH_CO_FN static void action_clean(struct ash_job *job)
{
    ash_node_unref(action_of(job)->node);
}

ASH_CO_FN static int action_run(struct ash_job *job, struct ash_error *error)
{
    (void)job;
    (void)error;
    return 0;
}

static int find(struct action *action, const char *name, uint32_t not_allowed,
                struct ash_bitmap **bitmap, struct ash_error *error)
{
    *bitmap = name != NULL ? ash_bitmap_find(action->node, name) : NULL;
    if (*bitmap == NULL) {
        return ash_error_set(error, -ENOENT, "Node '%s' has no bitmap '%s'", action->node->name,
                             name != NULL ? name : "");
    }
    return ash_bitmap_check(*bitmap, not_allowed, error);
}

/* --- add --- */

ASH_CO_FN static int add_begin(struct ash_job *job, struct ash_error *error)
{
    struct action *action = action_of(job);
    uint64_t bytes = action->granularity_bytes != 0 ? action->granularity_bytes
                                                    : ash_bitmap_default_granularity(action->node);
    int ret = ash_bitmap_new(action->node, action->name, bytes, &action->bitmap, error);
    if (ret == 0 && action->disabled) {
        ash_bitmap_disable(action->bitmap);
    }
    return ret;
}

ASH_CO_FN static void add_unbegin(struct ash_job *job)
{
    ash_bitmap_free(action_of(job)->bitmap);
}

/* --- clear and merge --- */

ASH_CO_FN static int clear_begin(struct ash_job *job, struct ash_error *error)
{
    struct action *action = action_of(job);
    int ret = find(action, action->name, ASH_BITMAP_TO_CHANGE, &action->bitmap, error);
    if (ret == 0) {
        ret = ash_bitmap_clear(action->bitmap, &action->undo);
        if (ret < 0) {
            ash_error_errno(error, ret, "Bitmap '%s' cannot be cleared", action->name);
        }
    }
    return ret;
}

ASH_CO_FN static int merge_begin(struct ash_job *job, struct ash_error *error)
{
    struct action *action = action_of(job);
    struct ash_bitmap *from = NULL;
    int ret = find(action, action->name, ASH_BITMAP_TO_CHANGE, &action->bitmap, error);
    if (ret == 0) {
        ret = find(action, action->from, ASH_BITMAP_TO_READ, &from, error);
    }
    return ret < 0 ? ret : ash_bitmap_merge(action->bitmap, from, &action->undo, error);
}

ASH_CO_FN static void undo(struct ash_job *job)
{
    ash_bitmap_undo_restore(&action_of(job)->undo);
}

static void keep(struct ash_job *job)
{
    ash_bitmap_undo_drop(&action_of(job)->undo);
}

/* --- enable and disable --- */

ASH_CO_FN static int set_enabled(struct ash_job *job, bool enabled, struct ash_error *error)
{
    struct action *action = action_of(job);
    int ret = find(action, action->name, ASH_BITMAP_TO_CHANGE, &action->bitmap, error);
    if (ret == 0) {
        action->was_enabled = action->bitmap->enabled;
        (enabled ? ash_bitmap_enable : ash_bitmap_disable)(action->bitmap);
    }
    return ret;
}

ASH_CO_FN static int enable_begin(struct ash_job *job, struct ash_error *error)
{
    return set_enabled(job, true, error);
}

ASH_CO_FN static int disable_begin(struct ash_job *job, struct ash_error *error)
{
    return set_enabled(job, false, error);
}

ASH_CO_FN static void enable_unbegin(struct ash_job *job)
{
    struct action *action = action_of(job);
    (action->was_enabled ? ash_bitmap_enable : ash_bitmap_disable)(action->bitmap);
}

#define ACTION(name_, ...)                                                                         \
    {                                                                                              \
        .type = (name_), .instant = true, .job_size = sizeof(struct action),                       \
        .start = action_start, .run = action_run, .clean = action_clean, __VA_ARGS__               \
    }

extern const struct ash_job_driver ash_job_bitmap_add;
const struct ash_job_driver ash_job_bitmap_add =
    ACTION("bitmap-add", .options = add_options, .begin = add_begin, .unbegin = add_unbegin);
extern const struct ash_job_driver ash_job_bitmap_clear;
const struct ash_job_driver ash_job_bitmap_clear =
    ACTION("bitmap-clear", .options = action_options, .begin = clear_begin, .unbegin = undo,
           .begun = keep);
extern const struct ash_job_driver ash_job_bitmap_disable;
const struct ash_job_driver ash_job_bitmap_disable = ACTION(
    "bitmap-disable", .options = action_options, .begin = disable_begin, .unbegin = enable_unbegin);
extern const struct ash_job_driver ash_job_bitmap_enable;
const struct ash_job_driver ash_job_bitmap_enable = ACTION(
    "bitmap-enable", .options = action_options, .begin = enable_begin, .unbegin = enable_unbegin);
extern const struct ash_job_driver ash_job_bitmap_merge;
const struct ash_job_driver ash_job_bitmap_merge = ACTION(
    "bitmap-merge", .options = merge_options, .begin = merge_begin, .unbegin = undo, .begun = keep);
