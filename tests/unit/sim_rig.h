/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A simulated world with an engine and, without coroutines, one call for each request. */
#ifndef ASH_TESTS_SIM_RIG_H
#define ASH_TESTS_SIM_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "util/engine/sim.h"

#define SECTOR 512

struct rig {
    struct ash_sim_world *world;
    struct ash_engine *engine;
};

/* A request that says when it is done. */
struct call {
    struct ash_aio aio;
    struct iovec vec;
    bool done;
};

static inline void rig_power_on(struct rig *rig)
{
    struct ash_engine_config config = {.depth = 64};

    ash_sim_power_restore(rig->world);
    assert_int_equal(ash_engine_sim_new(rig->world, &config, &rig->engine, NULL), 0);
}

static inline struct rig rig_new(const struct ash_sim_config *config)
{
    struct rig rig = {.world = ash_sim_world_new(config)};

    rig_power_on(&rig);
    return rig;
}

static inline void rig_engine_off(struct rig *rig)
{
    rig->engine->ops->destroy(rig->engine);
    rig->engine = NULL;
}

static inline void rig_free(struct rig *rig)
{
    if (rig->engine) {
        rig_engine_off(rig);
    }
    ash_sim_world_free(rig->world);
}

static inline void call_done(struct ash_aio *aio)
{
    struct call *call = ash_container_of(aio, struct call, aio);

    assert_false(call->done);
    call->done = true;
}

static inline void call_submit(struct rig *rig, struct call *call)
{
    call->done = false;
    call->aio.done = call_done;
    if (call->vec.iov_base) {
        call->aio.iov = ash_iov_of(&call->vec, 1);
    }
    ash_engine_submit(rig->engine, &call->aio);
}

static inline int64_t call_wait(struct rig *rig, struct call *call)
{
    while (!call->done) {
        assert_true(rig->engine->ops->wait(rig->engine, UINT64_MAX) >= 0);
    }
    return call->aio.result;
}

static inline int64_t call_run(struct rig *rig, struct call *call)
{
    call_submit(rig, call);
    return call_wait(rig, call);
}

static inline int64_t try_open(struct rig *rig, const char *path, uint32_t flags,
                               struct ash_file **file)
{
    struct call call = {
        .aio = {.op = ASH_AIO_OPEN, .path = path, .file_flags = flags, .adopt_fd = -1}};
    int64_t ret = call_run(rig, &call);

    *file = ret < 0 ? NULL : call.aio.file;
    return ret;
}

static inline struct ash_file *do_open(struct rig *rig, const char *path)
{
    struct ash_file *file;

    assert_int_equal(try_open(rig, path, ASH_FILE_WRITE | ASH_FILE_CREATE, &file), 0);
    return file;
}

static inline void do_close(struct rig *rig, struct ash_file *file)
{
    struct call call = {.aio = {.op = ASH_AIO_CLOSE, .file = file}};

    assert_int_equal(call_run(rig, &call), 0);
}

static inline struct call call_transfer(struct ash_file *file, int op, uint64_t offset,
                                        const void *data, size_t bytes)
{
    return (struct call){.aio = {.op = (uint8_t)op, .file = file, .offset = offset, .bytes = bytes},
                         .vec = {(void *)(uintptr_t)data, bytes}};
}

static inline int64_t do_write(struct rig *rig, struct ash_file *file, uint64_t offset,
                               const void *data, size_t bytes)
{
    struct call call = call_transfer(file, ASH_AIO_WRITE, offset, data, bytes);

    return call_run(rig, &call);
}

static inline int64_t do_write_dsync(struct rig *rig, struct ash_file *file, uint64_t offset,
                                     const void *data, size_t bytes)
{
    struct call call = call_transfer(file, ASH_AIO_WRITE, offset, data, bytes);

    call.aio.flags = ASH_AIO_DSYNC;
    return call_run(rig, &call);
}

