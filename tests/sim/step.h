/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of steps: what a guest, or who administrates its disk, may do. */
#ifndef ASH_TESTS_SIM_STEP_H
#define ASH_TESTS_SIM_STEP_H

#include <jansson.h>
#include "block/io/io.h"
#include "tests/sim/sim.h"

#define SIM_PIECES_MAX 12

/* One step under way, on the stack of the guest. */
struct sim_op {
    struct sim_guest *guest;
    struct sim_disk *disk;
    struct sim_run *run;
    const struct sim_step *step;
    struct ash_prng *prng;

    /* A request. */
    struct ash_io io;
    struct ash_status status;
    struct iovec vec[SIM_PIECES_MAX];
    void *memory;
    uint8_t *buffer; /* in it */
    uint64_t value;  /* of a write */
    int result;      /* through a queue: what it ended with */
    struct ash_co *waiter;
    bool durable; /* its disk makes it so when it ends; as far as was known when it began */
    struct model_op model;

    /* A buffer that changes while it is written. */
    struct ash_timer scribble;
    uint64_t scribble_at; /* of the buffer */
    uint64_t scribble_bytes;
    uint64_t scribble_value;

    uint64_t bytes; /* of verbs: a length, a time, ... */
    int mode;
    uint32_t moved;  /* disk->moved when it began */
    bool beside_job;       /* one ran when it began */
    bool beside_reopening; /* the same of one of those */
    uint32_t jobs_ever;
    uint32_t verbs_ever;
    uint32_t resizes_ever;
    bool hurried; /* disk->hurried when it began */
    uint32_t hurried_ever;

    /* A job: job.h. */
    const struct sim_job *job;
    bool started;
    bool cancelled; /* before it was ready, or by force */
    bool forced;
    bool completed;
    bool ending; /* a verb has it end in its own time */
    bool keep;    /* it is not to be completed */
    bool endless; /* it goes on until it is cancelled */
    bool hurries; /* guests' requests may fail as they wait for it no longer than a while */
    bool timed;   /* it may end as it took too long */
    struct sim_layer target;
    bool whole;       /* the target becomes equal to the disk */
    bool overlay;     /* it does on what the disk's top image stands on */
    bool longer;      /* it may stay longer than the disk */
    bool incremental; /* it is a copy from before that is brought up to date */
    bool resumes;     /* it goes on from a state file: resume.h */
    bool certain;     /* it has to */
    char state[16];   /* its file; "": none */
    bool unmarked;    /* sim_resumable.unmarked */
    uint64_t cleared; /* so much of the disk was done before, by its file */
    char below[16];   /* of a stream: what its image stood on when it was first started */
    char base[16];    /* and what that is to stand on; "": nothing */
    uint32_t lingers; /* so many looks it is not ended yet */
    bool aimed;       /* the power was to be cut in one of them */
    json_t *description;
    uint64_t watch;   /* a bitmap that was there before it began; 0 */
    uint64_t bitmap;  /* one that it uses; 0 */
    json_t *action;   /* in the same transaction; NULL: none */
    uint64_t action_bitmap;
    bool adds; /* the action adds it */

    /* The moment that a copy is of: job_copy.c. */
    bool moment_began;
    uint32_t moment_resizes;
    struct model_op moment;
    struct model_op moment_flush;
    struct model_image *image; /* NULL: it is not known what the disk held */
    GArray *exact;             /* of struct model_range, where the copy has to be so; NULL: all */
};

struct sim_step {
    const char *name;
    uint32_t weight;
    bool exclusive; /* no other step of the disk runs beside it */
    /* Whether it may be done now; NULL: always. */
    bool (*legal)(const struct sim_op *op);
    /* Draws the arguments; false: nothing to do. NULL: there are none. */
    bool (*draw)(struct sim_op *op);
    /* What the model learns before and after; begin may be NULL, end too. */
    void (*begin)(struct sim_op *op);
    ASH_CO_PTR int (*run)(struct sim_op *op);
    void (*end)(struct sim_op *op, int ret);
    /* What may go wrong besides what guest.c knows of; may be NULL. */
    bool (*may_end)(const struct sim_op *op, int ret);
};

