/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying away what is about to change; the invariants stand in the header. */
#include "block/copy/before_write.h"
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include "util/assert.h"
#include "util/range.h"

/* A guest's change waits for copies of this much at a time, or of a cluster if that is more. */
#define PIECE_BYTES (1 * MiB)

static void before_write_free(struct ash_before_write *self)
{
    ash_hbitmap_destroy(&self->kept);
    ash_hbitmap_destroy(&self->uncopied);
    g_free(self);
}

/* Where the range ends within the snapshot. */
static uint64_t end_of(const struct ash_before_write *self, uint64_t offset, uint64_t bytes)
{
    return offset >= self->size_bytes ? self->size_bytes
                                      : offset + ASH_MIN(bytes, self->size_bytes - offset);
}

static uint64_t cluster_count(const struct ash_before_write *self, uint64_t bytes)
{
    return ash_div_round_up(bytes, self->copier->cluster_bytes);
}

/* Both sets, empty. */
static int make_sets(struct ash_before_write *self, uint64_t bytes)
{
    struct ash_hbitmap kept;
    struct ash_hbitmap uncopied;
    int ret = ash_hbitmap_init(&kept, cluster_count(self, bytes));
    if (ret < 0) {
        return ret;
    }
    ret = ash_hbitmap_init(&uncopied, cluster_count(self, bytes));
    if (ret < 0) {
        ash_hbitmap_destroy(&kept);
        return ret;
    }
    ash_hbitmap_destroy(&self->kept);
    ash_hbitmap_destroy(&self->uncopied);
    self->kept = kept;
    self->uncopied = uncopied;
    self->size_bytes = bytes;
    return 0;
}

int ash_before_write_check_cluster(uint64_t cluster_bytes_min, struct ash_error *error)
{
    if (cluster_bytes_min != 0 &&
        (!ash_is_power_of_2(cluster_bytes_min) || cluster_bytes_min > GiB)) {
        return ash_error_set(error, -EINVAL,
                             "Parameter 'min-cluster-size' is a power of two up to 1 GiB");
    }
    return 0;
}

int ash_before_write_new(struct ash_loop *loop, const struct ash_before_write_config *config,
                         struct ash_before_write **result, struct ash_error *error)
{
    uint64_t bytes = config->source->size_bytes;
    if (config->target->size_bytes < bytes) {
        return ash_error_set(error, -ENOSPC, "'%s' has %" PRIu64 " bytes, %" PRIu64 " are needed",
                             config->target->filename, config->target->size_bytes, bytes);
    }
    struct ash_before_write *self = g_new0(struct ash_before_write, 1);
    self->loop = loop;
    self->refs = 1;
    self->timeout_ns = config->timeout_ns;
    self->break_guest_write = config->break_guest_write;
    ash_co_queue_init(&self->waiting);
    struct ash_copier_config copier_config = {
        .source = config->source,
        .target = config->target,
        .cluster_bytes_min = config->cluster_bytes_min,
    };
    int ret = ash_copier_new(loop, &copier_config, &self->copier, error);
    if (ret < 0) {
        g_free(self);
        return ret;
    }
    ret = make_sets(self, bytes);
    if (ret < 0) {
        ash_error_errno(error, ret, "A snapshot of '%s' cannot be kept", config->source->filename);
        ash_before_write_unref(self);
        return ret;
    }
    ash_before_write_keep(self, 0, bytes);
    *result = self;
    return 0;
}

void ash_before_write_ref(struct ash_before_write *self)
{
    ash_loop_assert_owner(self->loop);
    self->refs++;
}

void ash_before_write_unref(struct ash_before_write *self)
{
    ash_loop_assert_owner(self->loop);
    ash_assert(self->refs > 0);
    if (--self->refs == 0) {
        if (self->resume != NULL) {
            ash_resume_unref(self->resume);
        }
        ash_copier_unref(self->copier);
        before_write_free(self);
    }
}

int ash_before_write_restart_at(struct ash_before_write *self, uint64_t bytes)
{
    self->broken = 0;
    self->copier->stale = false;
    return make_sets(self, bytes);
}

int ash_before_write_restart(struct ash_before_write *self)
{
    return ash_before_write_restart_at(self, self->copier->source->child->size_bytes);
}

static void tell(struct ash_before_write *self)
{
    ash_co_queue_wake_all(&self->waiting);
    if (self->changed != NULL) {
        self->changed(self->opaque);
    }
}

