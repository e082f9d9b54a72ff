/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* throttle: a filter that holds requests to limits of bytes and operations a second.
 *
 *     {"driver": "throttle", "throttle-group": "g0",
 *      "limits": {"bps-total": 1048576, "bps-total-max": 4194304, "bps-total-max-length": 10,
 *                 "iops-read": 100, "iops-size": 4096},
 *      "file": ...}
 *
 * Nodes of one loop that name the same group share its limits. The first to name it sets them;
 * others give none, or the same. Without a name the node is alone. What the limits mean stands in
 * util/ratelimit.h, how those who share them take turns in throttle_group.h. Reads, writes, writes
 * of zeroes and discards are held to them; flushes and questions are not.
 *
 * The group lives as long as its nodes. It is found among the nodes of the loop, which hold it. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/filter/filter.h"
#include "block/filter/throttle_group.h"
#include "block/graph/block.h"
#include "util/assert.h"

extern const struct ash_driver ash_driver_throttle;

struct throttle_state {
    char *group_name;
    struct ash_ratelimit_config limits;
    struct ash_throttle_member member;
};

#define LIMIT(name, kind)                                                                          \
    ASH_OPTION_SIZE("limits." name, struct throttle_state, limits.limit[kind].average),            \
        ASH_OPTION_SIZE("limits." name "-max", struct throttle_state, limits.limit[kind].max),     \
        ASH_OPTION_UINT("limits." name "-max-length", struct throttle_state,                       \
                        limits.limit[kind].length, .def = 1)

static const struct ash_option throttle_options[] = {
    ASH_OPTION_STRING("throttle-group", struct throttle_state, group_name,
                      .help = "name of the group whose limits the node shares"),
    LIMIT("bps-total", ASH_RATELIMIT_BPS_TOTAL),
    LIMIT("bps-read", ASH_RATELIMIT_BPS_READ),
    LIMIT("bps-write", ASH_RATELIMIT_BPS_WRITE),
    LIMIT("iops-total", ASH_RATELIMIT_IOPS_TOTAL),
    LIMIT("iops-read", ASH_RATELIMIT_IOPS_READ),
    LIMIT("iops-write", ASH_RATELIMIT_IOPS_WRITE),
    ASH_OPTION_SIZE("limits.iops-size", struct throttle_state, limits.iops_size_bytes,
                    .help = "a longer request counts as several operations"),
    ASH_OPTION_END,
};

/* The group of this name among the open nodes; NULL. */
static struct ash_throttle_group *find_group(const struct ash_node *self, const char *name)
{
    ash_list_for_each (node, &ash_block_of(self->loop)->nodes, struct ash_node, nodes_link) {
        const struct throttle_state *state = node->state;
        if (node != self && node->driver == &ash_driver_throttle && state->member.group != NULL &&
            state->group_name != NULL && strcmp(state->group_name, name) == 0) {
            return state->member.group;
        }
    }
    return NULL;
}

static bool gives_limits(const struct ash_ratelimit_config *config)
{
    for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
        if (config->limit[kind].average != 0) {
            return true;
        }
    }
    return config->iops_size_bytes != 0;
}

ASH_CO_FN static int throttle_open(struct ash_node *node, struct ash_error *error)
{
    struct throttle_state *state = node->state;
    int ret = ash_ratelimit_check(&state->limits, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_throttle_group *group =
        state->group_name != NULL ? find_group(node, state->group_name) : NULL;
    if (group == NULL) {
        group = ash_throttle_group_new(node->loop, &state->limits);
    } else if (gives_limits(&state->limits) &&
               memcmp(&group->limit.config, &state->limits, sizeof(state->limits)) != 0) {
        return ash_error_set(error, -EINVAL, "Throttle group '%s' has other limits already",
                             state->group_name);
    }
    ash_throttle_join(&state->member, group, node);
    return ash_filter_open(node, error);
}

ASH_CO_FN static int throttle_close(struct ash_node *node)
{
    struct throttle_state *state = node->state;
    ash_throttle_leave(&state->member);
    return 0;
}

ASH_CO_FN static int throttle_io(struct ash_node *node, const struct ash_io *io)
{
    struct throttle_state *state = node->state;
    ash_throttle_wait(&state->member, io->op != ASH_READ, io->bytes);
    return ash_edge_io(node->file, io);
}

const struct ash_driver ash_driver_throttle = {
    .name = "throttle",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct throttle_state),
    .options = throttle_options,
    .open = throttle_open,
    .close = throttle_close,
    .limits = ash_filter_limits,
    .resize = ash_filter_resize,
    .io =
        {
            [ASH_READ] = throttle_io,
            [ASH_WRITE] = throttle_io,
            [ASH_ZERO] = throttle_io,
            [ASH_DISCARD] = throttle_io,
        },
};
