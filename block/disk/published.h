/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What other threads may read of a disk: between the files of block/disk. */
#ifndef ASH_BLOCK_DISK_PUBLISHED_H
#define ASH_BLOCK_DISK_PUBLISHED_H

#include "block/disk/disk.h"

struct ash_disk_published;

struct ash_disk_published *ash_published_new(void);
void ash_published_free(struct ash_disk_published *published);

/* Publishes the disk's present description. Owner thread. */
void ash_disk_publish(struct ash_disk *disk);

/* Counts a request that ended. Owner thread. */
void ash_disk_account(struct ash_disk *disk, uint8_t op, uint64_t bytes, int ret,
                      uint64_t latency_ns);

/* A request without accounting, for queues, which account for a turn's completions at once. */
ASH_CO_FN int ash_disk_run(struct ash_disk *disk, const struct ash_io *io);

#endif
