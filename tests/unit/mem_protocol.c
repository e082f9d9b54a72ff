/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each request waits, looks at the memory in one instant, and waits again. What lies between the
 * end and the next whole block is there and reads as zeroes; what is written there is dropped. */
#include "tests/unit/mem_protocol.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "util/range.h"

extern const struct ash_driver ash_driver_test_mem;

#define OPTION(name, field, ...) ASH_OPTION_SIZE(name, struct mem_protocol, field, __VA_ARGS__)

static const struct ash_option mem_options[] = {
    OPTION("size", size_bytes, .def = 64 * KiB),
    OPTION("request-alignment", request_alignment, .def = 1),
    OPTION("memory-alignment", memory_alignment, .def = 1),
    OPTION("iov-max", iov_max, .def = 0),
    OPTION("transfer-max", transfer_max, .def = 0),
    OPTION("zero-alignment", zero_alignment, .def = 0),
    OPTION("zero-max", zero_max, .def = 0),
    OPTION("discard-alignment", discard_alignment, .def = 0),
    OPTION("discard-max", discard_max, .def = 0),
    OPTION("delay-ns", delay_ns, .def = 0),
    OPTION("seed", seed, .def = 0),
    ASH_OPTION_BOOL("no-zero", struct mem_protocol, no_zero, .def = 0),
    ASH_OPTION_END,
};

static int mem_open(struct ash_node *node, struct ash_error *error)
{
    struct mem_protocol *state = node->state;
    (void)error;
    state->capacity = ash_align_up(state->size_bytes, state->request_alignment);
    state->data = g_malloc0(ASH_MAX(state->capacity, 1));
    ash_prng_seed(&state->prng, state->seed);
    node->size_bytes = state->size_bytes;
    g_free(node->filename);
    node->filename = g_strdup_printf("mem:%s", node->name);
    return 0;
}

static int mem_close(struct ash_node *node)
{
    struct mem_protocol *state = node->state;
    g_free(state->data);
    return 0;
}

static void mem_limits(const struct ash_node *node, struct ash_limits *limits)
{
    const struct mem_protocol *state = node->state;
    *limits = (struct ash_limits){
        .request_alignment = (uint32_t)state->request_alignment,
        .memory_alignment = (uint32_t)state->memory_alignment,
        .iov_max = (uint32_t)state->iov_max,
        .transfer_max = (uint32_t)state->transfer_max,
        .zero_alignment = (uint32_t)state->zero_alignment,
        .zero_max = state->zero_max,
        .discard_alignment = (uint32_t)state->discard_alignment,
        .discard_max = state->discard_max,
    };
}

/* Zero and discard: `alignment` 0 is the request alignment; the end of the node is aligned. */
static bool keeps_unit(const struct mem_protocol *state, const struct ash_io *io,
                       uint64_t alignment, uint64_t max)
{
    uint64_t unit = alignment != 0 ? alignment : state->request_alignment;
    uint64_t end = io->offset + io->bytes;
    return ash_is_aligned(io->offset, unit) &&
           (ash_is_aligned(end, unit) || end == state->size_bytes) &&
           (max == 0 || io->bytes <= max);
}

static bool keeps_limits(const struct mem_protocol *state, const struct ash_io *io)
{
    if (io->op == ASH_FLUSH || io->op == ASH_STATUS) {
        return true;
    }
    if (io->bytes == 0 || io->offset + io->bytes > state->capacity) {
        return false;
    }
    if (io->op == ASH_ZERO) {
        return keeps_unit(state, io, state->zero_alignment, state->zero_max);
    }
    if (io->op == ASH_DISCARD) {
        return keeps_unit(state, io, state->discard_alignment, state->discard_max);
    }
    bool alone = ash_iov_pieces(io->iov, io->bytes) == 1;
    return ash_is_aligned(io->offset | io->bytes, state->request_alignment) &&
           ash_iov_aligned(io->iov, io->bytes, state->memory_alignment,
                           alone ? 1 : state->memory_alignment) &&
           (state->iov_max == 0 || ash_iov_pieces(io->iov, io->bytes) <= state->iov_max) &&
           (state->transfer_max == 0 || io->bytes <= state->transfer_max);
}

