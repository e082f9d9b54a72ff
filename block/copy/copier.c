/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying from one node to another; the invariants stand in the header. */
#include "block/copy/copier.h"
#include <errno.h>
#include <glib.h>
#include "block/copy/host_bytes.h"
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/graph/plan.h"
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

#define CLUSTER_BYTES_MIN (64 * KiB)
#define CHUNK_BYTES                                                                                \
    (1 * MiB) /* the most that is in a buffer at once, or a cluster if that is more */

ASH_CO_FN static void copier_free(struct ash_copier *copier)
{
    if (copier->source != NULL) {
        ash_graft_detach(copier->source);
    }
    if (copier->target != NULL) {
        ash_graft_detach(copier->target);
    }
    ash_user_destroy(&copier->source_user);
    ash_user_destroy(&copier->target_user);
    g_free(copier);
}

uint64_t ash_copier_cluster(const struct ash_node *source, const struct ash_node *target,
                            uint64_t cluster_bytes_min)
{
    uint64_t cluster = cluster_bytes_min != 0 ? cluster_bytes_min : CLUSTER_BYTES_MIN;
    return ASH_MAX(cluster, ASH_MAX(source->limits.cluster, target->limits.cluster));
}

int ash_copier_new(struct ash_loop *loop, const struct ash_copier_config *config,
                   struct ash_copier **result, struct ash_error *error)
{
    struct ash_copier *copier = g_new0(struct ash_copier, 1);
    uint64_t cluster =
        ash_copier_cluster(config->source, config->target, config->cluster_bytes_min);
    copier->loop = loop;
    copier->refs = 1;
    copier->flags = config->flags;
    copier->cluster_bytes = cluster;
    copier->base = config->base;
    ash_user_init(&copier->source_user, loop);
    ash_user_init(&copier->target_user, loop);
    ash_range_locks_init(&copier->locks, cluster);
    ash_co_queue_init(&copier->read);
    int ret = ash_graft_attach(config->source, ASH_RIGHT_READ, ASH_RIGHT_ALL, &copier->source_user,
                               &copier->source, error);
    if (ret == 0) {
        ret = ash_graft_attach(
            config->target, ASH_RIGHT_READ | ASH_RIGHT_WRITE | config->target_needs,
            ASH_RIGHT_READ | ASH_RIGHT_REWRITE, &copier->target_user, &copier->target, error);
    }
    if (ret < 0) {
        copier_free(copier);
        return ret;
    }
    *result = copier;
    return 0;
}

void ash_copier_ref(struct ash_copier *copier)
{
    ash_loop_assert_owner(copier->loop);
    copier->refs++;
}

void ash_copier_unref(struct ash_copier *copier)
{
    ash_loop_assert_owner(copier->loop);
    ash_assert(copier->refs > 0);
    if (--copier->refs == 0) {
        copier_free(copier);
    }
}

ASH_CO_FN static void enter(const struct ash_copier *copier, struct ash_user *user)
{
    if (copier->through_gates) {
        ash_user_begin(user);
    } else {
        ash_user_enter(user);
    }
}

/* The copy that holds the source up has ended, or does so no more. */
static void leave_source(struct ash_copier *copier)
{
    copier->copies--;
    if (!copier->let_go) {
        ash_user_leave(&copier->source_user);
    }
}

/* Inside the graph: the rest of beginning a copy. */
ASH_CO_FN static int begin(struct ash_copier *copier, struct ash_range_lock *lock, uint64_t offset,
                           uint64_t bytes)
{
    if (copier->forsaken) {
        ash_user_leave(&copier->source_user);
        return -ECANCELED;
    }
    copier->copies++;
    ash_range_lock(lock, &copier->locks, offset, bytes);
    if (copier->forsaken) {
        ash_copier_end(copier, lock);
        return -ECANCELED;
    }
    return 0;
}

int ash_copier_begin(struct ash_copier *copier, struct ash_range_lock *lock, uint64_t offset,
                     uint64_t bytes)
{
    enter(copier, &copier->source_user);
    return begin(copier, lock, offset, bytes);
}

int ash_copier_begin_inside(struct ash_copier *copier, struct ash_range_lock *lock, uint64_t offset,
                            uint64_t bytes)
{
    ash_user_begin(&copier->source_user);
    return begin(copier, lock, offset, bytes);
}

