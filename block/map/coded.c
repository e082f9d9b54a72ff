/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing coded (compressed) units: whole allocation units, each encoded on a worker thread from a
 * copy, so that the guest cannot change what is being encoded. A unit that does not shrink is
 * written raw. Many units of one request are encoded at once. */
#include "block/map/ops.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "util/assert.h"
#include "util/engine/co_aio.h"
#include "util/range.h"

struct unit {
    struct ash_task task;
    struct ash_node *node;
    uint64_t offset;
    uint64_t bytes; /* of the request; the last unit of the disk may be short */
    struct ash_iov iov;
};

struct encoding {
    const struct ash_node *node;
    const void *in;
    void *out;
    size_t bytes;
};

static int encode(void *opaque)
{
    struct encoding *work = opaque;
    return work->node->driver->map->encode(work->node, work->in, work->bytes, work->out,
                                           work->bytes);
}

/* Writes a unit that was encoded to `coded` bytes, or, if 0, as it is. */
ASH_CO_FN static int place(struct unit *unit, void *data, uint32_t coded, uint64_t unit_bytes)
{
    struct ash_node *node = unit->node;
    const struct ash_map_ops *ops = node->driver->map;
    if (coded == 0) {
        struct iovec vec = {data, unit->bytes};
        return ash_map_write(node, unit->offset, unit->bytes, ash_iov_of(&vec, 1), 0);
    }
    struct ash_range_lock lock;
    ash_range_lock(&lock, &node->map->locks, unit->offset, unit->bytes);
    struct ash_placement placement = {0};
    int ret = ops->prepare_coded(node, unit->offset, unit_bytes, coded, &placement);
    if (ret == 0) {
        ret = ash_edge_write(placement.edge, placement.host_offset, data, coded, 0);
        if (ret == 0) {
            ret = ops->commit(node, &placement);
        }
        if (ret < 0) {
            ops->abort(node, &placement);
        } else {
            ash_map_forget(node, unit->offset, unit->bytes);
        }
    }
    ash_range_unlock(&lock);
    return ret;
}

ASH_CO_FN static int write_unit(struct unit *unit)
{
    struct ash_node *node = unit->node;
    size_t unit_bytes = node->map->unit_bytes;
    uint8_t *in = ash_buffer_alloc(node->loop, unit_bytes, 4096);
    uint8_t *out = ash_buffer_alloc(node->loop, unit_bytes, 4096);
    int ret = in == NULL || out == NULL ? -ENOMEM : 0;
    if (ret == 0) {
        ash_iov_to_buffer(unit->iov, in, unit->bytes);
        memset(in + unit->bytes, 0, unit_bytes - unit->bytes);
        struct encoding work = {node, in, out, unit_bytes};
        ret = ash_co_work(node->loop->engine, encode, &work);
        if (ret > 0) {
            ret = place(unit, out, (uint32_t)ret, unit_bytes);
        } else if (ret == -E2BIG) {
            ret = place(unit, in, 0, unit->bytes);
        }
    }
    if (in != NULL) {
        ash_buffer_free(node->loop, in, unit_bytes);
    }
    if (out != NULL) {
        ash_buffer_free(node->loop, out, unit_bytes);
    }
    return ret;
}

static int unit_task(struct ash_task *task)
{
    struct unit *unit = ash_container_of(task, struct unit, task);
    ash_co_assert_inside();
    int ret = write_unit(unit);
    g_free(unit);
    return ret;
}

int ash_map_write_coded(struct ash_node *node, uint64_t offset, uint64_t bytes, struct ash_iov iov)
{
    uint64_t unit_bytes = node->map->unit_bytes;
    if (node->driver->map->encode == NULL) {
        return -ENOTSUP;
    }
    if (!ash_is_aligned(offset, unit_bytes) ||
        (!ash_is_aligned(bytes, unit_bytes) && offset + bytes != node->size_bytes)) {
        return -EINVAL;
    }
    struct ash_task_pool pool;
    ash_task_pool_init(&pool, &node->loop->sched, ASH_MAP_FAN_OUT);
    for (uint64_t done = 0; done < bytes && pool.first_error == 0; done += unit_bytes) {
        struct unit *unit = g_new0(struct unit, 1);
        unit->task.run = unit_task;
        unit->node = node;
        unit->offset = offset + done;
        unit->bytes = ASH_MIN(unit_bytes, bytes - done);
        unit->iov = ash_iov_advance(iov, done);
        ash_task_pool_start(&pool, &unit->task);
    }
    return ash_task_pool_finish(&pool);
}
