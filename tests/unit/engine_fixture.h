/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An engine and a directory of scratch files for each test of engines. */
#ifndef ASH_TESTS_ENGINE_FIXTURE_H
#define ASH_TESTS_ENGINE_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "util/engine/engine.h"

#define DEPTH 16

struct fixture {
    struct ash_engine *engine;
    char directory[64];
    char path[96];
};

static inline struct ash_engine *make_engine(uint64_t busy_poll_ns)
{
    struct ash_engine_config config = {.depth = DEPTH, .workers = 4, .busy_poll_ns = busy_poll_ns};
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_engine *engine = NULL;

    if (ash_engine_new(NULL, &config, &engine, &error) < 0) {
        fail_msg("%s", error.message);
    }
    return engine;
}

static inline int fixture_setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/ashlar-engine-XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->path, sizeof(fixture->path), "%s/file", fixture->directory);
    fixture->engine = make_engine(UINT64_MAX);
    *state = fixture;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;

    fixture->engine->ops->destroy(fixture->engine);
    unlink(fixture->path);
    if (rmdir(fixture->directory) < 0) {
        return -1; /* a test left something behind */
    }
    free(fixture);
    return 0;
}

/* A request that counts its completions. */
struct call {
    struct ash_aio aio;
    uint32_t completions;
};

static inline void call_done(struct ash_aio *aio)
{
    ash_container_of(aio, struct call, aio)->completions++;
}

static inline void call_submit(struct ash_engine *engine, struct call *call)
{
    call->completions = 0;
    call->aio.done = call_done;
    ash_engine_submit(engine, &call->aio);
    assert_int_equal(call->completions, 0); /* never inline */
}

static inline int64_t call_wait(struct ash_engine *engine, struct call *call)
{
    while (!call->completions) {
        assert_true(engine->ops->wait(engine, UINT64_MAX) >= 0);
    }
    assert_int_equal(call->completions, 1);
    return call->aio.result;
}

static inline int64_t run(struct ash_engine *engine, struct ash_aio aio)
{
    struct call call = {.aio = aio};

    call_submit(engine, &call);
    return call_wait(engine, &call);
}

static inline struct ash_file *open_at(struct ash_engine *engine, const char *path, uint32_t flags)
{
    struct call call = {
        .aio = {.op = ASH_AIO_OPEN, .path = path, .file_flags = flags, .adopt_fd = -1}};

    call_submit(engine, &call);
    assert_int_equal(call_wait(engine, &call), 0);
    return call.aio.file;
}

static inline struct ash_file *open_scratch(struct fixture *fixture, uint32_t flags)
{
    return open_at(fixture->engine, fixture->path, ASH_FILE_WRITE | ASH_FILE_CREATE | flags);
}

static inline void close_file(struct ash_file *file)
{
    assert_int_equal(run(file->engine, (struct ash_aio){.op = ASH_AIO_CLOSE, .file = file}), 0);
}

static inline int64_t transfer(struct ash_file *file, enum ash_aio_op op, void *memory,
                               size_t bytes, uint64_t offset)
{
    struct iovec vec = {memory, bytes};

    return run(file->engine, (struct ash_aio){.op = (uint8_t)op,
                                              .file = file,
                                              .iov = ash_iov_of(&vec, 1),
                                              .bytes = bytes,
                                              .offset = offset});
}

#endif