void ash_copier_end(struct ash_copier *copier, struct ash_range_lock *lock)
{
    ash_range_unlock(lock);
    leave_source(copier);
}

static void abandon(struct ash_copier *copier)
{
    copier->forsaken = true;
    copier->abandoned = true;
    ash_user_forsake(&copier->source_user);
    ash_user_forsake(&copier->target_user);
}

void ash_copier_abandon(struct ash_copier *copier)
{
    ash_assert(!copier->forsaken);
    abandon(copier);
}

struct patience {
    struct ash_timer timer;
    struct ash_copier *copier;
    bool over;
};

static void lose_patience(struct ash_timer *timer)
{
    struct patience *patience = ash_container_of(timer, struct patience, timer);
    patience->over = true;
    ash_co_queue_wake_all(&patience->copier->read);
}

/* Until nothing reads the source, or the deadline. */
ASH_CO_FN static void wait_for_reads(struct ash_copier *copier, uint64_t deadline_ns)
{
    struct patience patience = {.copier = copier};
    ash_timer_init(&patience.timer, lose_patience);
    if (deadline_ns != UINT64_MAX) {
        ash_timer_set(copier->loop, &patience.timer, deadline_ns);
    }
    while (copier->reading > 0 && !patience.over) {
        ash_co_queue_wait(&copier->read);
    }
    ash_timer_cancel(copier->loop, &patience.timer);
}

void ash_copier_forsake(struct ash_copier *copier, uint64_t deadline_ns)
{
    ash_assert(!copier->forsaken);
    if (copier->offloading > 0 && deadline_ns != UINT64_MAX) {
        abandon(copier); /* the kernel waits for the target, and uses the source */
        return;
    }
    copier->forsaken = true;
    wait_for_reads(copier, deadline_ns);
    if (copier->reading > 0) {
        abandon(copier);
        return;
    }
    copier->let_go = true; /* not before: copies that ended meanwhile have left by themselves */
    for (uint32_t i = 0; i < copier->copies; i++) {
        ash_user_leave(&copier->source_user);
    }
    ash_graft_detach(copier->source);
    copier->source = NULL;
}

/* Requests to the source are counted, so that it can be let go while the target is waited for. */
static int read_begin(struct ash_copier *copier)
{
    if (copier->forsaken) {
        return -ECANCELED;
    }
    copier->reading++;
    return 0;
}

/* What was read: nothing is to be done with it if the copier was abandoned meanwhile, or it is of
 * another moment. */
static int read_end(struct ash_copier *copier, int ret)
{
    if (--copier->reading == 0) {
        ash_co_queue_wake_all(&copier->read);
    }
    return copier->abandoned || copier->stale ? -ECANCELED : ret;
}

/* What the source is in a range. */
ASH_CO_FN static int source_status(struct ash_copier *copier, const struct ash_node *base,
                                   uint64_t offset, uint64_t bytes, struct ash_status *status)
{
    int ret = read_begin(copier);
    if (ret < 0) {
        return ret;
    }
    struct ash_node *source = copier->source->child;
    if (source->map != NULL) {
        ret = ash_chain_status(source, base, offset, bytes, ASH_IO_STATUS_ZEROES, status);
    } else {
        struct ash_io io = {.op = ASH_STATUS,
                            .flags = ASH_IO_STATUS_ZEROES,
                            .offset = offset,
                            .bytes = bytes,
                            .status = status};
        ret = ash_edge_io(copier->source, &io);
    }
    return read_end(copier, ret);
}

int ash_copier_status(struct ash_copier *copier, uint64_t offset, uint64_t bytes,
                      struct ash_status *status)
{
    return source_status(copier, NULL, offset, bytes, status);
}

int ash_copier_read(struct ash_copier *copier, uint64_t offset, uint64_t bytes,
                    const struct ash_iov *iov)
{
    struct ash_io io = {.op = ASH_READ, .offset = offset, .bytes = bytes, .iov = *iov};
    int ret = read_begin(copier);
    return ret < 0 ? ret : read_end(copier, ash_edge_io(copier->source, &io));
}

