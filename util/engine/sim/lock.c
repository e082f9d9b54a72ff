/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte-range locks of simulated files, as open-file-description locks: a lock belongs to the open
 * file, not to the process, and ends when that is closed.
 *
 * Invariants:
 *  1. No two locks of one owner overlap on an inode.
 *  2. Locks of different owners overlap only if both are for reading. */

#include <errno.h>
#include <fcntl.h>
#include "util/engine/sim/internal.h"

static bool overlaps(const struct sim_lock *lock, uint64_t start, uint64_t end)
{
    return lock->start < end && start < lock->end;
}

static void lock_add(struct sim_inode *inode, struct sim_file *owner, int type, uint64_t start,
                     uint64_t end)
{
    struct sim_lock *lock = g_new(struct sim_lock, 1);

    *lock = (struct sim_lock){.owner = owner, .type = type, .start = start, .end = end};
    ash_list_push_back(&inode->locks, &lock->link);
}

/* Takes the range out of the owner's locks, splitting what sticks out. */
static void lock_cut(struct sim_inode *inode, struct sim_file *owner, uint64_t start, uint64_t end)
{
    ash_list_for_each_safe (lock, &inode->locks, struct sim_lock, link) {
        if (lock->owner != owner || !overlaps(lock, start, end)) {
            continue;
        }
        if (lock->start < start) {
            lock_add(inode, owner, lock->type, lock->start, start);
        }
        if (lock->end > end) {
            lock_add(inode, owner, lock->type, end, lock->end);
        }
        ash_list_remove(&lock->link);
        g_free(lock);
    }
}

static bool conflicts(struct sim_inode *inode, const struct sim_file *owner, int type,
                      uint64_t start, uint64_t end)
{
    ash_list_for_each (lock, &inode->locks, struct sim_lock, link) {
        if (lock->owner != owner && overlaps(lock, start, end) &&
            (type == F_WRLCK || lock->type == F_WRLCK)) {
            return true;
        }
    }
    return false;
}

int ash_sim_lock(struct sim_file *file, int type, uint64_t offset, uint64_t bytes, bool test)
{
    struct sim_inode *inode = file->inode;
    uint64_t end = bytes ? offset + bytes : UINT64_MAX;

    if (type != F_RDLCK && type != F_WRLCK && type != F_UNLCK) {
        return -EINVAL;
    }
    if (test) {
        return type != F_UNLCK && conflicts(inode, file, type, offset, end);
    }
    if (type == F_WRLCK && !(file->file.flags & ASH_FILE_WRITE)) {
        return -EBADF;
    }
    if (type != F_UNLCK && conflicts(inode, file, type, offset, end)) {
        return -EAGAIN;
    }
    lock_cut(inode, file, offset, end);
    if (type != F_UNLCK) {
        lock_add(inode, file, type, offset, end);
    }
    return 0;
}

void ash_sim_unlock_all(struct sim_file *file)
{
    lock_cut(file->inode, file, 0, UINT64_MAX);
}
