/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A caller's ash_loop_config, checked and completed.
 *
 * Both structs begin with their size, so a caller built against an older or a newer header is
 * served: what it does not know keeps its default; what we do not know must be zero. */
#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/loop/private.h"

enum {
    DEPTH_DEFAULT = 256,
    DEPTH_MAX = 4096,
    WORKERS_DEFAULT = 16,
    WORKERS_MAX = 64,
};

#define METADATA_BYTES_DEFAULT (32 * MiB)
#define STRUCT_BYTES_MAX                                                                           \
    4096 /* far beyond any version: a larger size is an uninitialised field                        \
          */

/* Copies what both sides know; false if the caller set something that we do not know. */
static bool copy_known(void *to, size_t to_bytes, const void *from, size_t from_bytes)
{
    memcpy(to, from, ASH_MIN(to_bytes, from_bytes));
    for (size_t i = to_bytes; i < from_bytes; i++) {
        if (((const unsigned char *)from)[i] != 0) {
            return false;
        }
    }
    return true;
}

static int read_hooks(const struct ash_hooks *from, struct ash_hooks *to, struct ash_error *error)
{
    *to = (struct ash_hooks){0};
    if (from == NULL) {
        return 0;
    }
    if (from->size < offsetof(struct ash_hooks, log) || from->size > STRUCT_BYTES_MAX) {
        return ash_error_set(error, -EINVAL, "hooks: size is %u, expected sizeof(struct ash_hooks)",
                             from->size);
    }
    if (!copy_known(to, sizeof(*to), from, from->size)) {
        return ash_error_set(error, -EINVAL,
                             "hooks: a hook is set that this version does not know");
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
        if (config->size < offsetof(struct ash_loop_config, engine) ||
            config->size > STRUCT_BYTES_MAX) {
            return ash_error_set(error, -EINVAL,
                                 "loop: size is %u, expected sizeof(struct ash_loop_config)",
                                 config->size);
        }
        if (!copy_known(&known, sizeof(known), config, config->size)) {
            return ash_error_set(error, -EINVAL,
                                 "loop: a field is set that this version does not know");
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
