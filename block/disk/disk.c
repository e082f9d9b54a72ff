/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks: users of a graph.
 *
 * Invariants:
 *  1. Every request enters and leaves the disk's user, so that a pause holds it up.
 *  2. Closing is a user's work too, up to the last write of the last node: a pause that somebody
 * else wants waits for it, and one that stands holds it up.
 *  3. What other threads read is published: counters written by the owner only, and descriptions
 * that never change once published and live until the disk is closed. */
#include "block/disk/disk.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/disk/published.h"
#include "block/driver.h"
#include "block/graph/open.h"
#include "block/graph/plan.h"
#include "util/assert.h"
#include "util/json.h"
#include "util/options.h"
#include "util/range.h"

static uint32_t needs_of(uint32_t flags)
{
    bool writes = (flags & ASH_NODE_WRITE) != 0;
    return ASH_RIGHT_READ | (writes ? ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE : 0);
}

static uint32_t allows_of(uint32_t flags)
{
    if ((flags & ASH_NODE_FORCE_SHARE) != 0) {
        return ASH_RIGHT_ALL;
    }
    return ASH_RIGHT_READ | ASH_RIGHT_REWRITE;
}

ASH_CO_FN static int attach_root(struct ash_disk *disk, struct ash_node *node, uint32_t flags,
                                 struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(disk->loop);
    ash_plan_attach(plan, NULL, node, "root", ASH_ROLE_DISK, needs_of(flags), allows_of(flags),
                    &disk->user, &disk->root);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

/* From before the disk's edge goes until closing has begun, the node counts as busy with itself. */
ASH_CO_FN static int detach_root(struct ash_disk *disk)
{
    struct ash_node *node = disk->root->child;
    ash_node_ref(node);
    ash_user_begin(&node->own);
    ash_user_leave(&disk->user);
    struct ash_plan *plan = ash_plan_new(disk->loop);
    ash_plan_detach(plan, disk->root);
    int ret = ash_plan_run(plan, NULL);
    ash_assert(ret == 0); /* giving rights back conflicts with nobody */
    ash_plan_free(plan);
    ash_user_leave(&node->own);
    return ash_node_unref(node);
}

/* "cache.writeback" belongs to the disk, not to a node. */
static int take_write_back(json_t *description, bool *write_through, struct ash_error *error)
{
    json_t *cache = json_object_get(description, "cache");
    json_t *value = json_is_object(cache) ? json_object_get(cache, "writeback") : NULL;
    if (value == NULL) {
        return 0;
    }
    int write_back = ash_option_bool(value);
    if (write_back < 0) {
        return ash_error_set(error, -EINVAL, "Parameter 'cache.writeback' expects 'on' or 'off'");
    }
    *write_through = write_back == 0;
    json_object_del(cache, "writeback");
    return 0;
}

/* A job, or whoever puts a filter in, has led the disk to another node. */
static void led(struct ash_user *user)
{
    ash_disk_publish(ash_container_of(user, struct ash_disk, user));
}

int ash_co_disk_open(struct ash_loop *loop, const json_t *description, uint32_t flags,
                     struct ash_disk **result, struct ash_error *error)
{
    struct ash_disk *disk = g_new0(struct ash_disk, 1);
    disk->loop = loop;
    ash_user_init(&disk->user, loop);

    json_t *copy = json_deep_copy(description);
    struct ash_node *node = NULL;
    int ret = ash_json_expand(copy, error);
    if (ret == 0) {
        ret = take_write_back(copy, &disk->write_through, error);
    }
    if (ret == 0) {
        ret = ash_node_open(loop, copy, flags, &node, error);
    }
    json_decref(copy);
    if (ret == 0) {
        /* "read-only" in the description has the last word. */
        uint32_t own =
            (flags & ~ASH_NODE_WRITE) | (node->flags & (ASH_NODE_WRITE | ASH_NODE_FORCE_SHARE));
        ret = attach_root(disk, node, own, error);
        int unref_ret = ash_node_unref(node);
        ret = ret < 0 ? ret : unref_ret;
    }
    if (ret < 0) {
        g_free(disk);
        return ret;
    }
    disk->published = ash_published_new();
    ash_disk_publish(disk);
    disk->user.led = led;
    *result = disk;
    return 0;
}

int ash_co_disk_close(struct ash_disk *disk, struct ash_error *error)
{
    ash_loop_assert_owner(disk->loop);
    ash_assert(disk->queues == 0);
    ash_user_wait_at_gate(&disk->user);
    int ret = ash_disk_pause(disk, UINT64_MAX); /* a resize may be under way */
    ash_assert(ret == 0);
    ash_user_begin(&disk->user);
    char *filename = g_strdup(disk->root->child->filename);
    if (ash_node_writable(disk->root->child)) {
        ret = ash_edge_flush(disk->root);
    }
    int close_ret = detach_root(disk);
    ret = ret < 0 ? ret : close_ret;
    if (ret < 0) {
        ash_error_errno(error, ret, "Closing '%s' failed", filename);
    }
    g_free(filename);
    ash_user_destroy(&disk->user);
    ash_published_free(disk->published);
    g_free(disk);
    return ret;
}

int ash_disk_run(struct ash_disk *disk, const struct ash_io *asked)
{
    struct ash_io io = *asked;
    bool mutates = io.op == ASH_WRITE || io.op == ASH_ZERO || io.op == ASH_DISCARD;
    ash_user_enter(&disk->user);
    /* Only now: who waited at the gate may find the disk reopened. */
    if (mutates && (disk->root->needs & ASH_RIGHT_WRITE) == 0) {
        ash_user_leave(&disk->user);
        return -EPERM;
    }
    if (disk->write_through && (io.op == ASH_WRITE || io.op == ASH_ZERO)) {
        io.flags |= ASH_REQ_FUA;
    }
    int ret = ash_edge_io(disk->root, &io);
    ash_user_leave(&disk->user);
    return ret;
}

int ash_disk_io(struct ash_disk *disk, const struct ash_io *io)
{
    uint64_t begin_ns = ash_loop_now(disk->loop);
    int ret = ash_disk_run(disk, io);
    ash_disk_account(disk, io->op, io->bytes, ret, ash_loop_now(disk->loop) - begin_ns);
    return ret;
}

ASH_CO_FN static int buffer_io(struct ash_disk *disk, uint8_t op, uint64_t offset, void *buffer,
                               uint64_t bytes, uint32_t flags)
{
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {
        .op = op, .flags = flags, .offset = offset, .bytes = bytes, .iov = ash_iov_of(&vec, 1)};
    return ash_disk_io(disk, &io);
}

int ash_disk_read(struct ash_disk *disk, uint64_t offset, void *buffer, uint64_t bytes)
{
    return buffer_io(disk, ASH_READ, offset, buffer, bytes, 0);
}

int ash_disk_write(struct ash_disk *disk, uint64_t offset, const void *buffer, uint64_t bytes,
                   uint32_t flags)
{
    return buffer_io(disk, ASH_WRITE, offset, (void *)buffer, bytes, flags);
}

int ash_disk_zero(struct ash_disk *disk, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    struct ash_io io = {.op = ASH_ZERO, .flags = flags, .offset = offset, .bytes = bytes};
    return ash_disk_io(disk, &io);
}

int ash_disk_discard(struct ash_disk *disk, uint64_t offset, uint64_t bytes)
{
    struct ash_io io = {.op = ASH_DISCARD, .offset = offset, .bytes = bytes};
    return ash_disk_io(disk, &io);
}

int ash_disk_flush(struct ash_disk *disk)
{
    struct ash_io io = {.op = ASH_FLUSH};
    return ash_disk_io(disk, &io);
}

int ash_co_disk_resize(struct ash_disk *disk, uint64_t bytes, uint32_t flags, int prealloc,
                       struct ash_error *error)
{
    int ret;
    ash_user_enter(&disk->user);
    if ((disk->root->needs & ASH_RIGHT_RESIZE) == 0) {
        ret = ash_error_set(error, -EPERM, "'%s' is open read-only", disk->root->child->filename);
    } else {
        ret = ash_edge_resize(disk->root, bytes, flags, prealloc, error);
    }
    ash_user_leave(&disk->user);
    ash_disk_publish(disk);
    return ret;
}

int ash_disk_pause(struct ash_disk *disk, uint64_t deadline_ns)
{
    return ash_user_pause(&disk->user, deadline_ns);
}

void ash_disk_resume(struct ash_disk *disk)
{
    ash_user_resume(&disk->user);
}
