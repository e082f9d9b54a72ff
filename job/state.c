/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state file of a job; see the header. */
#include "job/state.h"
#include <errno.h>
#include <inttypes.h>
#include "util/assert.h"

/* So long users stay paused for a file that says nothing. */
#define ANSWER_NS UINT64_C(5000000000)

#define LOOK_NS UINT64_C(1000000000)
#define LOOK_AGAIN_NS UINT64_C(100000000)
#define FEW_BITS UINT64_C(8192) /* more are not looked at so often: each look sees all of them */

int ash_job_file_open_alone(struct ash_job_file *file, struct ash_loop *loop,
                            enum ash_resume_kind kind, uint64_t part_bytes, bool exact,
                            uint64_t size_bytes, struct ash_error *error)
{
    int ret = ash_resume_open(loop, file->name, kind, part_bytes, size_bytes, &file->resume, error);
    if (ret == 0 && exact && file->resume->part_bytes != part_bytes) {
        ret =
            ash_error_set(error, -EINVAL,
                          "'%s' is of a job that copied %" PRIu64 " bytes at a time, not %" PRIu64,
                          file->name, file->resume->part_bytes, part_bytes);
    }
    return ret;
}

int ash_job_file_images(struct ash_job_file *file, struct ash_node *source, struct ash_node *target,
                        struct ash_error *error)
{
    return ash_resume_images(file->resume, source, target, file->unmarked, error);
}

int ash_job_file_open(struct ash_job_file *file, struct ash_loop *loop, enum ash_resume_kind kind,
                      uint64_t part_bytes, bool exact, struct ash_node *source,
                      struct ash_node *target, struct ash_error *error)
{
    int ret =
        ash_job_file_open_alone(file, loop, kind, part_bytes, exact, source->size_bytes, error);
    return ret < 0 ? ret : ash_job_file_images(file, source, target, error);
}

struct file_call {
    struct ash_resume_file *file; /* the sweep's */
    struct ash_error error;
};

ASH_CO_FN static int begin_aside(struct ash_sweep *sweep, void *args)
{
    struct file_call *call = args;
    (void)sweep;
    return ash_resume_begin(call->file, &call->error);
}

ASH_CO_FN static int commit_aside(struct ash_sweep *sweep, void *args)
{
    const struct file_call *call = args;
    (void)sweep;
    return ash_resume_commit(call->file);
}

ASH_CO_FN static int end_aside(struct ash_sweep *sweep, void *args)
{
    const struct file_call *call = args;
    (void)sweep;
    return ash_resume_done(call->file);
}

ASH_CO_FN static int do_aside(struct ash_job_file *file, struct ash_sweep *sweep,
                              ASH_CO_PTR int (*run)(struct ash_sweep *sweep, void *args),
                              struct ash_error *error)
{
    struct file_call call = {.file = file->resume, .error = ASH_ERROR_INIT};
    if (sweep->file == NULL) {
        sweep->file = file->resume;
        ash_resume_ref(sweep->file);
    }
    ash_assert(sweep->file == file->resume);
    int ret = ash_sweep_aside(sweep, run, &call, sizeof(call));
    if (ret < 0 && call.error.code != 0) {
        ash_error_set(error, ret, "%s", call.error.message);
    }
    return ret;
}

int ash_job_file_begin(struct ash_job_file *file, struct ash_sweep *sweep, struct ash_error *error)
{
    return do_aside(file, sweep, begin_aside, error);
}

struct watch {
    struct ash_timer timer;
    struct ash_job *job;
    const struct ash_resume_file *file;
    uint64_t answers;   /* of the file, when it was last looked at */
    uint64_t silent_ns; /* since then it has given none */
    bool gave_up;
};

static void look_for_answers(struct ash_timer *timer)
{
    struct watch *watch = ash_container_of(timer, struct watch, timer);
    uint64_t now_ns = ash_loop_now(watch->job->loop);
    if (watch->file->answers != watch->answers) {
        watch->answers = watch->file->answers;
        watch->silent_ns = now_ns;
    }
    if (now_ns - watch->silent_ns >= ANSWER_NS) {
        watch->gave_up = true;
        watch->job->cancelled = true;
        watch->job->forced = true;
        ash_job_kick(watch->job);
        return;
    }
    ash_timer_set(watch->job->loop, timer, now_ns + LOOK_AGAIN_NS);
}