/* What was copied is in the target, stably, before the file says that it was. */
ASH_CO_FN static int settle_target(void *opaque)
{
    struct ash_before_write *self = opaque;
    return ash_copier_flush(self->copier);
}

static void hold(void *opaque)
{
    struct ash_before_write *self = opaque;
    ash_before_write_ref(self);
    self->notings++;
}

static void drop(void *opaque)
{
    struct ash_before_write *self = opaque;
    ash_co_assert_inside();
    self->notings--;
    tell(self);
    ash_before_write_unref(self);
}

void ash_before_write_record(struct ash_before_write *self, struct ash_resume_file *file)
{
    ash_assert(self->resume == NULL);
    ash_assert(file->part_bytes == self->copier->cluster_bytes);
    self->resume = file;
    file->settle = settle_target;
    file->hold = hold;
    file->drop = drop;
    file->opaque = self;
}

void ash_before_write_keep(struct ash_before_write *self, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = self->copier->cluster_bytes;
    uint64_t end = end_of(self, offset, bytes);
    if (offset >= end) {
        return;
    }
    uint64_t first = offset / cluster;
    uint64_t count = ash_div_round_up(end, cluster) - first;
    ash_hbitmap_set(&self->kept, first, count);
    ash_hbitmap_set(&self->uncopied, first, count);
}

void ash_before_write_break(struct ash_before_write *self, int error)
{
    ash_assert(error < 0);
    if (self->broken == 0) {
        self->broken = error;
        self->copier->stale = true; /* guests change what is being read */
        tell(self);
    }
}

void ash_before_write_forsake(struct ash_before_write *self, uint64_t deadline_ns)
{
    ash_before_write_break(self, -ECANCELED);
    if (!self->copier->forsaken) {
        ash_copier_forsake(self->copier, deadline_ns);
    }
}

/* --- copying --- */

/* The uncopied clusters of the range, under its lock. What fails is uncopied again. */
ASH_CO_FN static int copy_locked(struct ash_before_write *self, uint64_t offset, uint64_t end,
                                 bool *reading)
{
    uint64_t cluster = self->copier->cluster_bytes;
    uint64_t last = ash_div_round_up(end, cluster);
    uint64_t first = offset / cluster;
    while ((first = ash_hbitmap_next_set(&self->uncopied, first, last)) != ASH_HBITMAP_NONE) {
        uint64_t next = ash_hbitmap_next_clear(&self->uncopied, first, last);
        next = next == ASH_HBITMAP_NONE ? last : next;
        if (self->broken < 0) {
            return -EACCES;
        }
        uint64_t from = first * cluster;
        uint64_t to = ASH_MIN(next * cluster, self->size_bytes);
        ash_hbitmap_reset(&self->uncopied, first, next - first);
        int ret = ash_copier_copy(self->copier, from, to - from, reading);
        if (ret < 0) {
            ash_hbitmap_set(&self->uncopied, first, next - first);
            return ret;
        }
        if (self->resume != NULL) {
            ash_resume_put(self->resume, from, to - from, false);
        }
        first = next;
    }
    return 0;
}

int ash_before_write_copy(struct ash_before_write *self, uint64_t offset, uint64_t bytes,
                          bool *reading)
{
    struct ash_range_lock lock;
    *reading = false;
    int ret = ash_copier_begin(self->copier, &lock, offset, bytes);
    if (ret == 0) {
        ret = copy_locked(self, offset, end_of(self, offset, bytes), reading);
        ash_copier_end(self->copier, &lock);
    }
    return ret;
}

/* Whether what was copied of the range may have to be copied again after a crash. */
static bool is_unsettled(const struct ash_before_write *self, uint64_t offset, uint64_t end)
{
    return self->resume != NULL && offset < end &&
           !ash_resume_is(self->resume, offset, end - offset, false);
}

/* A copy for the sake of a guest, in a coroutine of its own: the guest can give it up. */
struct errand {
    struct ash_before_write *self;
    uint64_t offset;
    uint64_t bytes;
    uint32_t refs;
    bool done;
    int ret;
};

static void errand_unref(struct errand *errand)
{
    if (--errand->refs == 0) {
        g_free(errand);
    }
}

static void run_errand(void *opaque)
{
    struct errand *errand = opaque;
    struct ash_before_write *self = errand->self;
    struct ash_range_lock lock;
    bool reading;
    ash_co_assert_inside();
    errand->ret = ash_copier_begin_inside(self->copier, &lock, errand->offset, errand->bytes);
    if (errand->ret == 0) {
        errand->ret = copy_locked(self, errand->offset, errand->offset + errand->bytes, &reading);
        ash_copier_end(self->copier, &lock);
    }
    if (errand->ret == 0 && is_unsettled(self, errand->offset, errand->offset + errand->bytes)) {
        errand->ret = ash_resume_commit(self->resume);
    }
    errand->done = true;
    errand_unref(errand);
    tell(self);
    ash_before_write_unref(self);
}

