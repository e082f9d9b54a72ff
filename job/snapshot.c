/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A live snapshot: an image keeps what it holds, and an overlay on top of it takes what guests
 * write from this moment on. Of several disks in one transaction, at the same moment.
 *
 *     before:  guest ─▶ image          after:  guest ─▶ overlay ─▶ image
 *
 *     {"type": "snapshot", "device": "n", "snapshot-file": "o.qcow2", "format": "qcow2",
 *      "mode": "absolute-paths", "snapshot-node-name": "o"}
 *     {"type": "snapshot", "device": "n", "overlay": "o"}
 *
 * The second form takes a node that is open and has no backing node.
 *
 * Invariants:
 *  1. The users are led over while they are paused, all of a transaction's or none.
 *  2. The overlay's header names the image before any user stands on the overlay.
 *  3. What was written to the image is stable before that, too: a flush of the users reaches the
 *     overlay and no image below it. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "block/image/image.h"
#include "block/map/ops.h"
#include "job/chain.h"
#include "job/job.h"
#include "util/assert.h"

enum mode { MODE_ABSOLUTE_PATHS, MODE_EXISTING };
static const char *const mode_names[] = {"absolute-paths", "existing", NULL};

struct snapshot {
    struct ash_job job;
    char *device;
    char *overlay_name;
    char *file;
    char *format;
    char *node_name;
    int mode;

    struct ash_node *node; /* that gets an overlay */
    struct ash_node *overlay;
};

static const struct ash_option snapshot_options[] = {
    ASH_OPTION_STRING("device", struct snapshot, device, .help = "node that gets an overlay"),
    ASH_OPTION_STRING("overlay", struct snapshot, overlay_name,
                      .help = "node of the overlay, without a backing node"),
    ASH_OPTION_STRING("snapshot-file", struct snapshot, file, .help = "file of the overlay"),
    ASH_OPTION_STRING("format", struct snapshot, format, .help = "of the file; qcow2 by default"),
    ASH_OPTION_STRING("snapshot-node-name", struct snapshot, node_name,
                      .help = "name of the overlay's node"),
    ASH_OPTION_ENUM("mode", struct snapshot, mode, mode_names,
                    .help = "absolute-paths: the file is made; existing: it is there"),
    ASH_OPTION_END,
};

static struct snapshot *snapshot_of(struct ash_job *job)
{
    return ash_container_of(job, struct snapshot, job);
}

static const char *format_of(const struct snapshot *s)
{
    return s->format != NULL ? s->format : "qcow2";
}

/* What the overlay's header calls the image: in the same folder its name is enough, and moving both
 * does no harm. */
static char *backing_string(const struct snapshot *s)
{
    const char *image = s->node->filename;
    if (strchr(image, ':') != NULL) {
        return g_strdup(image);
    }
    char *own_folder = g_path_get_dirname(s->file);
    char *folder = g_path_get_dirname(image);
    char *result = strcmp(own_folder, folder) == 0 ? g_path_get_basename(image)
                                                   : g_canonicalize_filename(image, NULL);
    g_free(own_folder);
    g_free(folder);
    return result;
}

ASH_CO_FN static int create_file(struct snapshot *s, struct ash_error *error)
{
    char *backing = backing_string(s);
    json_t *options =
        json_pack("{s:s, s:s}", "backing_file", backing, "backing_fmt", s->node->driver->name);
    int ret =
        ash_image_create(s->job.loop, s->file, format_of(s), s->node->size_bytes, options, error);
    json_decref(options);
    g_free(backing);
    return ret;
}

ASH_CO_FN static int open_file(struct snapshot *s, struct ash_error *error)
{
    if (s->mode != MODE_EXISTING) {
        int ret = create_file(s, error);
        if (ret < 0) {
            return ret;
        }
    }
    json_t *description = ash_describe(s->file, format_of(s), error);
    if (description == NULL) {
        return -EINVAL;
    }
    json_object_set_new(description, "backing", json_null());
    if (s->node_name != NULL) {
        json_object_set_new(description, "node-name", json_string(s->node_name));
    }
    uint32_t flags =
        s->node->flags & (ASH_NODE_WRITE | ASH_NODE_DISCARD | ASH_NODE_DIRECT | ASH_NODE_NO_FLUSH);
    int ret = ash_node_open(s->job.loop, description, flags, &s->overlay, error);
    json_decref(description);
    return ret;
}

