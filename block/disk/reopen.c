/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reopening a disk with other flags, and cache modes. All users of the nodes are paused meanwhile;
 * the change is one plan, so either all nodes change or none. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/disk/published.h"
#include "block/driver.h"
#include "block/graph/pause.h"
#include "block/graph/plan.h"
#include "util/assert.h"

#define CHANGEABLE (ASH_NODE_WRITE | ASH_NODE_DIRECT | ASH_NODE_NO_FLUSH)
#define DETECT (ASH_NODE_DETECT_ZEROES | ASH_NODE_DETECT_UNMAP)

static uint32_t changed_flags(const struct ash_node *node, uint32_t flags, bool top)
{
    uint32_t changeable = top ? CHANGEABLE | ASH_NODE_DISCARD | DETECT : CHANGEABLE;
    return (node->flags & ~changeable) | (flags & changeable);
}

/* The disk's node and what it stands on through "file", from the top; with references. */
static GPtrArray *nodes_of(struct ash_node *top)
{
    GPtrArray *nodes = g_ptr_array_new();
    for (struct ash_node *node = top; node != NULL;
         node = node->file != NULL ? node->file->child : NULL) {
        ash_node_ref(node);
        g_ptr_array_add(nodes, node);
    }
    return nodes;
}

ASH_CO_FN static void let_go(GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        ash_node_unref(nodes->pdata[i]);
    }
    g_ptr_array_free(nodes, TRUE);
}

struct reopening {
    struct ash_disk *disk;
    uint32_t flags;
    const json_t *options; /* NULL: as they are */
};

/* Whose options are changed. */
static struct ash_node *without_filters(struct ash_node *node)
{
    while (node->driver->kind == ASH_DRIVER_FILTER && node->file != NULL) {
        node = node->file->child;
    }
    return node;
}

/* The nodes as they are now: a job may have put in a filter or taken it out since the pause began.
 * On the way to read-only the format goes first, while it can still write what it has to; on the
 * way to writing the file does. */
static void plan_nodes(struct ash_plan *plan, void *opaque)
{
    const struct reopening *r = opaque;
    struct ash_node *top = r->disk->root->child;
    GPtrArray *nodes = g_ptr_array_new();
    for (struct ash_node *node = top; node != NULL;
         node = node->file != NULL ? node->file->child : NULL) {
        g_ptr_array_insert(nodes, (r->flags & ASH_NODE_WRITE) != 0 ? 0 : -1, node);
    }
    for (guint i = 0; i < nodes->len; i++) {
        struct ash_node *node = nodes->pdata[i];
        ash_plan_reopen_options(plan, node, changed_flags(node, r->flags, node == top),
                                node == without_filters(top) ? r->options : NULL);
    }
    g_ptr_array_free(nodes, TRUE);
}

ASH_CO_FN static int flush(struct ash_disk *disk, struct ash_error *error)
{
    int ret = 0;
    if (ash_node_writable(disk->root->child)) {
        ret = ash_edge_flush(disk->root);
    }
    if (ret < 0) {
        ash_error_errno(error, ret, "Flushing '%s' failed", disk->root->child->filename);
    }
    return ret;
}

ASH_CO_FN static int change(struct ash_disk *disk, uint32_t flags, const json_t *options,
                            struct ash_error *error)
{
    struct reopening reopening = {disk, flags, options};
    uint32_t writing = ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE;
    uint32_t needs = (disk->root->needs & ~writing) | ((flags & ASH_NODE_WRITE) != 0 ? writing : 0);
    struct ash_plan *plan = ash_plan_new(disk->loop);
    ash_plan_rights(plan, disk->root, needs, disk->root->allows);
    int ret = ash_plan_run_filled(plan, plan_nodes, &reopening, error);
    ash_plan_free(plan);
    return ret;
}

/* Whether a pause of these nodes covers all that the disk stands on now. */
static bool is_covered(const struct ash_disk *disk, GPtrArray *nodes)
{
    bool covered = true;
    for (struct ash_node *node = disk->root->child; node != NULL && covered;
         node = node->file != NULL ? node->file->child : NULL) {
        covered = g_ptr_array_find(nodes, node, NULL);
    }
    return covered;
}

/* Pauses the disk's nodes. While that waited for others to end their pauses, a job may have led the
 * disk to another image: then the pause is of what it was. */
ASH_CO_FN static GPtrArray *pause_nodes(struct ash_disk *disk, struct ash_pause *pause)
{
    while (true) {
        GPtrArray *nodes = nodes_of(disk->root->child);
        int ret = ash_pause_begin(pause, disk->loop, (struct ash_node **)nodes->pdata, nodes->len,
                                  UINT64_MAX);
        ash_assert(ret == 0); /* without a deadline it does not expire */
        if (is_covered(disk, nodes)) {
            return nodes;
        }
        ash_pause_end(pause);
        let_go(nodes);
    }
}

int ash_disk_reopen(struct ash_disk *disk, uint32_t flags, bool write_through,
                    struct ash_error *error)
{
    flags = (flags & ~DETECT) | (disk->root->child->flags & DETECT);
    return ash_disk_reopen_with(disk, flags, write_through, NULL, error);
}

int ash_disk_reopen_with(struct ash_disk *disk, uint32_t flags, bool write_through,
                         const json_t *options, struct ash_error *error)
{
    struct ash_pause pause;
    GPtrArray *nodes = pause_nodes(disk, &pause);
    int ret = flush(disk, error);
    if (ret == 0) {
        ret = ash_pause_drain(&pause, UINT64_MAX); /* the flush may have set work going */
        ash_assert(ret == 0);
        ret = change(disk, flags, options, error);
    }
    if (ret == 0) {
        disk->write_through = write_through;
        ash_disk_publish(disk);
    }
    ash_pause_end(&pause);
    let_go(nodes);
    return ret;
}

int ash_cache_mode(const char *mode, uint32_t *flags, bool *write_through)
{
    static const struct {
        const char *name;
        uint32_t flags;
        bool write_through;
    } modes[] = {
        {"none", ASH_NODE_DIRECT, false},
        {"off", ASH_NODE_DIRECT, false},
        {"writeback", 0, false},
        {"unsafe", ASH_NODE_NO_FLUSH, false},
        {"directsync", ASH_NODE_DIRECT, true},
        {"writethrough", 0, true},
    };
    for (size_t i = 0; i < ASH_ARRAY_SIZE(modes); i++) {
        if (strcmp(modes[i].name, mode) == 0) {
            *flags = (*flags & ~(ASH_NODE_DIRECT | ASH_NODE_NO_FLUSH)) | modes[i].flags;
            *write_through = modes[i].write_through;
            return 0;
        }
    }
    return -EINVAL;
}
