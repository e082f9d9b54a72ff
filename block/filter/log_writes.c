/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* log-writes: a filter that records each change in a second node, so that it can be replayed.
 *
 *     {"driver": "log-writes", "file": ..., "log": ..., "log-sector-size": 512,
 *      "log-super-update-interval": 4096, "log-append": false}
 *
 * The log is in the format of Linux's device-mapper target log-writes, version 1, numbers in little
 * endian. Its first sector is the super block. Entries follow: a header that fills one sector, and
 * the data of a write. A write of zeroes is recorded as a write; a discard has no data. Requests
 * are cut and padded to sectors of the log, so the disk's length has to be a multiple of them.
 *
 * With "log-append" a log is continued, else it begins anew. The super block says how many entries
 * there are. It is written every so many entries, at each flush, and when the filter closes.
 *
 * Invariants:
 *  1. A request completes after its record was written. One that failed is not recorded; one whose
 *     record could not be written fails.
 *  2. Of two changes to one sector, the later one in the log is the later one in the image: from
 *     before a change until its record is there, its range is locked.
 *  3. The records before that of a flush are those of the requests that had completed when it
 *     began: who finishes while it is under way is recorded after it. When it completes, the log up
 *     to its record is on disk, and the super block counts it.
 *  4. Records are written one at a time. After one that failed the next takes its place: there are
 * no gaps.
 *  5. Image and log get the same bytes, those of a copy: the guest may scribble on its buffer. */
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/driver.h"
#include "block/filter/filter.h"
#include "util/assert.h"
#include "util/co/range_lock.h"
#include "util/range.h"

#define LOG_MAGIC UINT64_C(0x6a736677736872)
#define LOG_VERSION UINT64_C(1)
#define LOG_FLUSH UINT64_C(1)
#define LOG_FUA UINT64_C(2)
#define LOG_DISCARD UINT64_C(4)
#define LOG_FLAGS UINT64_C(31) /* MARK and METADATA too */

#define SECTOR_BYTES_MAX (UINT64_C(1) << 23)
#define ZERO_BYTES_MAX (64 * MiB)           /* of one entry */
#define DATA_BYTES_MAX UINT32_C(0x00800000) /* the same, and of a copy */

struct super {
    uint64_t magic;
    uint64_t version;
    uint64_t nr_entries;
    uint32_t sectorsize;
    uint32_t padding;
};
_Static_assert(sizeof(struct super) == 32, "on disk");

struct entry {
    uint64_t sector;
    uint64_t nr_sectors;
    uint64_t flags;
    uint64_t data_len;
};
_Static_assert(sizeof(struct entry) == 32, "on disk");

struct log_state {
    /* Options. */
    uint64_t sector_bytes;
    uint64_t interval;
    bool append;

    struct ash_range_locks locks;  /* on what is changed at the moment */
    struct ash_co_mutex appending; /* whoever appends, and flushes */
    uint8_t *sector;               /* for headers; of who appends */
    uint64_t end_bytes;            /* of the log */
    uint64_t entries;
    uint64_t entries_counted; /* by the super block on disk */
};

static const struct ash_option log_options[] = {
    ASH_OPTION_SIZE("log-sector-size", struct log_state, sector_bytes, .def = 512, .min = 512,
                    .max = SECTOR_BYTES_MAX, .help = "sectors in which the log counts"),
    ASH_OPTION_UINT("log-super-update-interval", struct log_state, interval, .def = 4096, .min = 1,
                    .help = "entries after which the super block is written"),
    ASH_OPTION_BOOL("log-append", struct log_state, append, .help = "whether a log is continued"),
    ASH_OPTION_END,
};

/* --- the log --- */

/* Whether the log node is long enough, or grows. */
static int check_space(const struct ash_node *node, uint64_t bytes)
{
    const struct log_state *state = node->state;
    const struct ash_node *log = node->data->child;
    bool grows = (log->flags & ASH_NODE_GROWS) != 0;
    return grows || state->end_bytes + bytes <= log->size_bytes ? 0 : -ENOSPC;
}

