/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulator: whole machines with disks, guests, faults and power cuts, each out of one number.
 *
 * A run makes images (disk.c), then lives some lives (life.c). In a life the disks are opened,
 * guests use them side by side (guest.c, step.h), faults come and go (fault.h), and it ends by
 * closing or by a power cut. After each life, and at the end, the checkers look (check.h). What a
 * disk may hold is known to the model (model.h).
 *
 *  1. All that happens is a function of the seed, the salt and what is left out. Each decision is
 *     drawn from a generator of its own, sim_draw(), that depends on its name and place alone; so
 *     leaving one out changes no other one.
 *  2. Whatever can be left out asks sim_wants() first: this is how the shrinker knows of it.
 *  3. Only sim_fail() ends a run that fails.
 *
 * To add
 *   a format        one entry in format.c, and a file format_NAME.c beside the others: its random
 *                   options, how an image is made and described, what a check of it has to say.
 *   a request,      one entry in step.c: name, weight, when it is legal, how its arguments are
 *   a verb, a job   drawn, how it is carried out, and what it means to the model before and after.
 *                   A job is a step that starts something which goes on; what hits it (cancel,
 *                   pause, speed) is a step each; what it promises is its effect when it ends.
 *   a fault         one entry in fault.c.
 *   an invariant    one entry in check.c, with the moment at which it has to hold.
 * Nothing else needs to know of them. A new entry changes what seeds mean, and nothing depends on
 * what they meant. */
#ifndef ASH_TESTS_SIM_SIM_H
#define ASH_TESTS_SIM_SIM_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "block/disk/disk.h"
#include "block/driver.h"
#include "tests/sim/model.h"
#include "tests/sim/model_image.h"
#include "util/co/co.h"
#include "util/engine/sim.h"
#include "util/loop/loop.h"
#include "util/prng.h"

#define SIM_LAYERS_MAX 12
#define SIM_DISKS_MAX 3
#define SIM_SPOTS 4
#define SIM_TARGETS_MAX 2
#define SIM_BITMAPS_MAX 2
#define SIM_LOG_SECTOR 512

struct sim_format;
struct sim_run;
struct sim_job;
struct sim_step;

/* An image of a chain. */
struct sim_layer {
    const struct sim_format *format;
    char file[16];     /* its name in the world */
    char options[220]; /* of creation: "name=value,..." */
    uint64_t bytes;    /* of the disk in it, when it is made */
    uint64_t offset;   /* raw: a window in the file */
    bool window;       /* raw: of fixed length */
    uint32_t unit_bytes;
    bool odd;         /* raw: of any length, no multiple of a block */
    bool lazy;        /* qcow2: lazy refcounts */
    bool old_version; /* qcow2: version 2 */
    bool unnamed;     /* the image below does not stand in its header */
    bool by_header;   /* where it does, the header is left to tell of it */
    bool leaky;       /* a fault or a cut may have left clusters that nobody uses */
};

/* What guests have surely changed since a tick of the model's. */
struct sim_changes {
    uint64_t since;
    GArray *ranges; /* of struct model_range, in the order in which they ended; NULL: nobody asks */
};

/* A dirty bitmap of the top image: bitmap.h. */
struct sim_bitmap {
    uint64_t id; /* 0: there is none */
    char name[16];
    struct sim_changes changes;
};

/* A job with a state file that did not end well: resume.h. */
struct sim_resumable {
    const struct sim_job *job; /* NULL: there is none */
    char file[16];
    char below[16];   /* see struct sim_op */
    char base[16];
    bool unmarked;    /* its images cannot tell whether they were changed without it */
    bool interrupted; /* by a cut, while it ran */
    bool certain;     /* it has to go on */
    struct sim_layer target;
    json_t *description;       /* that it was started with */
    struct model_image *image; /* of the moment at which it was; NULL: of no such, or not known */
};

struct sim_disk {
    struct sim_run *run;
    uint32_t number;
    struct sim_layer layers[SIM_LAYERS_MAX]; /* the top first */
    uint32_t layer_count;
    bool is_long; /* it has several of the parts that state files note */
    struct model model;
    uint64_t spots[SIM_SPOTS];                 /* where most requests go */
    struct sim_layer targets[SIM_TARGETS_MAX]; /* for jobs: empty images */
    uint32_t target_count;
    uint32_t targets_used;
    struct sim_layer fleece; /* takes what guests overwrite; no format: there is none */