int ash_copier_lookup(struct ash_copier *copier, const struct ash_node *base, uint64_t offset,
                      uint64_t bytes, uint64_t *same_bytes, bool *decided)
{
    struct ash_status status = {.bytes = bytes};
    enter(copier, &copier->source_user);
    int ret = source_status(copier, base, offset, bytes, &status);
    ash_user_leave(&copier->source_user);
    *same_bytes = status.bytes;
    *decided = base == NULL || (status.flags & ASH_STATUS_ALLOCATED) != 0;
    return ret;
}

void ash_copier_yield_target(struct ash_copier *copier)
{
    struct ash_plan *plan = ash_plan_new(copier->loop);
    ash_plan_rights(plan, copier->target, 0, ASH_RIGHT_ALL);
    ash_user_close_gate(&copier->target_user);
    int ret = ash_plan_run(plan, NULL);
    ash_assert(ret == 0); /* giving rights back conflicts with nobody */
    ash_user_resume(&copier->target_user);
    ash_plan_free(plan);
}

int ash_copier_enter_target(struct ash_copier *copier)
{
    if (copier->abandoned) {
        return -ECANCELED;
    }
    ash_user_begin(&copier->target_user); /* guests may wait for the copy: no gate in between */
    return 0;
}

void ash_copier_leave_target(struct ash_copier *copier)
{
    ash_user_leave(&copier->target_user);
}

int ash_copier_target_io(struct ash_copier *copier, const struct ash_io *io)
{
    int ret = ash_copier_enter_target(copier);
    if (ret == 0) {
        ret = ash_edge_io(copier->target, io);
        ash_copier_leave_target(copier);
    }
    return ret;
}

ASH_CO_FN static int copy_zeroes(struct ash_copier *copier, uint64_t offset, uint64_t bytes)
{
    if ((copier->flags & ASH_COPY_TARGET_ZERO) != 0) {
        return 0;
    }
    struct ash_io io = {.op = ASH_ZERO, .offset = offset, .bytes = bytes};
    io.flags = (copier->flags & ASH_COPY_UNMAP) != 0 ? ASH_REQ_UNMAP : 0;
    return ash_copier_target_io(copier, &io);
}

/* Coded units are whole ones. The last one of the source may end within one of a longer target. */
static bool may_be_coded(const struct ash_copier *copier, uint64_t end)
{
    return (copier->flags & ASH_COPY_COMPRESS) != 0 &&
           (end % copier->cluster_bytes == 0 || end >= copier->target->child->size_bytes);
}

/* One piece by the kernel: whole clusters, or all that is left. Returns its length, or an error. */
ASH_CO_FN static int64_t offload_piece(struct ash_copier *copier, uint64_t offset, uint64_t bytes)
{
    struct ash_host_bytes found;
    int64_t ret = ash_host_bytes_find(copier->source->child, offset, bytes, &found);
    if (ret < 0) {
        return ret;
    }
    uint64_t end = offset + found.bytes;
    if (found.bytes < bytes) {
        end = ash_align_down(end, copier->cluster_bytes);
    }
    if (end <= offset) {
        ash_host_bytes_drop(&found);
        return -ENOTSUP;
    }
    struct ash_io io = {.op = ASH_WRITE, .offset = offset, .bytes = end - offset, .iov = found.iov};
    ret = ash_copier_target_io(copier, &io);
    ash_host_bytes_drop(&found);
    if (ret < 0 && ret != -EIO && ret != -ENOSPC) {
        copier->flags &= ~ASH_COPY_OFFLOAD; /* it cannot be; not worth asking each time */
    }
    return ret < 0 ? ret : (int64_t)io.bytes;
}

/* Has the kernel copy from `offset` on. Returns how far it came. */
ASH_CO_FN static uint64_t offload(struct ash_copier *copier, uint64_t offset, uint64_t bytes)
{
    uint64_t done = 0;
    while (done < bytes && (copier->flags & ASH_COPY_OFFLOAD) != 0 && read_begin(copier) == 0) {
        copier->offloading++;
        int64_t piece = offload_piece(copier, offset + done, bytes - done);
        copier->offloading--;
        if (read_end(copier, 0) < 0 || piece < 0) {
            break;
        }
        done += (uint64_t)piece;
    }
    return done;
}