struct alarm {
    struct ash_timer timer;
    struct ash_before_write *self;
    bool rang;
};

static void ring(struct ash_timer *timer)
{
    struct alarm *alarm = ash_container_of(timer, struct alarm, timer);
    alarm->rang = true;
    ash_co_queue_wake_all(&alarm->self->waiting);
}

/* Has the range copied and waits for it: 0, the error of the copy, or -ETIMEDOUT. When the snapshot
 * breaks meanwhile it is not waited for. */
ASH_CO_FN static int copy_for_guest(struct ash_before_write *self, uint64_t offset, uint64_t bytes,
                                    uint64_t deadline_ns)
{
    struct errand *errand = g_new(struct errand, 1);
    *errand = (struct errand){.self = self, .offset = offset, .bytes = bytes, .refs = 2};
    ash_before_write_ref(self); /* the errand's */
    if (ash_co_spawn(&self->loop->sched, run_errand, errand) < 0) {
        run_errand(errand); /* no coroutine can be had: then it cannot be given up */
    }
    struct alarm alarm = {.self = self};
    ash_timer_init(&alarm.timer, ring);
    if (deadline_ns != UINT64_MAX) {
        ash_timer_set(self->loop, &alarm.timer, deadline_ns);
    }
    while (!errand->done && !alarm.rang && self->broken == 0) {
        ash_co_queue_wait(&self->waiting);
    }
    ash_timer_cancel(self->loop, &alarm.timer);
    int ret = errand->done ? errand->ret : -ETIMEDOUT;
    errand_unref(errand);
    return ret;
}

/* The next piece, from *at on, of what a change up to `end` has to wait for; 0: nothing. */
static uint64_t next_piece(struct ash_before_write *self, uint64_t *at, uint64_t end)
{
    uint64_t cluster = self->copier->cluster_bytes;
    uint64_t found =
        ash_hbitmap_next_set(&self->uncopied, *at / cluster, ash_div_round_up(end, cluster));
    uint64_t from = found == ASH_HBITMAP_NONE ? end : ASH_MAX(*at, found * cluster);
    if (from > *at && ash_range_locked(&self->copier->locks, *at, from - *at)) {
        return from - *at; /* copied, or read, at this moment */
    }
    *at = from;
    uint64_t piece = ASH_MAX(PIECE_BYTES, cluster);
    return ASH_MIN(end, ash_align_down(from, piece) + piece) - from;
}

int ash_before_write_guard(struct ash_before_write *self, uint64_t offset, uint64_t bytes)
{
    uint64_t end = end_of(self, offset, bytes);
    uint64_t deadline_ns = UINT64_MAX;
    uint64_t at = offset;
    int ret = 0;
    ash_before_write_ref(self);
    while (ret == 0 && self->broken == 0 && at < end) {
        uint64_t piece = next_piece(self, &at, end);
        if (piece == 0) {
            break;
        }
        if (self->timeout_ns != 0 && deadline_ns == UINT64_MAX) {
            deadline_ns = ash_loop_now(self->loop) + self->timeout_ns;
        }
        ret = copy_for_guest(self, at, piece, deadline_ns);
        at += piece;
    }
    if (ret == 0 && self->broken == 0 && is_unsettled(self, offset, end)) {
        deadline_ns = self->timeout_ns != 0 && deadline_ns == UINT64_MAX
                          ? ash_loop_now(self->loop) + self->timeout_ns
                          : deadline_ns;
        ret = copy_for_guest(self, offset, end - offset, deadline_ns);
    }
    if (self->broken == 0 && ret < 0 && !self->break_guest_write) {
        ash_before_write_break(self, ret);
    }
    if (self->broken < 0) {
        ret = self->resume != NULL && offset < end ? ash_resume_break(self->resume) : 0;
    }
    ash_before_write_unref(self);
    return ret;
}

/* --- the snapshot --- */

