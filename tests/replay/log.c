/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/replay/log.h"
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include "util/assert.h"

struct log_entry {
    uint8_t op; /* enum ash_aio_op */
    bool must;  /* stable by itself */
    int mode;
    uint64_t number;
    uint64_t offset;
    uint64_t bytes;
    uint8_t *data;
};

static void entry_free(void *opaque)
{
    struct log_entry *entry = opaque;
    g_free(entry->data);
    g_free(entry);
}

static struct log_file *file_named(struct log *log, const char *name)
{
    for (uint32_t i = 0; i < log->file_count; i++) {
        if (!strcmp(log->file[i].name, name)) {
            return &log->file[i];
        }
    }
    ash_assert(log->file_count < LOG_FILES);
    struct log_file *file = &log->file[log->file_count++];
    g_strlcpy(file->name, name, sizeof(file->name));
    file->stable.data = g_byte_array_new();
    file->pending = g_ptr_array_new_with_free_func(entry_free);
    return file;
}

static void fill_to(GByteArray *data, uint64_t length)
{
    uint32_t old = data->len;
    if (length > old) {
        g_byte_array_set_size(data, (guint)length);
        memset(data->data + old, 0, length - old);
    }
}

static void set_length(struct log_bytes *bytes, uint64_t length)
{
    bytes->length = length;
    if (length < bytes->data->len) {
        g_byte_array_set_size(bytes->data, (guint)length);
    }
}

/* Carries an entry out, or its first `torn` bytes. */
static void apply(struct log_bytes *bytes, const struct log_entry *entry, uint64_t torn)
{
    uint64_t end = entry->offset + MIN(entry->bytes, torn);
    if (entry->op == ASH_AIO_TRUNCATE) {
        set_length(bytes, entry->bytes);
        return;
    }
    bool write = entry->op == ASH_AIO_WRITE;
    if (end > bytes->length && (write || !(entry->mode & FALLOC_FL_KEEP_SIZE))) {
        bytes->length = end;
    }
    if (write) {
        fill_to(bytes->data, end);
        memcpy(bytes->data->data + entry->offset, entry->data, end - entry->offset);
    } else if (entry->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        end = MIN(end, bytes->data->len);
        if (entry->offset < end) {
            memset(bytes->data->data + entry->offset, 0, end - entry->offset);
        }
    }
}

/* --- states --- */

/* One file with those kept that `kept` says, the newest only in its first `torn` bytes. */
static void build(const struct log_file *file, uint64_t kept, uint64_t torn, struct log_bytes *into)
{
    g_byte_array_set_size(into->data, 0);
    g_byte_array_append(into->data, file->stable.data->data, file->stable.data->len);
    into->length = file->stable.length;
    uint32_t count = file->pending->len;
    for (uint32_t i = 0; i < count; i++) {
        const struct log_entry *entry = file->pending->pdata[i];
        if (entry->must || (kept >> (count - 1 - i) & 1)) {
            apply(into, entry, i == count - 1 ? torn : UINT64_MAX);
        }
    }
}

/* All states of the file in which something happened; the others have theirs with all kept. */
static void tell_states(struct log *log, const struct log_file *changed)
{
    struct log_bytes files[LOG_FILES];
    uint32_t which = (uint32_t)(changed - log->file);
    uint32_t count = changed->pending->len;
    ash_assert(count < 64);
    for (uint32_t i = 0; i < log->file_count; i++) {
        files[i].data = g_byte_array_new();
        build(&log->file[i], UINT64_MAX, UINT64_MAX, &files[i]);
    }
    uint64_t all = count < 64 ? (UINT64_C(1) << count) - 1 : UINT64_MAX;
    uint32_t tail = MIN(count, LOG_TAIL);
    for (uint64_t mask = 0; mask < UINT64_C(1) << tail; mask++) {
        build(changed, (all & ~((UINT64_C(1) << tail) - 1)) | mask, UINT64_MAX, &files[which]);
        log->state(log->opaque, files, log->file_count);
    }
    for (uint32_t older = tail; older < count; older++) {
        build(changed, all & ~(UINT64_C(1) << older), UINT64_MAX, &files[which]);
        log->state(log->opaque, files, log->file_count);
    }
    build(changed, 0, UINT64_MAX, &files[which]);
    log->state(log->opaque, files, log->file_count);
    const struct log_entry *newest = count ? changed->pending->pdata[count - 1] : NULL;
    if (newest && newest->op == ASH_AIO_WRITE && newest->bytes > log->tear_bytes) {
        build(changed, all, log->tear_bytes, &files[which]);
        log->state(log->opaque, files, log->file_count);
        build(changed, all, newest->bytes - log->tear_bytes, &files[which]);
        log->state(log->opaque, files, log->file_count);
    }
    for (uint32_t i = 0; i < log->file_count; i++) {
        g_byte_array_unref(files[i].data);
    }
}

