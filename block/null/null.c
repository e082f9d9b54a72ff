/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* null-co, null-aio: a disk without a medium. Writes vanish; reads leave the buffer alone, or fill
 * it with zeroes if read-zeroes is set. They measure what the graph itself costs: null-co answers
 * at once, null-aio by way of the loop, as a disk would. */
#include <glib.h>
#include "block/driver.h"

struct null_state {
    uint64_t size_bytes;
    uint64_t latency_ns;
    bool read_zeroes;
};

static const struct ash_option null_options[] = {
    ASH_OPTION_SIZE("size", struct null_state, size_bytes, .def = 1 * GiB,
                    .help = "size of the disk"),
    ASH_OPTION_UINT("latency-ns", struct null_state, latency_ns,
                    .help = "how long a request takes"),
    ASH_OPTION_BOOL("read-zeroes", struct null_state, read_zeroes,
                    .help = "reads return zeroes, and not whatever the buffer held"),
    ASH_OPTION_END,
};

static const char *const null_shaping[] = {"size", "read-zeroes", NULL};

ASH_CO_FN static int null_open(struct ash_node *node, struct ash_error *error)
{
    (void)error;
    const struct null_state *state = node->state;
    node->size_bytes = state->size_bytes;
    g_free(node->filename);
    node->filename = g_strdup(node->driver->prefix);
    return 0;
}

ASH_CO_FN static void wait_co(const struct null_state *state)
{
    if (ash_unlikely(state->latency_ns > 0)) {
        ash_co_sleep(state->latency_ns);
    }
}

ASH_CO_FN static void wait_aio(const struct null_state *state)
{
    if (state->latency_ns > 0) {
        ash_co_sleep(state->latency_ns);
    } else {
        ash_co_reschedule();
    }
}

static void fill(const struct null_state *state, const struct ash_io *io)
{
    if (state->read_zeroes) {
        ash_iov_fill(io->iov, 0, io->bytes);
    }
}

ASH_CO_FN static int null_co_read(struct ash_node *node, const struct ash_io *io)
{
    wait_co(node->state);
    fill(node->state, io);
    return 0;
}

ASH_CO_FN static int null_co_other(struct ash_node *node, const struct ash_io *io)
{
    (void)io;
    wait_co(node->state);
    return 0;
}

ASH_CO_FN static int null_aio_read(struct ash_node *node, const struct ash_io *io)
{
    wait_aio(node->state);
    fill(node->state, io);
    return 0;
}

ASH_CO_FN static int null_aio_other(struct ash_node *node, const struct ash_io *io)
{
    (void)io;
    wait_aio(node->state);
    return 0;
}

ASH_CO_FN static int null_status(struct ash_node *node, const struct ash_io *io)
{
    const struct null_state *state = node->state;
    uint32_t flags = ASH_STATUS_ALLOCATED | ASH_STATUS_OFFSET;
    flags |= state->read_zeroes ? ASH_STATUS_ZERO : ASH_STATUS_DATA;
    flags |= io->offset + io->bytes == node->size_bytes ? ASH_STATUS_EOF : 0;
    *io->status = (struct ash_status){
        .flags = flags,
        .bytes = io->bytes,
        .host_offset = io->offset,
        .node = node,
        .host = node,
    };
    return 0;
}

static void null_limits(const struct ash_node *node, struct ash_limits *limits)
{
    (void)node;
    *limits = (struct ash_limits){.request_alignment = 1, .memory_alignment = 1};
}

ASH_CO_FN static int64_t null_allocated_bytes(struct ash_node *node)
{
    (void)node;
    return 0;
}

#define NULL_COMMON                                                                                \
    .kind = ASH_DRIVER_PROTOCOL, .state_size = sizeof(struct null_state), .options = null_options, \
    .no_medium = true, .shaping = null_shaping, .open = null_open, .limits = null_limits,          \
    .allocated_bytes = null_allocated_bytes

extern const struct ash_driver ash_driver_null_co;
const struct ash_driver ash_driver_null_co = {
    .name = "null-co",
    .prefix = "null-co://",
    NULL_COMMON,
    .io =
        {
            [ASH_READ] = null_co_read,
            [ASH_WRITE] = null_co_other,
            [ASH_FLUSH] = null_co_other,
            [ASH_DISCARD] = null_co_other,
            [ASH_ZERO] = null_co_other,
            [ASH_STATUS] = null_status,
        },
};

extern const struct ash_driver ash_driver_null_aio;
const struct ash_driver ash_driver_null_aio = {
    .name = "null-aio",
    .prefix = "null-aio://",
    NULL_COMMON,
    .io =
        {
            [ASH_READ] = null_aio_read,
            [ASH_WRITE] = null_aio_other,
            [ASH_FLUSH] = null_aio_other,
            [ASH_DISCARD] = null_aio_other,
            [ASH_ZERO] = null_aio_other,
            [ASH_STATUS] = null_status,
        },
};
