/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public calls of jobs that tell by a callback: when, how often, on which thread, with what. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <ashlar/ashlar.h>
#include "util/co/co.h"

#define MIRROR                                                                                     \
    "{\"type\": \"mirror\", \"job-id\": \"m\", \"device\": \"d\", \"auto-dismiss\": false,"        \
    " \"target\": \"json:{\\\"driver\\\": \\\"null-co\\\"}\"}"

/* What the callbacks of a call saw. */
struct heard {
    GThread *owner;
    int calls;
    int ret;
    struct ash_job *job;
    char message[1016];
    unsigned states; /* of the events: bits by state */
};

/* Where a callback has to run. */
static void check_place(const struct heard *heard)
{
    assert_ptr_equal(g_thread_self(), heard->owner);
    assert_null(ash_co_self()); /* on the plain stack */
}

static void hear(struct heard *heard, int ret, struct ash_job *job, const struct ash_error *error)
{
    check_place(heard);
    heard->calls++;
    heard->ret = ret;
    heard->job = job;
    snprintf(heard->message, sizeof(heard->message), "%s", error->message);
}

static void on_started(void *opaque, int ret, struct ash_job *job, const struct ash_error *error)
{
    hear(opaque, ret, job, error);
}

static void on_done(void *opaque, int ret, const struct ash_error *error)
{
    hear(opaque, ret, NULL, error);
}

static uint32_t state_of(struct ash_job *job)
{
    struct ash_job_info info = {.size = sizeof(info)};
    assert_int_equal(ash_job_info(job, &info), 0);
    return info.state;
}

static void on_event(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    struct heard *heard = opaque;
    check_place(heard);
    if (event == ASH_JOB_STATE_CHANGED) {
        heard->states |= 1u << state_of(job);
    }
}

struct rig {
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct heard events;
    struct heard call;
};

static int set_up(void **state)
{
    struct rig *rig = g_new0(struct rig, 1);
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    rig->events.owner = rig->call.owner = g_thread_self();
    *state = rig;
    return ash_loop_new(NULL, &rig->loop, NULL) < 0 || ash_loop_bind(rig->loop) < 0 ||
                   ash_disk_open_sync(rig->loop,
                                      "json:{\"driver\": \"null-co\", \"node-name\": \"d\"}",
                                      &options, &rig->disk, NULL) < 0
               ? -1
               : 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(ash_disk_close_sync(rig->disk, NULL), 0);
    ash_loop_free(rig->loop);
    g_free(rig);
    return 0;
}

/* The call that was made has told nothing yet, and tells once. */
static void run_call(struct rig *rig, int ret)
{
    assert_int_equal(ret, 0);
    assert_int_equal(rig->call.calls, 0);
    while (rig->call.calls == 0) {
        ash_loop_run_once(rig->loop, 1000000, 0);
    }
    for (int i = 0; i < 10; i++) {
        ash_loop_run_once(rig->loop, 0, 0);
    }
    assert_int_equal(rig->call.calls, 1);
    rig->call.calls = 0;
}

static void start(struct rig *rig, const char *description)
{
    run_call(rig,
             ash_job_start(rig->loop, description, on_event, &rig->events, on_started, &rig->call));
}

static void change(struct rig *rig, struct ash_job *job, const char *description)
{
    run_call(rig, ash_job_change(job, description, on_done, &rig->call));
}

static void expect(const struct rig *rig, int ret, const char *says)
{
    assert_int_equal(rig->call.ret, ret);
    if (says == NULL) {
        assert_string_equal(rig->call.message, "");
    } else {
        assert_non_null(strstr(rig->call.message, says));
    }
}

static void await(struct rig *rig, struct ash_job *job, enum ash_job_state state)
{
    while (state_of(job) != (uint32_t)state) {
        ash_loop_run_once(rig->loop, 1000000, 0);
    }
}