static inline int64_t do_read(struct rig *rig, struct ash_file *file, uint64_t offset, void *data,
                              size_t bytes)
{
    struct call call = call_transfer(file, ASH_AIO_READ, offset, data, bytes);

    return call_run(rig, &call);
}

static inline int64_t do_flush(struct rig *rig, struct ash_file *file)
{
    struct call call = {.aio = {.op = ASH_AIO_FLUSH, .file = file}};

    return call_run(rig, &call);
}

static inline int64_t do_allocate(struct rig *rig, struct ash_file *file, int mode, uint64_t offset,
                                  uint64_t bytes)
{
    struct call call = {
        .aio = {
            .op = ASH_AIO_ALLOCATE, .file = file, .mode = mode, .offset = offset, .bytes = bytes}};

    return call_run(rig, &call);
}

static inline int64_t do_truncate(struct rig *rig, struct ash_file *file, uint64_t bytes)
{
    struct call call = {.aio = {.op = ASH_AIO_TRUNCATE, .file = file, .bytes = bytes}};

    return call_run(rig, &call);
}

static inline int64_t do_seek(struct rig *rig, struct ash_file *file, int whence, uint64_t offset)
{
    struct call call = {
        .aio = {.op = ASH_AIO_SEEK, .file = file, .mode = whence, .offset = offset}};

    return call_run(rig, &call);
}

static inline int64_t do_status(struct rig *rig, struct ash_file *file, const char *path,
                                struct ash_file_status *status)
{
    struct call call = {
        .aio = {.op = ASH_AIO_STATUS, .file = file, .path = path, .status = status}};

    return call_run(rig, &call);
}

static inline int64_t do_lock(struct rig *rig, struct ash_file *file, int type, uint64_t offset,
                              uint64_t bytes)
{
    struct ash_byte_range range = {offset, bytes};
    struct call call = {.aio = {.op = ASH_AIO_LOCK,
                                .file = file,
                                .mode = type,
                                .ranges = &range,
                                .range_count = 1}};

    return call_run(rig, &call);
}

static inline int64_t do_lock_test(struct rig *rig, struct ash_file *file, int type,
                                   uint64_t offset, uint64_t bytes)
{
    struct ash_byte_range range = {offset, bytes};
    struct call call = {.aio = {.op = ASH_AIO_LOCK,
                                .file = file,
                                .mode = type,
                                .ranges = &range,
                                .range_count = 1,
                                .flags = ASH_AIO_TEST}};

    return call_run(rig, &call);
}

static inline int64_t do_copy(struct rig *rig, struct ash_file *from, uint64_t offset,
                              struct ash_file *to, uint64_t offset2, uint64_t bytes)
{
    struct call call = {.aio = {.op = ASH_AIO_COPY,
                                .file = from,
                                .offset = offset,
                                .file2 = to,
                                .offset2 = offset2,
                                .bytes = bytes}};

    return call_run(rig, &call);
}

static inline int64_t do_path(struct rig *rig, int op, const char *path, const char *path2)
{
    struct call call = {.aio = {.op = (uint8_t)op, .path = path, .path2 = path2}};

    return call_run(rig, &call);
}

/* The value that all bytes of a sector have. */
static inline uint8_t sector_value(struct rig *rig, const char *path, unsigned sector)
{
    uint8_t bytes[SECTOR];

    assert_int_equal(ash_sim_file_read(rig->world, path, sector * SECTOR, bytes, SECTOR), 0);
    for (unsigned i = 1; i < SECTOR; i++) {
        assert_int_equal(bytes[i], bytes[0]);
    }
    return bytes[0];
}

static inline void write_durably(struct rig *rig, const char *path, uint8_t value, size_t bytes)
{
    uint8_t *buffer = malloc(bytes);

    memset(buffer, value, bytes);
    assert_int_equal(ash_sim_file_write(rig->world, path, 0, buffer, bytes), 0);
    free(buffer);
}

#endif
