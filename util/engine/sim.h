/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: a virtual clock and simulated disks, driven by a seed.
 *
 * A simulated file has two states: what is durable, and the writes since the last flush in order. A
 * power cut keeps, drops or tears each unsynced sector by the seed, never what a real disk may not
 * do: what a completed flush covered is kept. Files live in a struct ash_sim_world that outlives the
 * engines: make an engine, run, cut, tear the engine down, make the next on the same world.
 *
 * Time passes only when nothing is ready: wait() jumps to the next completion or to the deadline.
 * Nothing depends on addresses; the same seed gives the same run. */
#ifndef ASH_UTIL_ENGINE_SIM_H
#define ASH_UTIL_ENGINE_SIM_H

#include "util/engine/engine.h"
#include "util/prng.h"

struct ash_sim_world;

struct ash_sim_config {
    uint64_t seed;
    uint32_t sector_bytes;       /* a write tears at this size: 512 or 4096; 0: 512 */
    uint64_t latency_ns_min;     /* of one I/O */
    uint64_t latency_ns_max;
    /* Faults in 1000 of the operations they apply to; 0: never. */
    uint32_t read_error_per_mille;
    uint32_t write_error_per_mille;
    uint32_t flush_error_per_mille; /* and the pages that it covered are gone or not, by the seed */
    uint32_t short_per_mille;       /* short reads and writes, at sector boundaries */
    uint32_t no_space_per_mille;
    uint64_t capacity_bytes;        /* of all files; 0: no bound. Beyond it -ENOSPC */
    uint32_t direct_alignment;      /* what ASH_FILE_DIRECT demands of offset, length and memory; 0: 512 */
};

struct ash_sim_world *ash_sim_world_new(const struct ash_sim_config *config);
void ash_sim_world_free(struct ash_sim_world *world);

/* Faults and latencies may be changed while a world lives. */
void ash_sim_world_configure(struct ash_sim_world *world, const struct ash_sim_config *config);

/* An engine on the world. One at a time. */
int ash_engine_sim_new(struct ash_sim_world *world, const struct ash_engine_config *,
                       struct ash_engine **, struct ash_error *);

/* How a power cut treats unsynced sectors. */
enum ash_sim_cut {
    ASH_SIM_CUT_DROP,   /* all unsynced writes are lost */
    ASH_SIM_CUT_KEEP,   /* all are kept */
    ASH_SIM_CUT_RANDOM, /* each sector: lost, kept (any of its versions), or torn when a write was larger;
                           the length of the file likewise, within what was set since the flush */
};

/* From now on every I/O fails with -EIO, in flight ones included (what they were to write counts as
 * unsynced). The files are what they are after the cut once the engine is destroyed. */
void ash_sim_power_cut(struct ash_sim_world *world, enum ash_sim_cut mode);

/* Arms a cut: power fails as the n-th write, zero, truncate or flush from now is about to be carried
 * out (1: the next). */
void ash_sim_power_cut_at(struct ash_sim_world *world, uint64_t nth, enum ash_sim_cut mode);
bool ash_sim_power_is_cut(const struct ash_sim_world *world);

/* Makes it usable again after the engine is destroyed. */
void ash_sim_power_restore(struct ash_sim_world *world);

/* Number of writes, allocations, truncates and flushes carried out since the world was made. */
uint64_t ash_sim_mutations(const struct ash_sim_world *world);

/* Direct access for tests; -ENOENT. Reads see the latest state. Writes and creations are durable. */
int ash_sim_file_read(struct ash_sim_world *, const char *path, uint64_t offset, void *, size_t bytes);
int ash_sim_file_write(struct ash_sim_world *, const char *path, uint64_t offset, const void *,
                       size_t bytes);
int64_t ash_sim_file_bytes(struct ash_sim_world *, const char *path);
/* Writes the file to, or loads it from, a file of the host. */
int ash_sim_file_export(struct ash_sim_world *, const char *path, const char *host_path);
int ash_sim_file_import(struct ash_sim_world *, const char *path, const char *host_path);

/* I/O to a file that matches is held back until released: for tests of stalls and races. `op` is an
 * enum ash_aio_op. */
void ash_sim_hold(struct ash_sim_world *, const char *path, int op, uint64_t offset, uint64_t bytes);
void ash_sim_release_all(struct ash_sim_world *);
uint32_t ash_sim_held(const struct ash_sim_world *);

/* A hash over everything the engine did, for comparing runs. */
uint64_t ash_sim_trace_hash(const struct ash_sim_world *);

#endif
