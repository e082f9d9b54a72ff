/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests carried out with plain system calls, and the file that all engines of the host share. */
#ifndef ASH_UTIL_ENGINE_BLOCKING_H
#define ASH_UTIL_ENGINE_BLOCKING_H

#include "util/engine/engine.h"

/* A file of the host. */
struct ash_host_file {
    struct ash_file file;
    bool block_device;
    bool in_memory; /* of a file system that is memory: reading and writing copies, and never waits
                       for a device, unless the system swaps */
};

static inline struct ash_host_file *ash_host_file(struct ash_file *file)
{
    return ash_container_of(file, struct ash_host_file, file);
}

/* The kernel moves no more in one call; what is asked beyond it is a short transfer. */
#define ASH_TRANSFER_BYTES_MAX 0x7ffff000u

/* Carries out any request but ASH_AIO_POLL on the calling thread, which may block. Any thread.
 * Returns the result, and does not complete the request. */
int64_t ash_blocking_run(struct ash_engine *engine, struct ash_aio *aio);

/* ASH_AIO_STATUS. 0 or a negative errno. */
int ash_blocking_status(struct ash_engine *engine, const struct ash_aio *aio);

/* open(2), or the host's hook for it; always close-on-exec. A descriptor or a negative errno. */
int ash_blocking_open(struct ash_engine *engine, const char *path, int flags);

#endif
