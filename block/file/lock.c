/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: locks that keep programs off one another's images, in the way of QEMU, whose processes they
 * exclude and by whose processes they are excluded.
 *
 * Each right has two bytes of the file. Whoever uses right i holds a shared lock on byte 100 + i,
 * and whoever cannot bear others to use it holds one on byte 200 + i. Nobody ever takes an
 * exclusive lock; conflicts are found by asking whether one could be had.
 *
 * Invariants:
 *  1. First the bytes are locked, then others' are looked at: of two programs that come at once, at
 * least one sees the other.
 *  2. When a call fails, the node holds what it held before.
 *  3. Locks belong to the open file description. While reopening, the node has two, which would
 * conflict with themselves: while others' bytes are looked at, the second holds none.
 *  4. Closing is not unlocking: a worker of the ring may hold the description for a while after it
 * told that its request is done. What was locked is unlocked first. */
#include <errno.h>
#include <fcntl.h>
#include "block/file/file.h"
#include "util/assert.h"

#define NEEDS_BASE 100
#define DENIES_BASE 200
#define RIGHTS 4

static const char *const right_names[RIGHTS] = {
    "consistent read",
    "write",
    "write unchanged",
    "resize",
};

/* The bytes of `needs` and `denies`, neighbours in one range. */
struct bytes_of {
    uint32_t count;
    struct ash_byte_range ranges[2 * RIGHTS];
};

static void add_bytes(struct bytes_of *bytes, uint64_t base, uint32_t rights)
{
    for (unsigned first = 0; first < RIGHTS; first++) {
        unsigned end = first;
        while (end < RIGHTS && (rights & 1u << end) != 0) {
            end++;
        }
        if (end > first) {
            bytes->ranges[bytes->count++] = (struct ash_byte_range){base + first, end - first};
            first = end;
        }
    }
}

ASH_CO_FN static int set_bytes(struct ash_file *file, int type, uint32_t needs, uint32_t denies)
{
    struct bytes_of bytes = {0};
    add_bytes(&bytes, NEEDS_BASE, needs);
    add_bytes(&bytes, DENIES_BASE, denies);
    return ash_co_lock(file, type, bytes.ranges, bytes.count);
}

ASH_CO_FN static int take(struct ash_file *file, uint32_t needs, uint32_t denies)
{
    int ret = set_bytes(file, F_RDLCK, needs, denies);
    /* What a kernel or an engine without such locks says. */
    return ret == -EINVAL || ret == -ENOSYS || ret == -EOPNOTSUPP ? -ENOTSUP : ret;
}

/* Letting go cannot fail in a way that anybody could do something about: closing lets go as well.
 */
ASH_CO_FN static void let_go(struct ash_file *file, uint32_t needs, uint32_t denies)
{
    set_bytes(file, F_UNLCK, needs, denies);
}

void ash_file_unlock(struct ash_file *file)
{
    let_go(file, ASH_RIGHT_ALL, ASH_RIGHT_ALL);
}

/* Whether somebody else holds a byte that stands against one of `needs` or `denies`: -EAGAIN, and
 * names the right that cannot be had. */
ASH_CO_FN static int look(struct ash_file *file, const char *filename, uint32_t needs,
                          uint32_t denies, struct ash_error *error)
{
    struct bytes_of bytes = {0};
    for (unsigned i = 0; i < 2 * RIGHTS; i++) {
        bool need = i < RIGHTS;
        unsigned right = i % RIGHTS;
        if (((need ? needs : denies) & 1u << right) != 0) {
            bytes.ranges[bytes.count++] =
                (struct ash_byte_range){(need ? DENIES_BASE : NEEDS_BASE) + right, 1};
        }
    }
    int ret = ash_co_lock_test(file, F_WRLCK, bytes.ranges, bytes.count);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Failed to test the locks of '%s'", filename);
    }
    if (ret > 0) {
        uint64_t byte = bytes.ranges[ret - 1].offset;
        bool denied = byte >= DENIES_BASE;
        return ash_error_set(
            error, -EAGAIN, "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?",
            denied ? "" : "shared ", right_names[byte - (denied ? DENIES_BASE : NEEDS_BASE)],
            filename);
    }
    return 0;
}

/* -ENOTSUP comes without a sentence: most callers can do without locks. */
ASH_CO_FN static int take_and_look(struct ash_file *file, const char *filename, uint32_t needs,
                                   uint32_t denies, struct ash_error *error)
{
    int ret = take(file, needs, denies);
    if (ret < 0) {
        return ret == -ENOTSUP ? ret : ash_error_errno(error, ret, "Failed to lock '%s'", filename);
    }
    return look(file, filename, needs, denies, error);
}

int ash_file_lock_new(struct ash_file *file, const char *filename, uint32_t needs, uint32_t denies,
                      struct ash_error *error)
{
    return take_and_look(file, filename, needs, denies, error);
}

int ash_file_lock_copy(struct ash_file *file, uint32_t needs, uint32_t denies)
{
    return needs == 0 && denies == 0 ? 0 : take(file, needs, denies);
}

/* Takes what is not held yet. */
ASH_CO_FN static int widen(struct ash_node *node, uint32_t needs, uint32_t denies,
                           struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    uint32_t new_needs = needs & ~state->lock_needs;
    uint32_t new_denies = denies & ~state->lock_denies;
    if (new_needs == 0 && new_denies == 0) {
        return 0;
    }
    if (state->next != NULL) {
        ash_file_unlock(state->next);
    }
    int ret = take_and_look(state->file, node->filename, new_needs, new_denies, error);
    if (ret < 0) {
        let_go(state->file, new_needs, new_denies);
    } else {
        state->lock_needs |= new_needs;
        state->lock_denies |= new_denies;
    }
    if (state->next != NULL) {
        int copied = ash_file_lock_copy(state->next, state->lock_needs, state->lock_denies);
        if (copied < 0 && ret == 0) {
            ret = ash_error_errno(error, copied, "Failed to lock '%s'", node->filename);
        }
    }
    return ret;
}

int ash_file_lock(struct ash_node *node, uint32_t needs, uint32_t allows, struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    uint32_t denies = ASH_RIGHT_ALL & ~allows;
    if ((allows & ~state->allows & ASH_RIGHT_WRITE) != 0) {
        ash_file_extents_forget(&state->extents, 0, INT64_MAX,
                                true); /* others may fill the holes */
    }
    state->allows = allows;
    if (state->lock_off) {
        return 0;
    }
    int ret = widen(node, needs, denies, error);
    if (ret == -ENOTSUP) {
        if (state->locking == ASH_FILE_LOCKING_ON) {
            return ash_error_set(
                error, ret, "'%s' cannot be locked: the host has no open-file-description locks",
                node->filename);
        }
        ash_log(node->loop, ASH_LOG_WARNING,
                "'%s' is used without locks: the host has no open-file-description locks",
                node->filename);
        state->lock_off = true;
        return 0;
    }
    if (ret < 0) {
        return ret;
    }
    let_go(state->file, state->lock_needs & ~needs, state->lock_denies & ~denies);
    state->lock_needs &= needs;
    state->lock_denies &= denies;
    return 0;
}
