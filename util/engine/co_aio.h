/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests to the engine as calls that suspend the coroutine. */
#ifndef ASH_UTIL_ENGINE_CO_AIO_H
#define ASH_UTIL_ENGINE_CO_AIO_H

#include "util/co/co.h"
#include "util/engine/engine.h"

/* Submits and waits; returns the result. */
ASH_CO_FN int64_t ash_co_aio(struct ash_engine *engine, struct ash_aio *aio);

/* Opens; 0 and a file, or a negative errno. */
ASH_CO_FN int ash_co_open(struct ash_engine *engine, const char *path, uint32_t flags,
                          struct ash_file **file);
ASH_CO_FN int ash_co_close(struct ash_file *file);

/* Reads `bytes`, going on after short reads (at the right offset, and re-aligned for O_DIRECT by the
 * kernel's own rules). Beyond the end of the file the buffer is filled with zeroes. 0 or a negative
 * errno. */
ASH_CO_FN int ash_co_read(struct ash_file *file, uint64_t offset, uint64_t bytes, struct ash_iov iov);

/* Writes `bytes`, going on after short writes; a write that moves nothing is -ENOSPC. flags:
 * ASH_AIO_DSYNC. The bytes of a file (ash_iov_of_file) are copied by the kernel, where it can: any
 * error is then a reason to read and write them instead, and so is the end of that file. Not with
 * DSYNC. */
ASH_CO_FN int ash_co_write(struct ash_file *file, uint64_t offset, uint64_t bytes,
                           struct ash_iov iov, uint32_t flags);

ASH_CO_FN int ash_co_flush(struct ash_file *file);
ASH_CO_FN int ash_co_truncate(struct ash_file *file, uint64_t bytes);
ASH_CO_FN int ash_co_allocate(struct ash_file *file, int mode, uint64_t offset, uint64_t bytes);
ASH_CO_FN int ash_co_status(struct ash_file *file, struct ash_file_status *status);
ASH_CO_FN int ash_co_path_status(struct ash_engine *engine, const char *path,
                                 struct ash_file_status *status);
ASH_CO_FN int64_t ash_co_seek(struct ash_file *file, int whence, uint64_t offset);

/* As ASH_AIO_LOCK says; no request for no ranges. */
ASH_CO_FN int ash_co_lock(struct ash_file *file, int type, const struct ash_byte_range *ranges,
                          uint32_t count);
ASH_CO_FN int ash_co_lock_test(struct ash_file *file, int type, const struct ash_byte_range *ranges,
                               uint32_t count);

/* Runs `work(opaque)` on a worker thread (under sim: inline, after a simulated delay). */
ASH_CO_FN int ash_co_work(struct ash_engine *engine, int (*work)(void *opaque), void *opaque);

#endif