ASH_CO_FN static int write_super(struct ash_node *node, uint32_t flags)
{
    struct log_state *state = node->state;
    struct super super = {.magic = htole64(LOG_MAGIC),
                          .version = htole64(LOG_VERSION),
                          .nr_entries = htole64(state->entries),
                          .sectorsize = htole32((uint32_t)state->sector_bytes)};
    memset(state->sector, 0, state->sector_bytes);
    memcpy(state->sector, &super, sizeof(super));
    int ret = ash_edge_write(node->data, 0, state->sector, state->sector_bytes, flags);
    if (ret == 0) {
        state->entries_counted = state->entries;
    }
    return ret;
}

/* The entry and its data, behind what is there. */
ASH_CO_FN static int write_entry(struct ash_node *node, const struct entry *entry,
                                 const struct ash_iov *data)
{
    struct log_state *state = node->state;
    struct entry le = {.sector = htole64(entry->sector),
                       .nr_sectors = htole64(entry->nr_sectors),
                       .flags = htole64(entry->flags),
                       .data_len = htole64(entry->data_len)};
    int ret = check_space(node, state->sector_bytes + entry->data_len);
    if (ret < 0) {
        return ret;
    }
    uint64_t at = state->end_bytes + state->sector_bytes;
    if (data != NULL) {
        struct ash_io io = {.op = ASH_WRITE, .offset = at, .bytes = entry->data_len, .iov = *data};
        ret = ash_edge_io(node->data, &io);
    } else if (entry->data_len > 0) {
        ret = ash_edge_zero(node->data, at, entry->data_len, 0);
    }
    if (ret == 0) {
        memset(state->sector, 0, state->sector_bytes);
        memcpy(state->sector, &le, sizeof(le));
        ret = ash_edge_write(node->data, state->end_bytes, state->sector, state->sector_bytes, 0);
    }
    return ret;
}

ASH_CO_FN static int append(struct ash_node *node, const struct entry *entry,
                            const struct ash_iov *data)
{
    struct log_state *state = node->state;
    int ret = write_entry(node, entry, data);
    if (ret < 0) {
        return ret;
    }
    state->end_bytes += state->sector_bytes + entry->data_len;
    state->entries++;
    return state->entries % state->interval == 0 ? write_super(node, 0) : 0;
}

/* --- requests --- */

ASH_CO_FN static int change(struct ash_node *node, const struct ash_io *io,
                            const struct ash_iov *data)
{
    struct log_state *state = node->state;
    bool discard = io->op == ASH_DISCARD;
    struct entry entry = {.sector = io->offset / state->sector_bytes,
                          .nr_sectors = io->bytes / state->sector_bytes,
                          .flags = (discard ? LOG_DISCARD : 0) |
                                   ((io->flags & ASH_REQ_FUA) != 0 ? LOG_FUA : 0),
                          .data_len = discard ? 0 : io->bytes};
    ash_assert(io->offset % state->sector_bytes == 0);
    ash_assert(io->bytes % state->sector_bytes == 0);
    struct ash_range_lock lock;
    ash_range_lock(&lock, &state->locks, io->offset, io->bytes);
    int ret = ash_edge_io(node->file, io);
    if (ret == 0) {
        ash_co_mutex_lock(&state->appending);
        ret = append(node, &entry, data);
        ash_co_mutex_unlock(&state->appending);
    }
    ash_range_unlock(&lock);
    return ret;
}

ASH_CO_FN static int log_write(struct ash_node *node, const struct ash_io *io)
{
    void *copy = ash_buffer_alloc(node->loop, io->bytes, 4096);
    if (copy == NULL) {
        return -ENOMEM;
    }
    struct iovec vec = {copy, io->bytes};
    struct ash_io own = *io;
    own.iov = ash_iov_of(&vec, 1);
    ash_iov_to_buffer(io->iov, copy, io->bytes);
    int ret = change(node, &own, &own.iov);
    ash_buffer_free(node->loop, copy, io->bytes);
    return ret;
}