static int find_overlay(struct snapshot *s, struct ash_error *error)
{
    int ret = ash_job_find_node(s->job.loop, "overlay", s->overlay_name, &s->overlay, error);
    if (ret == 0) {
        ash_node_ref(s->overlay);
    }
    return ret;
}

static int check_nodes(const struct snapshot *s, struct ash_error *error)
{
    if (s->overlay->map == NULL || !s->overlay->driver->backing) {
        return ash_error_set(error, -ENOTSUP, "Driver '%s' has no backing images",
                             s->overlay->driver->name);
    }
    if (s->overlay->backing != NULL || !ash_list_empty(&s->overlay->parents)) {
        return ash_error_set(error, -EBUSY, "The overlay '%s' is in use", s->overlay->filename);
    }
    ash_list_for_each (edge, &s->node->parents, struct ash_edge, child_link) {
        if (edge->role == ASH_ROLE_JOB || edge->frozen) {
            return ash_error_set(error, -EBUSY, "'%s' is used by a job", s->node->filename);
        }
    }
    return 0;
}

ASH_CO_FN static void snapshot_clean(struct ash_job *job)
{
    struct snapshot *s = snapshot_of(job);
    if (s->overlay != NULL) {
        ash_node_unref(s->overlay);
    }
    ash_node_unref(s->node);
}

ASH_CO_FN static int snapshot_start(struct ash_job *job, struct ash_error *error)
{
    struct snapshot *s = snapshot_of(job);
    struct ash_node *device;
    int ret = ash_job_find_node(job->loop, "device", s->device, &device, error);
    if (ret < 0) {
        return ret;
    }
    if ((s->overlay_name == NULL) == (s->file == NULL)) {
        return ash_error_set(error, -EINVAL, "Either 'overlay' or 'snapshot-file' is needed");
    }
    s->node = ash_graft_mapped(device);
    s->node = s->node != NULL ? s->node : device;
    ash_node_ref(s->node);
    job->moment = s->node;
    ret = s->file != NULL ? open_file(s, error) : find_overlay(s, error);
    ret = ret < 0 ? ret : check_nodes(s, error);
    if (ret < 0) {
        snapshot_clean(job);
    }
    return ret;
}

/* One plan: the overlay on the image, the users on the overlay. */
ASH_CO_FN static int snapshot_begin(struct ash_job *job, struct ash_error *error)
{
    struct snapshot *s = snapshot_of(job);
    int ret = check_nodes(s, error);
    if (ret == 0 && s->overlay->size_bytes != s->node->size_bytes) {
        ret = ash_error_set(error, -EINVAL, "'%s' and '%s' are not of the same length",
                            s->overlay->filename, s->node->filename);
    }
    if (ret == 0 && ash_node_writable(s->node)) {
        ret = ash_map_flush(s->node);
        if (ret < 0) {
            ash_error_errno(error, ret, "Flushing '%s' failed", s->node->filename);
        }
    }
    return ret < 0 ? ret : ash_graft_put_overlay(s->node, s->overlay, error);
}

/* Leading users back changes rights and locks, which a host that fails, as without power, refuses.
 * Then they stay on the overlay, where they find all that they have. */
ASH_CO_FN static void snapshot_unbegin(struct ash_job *job)
{
    struct snapshot *s = snapshot_of(job);
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_graft_take_overlay(s->node, s->overlay, &error) < 0) {
        ash_log(job->loop, ASH_LOG_ERROR,
                "The snapshot was not taken, but '%s' stays the overlay of '%s': %s",
                s->overlay->filename, s->node->filename, error.message);
    }
}

/* The image is written to no more. */
ASH_CO_FN static int snapshot_run(struct ash_job *job, struct ash_error *error)
{
    struct snapshot *s = snapshot_of(job);
    struct ash_error own = ASH_ERROR_INIT;
    (void)error;
    if (ash_node_writable(s->node) && ash_graft_set_writable(s->node, false, &own) < 0) {
        ash_log(job->loop, ASH_LOG_WARNING, "%s", own.message);
    }
    return 0;
}

extern const struct ash_job_driver ash_job_snapshot;
const struct ash_job_driver ash_job_snapshot = {
    .type = "snapshot",
    .instant = true,
    .job_size = sizeof(struct snapshot),
    .options = snapshot_options,
    .start = snapshot_start,
    .begin = snapshot_begin,
    .unbegin = snapshot_unbegin,
    .run = snapshot_run,
    .clean = snapshot_clean,
};