/* How far the cluster at `offset` and those after it are one and the same, at most up to `end`. */
static uint64_t same_until(struct ash_before_write *self, uint64_t offset, uint64_t end, bool *kept,
                           bool *uncopied)
{
    uint64_t cluster = self->copier->cluster_bytes;
    uint64_t first = offset / cluster;
    uint64_t last = ash_div_round_up(end, cluster);
    *kept = ash_hbitmap_test(&self->kept, first);
    *uncopied = ash_hbitmap_test(&self->uncopied, first);
    uint64_t other = *kept ? ash_hbitmap_next_clear(&self->kept, first, last)
                           : ash_hbitmap_next_set(&self->kept, first, last);
    last = ASH_MIN(last, other);
    other = *uncopied ? ash_hbitmap_next_clear(&self->uncopied, first, last)
                      : ash_hbitmap_next_set(&self->uncopied, first, last);
    last = ASH_MIN(last, other);
    return ASH_MIN(end, last * cluster);
}

/* Cuts `io` to its first part that lies in one place, and says in which. */
static void cut(struct ash_before_write *self, struct ash_io *io, bool *kept, bool *uncopied)
{
    io->bytes = same_until(self, io->offset, io->offset + io->bytes, kept, uncopied) - io->offset;
}

/* Does `io`, a read or a question, on the first part of it that lies in one place, and cuts it to
 * that. No lock is held while the target is read: nobody changes what it holds. */
ASH_CO_FN static int part_io(struct ash_before_write *self, struct ash_io *io)
{
    bool kept;
    bool uncopied;
    int ret = 0;
    cut(self, io, &kept, &uncopied);
    if (kept && (uncopied || ash_range_locked(&self->copier->locks, io->offset, io->bytes))) {
        struct ash_range_lock lock;
        if (ash_copier_begin_inside(self->copier, &lock, io->offset, io->bytes) < 0) {
            return -EACCES; /* it was given up */
        }
        cut(self, io, &kept, &uncopied);
        if (kept && uncopied && io->op == ASH_READ) {
            ret = ash_copier_read(self->copier, io->offset, io->bytes, &io->iov);
        } else if (kept && uncopied) {
            ret = ash_copier_status(self->copier, io->offset, io->bytes, io->status);
        }
        ash_copier_end(self->copier, &lock);
    }
    if (kept && !uncopied && self->broken == 0) {
        ret = ash_copier_target_io(self->copier, io);
    }
    return !kept || self->broken < 0 ? -EACCES : ret;
}

int ash_before_write_read(struct ash_before_write *self, uint64_t offset, uint64_t bytes,
                          const struct ash_iov *iov)
{
    uint64_t piece = ASH_MAX(PIECE_BYTES, self->copier->cluster_bytes);
    int ret = 0;
    ash_before_write_ref(self);
    for (uint64_t done = 0; ret == 0 && done < bytes;) {
        struct ash_io io = {.op = ASH_READ,
                            .offset = offset + done,
                            .bytes = ASH_MIN(bytes - done, piece),
                            .iov = ash_iov_advance(*iov, done)};
        ret = part_io(self, &io);
        done += io.bytes;
    }
    ash_before_write_unref(self);
    return ret;
}

int ash_before_write_status(struct ash_before_write *self, uint64_t offset, uint64_t bytes,
                            struct ash_status *status)
{
    struct ash_io io = {.op = ASH_STATUS,
                        .flags = ASH_IO_STATUS_ZEROES,
                        .offset = offset,
                        .bytes = bytes,
                        .status = status};
    ash_before_write_ref(self);
    int ret = part_io(self, &io);
    ash_before_write_unref(self);
    return ret;
}

int ash_before_write_drop(struct ash_before_write *self, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = self->copier->cluster_bytes;
    uint64_t end = end_of(self, offset, bytes);
    uint64_t first = ash_div_round_up(offset, cluster);
    uint64_t last = end == self->size_bytes ? ash_div_round_up(end, cluster) : end / cluster;
    if (first >= last) {
        return 0;
    }
    struct ash_range_lock lock;
    struct ash_io io = {.op = ASH_DISCARD, .offset = first * cluster};
    io.bytes = ASH_MIN(last * cluster, self->size_bytes) - io.offset;
    ash_before_write_ref(self);
    int ret = ash_copier_begin_inside(self->copier, &lock, io.offset, io.bytes);
    if (ret == 0) {
        ash_hbitmap_reset(&self->kept, first, last - first);
        ash_hbitmap_reset(&self->uncopied, first, last - first);
        ash_copier_end(self->copier, &lock);
        ret = ash_copier_target_io(self->copier, &io);
        ret = ret == -ENOTSUP ? 0 : ret;
    }
    ash_before_write_unref(self);
    return ret;
}