ASH_CO_FN static int log_clear(struct ash_node *node, const struct ash_io *io)
{
    return change(node, io, NULL);
}

ASH_CO_FN static int log_flush(struct ash_node *node, const struct ash_io *io)
{
    struct log_state *state = node->state;
    static const struct entry entry = {.flags = LOG_FLUSH};
    if (!ash_node_writable(node)) {
        return ash_edge_io(node->file, io);
    }
    ash_co_mutex_lock(&state->appending);
    int ret = ash_edge_io(node->file, io);
    if (ret == 0) {
        ret = append(node, &entry, NULL);
    }
    if (ret == 0) {
        ret = ash_edge_flush(node->data);
    }
    if (ret == 0) {
        ret = write_super(node, ASH_REQ_FUA);
    }
    ash_co_mutex_unlock(&state->appending);
    return ret;
}

/* --- life --- */

static int refuse_log(const struct ash_node *node, const char *why, struct ash_error *error)
{
    return ash_error_set(error, -EINVAL, "'%s' is not a log that can be continued: %s",
                         node->data->child->filename, why);
}

/* Goes through the entries to their end. */
ASH_CO_FN static int find_end(struct ash_node *node, struct ash_error *error)
{
    struct log_state *state = node->state;
    const struct ash_node *log = node->data->child;
    state->end_bytes = state->sector_bytes;
    for (uint64_t i = 0; i < state->entries; i++) {
        struct entry entry;
        int ret = ash_edge_read(node->data, state->end_bytes, &entry, sizeof(entry));
        if (ret < 0) {
            return ash_error_errno(error, ret, "The log '%s' cannot be read", log->filename);
        }
        uint64_t flags = le64toh(entry.flags);
        uint64_t sectors = le64toh(entry.nr_sectors);
        uint64_t left = (log->size_bytes - state->end_bytes) / state->sector_bytes;
        sectors = (flags & LOG_DISCARD) != 0 ? 0 : sectors;
        if ((flags & ~LOG_FLAGS) != 0 || left == 0 || sectors > left - 1) {
            return refuse_log(node, "an entry is damaged", error);
        }
        state->end_bytes += (1 + sectors) * state->sector_bytes;
        if (state->end_bytes > log->size_bytes) {
            return refuse_log(node, "it is cut off", error);
        }
    }
    return 0;
}

ASH_CO_FN static int continue_log(struct ash_node *node, struct ash_error *error)
{
    struct log_state *state = node->state;
    struct super super;
    int ret = ash_edge_read(node->data, 0, &super, sizeof(super));
    if (ret < 0) {
        return ash_error_errno(error, ret, "The log '%s' cannot be read",
                               node->data->child->filename);
    }
    if (le64toh(super.magic) != LOG_MAGIC) {
        return refuse_log(node, "it has no super block", error);
    }
    if (le64toh(super.version) != LOG_VERSION) {
        return refuse_log(node, "its version is not 1", error);
    }
    if (le32toh(super.sectorsize) != state->sector_bytes) {
        return ash_error_set(
            error, -EINVAL, "The log '%s' has sectors of %" PRIu32 " bytes and not of %" PRIu64,
            node->data->child->filename, le32toh(super.sectorsize), state->sector_bytes);
    }
    state->entries = le64toh(super.nr_entries);
    state->entries_counted = state->entries;
    return find_end(node, error);
}

ASH_CO_FN static int start_log(struct ash_node *node, struct ash_error *error)
{
    struct log_state *state = node->state;
    if (state->append) {
        return continue_log(node, error);
    }
    state->end_bytes = 0;
    int ret = check_space(node, state->sector_bytes);
    ret = ret < 0 ? ret : write_super(node, 0);
    state->end_bytes = state->sector_bytes;
    return ret < 0 ? ash_error_errno(error, ret, "The log '%s' cannot be written",
                                     node->data->child->filename)
                   : 0;
}