/* The same, while users are paused for it. */
ASH_CO_FN static int do_soon(struct ash_job_file *file, struct ash_sweep *sweep,
                             ASH_CO_PTR int (*run)(struct ash_sweep *sweep, void *args),
                             struct ash_error *error)
{
    struct watch watch = {.job = sweep->job, .file = file->resume, .answers = UINT64_MAX};
    bool cancelled = sweep->job->cancelled;
    bool forced = sweep->job->forced;
    ash_timer_init(&watch.timer, look_for_answers);
    look_for_answers(&watch.timer);
    int ret = do_aside(file, sweep, run, error);
    ash_timer_cancel(sweep->loop, &watch.timer);
    if (watch.gave_up && ret == -ECANCELED) {
        ash_resume_give_up(file->resume);
        return ash_error_set(error, -ETIMEDOUT, "'%s' does not answer", file->name);
    }
    if (watch.gave_up) { /* it answered at the last moment: nobody else has ended the job */
        sweep->job->cancelled = cancelled;
        sweep->job->forced = forced;
        sweep->forced_ns = 0;
    }
    return ret;
}

int ash_job_file_begin_soon(struct ash_job_file *file, struct ash_sweep *sweep,
                            struct ash_error *error)
{
    return do_soon(file, sweep, begin_aside, error);
}

int ash_job_file_commit(struct ash_job_file *file, struct ash_sweep *sweep)
{
    return file->resume != NULL ? do_aside(file, sweep, commit_aside, NULL) : 0;
}

void ash_job_file_pause(struct ash_job_file *file, const struct ash_job *job,
                        struct ash_pause *pause, struct ash_node *source)
{
    bool bounded = job->forced && file->resume != NULL;
    uint64_t deadline_ns = bounded ? ash_loop_now(job->loop) + ASH_SWEEP_GRACE_NS : UINT64_MAX;
    int ret = ash_pause_begin(pause, job->loop, &source, 1, deadline_ns);
    if (ret < 0) {
        ash_resume_give_up(file->resume);
        ret = ash_pause_begin(pause, job->loop, &source, 1, UINT64_MAX);
    }
    ash_assert(ret == 0); /* without a deadline it does not expire */
}

bool ash_job_file_is_resumed(const struct ash_job_file *file)
{
    return file->resume != NULL && file->resume->resumed;
}

bool ash_job_file_is_due(const struct ash_job_file *file, struct ash_loop *loop)
{
    return file->resume != NULL && ash_loop_now(loop) >= file->look_ns;
}

void ash_job_file_looked(struct ash_job_file *file, struct ash_loop *loop, bool found)
{
    bool again = !found && file->resume->now.bits <= FEW_BITS;
    file->look_ns = ash_loop_now(loop) + (again ? LOOK_AGAIN_NS : LOOK_NS);
}

bool ash_job_file_has_more(struct ash_job_file *file, struct ash_loop *loop)
{
    bool more = ash_job_file_is_due(file, loop) && !file->resume->committing &&
                file->resume->changes_stable < file->resume->changes;
    if (more) {
        ash_job_file_looked(file, loop, true);
    }
    return more;
}

int ash_job_file_end(struct ash_job_file *file, struct ash_sweep *sweep, struct ash_error *error)
{
    if (file->resume == NULL) {
        return 0;
    }
    int ret = do_soon(file, sweep, end_aside, error);
    return ret < 0 && ret != -ETIMEDOUT
               ? ash_error_errno(error, ret, "Writing '%s' failed", file->name)
               : ret;
}

void ash_job_file_let_go(struct ash_job_file *file)
{
    if (file->resume != NULL) {
        ash_resume_release(file->resume);
        ash_resume_unref(file->resume);
        file->resume = NULL;
    }
}