    /* A life. */
    struct ash_disk *disk; /* NULL: not open */
    uint32_t flags;        /* ASH_NODE_* */
    bool write_through;
    bool filtered;            /* it is opened with the filters of the life */
    bool logged;              /* by one that asks for lengths of whole sectors */
    struct ash_co_rwlock use; /* held by each step, exclusively by those that close the disk */
    uint32_t verbs;           /* under way that make requests fail: resizes, reopenings */
    uint32_t verbs_ever;
    bool resizing;
    bool reopening;
    uint32_t resizes_ever;
    uint64_t part_grown; /* a growth to this length failed that wrote what it added; 0: none */
    const struct sim_job *job; /* that runs; NULL: none */
    const struct ash_job *running; /* the same, once it has been started */
    bool finalizing;               /* it was told to change the graph */
    bool struck;                   /* the power was cut while it ran */
    struct sim_resumable resumable;
    bool resuming; /* it is to be resumed before guests use the disk */
    uint32_t jobs_ever;
    uint32_t snapshots_ever;
    bool hurried;          /* guests' requests may fail as they wait for no longer than a while */
    uint32_t hurried_ever; /* so many jobs did so */
    struct sim_changes changes; /* since the job began */
    uint32_t moved;             /* so often a job has led it to another image */
    struct sim_bitmap bitmaps[SIM_BITMAPS_MAX];
    uint64_t bitmaps_ever;
    struct sim_layer copy; /* what it held at a moment, but for what the bitmap `copy_watch` says */
    uint64_t copy_watch;   /* sim_bitmap.id; 0: there is no copy */
    bool streamed;  /* ever: the headers tell of the chain now, and not what it was made of */
    bool unsettled; /* after a cut, or a closing that failed: what was not flushed may be lost */
};

/* Names of decisions, each ended by a line feed. What does not fit is not recorded. */
struct sim_names {
    size_t bytes;
    char text[1 << 18];
};

/* What is asked of a run besides its seed. */
struct sim_config {
    uint64_t salt;           /* other latencies and orders of the same run */
    GHashTable *left_out;    /* of names: see sim_wants(); may be NULL */
    struct sim_names *asked; /* records the names; may be NULL */
    bool trace;
};

struct sim_run {
    uint64_t seed;
    const struct sim_config *config;
    struct ash_sim_world *world;
    struct ash_loop *loop; /* NULL: the machine is off */
    struct ash_prng order; /* of ready coroutines */
    struct sim_disk disks[SIM_DISKS_MAX];
    uint32_t disk_count;
    uint32_t life_count;
    uint64_t hash; /* of what the guests saw */

    /* The machine. */
    uint64_t latency_ns_max;
    uint32_t unsupported; /* by the file system: ASH_SIM_NO_* */
    uint32_t alignment;   /* of direct I/O */

    /* A life. */
    uint32_t life;
    bool faulty;       /* requests may fail in this life */
    bool flush_failed; /* and what was not flushed may be lost by a cut */
    uint32_t faults;   /* of this life: bits, see fault.c */
    uint64_t rest_ns;  /* that guests take between their steps, at most; 0: mostly */
    uint32_t guests;   /* that have not ended */
    struct ash_co *waiter;
    bool forced;  /* a job was ended by force, and may have left something behind */
    bool weather; /* has not ended */
    struct ash_co *waiter_of_weather;

    /* Memory for data: host.c. */
    struct ash_prng memory_prng;
    uint32_t memory_per_mille;
    uint64_t buffers;
};

/* run.c: a whole run. */
void sim_run_seed(uint64_t seed, const struct sim_config *config, uint64_t *hash);
/* Of the run under way; NULL: none. */
extern struct sim_run *sim_current;

/* What is wrong and how to repeat it; ends the process. `checker`: one word for what found it. */
void sim_fail(struct sim_run *run, const char *checker, const char *format, ...)
    __attribute__((format(printf, 3, 4))) __attribute__((noreturn));
/* The command that repeats the run under way, on standard error. */
void sim_tell_command(void);

/* wants.c */
bool sim_wants(struct sim_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct ash_prng sim_draw(const struct sim_run *run, const char *what, uint64_t a, uint64_t b,
                         uint64_t c);

/* trace.c: a line of the timeline. */
void sim_note(struct sim_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace_world(struct sim_run *run);

/* machine.c: switching it on and off; running a function in a coroutine on it to its end. */
void sim_boot(struct sim_run *run);
void sim_halt(struct sim_run *run);
void sim_machine_end(void);
int sim_call(struct sim_run *run, int (*fn)(void *opaque), void *opaque);

/* host.c */
extern const struct ash_hooks sim_hooks;
void sim_memory_begin(struct sim_run *run);

/* disk.c */
void sim_disk_choose(struct sim_disk *disk);
/* Whether the headers alone tell what the chain is made of. */
bool sim_disk_told_by_headers(const struct sim_disk *disk);
bool sim_disk_may_be_direct(const struct sim_disk *disk);
ASH_CO_FN void sim_disk_create(struct sim_disk *disk);
ASH_CO_FN int sim_disk_open(struct sim_disk *disk, uint32_t flags, struct ash_error *error);
/* Closes, and tells the model what was made durable by that. */
ASH_CO_FN int sim_disk_close(struct sim_disk *disk, struct ash_error *error);

/* life.c */
void sim_live(struct sim_run *run);

/* guest.c: a coroutine's body. */
struct sim_guest {
    struct sim_disk *disk;
    uint32_t number;
    uint32_t steps;
    struct ash_prng prng; /* of the step */
};
void sim_guest_run(void *opaque);

/* Whether a request may end so; fails the run if not. `disturbed`: a resize or a reopening was
 * under way. */
void sim_expect(struct sim_run *run, int ret, bool disturbed, const char *what);

static inline uint64_t sim_below(struct ash_prng *prng, uint64_t bound)
{
    return ash_prng_below(prng, bound);
}

#endif