extern const struct sim_step sim_steps[];
extern const struct sim_step *const sim_step_job; /* the one that starts a job */

/* guest.c: one request of a guest that is within a step. `resizes`: or a resize. */
ASH_CO_FN void sim_guest_request(const struct sim_op *within, bool resizes);

/* step_io.c */
bool sim_legal_write(const struct sim_op *op);
bool sim_legal_compress(const struct sim_op *op);
bool sim_draw_read(struct sim_op *op);
bool sim_draw_write(struct sim_op *op);
bool sim_draw_fua(struct sim_op *op);
bool sim_draw_compress(struct sim_op *op);
bool sim_draw_zero(struct sim_op *op);
bool sim_draw_discard(struct sim_op *op);
bool sim_draw_flush(struct sim_op *op);
bool sim_draw_status(struct sim_op *op);
void sim_begin_read(struct sim_op *op);
void sim_begin_write(struct sim_op *op);
void sim_begin_flush(struct sim_op *op);
ASH_CO_FN int sim_run_io(struct sim_op *op);
void sim_end_read(struct sim_op *op, int ret);
void sim_end_status(struct sim_op *op, int ret);
void sim_end_write(struct sim_op *op, int ret);
void sim_end_discard(struct sim_op *op, int ret);
void sim_end_flush(struct sim_op *op, int ret);
bool sim_may_compress(const struct sim_op *op, int ret);
bool sim_may_zero(const struct sim_op *op, int ret);

/* step_verb.c */
bool sim_legal_resize(const struct sim_op *op);
bool sim_draw_resize(struct sim_op *op);
void sim_begin_resize(struct sim_op *op);
ASH_CO_FN int sim_run_resize(struct sim_op *op);
void sim_end_resize(struct sim_op *op, int ret);
bool sim_may_resize(const struct sim_op *op, int ret);
bool sim_draw_pause(struct sim_op *op);
ASH_CO_FN int sim_run_pause(struct sim_op *op);
bool sim_may_pause(const struct sim_op *op, int ret);
bool sim_legal_reopen(const struct sim_op *op);
bool sim_draw_reopen(struct sim_op *op);
ASH_CO_FN int sim_run_reopen(struct sim_op *op);
bool sim_may_reopen(const struct sim_op *op, int ret);
ASH_CO_FN int sim_run_close(struct sim_op *op);
bool sim_draw_sleep(struct sim_op *op);
ASH_CO_FN int sim_run_sleep(struct sim_op *op);

/* job.c */
bool sim_legal_job(const struct sim_op *op);
bool sim_draw_job(struct sim_op *op);
ASH_CO_FN int sim_run_job(struct sim_op *op);
bool sim_may_job(const struct sim_op *op, int ret);

/* offline.c */
bool sim_legal_offline(const struct sim_op *op);
bool sim_draw_rebase(struct sim_op *op);
ASH_CO_FN int sim_run_rebase(struct sim_op *op);
ASH_CO_FN int sim_run_image_commit(struct sim_op *op);
bool sim_may_offline(const struct sim_op *op, int ret);

/* snapshot.c */
bool sim_legal_snapshot(const struct sim_op *op);
ASH_CO_FN int sim_run_snapshot(struct sim_op *op);
bool sim_may_snapshot(const struct sim_op *op, int ret);

/* fleece.c */
bool sim_legal_fleece(const struct sim_op *op);
ASH_CO_FN int sim_run_fleece(struct sim_op *op);
bool sim_may_fleece(const struct sim_op *op, int ret);

/* bitmap.c */
bool sim_legal_bitmap(const struct sim_op *op);
ASH_CO_FN int sim_run_bitmap(struct sim_op *op);

#endif
