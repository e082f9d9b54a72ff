/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: a virtual clock and simulated disks, driven by a seed.
 *
 * A simulated file has two states: what is durable, and what was carried out since. A power cut
 * keeps, drops or tears each unsynced sector by the seed, never what a real disk may not do: what a
 * completed flush covered is kept. Files live in a struct ash_sim_world that outlives the engines:
 * make an engine, run, cut, tear the engine down, make the next on the same world.
 *
 * A request is carried out (seen by others) at an instant between its submission and its completion
 * that the seed chooses, so concurrent requests take effect in any order. A flush makes durable
 * what was carried out when it was submitted; what was on its way then may be lost. An
 * ASH_AIO_DSYNC write makes its own sectors durable, and the length of the file.
 *
 * Paths are opaque names in one flat name space. Creating, renaming and removing a file is durable
 * at once: directories have no unsynced state, and ASH_AIO_SYNC_DIR only takes time.
 *
 * Time passes only when nothing is ready: wait() jumps to the next completion or to the deadline,
 * and says -EDEADLK when neither will ever come. Nothing depends on addresses; the same seed gives
 * the same run. */
#ifndef ASH_UTIL_ENGINE_SIM_H
#define ASH_UTIL_ENGINE_SIM_H

#include "util/engine/engine.h"
#include "util/prng.h"

struct ash_sim_world;

/* What a file system may lack: then the request ends with -EOPNOTSUPP, a seek and an open with
 * -EINVAL. */
#define ASH_SIM_NO_PUNCH_HOLE (1u << 0)
#define ASH_SIM_NO_ZERO_RANGE (1u << 1)
#define ASH_SIM_NO_ALLOCATE (1u << 2) /* plain fallocate */
#define ASH_SIM_NO_SEEK (1u << 3)
#define ASH_SIM_NO_COPY (1u << 4)
#define ASH_SIM_NO_DIRECT_HINT (1u << 5) /* STATUS tells no alignment of O_DIRECT */
#define ASH_SIM_NO_DIRECT (1u << 6)

struct ash_sim_config {
    uint64_t seed;
    uint32_t sector_bytes;   /* a write tears at this size: 512 or 4096; 0: 512 */
    uint64_t latency_ns_min; /* of one I/O */
    uint64_t latency_ns_max;
    /* Faults in 1000 of the operations they apply to; 0: never. */
    uint32_t read_error_per_mille;
    uint32_t write_error_per_mille; /* writes, allocations, truncates; a part may be carried out */
    uint32_t flush_error_per_mille; /* and each page that it covered is gone or not, by the seed: a
                                       gone one still reads as written, no later flush saves it, and
                                       a cut reverts it */
    uint32_t short_per_mille;       /* short reads and writes, at sector boundaries; not twice in a
                                       row from one offset */
    uint32_t no_space_per_mille;    /* of those that need new space */
    uint32_t stall_per_mille;       /* the request does not complete until ash_sim_release_all() */
    uint64_t capacity_bytes;        /* of all files; 0: no bound. Beyond it -ENOSPC */
    uint32_t
        direct_alignment; /* what ASH_FILE_DIRECT demands of offset, length and memory; 0: 512 */
    uint32_t unsupported; /* ASH_SIM_NO_* */
    bool devices;         /* files are block devices: a discard of one leaves what it held */
};

struct ash_sim_world *ash_sim_world_new(const struct ash_sim_config *config);
void ash_sim_world_free(struct ash_sim_world *world);

/* Faults and latencies may be changed while a world lives; seed and sector_bytes are not looked at.
 */
void ash_sim_world_configure(struct ash_sim_world *world, const struct ash_sim_config *config);

/* An engine on the world. One at a time. Files that are still open when it is destroyed are closed,
 * as those of a process that dies, and counted. */
int ash_engine_sim_new(struct ash_sim_world *world, const struct ash_engine_config *,
                       struct ash_engine **, struct ash_error *);
uint32_t ash_sim_leaked_files(const struct ash_sim_world *world);
uint32_t ash_sim_open_files(const struct ash_sim_world *world);

/* The virtual clock; it goes on from engine to engine. */
uint64_t ash_sim_now(const struct ash_sim_world *world);