ASH_CO_FN static int copy_data(struct ash_copier *copier, uint64_t offset, uint64_t bytes,
                               bool *reading)
{
    if ((copier->flags & (ASH_COPY_OFFLOAD | ASH_COPY_COMPRESS)) == ASH_COPY_OFFLOAD) {
        uint64_t done = offload(copier, offset, bytes);
        if (done == bytes) {
            return 0;
        }
        offset += done;
        bytes -= done;
    }
    void *buffer = ash_buffer_alloc(copier->loop, bytes, 4096);
    if (buffer == NULL) {
        return -ENOMEM;
    }
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {
        .op = ASH_WRITE, .offset = offset, .bytes = bytes, .iov = ash_iov_of(&vec, 1)};
    int ret = ash_copier_read(copier, offset, bytes, &io.iov);
    *reading = ret < 0;
    if (ret == 0) {
        io.flags = may_be_coded(copier, offset + bytes) ? ASH_IO_COMPRESS : 0;
        bool zero = (copier->flags & ASH_COPY_DETECT_ZEROES) != 0 && ash_iov_is_zero(io.iov, bytes);
        ret = zero ? copy_zeroes(copier, offset, bytes) : ash_copier_target_io(copier, &io);
    }
    ash_buffer_free(copier->loop, buffer, bytes);
    return ret;
}

/* What a copy does with a range. */
enum what { LEAVE, ZEROES, DATA };

static enum what what_of(const struct ash_copier *copier, const struct ash_status *status)
{
    if (copier->base != NULL && (status->flags & ASH_STATUS_ALLOCATED) == 0) {
        return LEAVE;
    }
    return (status->flags & ASH_STATUS_ZERO) != 0 ||
                   (status->flags & (ASH_STATUS_DATA | ASH_STATUS_ALLOCATED)) == 0
               ? ZEROES
               : DATA;
}

/* How far, at most up to `end`, the range that begins at `at` is one and the same thing to do.
 * Coded units are written whole, so there a cluster with any data in it is data. */
ASH_CO_FN static int stretch(struct ash_copier *copier, uint64_t at, uint64_t end, uint64_t *bytes,
                             enum what *what)
{
    uint64_t chunk = ASH_MAX(CHUNK_BYTES, copier->cluster_bytes);
    bool whole = (copier->flags & ASH_COPY_COMPRESS) != 0;
    *bytes = 0;
    while (at + *bytes < end) {
        struct ash_status status;
        uint64_t from = at + *bytes;
        int ret = source_status(copier, copier->base, from, end - from, &status);
        if (ret < 0) {
            return ret;
        }
        enum what next = what_of(copier, &status);
        if (*bytes == 0) {
            *what = next;
        } else if (next != *what && whole && !ash_is_aligned(from, copier->cluster_bytes)) {
            *what = DATA;
        } else if (next != *what) {
            break;
        }
        *bytes += status.bytes;
        if (*what == DATA && *bytes >= chunk) {
            *bytes = chunk;
            break;
        }
    }
    return 0;
}

int ash_copier_copy(struct ash_copier *copier, uint64_t offset, uint64_t bytes, bool *reading)
{
    ash_assert(ash_is_aligned(offset, copier->cluster_bytes));
    *reading = false;
    if (copier->forsaken) { /* since begin: the source may be gone */
        return -ECANCELED;
    }
    uint64_t end = ASH_MIN(offset + bytes, copier->source->child->size_bytes);
    while (offset < end) {
        uint64_t length;
        enum what what = LEAVE;
        int ret = stretch(copier, offset, end, &length, &what);
        if (ret < 0) {
            *reading = true;
            return ret;
        }
        if (what == ZEROES) {
            ret = copy_zeroes(copier, offset, length);
        } else if (what == DATA) {
            ret = copy_data(copier, offset, length, reading);
        }
        if (ret < 0) {
            return ret;
        }
        offset += length;
    }
    return 0;
}

int ash_copier_flush(struct ash_copier *copier)
{
    struct ash_io io = {.op = ASH_FLUSH};
    return ash_copier_target_io(copier, &io);
}

int ash_copier_flush_source(struct ash_copier *copier)
{
    int ret = read_begin(copier);
    if (ret == 0) {
        ash_user_begin(&copier->source_user);
        ret = ash_edge_flush(copier->source);
        ash_user_leave(&copier->source_user);
        ret = read_end(copier, ret);
    }
    return ret;
}
