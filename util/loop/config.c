/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A caller's ash_loop_config, checked and completed.
 *
 * Both structs begin with their size, so a caller built against an older or a newer header is
 * served: what it does not know keeps its default; what we do not know must be zero. */
#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/loop/private.h"
#include "util/sized.h"

enum {
    DEPTH_DEFAULT = 256,
    DEPTH_MAX = 4096,
    WORKERS_DEFAULT = 16,
    WORKERS_MAX = 64,
};

#define METADATA_BYTES_DEFAULT (32 * MiB)

static int read_hooks(const struct ash_hooks *from, struct ash_hooks *to, struct ash_error *error)
{
    *to = (struct ash_hooks){0};
    if (from == NULL) {
        return 0;
    }
    int ret =
        ash_sized_read(to, sizeof(*to), from, offsetof(struct ash_hooks, log), "hooks", error);
    if (ret < 0) {
        return ret;
    }
    if (to->reserved != 0) {
        return ash_error_set(error, -EINVAL, "hooks: reserved is %u, must be 0", to->reserved);
    }
    if ((to->alloc == NULL) != (to->free == NULL)) {
        return ash_error_set(error, -EINVAL, "hooks: only one of alloc and free is set");
    }
    return 0;
}

int ash_loop_settings_read(const struct ash_loop_config *config, struct ash_loop_settings *settings,
                           struct ash_hooks *hooks, struct ash_error *error)
{
    struct ash_loop_config known = ASH_LOOP_CONFIG_INIT;
    if (config != NULL) {
        int ret = ash_sized_read(&known, sizeof(known), config,
                                 offsetof(struct ash_loop_config, engine), "loop", error);
        if (ret < 0) {
            return ret;
        }
    }
    if ((known.flags & ~ASH_LOOP_OWN_THREAD) != 0) {
        return ash_error_set(error, -EINVAL, "loop: flags are 0x%x, known is 0x%x only",
                             known.flags, ASH_LOOP_OWN_THREAD);
    }
    if (known.depth > DEPTH_MAX) {
        return ash_error_set(error, -EINVAL, "loop: depth is %u, at most %d are possible",
                             known.depth, DEPTH_MAX);
    }
    if (known.workers > WORKERS_MAX) {
        return ash_error_set(error, -EINVAL, "loop: workers is %u, at most %d are possible",
                             known.workers, WORKERS_MAX);
    }
    *settings = (struct ash_loop_settings){
        .engine = known.engine,
        .flags = known.flags,
        .metadata_bytes_max =
            known.metadata_bytes_max != 0 ? known.metadata_bytes_max : METADATA_BYTES_DEFAULT,
        .engine_config =
            {
                .depth = known.depth != 0 ? known.depth : DEPTH_DEFAULT,
                .workers = known.workers != 0 ? known.workers : WORKERS_DEFAULT,
                .busy_poll_ns = known.busy_poll_ns,
            },
    };
    return read_hooks(known.hooks, hooks, error);
}