static int check_sectors(const struct ash_node *node, uint64_t bytes, struct ash_error *error)
{
    const struct log_state *state = node->state;
    if (!ash_is_aligned(bytes, state->sector_bytes)) {
        return ash_error_set(error, -EINVAL,
                             "A disk of %" PRIu64 " bytes cannot be logged in sectors of %" PRIu64,
                             bytes, state->sector_bytes);
    }
    return 0;
}

ASH_CO_FN static int log_open(struct ash_node *node, struct ash_error *error)
{
    struct log_state *state = node->state;
    int ret = ash_filter_open(node, error);
    if (!ash_is_power_of_2(state->sector_bytes)) {
        return ash_error_set(error, -EINVAL, "'log-sector-size' has to be a power of two");
    }
    ret = ret < 0 ? ret : check_sectors(node, node->size_bytes, error);
    if (ret < 0) {
        return ret;
    }
    ash_range_locks_init(&state->locks, state->sector_bytes);
    ash_co_mutex_init(&state->appending);
    state->sector = g_malloc(state->sector_bytes);
    if (ash_node_writable(node)) {
        ret = start_log(node, error);
    }
    if (ret < 0) {
        ash_co_mutex_destroy(&state->appending);
        g_free(state->sector);
    }
    return ret;
}

ASH_CO_FN static int log_close(struct ash_node *node)
{
    struct log_state *state = node->state;
    int ret = 0;
    if (state->entries_counted != state->entries) {
        ret = write_super(node, 0);
    }
    ash_co_mutex_destroy(&state->appending);
    g_free(state->sector);
    return ret;
}

static void log_limits(const struct ash_node *node, struct ash_limits *limits)
{
    const struct log_state *state = node->state;
    uint32_t sector = (uint32_t)state->sector_bytes;
    ash_filter_limits(node, limits);
    limits->request_alignment = ASH_MAX(limits->request_alignment, sector);
    limits->zero_alignment = ASH_MAX(limits->zero_alignment, sector);
    limits->discard_alignment = ASH_MAX(limits->discard_alignment, sector);
    limits->zero_max =
        limits->zero_max != 0 ? ASH_MIN(limits->zero_max, ZERO_BYTES_MAX) : ZERO_BYTES_MAX;
    uint32_t most =
        limits->transfer_max != 0 ? ASH_MIN(limits->transfer_max, DATA_BYTES_MAX) : DATA_BYTES_MAX;
    limits->transfer_max =
        ASH_MAX(ash_align_down(most, limits->request_alignment), limits->request_alignment);
}

static void log_rights(const struct ash_node *node, uint32_t flags, enum ash_role role,
                       uint32_t parent_needs, uint32_t parent_allows, uint32_t *needs,
                       uint32_t *allows)
{
    (void)node;
    *needs = parent_needs;
    *allows = parent_allows;
    if (role == ASH_ROLE_DATA) {
        bool writes = (flags & ASH_NODE_WRITE) != 0;
        *needs = ASH_RIGHT_READ | (writes ? ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE : 0);
        *allows = ASH_RIGHT_READ;
    }
}

ASH_CO_FN static int log_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                struct ash_error *error)
{
    int ret = check_sectors(node, bytes, error);
    if (ret == 0) {
        ret = ash_edge_resize(node->file, bytes, ASH_RESIZE_SHRINK, (int)prealloc, error);
    }
    /* Also when it failed: what it failed at may be the preallocation of its new part. */
    node->size_bytes = node->file->child->size_bytes;
    log_limits(node, &node->limits);
    return ret;
}

const struct ash_driver ash_driver_log_writes = {
    .name = "log-writes",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct log_state),
    .options = log_options,
    .data_child = "log",
    .open = log_open,
    .close = log_close,
    .limits = log_limits,
    .rights = log_rights,
    .resize = log_resize,
    .io =
        {
            [ASH_WRITE] = log_write,
            [ASH_ZERO] = log_clear,
            [ASH_DISCARD] = log_clear,
            [ASH_FLUSH] = log_flush,
        },
};
