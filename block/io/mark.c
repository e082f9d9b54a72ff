/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Marks on images; the invariants stand in the header. What a mark is on disk is the format's
 * matter: of qcow2, a feature bit that others clear when they open an image for writing. */
#include "block/io/mark.h"
#include <errno.h>
#include <string.h>
#include "block/driver.h"
#include "util/assert.h"

bool ash_mark_possible(const struct ash_node *node)
{
    const struct ash_driver *driver = node->driver;
    return driver->mark != NULL && (driver->markable == NULL || driver->markable(node));
}

ASH_CO_FN static int set_mark(struct ash_node *node, const uint8_t *id, struct ash_error *error)
{
    if (node->mark_held) {
        return ash_error_set(error, -EBUSY, "'%s' is the image of another resumable job",
                             node->filename);
    }
    if (!ash_mark_possible(node)) {
        return ash_error_set(error, -ENOTSUP,
                             "'%s': such a %s image cannot tell whether somebody else has changed "
                             "it",
                             node->filename, node->driver->name);
    }
    if (!ash_node_writable(node)) { /* a write that fails would be remembered */
        return ash_error_set(error, -EACCES, "'%s' is not open for writing, so it cannot be marked",
                             node->filename);
    }
    int ret = ash_mark_drop(node); /* an older one, which guests' changes take away meanwhile */
    if (ret < 0) {
        return ash_error_errno(error, ret, "'%s' cannot be marked", node->filename);
    }
    if (node->mark_held) {
        return ash_error_set(error, -EBUSY, "'%s' is the image of another resumable job",
                             node->filename);
    }
    node->mark_held = true;
    node->mark_leaving = false;
    ret = node->driver->mark(node, id, error);
    node->mark_held = ret == 0;
    return ret;
}

int ash_mark_set(struct ash_node *node, const uint8_t *id, struct ash_error *error)
{
    ash_node_ref(node);
    ash_user_enter(&node->own); /* who pauses what stands above waits for it, as for a request */
    int ret = set_mark(node, id, error);
    ash_user_leave(&node->own);
    ash_node_unref(node);
    return ret;
}

int ash_mark_hold(struct ash_node *node, const uint8_t *id)
{
    const uint8_t *found = node->driver->marked != NULL ? node->driver->marked(node) : NULL;
    if (node->mark_held || node->mark_leaving || found == NULL ||
        memcmp(found, id, ASH_MARK_BYTES) != 0) {
        return -ESTALE;
    }
    node->mark_held = true;
    node->mark_idle = false;
    return 0;
}

void ash_mark_release(struct ash_node *node)
{
    if (node->mark_held) {
        node->mark_held = false;
        node->mark_idle = true;
    }
}

int ash_mark_drop(struct ash_node *node)
{
    if (!node->mark_idle) {
        return 0;
    }
    ash_assert(!node->mark_held);
    node->mark_leaving = true; /* who would hold it must not miss the change that comes */
    int ret = node->driver->mark(node, NULL, NULL);
    if (ret == 0) {
        node->mark_idle = false;
    }
    return ret;
}