/* --- events --- */

static void carried_out(struct log *log, const struct ash_aio *aio, const char *path,
                        int64_t result)
{
    struct log_file *file = file_named(log, path);
    struct log_entry *entry = g_new0(struct log_entry, 1);
    *entry = (struct log_entry){.op = aio->op,
                                .must = aio->op == ASH_AIO_WRITE && (aio->flags & ASH_AIO_DSYNC),
                                .mode = aio->mode,
                                .number = ++log->entries,
                                .offset = aio->offset,
                                .bytes = aio->op == ASH_AIO_WRITE ? (uint64_t)result : aio->bytes};
    if (aio->op == ASH_AIO_WRITE) {
        entry->data = g_malloc(entry->bytes);
        ash_iov_to_buffer(aio->iov, entry->data, entry->bytes);
    }
    g_ptr_array_add(file->pending, entry);
    tell_states(log, file);
}

/* A flush makes stable what was carried out when it was submitted; `scratch` of the request is the
 * engine's, so that is remembered by the file: all flushes under way are of one age or younger. */
struct flush {
    const struct ash_aio *aio;
    uint64_t covered;
};
static struct flush flushes[16];

static void flush_submitted(const struct log *log, const struct ash_aio *aio)
{
    for (uint32_t i = 0; i < G_N_ELEMENTS(flushes); i++) {
        if (flushes[i].aio == NULL) {
            flushes[i] = (struct flush){aio, log->entries};
            return;
        }
    }
    ash_assert(false);
}

static void flush_ended(struct log *log, const struct ash_aio *aio, const char *path,
                        int64_t result)
{
    uint64_t covered = 0;
    for (uint32_t i = 0; i < G_N_ELEMENTS(flushes); i++) {
        if (flushes[i].aio == aio) {
            covered = flushes[i].covered;
            flushes[i].aio = NULL;
        }
    }
    struct log_file *file = file_named(log, path);
    while (result == 0 && file->pending->len > 0) {
        struct log_entry *entry = file->pending->pdata[0];
        if (entry->number > covered) {
            break;
        }
        apply(&file->stable, entry, UINT64_MAX);
        g_ptr_array_remove_index(file->pending, 0);
    }
    tell_states(log, file);
}

static void observe(void *opaque, const struct ash_sim_event *event)
{
    struct log *log = opaque;
    if (event->aio == NULL) {
        return;
    }
    const struct ash_aio *aio = event->aio;
    if (aio->op == ASH_AIO_FLUSH && event->phase == ASH_SIM_SUBMITTED) {
        flush_submitted(log, aio);
    } else if (aio->op == ASH_AIO_FLUSH && event->phase == ASH_SIM_CARRIED_OUT) {
        flush_ended(log, aio, event->path, event->result);
    } else if (event->phase == ASH_SIM_CARRIED_OUT && event->result >= 0) {
        ash_assert(aio->op != ASH_AIO_COPY);
        if (aio->op == ASH_AIO_WRITE || aio->op == ASH_AIO_ALLOCATE ||
            aio->op == ASH_AIO_TRUNCATE) {
            carried_out(log, aio, event->path, event->result);
        }
    }
}

void log_begin(struct log *log, struct ash_sim_world *world, uint32_t tear_bytes)
{
    log->tear_bytes = tear_bytes;
    memset(flushes, 0, sizeof(flushes));
    ash_sim_observe(world, observe, log);
}

void log_take_file(struct log *log, struct ash_sim_world *world, const char *name)
{
    struct log_file *file = file_named(log, name);
    file->stable.length = (uint64_t)ash_sim_file_bytes(world, name);
    fill_to(file->stable.data, file->stable.length);
    ash_sim_file_read(world, name, 0, file->stable.data->data, file->stable.length);
}

void log_end(struct log *log, struct ash_sim_world *world)
{
    ash_sim_observe(world, NULL, NULL);
    for (uint32_t i = 0; i < log->file_count; i++) {
        g_byte_array_unref(log->file[i].stable.data);
        g_ptr_array_unref(log->file[i].pending);
    }
    log->file_count = 0;
}