/* How a power cut treats what is unsynced. */
enum ash_sim_cut {
    ASH_SIM_CUT_DROP,   /* all of it is lost */
    ASH_SIM_CUT_KEEP,   /* all that was carried out is kept (pages that a failed flush lost are
                           lost); what was still on its way is not */
    ASH_SIM_CUT_RANDOM, /* each sector: lost, kept (any of its versions), or torn when a write was
                           larger, and what was on its way counts too; the length of the file
                           likewise, within what was set since the flush */
};

/* From now on every I/O fails with -EIO, in flight and held ones included. The files are at once
 * what they are after the cut. Closing, unlocking and work go on. */
void ash_sim_power_cut(struct ash_sim_world *world, enum ash_sim_cut mode);

/* Arms a cut: power fails as the n-th write, copy, allocation, truncate or flush from now is about
 * to be carried out (1: the next). 0 disarms. */
void ash_sim_power_cut_at(struct ash_sim_world *world, uint64_t nth, enum ash_sim_cut mode);
bool ash_sim_power_is_cut(const struct ash_sim_world *world);

/* Makes it usable again after the engine is destroyed. */
void ash_sim_power_restore(struct ash_sim_world *world);

/* Number of writes, copies, allocations, truncates and flushes carried out since the world was
 * made. */
uint64_t ash_sim_mutations(const struct ash_sim_world *world);

/* Direct access for tests; -ENOENT. Reads see the latest state, -EINVAL beyond the end. Writes and
 * creations are durable, and neither faults nor the capacity apply. */
int ash_sim_file_read(struct ash_sim_world *, const char *path, uint64_t offset, void *,
                      size_t bytes);
int ash_sim_file_write(struct ash_sim_world *, const char *path, uint64_t offset, const void *,
                       size_t bytes);
int64_t ash_sim_file_bytes(struct ash_sim_world *, const char *path);
int64_t ash_sim_file_allocated_bytes(struct ash_sim_world *, const char *path);
/* Opening it for writing gives -EACCES. */
int ash_sim_file_set_read_only(struct ash_sim_world *, const char *path, bool read_only);
/* Writes the file to, or loads it from, a file of the host; holes stay holes. */
int ash_sim_file_export(struct ash_sim_world *, const char *path, const char *host_path);
int ash_sim_file_import(struct ash_sim_world *, const char *path, const char *host_path);

/* I/O to a file that matches when it is submitted is held back, before it is carried out, until
 * released: for tests of stalls and races. `op` is an enum ash_aio_op; offset and bytes count for
 * those that have them. release_all forgets the holds too. */
void ash_sim_hold(struct ash_sim_world *, const char *path, int op, uint64_t offset,
                  uint64_t bytes);
void ash_sim_release_all(struct ash_sim_world *);
uint32_t ash_sim_held(const struct ash_sim_world *);

/* Aims faults: of the reads, writes, flushes, allocations, truncates, seeks and copies of the file
 * that are submitted from now on, the first `skip` pass, and the next `count` (UINT64_MAX: all) end
 * with the error and are not carried out. One aim at a time; a count of 0 takes it back. */
void ash_sim_aim(struct ash_sim_world *, const char *path, uint64_t skip, uint64_t count,
                 int error);

/* A hash over everything the engine did, for comparing runs. */
uint64_t ash_sim_trace_hash(const struct ash_sim_world *);

/* The same as a timeline. The event is valid during the call; nothing may be submitted in it. */
enum ash_sim_phase {
    ASH_SIM_SUBMITTED,
    ASH_SIM_CARRIED_OUT, /* result is known; the data of a write may be looked at through aio->iov
                          */
    ASH_SIM_COMPLETED,
    ASH_SIM_POWER_CUT, /* aio is NULL, result the mode */
};

struct ash_sim_event {
    enum ash_sim_phase phase;
    uint64_t time_ns;
    const char *path; /* NULL if the file has none any more */
    const struct ash_aio *aio;
    int64_t result;
};

void ash_sim_observe(struct ash_sim_world *,
                     void (*observer)(void *opaque, const struct ash_sim_event *event),
                     void *opaque);

/* One word for an enum ash_aio_op. */
const char *ash_sim_op_name(int op);

#endif
