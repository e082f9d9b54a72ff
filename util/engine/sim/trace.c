/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happened, as a hash to compare runs and as events for an observer.
 *
 * Invariants:
 *  1. No address enters the hash: files are told by inode number, data by content. */

#include <string.h>
#include "util/engine/sim/internal.h"

static const char *const op_names[ASH_AIO_OP_COUNT] = {
    [ASH_AIO_OPEN] = "open",         [ASH_AIO_CLOSE] = "close",
    [ASH_AIO_READ] = "read",         [ASH_AIO_WRITE] = "write",
    [ASH_AIO_FLUSH] = "flush",       [ASH_AIO_ALLOCATE] = "allocate",
    [ASH_AIO_TRUNCATE] = "truncate", [ASH_AIO_SEEK] = "seek",
    [ASH_AIO_STATUS] = "status",     [ASH_AIO_LOCK] = "lock",
    [ASH_AIO_RENAME] = "rename",     [ASH_AIO_UNLINK] = "unlink",
    [ASH_AIO_SYNC_DIR] = "sync-dir", [ASH_AIO_READLINK] = "readlink",
    [ASH_AIO_COPY] = "copy",         [ASH_AIO_POLL] = "poll",
    [ASH_AIO_WORK] = "work",
};

const char *ash_sim_op_name(int op)
{
    return op >= 0 && op < ASH_AIO_OP_COUNT ? op_names[op] : "?";
}

#define PRIME UINT64_C(0x9e3779b97f4a7c15)

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * PRIME;
    return hash ^ hash >> 32;
}

#define LANES 8

static void mix_lanes(uint64_t *lanes, const uint8_t *bytes)
{
    uint64_t word[LANES];

    memcpy(word, bytes, sizeof(word));
    for (unsigned i = 0; i < LANES; i++) {
        lanes[i] = (lanes[i] ^ word[i]) * PRIME;
    }
}

/* Several lanes, so that the multiplications overlap: this is most of the cost of a large write. */
static uint64_t mix_bytes(uint64_t hash, const uint8_t *bytes, size_t count)
{
    uint64_t lanes[LANES] = {count, 1, 2, 3, 4, 5, 6, 7};
    uint8_t rest[LANES * sizeof(uint64_t)] = {0};

    for (; count >= sizeof(rest); bytes += sizeof(rest), count -= sizeof(rest)) {
        mix_lanes(lanes, bytes);
    }
    if (count > 0) {
        memcpy(rest, bytes, count);
        mix_lanes(lanes, rest);
    }
    for (unsigned i = 0; i < LANES; i++) {
        hash = mix(hash, lanes[i]);
    }
    return hash;
}

static uint64_t mix_vector(uint64_t hash, struct ash_iov iov, uint64_t bytes)
{
    while (bytes > 0) {
        struct iovec piece;
        uint64_t covered;
        ash_iov_collect(iov, bytes, &piece, 1, &covered);
        hash = mix_bytes(hash, piece.iov_base, piece.iov_len);
        iov = ash_iov_advance(iov, covered);
        bytes -= covered;
    }
    return hash;
}

/* The inode a request is about, while that can be told: a closed file is gone. */
static const struct sim_inode *inode_of(enum ash_sim_phase phase, const struct ash_aio *aio)
{
    switch (aio->op) {
    case ASH_AIO_CLOSE:
        return phase == ASH_SIM_SUBMITTED ? ash_sim_file_of(aio->file)->inode : NULL;
    case ASH_AIO_OPEN:
        return phase == ASH_SIM_CARRIED_OUT && aio->file ? ash_sim_file_of(aio->file)->inode : NULL;
    case ASH_AIO_RENAME:
    case ASH_AIO_UNLINK:
    case ASH_AIO_SYNC_DIR:
    case ASH_AIO_READLINK:
    case ASH_AIO_POLL:
    case ASH_AIO_WORK:
        return NULL;
    default:
        return aio->file ? ash_sim_file_of(aio->file)->inode : NULL;
    }
}

static uint64_t mix_request(uint64_t hash, enum ash_sim_phase phase, const struct ash_aio *aio,
                            const struct sim_inode *inode, int64_t result)
{
    hash = mix(hash, (uint64_t)aio->op << 8 | (uint64_t)phase);
    hash = mix(hash, inode ? inode->number : 0);
    hash = mix(hash, (uint64_t)result);
    if (phase == ASH_SIM_SUBMITTED) {
        hash = mix(hash, aio->offset);
        hash = mix(hash, aio->bytes);
        hash = mix(hash, (uint64_t)aio->flags << 32 | (uint32_t)aio->mode);
    }
    if (phase == ASH_SIM_CARRIED_OUT && aio->op == ASH_AIO_WRITE && result > 0) {
        hash = mix_vector(hash, aio->iov, (uint64_t)result);
    }
    return hash;
}

void ash_sim_trace(struct ash_sim_world *world, enum ash_sim_phase phase, const struct ash_aio *aio,
                   int64_t result)
{
    const struct sim_inode *inode = aio ? inode_of(phase, aio) : NULL;
    uint64_t hash = mix(world->trace_hash, world->now_ns);

    if (aio) {
        hash = mix_request(hash, phase, aio, inode, result);
    } else {
        hash = mix(hash, (uint64_t)phase << 32 | (uint64_t)result);
    }
    world->trace_hash = hash;
    if (world->observer) {
        const char *path = inode ? inode->path : aio ? aio->path : NULL;
        struct ash_sim_event event = {phase, world->now_ns, path, aio, result};
        world->observer(world->observer_opaque, &event);
    }
}

void ash_sim_observe(struct ash_sim_world *world,
                     void (*observer)(void *opaque, const struct ash_sim_event *event),
                     void *opaque)
{
    world->observer = observer;
    world->observer_opaque = opaque;
}

uint64_t ash_sim_trace_hash(const struct ash_sim_world *world)
{
    return world->trace_hash;
}
