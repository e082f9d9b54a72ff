/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest memory that requests will name again and again.
 *
 * Telling the library of it saves work for each request, and changes nothing else: every buffer may
 * be used in a request, whether it lies in such memory or not. A read or write whose buffer is one
 * piece within one region goes to the kernel as memory that it knows already (io_uring's registered
 * buffers); all others go as usual. */
#ifndef ASHLAR_MEMORY_H
#define ASHLAR_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <ashlar/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Tells of `bytes` of memory at `base`, and gives a number for it in *id. `flags` is 0. The memory
 * stays the caller's, and stays mapped as it is until ash_memory_remove(): with the uring engine
 * the kernel pins its pages (they count against RLIMIT_MEMLOCK), and would go on to use those pages
 * after the addresses were mapped to others. Where the engine or the kernel cannot use it (another
 * engine; the limit; memory of a file that is not in memory), this succeeds all the same and has no
 * effect but a line at ASH_LOG_INFO.
 *
 * Owner thread, after ash_loop_bind(); a host whose loop has a thread of its own posts to it. It
 * makes a system call or more, and takes time for large memory. Errors: -EINVAL (no bytes, a range
 * that wraps around, flags), -EEXIST (a part of it was told already), -ENOMEM. */
int ash_memory_add(struct ash_loop *loop, void *base, size_t bytes, uint32_t flags, uint32_t *id);

/* Takes it back. Requests in flight that use it go on. Owner thread. Errors: -ENOENT (no such
 * number). What was not taken back goes with the loop. */
int ash_memory_remove(struct ash_loop *loop, uint32_t id);

#ifdef __cplusplus
}
#endif
#endif