ASH_CO_FN static void delay(struct mem_protocol *state)
{
    if (state->delay_ns > 0) {
        ash_co_sleep(ash_prng_below(&state->prng, state->delay_ns));
    }
}

static int carry_out(struct mem_protocol *state, const struct ash_io *io)
{
    if (state->fail != 0) {
        int ret = state->fail;
        state->fail = 0;
        return ret;
    }
    switch (io->op) {
    case ASH_READ:
        ash_iov_from_buffer(io->iov, state->data + io->offset, io->bytes);
        break;
    case ASH_WRITE:
        ash_iov_to_buffer(io->iov, state->data + io->offset, io->bytes);
        break;
    case ASH_ZERO:
        if (state->no_zero) {
            return -ENOTSUP;
        }
        memset(state->data + io->offset, 0, io->bytes);
        break;
    case ASH_DISCARD:
        memset(state->data + io->offset, 0xdd, io->bytes);
        state->discard_bytes += (unsigned)io->bytes;
        break;
    default:
        break;
    }
    memset(state->data + state->size_bytes, 0, state->capacity - state->size_bytes);
    return 0;
}

ASH_CO_FN static int mem_io(struct ash_node *node, const struct ash_io *io)
{
    struct mem_protocol *state = node->state;
    state->count[io->op]++;
    state->running++;
    state->running_max = ASH_MAX(state->running_max, state->running);
    int ret = -EIO;
    if (keeps_limits(state, io)) {
        delay(state);
        ret = carry_out(state, io);
        delay(state);
    } else {
        state->violations++;
    }
    state->running--;
    return ret;
}

ASH_CO_FN static int mem_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                struct ash_error *error)
{
    struct mem_protocol *state = node->state;
    (void)prealloc;
    delay(state);
    if (state->fail_resize) {
        return ash_error_set(error, -EIO, "'%s' is not resized by a test", node->filename);
    }
    uint64_t capacity = ash_align_up(bytes, state->request_alignment);
    state->data = g_realloc(state->data, ASH_MAX(capacity, 1));
    uint64_t kept = ASH_MIN(state->size_bytes, bytes);
    memset(state->data + kept, 0, capacity - kept);
    state->capacity = capacity;
    state->size_bytes = bytes;
    node->size_bytes = bytes;
    delay(state);
    return 0;
}

ASH_CO_FN static int mem_lock(struct ash_node *node, uint32_t needs, uint32_t allows,
                              struct ash_error *error)
{
    struct mem_protocol *state = node->state;
    if (state->lock_count < MEM_LOCKS_MAX) {
        state->locks[state->lock_count].needs = needs;
        state->locks[state->lock_count].allows = allows;
        state->lock_count++;
    }
    delay(state);
    if (state->fail_lock) {
        state->fail_lock = false;
        return ash_error_set(error, -EAGAIN, "'%s' is locked by a test", node->filename);
    }
    return 0;
}

ASH_CO_FN static int mem_reopen_prepare(struct ash_node *node, uint32_t flags,
                                        struct ash_error *error)
{
    struct mem_protocol *state = node->state;
    (void)flags;
    delay(state);
    if (state->fail_reopen) {
        return ash_error_set(error, -EROFS, "'%s' is not reopened by a test", node->filename);
    }
    state->prepared++;
    return 0;
}

ASH_CO_FN static void mem_reopen_commit(struct ash_node *node, uint32_t flags)
{
    (void)flags;
    mem_protocol_of(node)->committed++;
}

ASH_CO_FN static void mem_reopen_abort(struct ash_node *node)
{
    mem_protocol_of(node)->aborted++;
}

const struct ash_driver ash_driver_test_mem = {
    .name = "test-mem",
    .kind = ASH_DRIVER_PROTOCOL,
    .state_size = sizeof(struct mem_protocol),
    .options = mem_options,
    .open = mem_open,
    .close = mem_close,
    .resize = mem_resize,
    .limits = mem_limits,
    .lock = mem_lock,
    .reopen_prepare = mem_reopen_prepare,
    .reopen_commit = mem_reopen_commit,
    .reopen_abort = mem_reopen_abort,
    .io =
        {
            [ASH_READ] = mem_io,
            [ASH_WRITE] = mem_io,
            [ASH_FLUSH] = mem_io,
            [ASH_DISCARD] = mem_io,
            [ASH_ZERO] = mem_io,
        },
};