/* By force; gives up the reference. */
static void end(struct rig *rig, struct ash_job *job)
{
    run_call(rig, ash_job_control(job, ASH_JOB_FORCE_CANCEL, 0, on_done, &rig->call));
    expect(rig, 0, NULL);
    await(rig, job, ASH_JOB_CONCLUDED);
    change(rig, job, "{\"copy-mode\": \"background\"}");
    expect(rig, -EPERM, "Job 'm' in state 'concluded' cannot be changed");
    run_call(rig, ash_job_control(job, ASH_JOB_DISMISS, 0, on_done, &rig->call));
    expect(rig, 0, NULL);
    ash_job_unref(job);
}

static void a_job_is_started_and_changed_without_waiting(void **state)
{
    struct rig *rig = *state;
    start(rig, MIRROR);
    expect(rig, 0, NULL);
    struct ash_job *job = rig->call.job;
    assert_non_null(job);
    await(rig, job, ASH_JOB_READY);
    ash_loop_run_once(rig->loop, 0, 0);
    assert_int_not_equal(rig->events.states & 1u << ASH_JOB_READY, 0);
    change(rig, job, "{\"copy-mode\": \"write-blocking\"}");
    expect(rig, 0, NULL);
    change(rig, job, "{\"copy-mode\": \"background\", \"nosuch\": 1}");
    expect(rig, -EINVAL, "nosuch");
    change(rig, job, "{");
    expect(rig, -EINVAL, "The description of a job is not JSON");
    change(rig, job, "[]");
    expect(rig, -EINVAL, "has no options that can change");
    end(rig, job);
    assert_int_not_equal(rig->events.states & 1u << ASH_JOB_CONCLUDED, 0);
}

/* Of what is refused there is no job, nor an event. */
static void a_job_that_is_refused_tells_why_in_the_callback(void **state)
{
    struct rig *rig = *state;
    static const struct {
        const char *description;
        int ret;
        const char *says;
    } wrong[] = {
        {"{", -EINVAL, "The description of a job is not JSON"},
        {"[]", -EINVAL, "The description of a job is a JSON object"},
        {"{\"type\": \"nosuch\"}", -EINVAL, "Unknown type of job 'nosuch'"},
        {"{\"type\": \"stream\", \"device\": \"nosuch\"}", -ENODEV, "nosuch"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        start(rig, wrong[i].description);
        expect(rig, wrong[i].ret, wrong[i].says);
        assert_null(rig->call.job);
    }
    assert_int_equal(rig->events.states, 0);
}

/* Nobody need be told of the end of a call. */
static void a_change_without_a_callback_is_made(void **state)
{
    struct rig *rig = *state;
    start(rig, MIRROR);
    struct ash_job *job = rig->call.job;
    assert_int_equal(ash_job_change(job, "{\"copy-mode\": \"write-blocking\"}", NULL, NULL), 0);
    for (int i = 0; i < 10; i++) {
        ash_loop_run_once(rig->loop, 0, 0);
    }
    end(rig, job);
}

static gpointer start_elsewhere(gpointer opaque)
{
    struct rig *rig = opaque;
    return GINT_TO_POINTER(
        ash_job_start(rig->loop, MIRROR, on_event, &rig->events, on_started, &rig->call));
}

static gpointer change_elsewhere(gpointer opaque)
{
    struct rig *rig = opaque;
    return GINT_TO_POINTER(
        ash_job_change(rig->call.job, "{\"copy-mode\": \"write-blocking\"}", on_done, &rig->call));
}

/* The calls are another thread's, what they tell is heard on the owner's. */
static void a_job_is_started_and_changed_from_another_thread(void **state)
{
    struct rig *rig = *state;
    GThread *thread = g_thread_new("start", start_elsewhere, rig);
    run_call(rig, GPOINTER_TO_INT(g_thread_join(thread)));
    expect(rig, 0, NULL);
    struct ash_job *job = rig->call.job;
    assert_non_null(job);
    thread = g_thread_new("change", change_elsewhere, rig);
    run_call(rig, GPOINTER_TO_INT(g_thread_join(thread)));
    expect(rig, 0, NULL);
    end(rig, job);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_started_and_changed_without_waiting),
        TEST(a_job_that_is_refused_tells_why_in_the_callback),
        TEST(a_change_without_a_callback_is_made),
        TEST(a_job_is_started_and_changed_from_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
