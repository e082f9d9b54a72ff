/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The job core, with a kind of job that does what the test says: which verb is legal when, how jobs
 * end, alone and together, and what is called how often on the way. */
#include "tests/unit/unit.h"
#include "job/job.h"
#include "tests/unit/core_rig.h"

struct fake {
    struct ash_job job;
    uint64_t result; /* what run returns: 0, or an errno */
    bool gets_ready;
    bool prepare_fails;
    bool go; /* run may end */
};

static struct {
    unsigned prepare;
    unsigned commit;
    unsigned abort;
    unsigned clean;
    unsigned events;
} called;

static const struct ash_option fake_options[] = {
    ASH_OPTION_UINT("result", struct fake, result),
    ASH_OPTION_BOOL("gets-ready", struct fake, gets_ready),
    ASH_OPTION_BOOL("prepare-fails", struct fake, prepare_fails),
    ASH_OPTION_BOOL("go", struct fake, go),
    ASH_OPTION_END,
};

static struct fake *fake_of(struct ash_job *job)
{
    return ash_container_of(job, struct fake, job);
}

ASH_CO_FN static int fake_start(struct ash_job *job, struct ash_error *error)
{
    (void)error;
    ash_job_progress_total(job, 1000);
    return 0;
}

ASH_CO_FN static int fake_run(struct ash_job *job, struct ash_error *error)
{
    struct fake *fake = fake_of(job);
    (void)error;
    if (fake->gets_ready) {
        ash_job_ready(job);
    }
    for (;;) {
        int ret = ash_job_pause_point(job, 0, NULL, NULL);
        if (ret < 0) {
            return ret;
        }
        if (fake->go) {
            ash_job_progress(job, 1000);
            return -(int)fake->result;
        }
        ash_job_wait(job, UINT64_MAX);
    }
}

ASH_CO_FN static int fake_prepare(struct ash_job *job, struct ash_error *error)
{
    called.prepare++;
    ash_co_reschedule();
    return fake_of(job)->prepare_fails ? ash_error_set(error, -EIO, "it was asked to fail") : 0;
}

ASH_CO_FN static void fake_commit(struct ash_job *job)
{
    (void)job;
    called.commit++;
    ash_co_reschedule();
}

ASH_CO_FN static void fake_abort(struct ash_job *job)
{
    (void)job;
    called.abort++;
    ash_co_reschedule();
}

ASH_CO_FN static void fake_clean(struct ash_job *job)
{
    (void)job;
    called.clean++;
}

static int fake_complete(struct ash_job *job, struct ash_error *error)
{
    (void)error;
    fake_of(job)->go = true;
    return 0;
}

static const struct ash_job_driver fake_driver = {
    .type = "fake",
    .job_size = sizeof(struct fake),
    .options = fake_options,
    .start = fake_start,
    .run = fake_run,
    .prepare = fake_prepare,
    .commit = fake_commit,
    .abort = fake_abort,
    .clean = fake_clean,
    .complete = fake_complete,
};

/* In place of the library's. */
const struct ash_job_driver *const ash_job_drivers[] = {&fake_driver, NULL};

static void count_event(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    (void)opaque;
    (void)job;
    (void)event;
    assert_null(ash_co_self()); /* on the plain stack */
    called.events++;
}

ASH_CO_FN static struct ash_job *start(struct core *core, const char *id, const char *options)
{
    struct ash_job *job;
    char text[200];
    snprintf(text, sizeof(text),
             "{\"type\": \"fake\", \"job-id\": \"%s\", \"auto-dismiss\": false%s%s}", id,
             options[0] != '\0' ? ", " : "", options);
    json_t *description = json_loads(text, 0, NULL);
    assert_non_null(description);
    assert_int_equal(ash_co_job_start(core->loop, description, count_event, NULL, &job, NULL), 0);
    json_decref(description);
    return job;
}

ASH_CO_FN static void settle(void)
{
    for (unsigned i = 0; i < 20; i++) {
        ash_co_reschedule();
    }
    ash_co_sleep(1000);
}

ASH_CO_FN static int end(struct ash_job *job)
{
    fake_of(job)->go = true;
    (void)!ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL);
    ash_job_kick(job);
    settle();
    if (ash_job_state(job) == ASH_JOB_PENDING) {
        assert_int_equal(ash_co_job_control(job, ASH_JOB_FINALIZE, 0, NULL), 0);
    }
    if (ash_job_state(job) == ASH_JOB_CONCLUDED) {
        assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    }
    assert_int_equal(ash_job_state(job), ASH_JOB_NULL);
    int ret = job->ret;
    ash_job_unref(job);
    return ret;
}

/* Brings a job into the state; NULL: it needs a partner (waiting). */
ASH_CO_FN static struct ash_job *in_state(struct core *core, enum ash_job_state state)
{
    bool ready = state == ASH_JOB_READY || state == ASH_JOB_STANDBY;
    bool ends = state == ASH_JOB_PENDING || state == ASH_JOB_CONCLUDED;
    struct ash_job *job = start(core, "j",
                                ready                      ? "\"gets-ready\": true"
                                : state == ASH_JOB_PENDING ? "\"auto-finalize\": false"
                                                           : "");
    if (state != ASH_JOB_CREATED) {
        settle();
    }
    if (state == ASH_JOB_PAUSED || state == ASH_JOB_STANDBY) {
        assert_int_equal(ash_co_job_control(job, ASH_JOB_PAUSE, 0, NULL), 0);
        settle();
    }
    if (ends) {
        fake_of(job)->go = true;
        ash_job_kick(job);
        settle();
    }
    assert_int_equal(ash_job_state(job), state);
    return job;
}

/* Which verbs each state accepts: as docs/jobs.md says it. A pause of what is paused by the user,
 * and a resume of what is not, are refused too. */
static const struct {
    enum ash_job_state state;
    const char *legal; /* p r c f C F d s, in the order of enum ash_job_verb; '-': not */
} matrix[] = {
    {ASH_JOB_CREATED, "p-cf---s"},   {ASH_JOB_RUNNING, "p-cf---s"}, {ASH_JOB_PAUSED, "-rcf---s"},
    {ASH_JOB_READY, "p-cfC--s"},     {ASH_JOB_STANDBY, "-rcf---s"}, {ASH_JOB_PENDING, "--cf-F--"},
    {ASH_JOB_CONCLUDED, "------d-"},
};

CORE_TEST(each_state_accepts_its_verbs_and_no_other)
{
    (void)opaque;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(matrix); i++) {
        for (int verb = 0; verb < ASH_JOB_VERB_COUNT; verb++) {
            struct ash_job *job = in_state(core, matrix[i].state);
            struct ash_error error = ASH_ERROR_INIT;
            int ret = ash_co_job_control(job, (enum ash_job_verb)verb, 1000, &error);
            if ((matrix[i].legal[verb] != '-') != (ret == 0)) {
                print_message("%s in %s: %d\n", ash_job_verb_name((enum ash_job_verb)verb),
                              ash_job_state_name(matrix[i].state), ret);
            }
            assert_int_equal(ret, matrix[i].legal[verb] != '-' ? 0 : -EPERM);
            if (ret < 0) {
                assert_non_null(strstr(error.message, "'j'"));
            }
            end(job);
        }
    }
}

CORE_TEST(a_job_that_ends_well_is_prepared_committed_and_cleaned_once)
{
    (void)opaque;
    memset(&called, 0, sizeof(called));
    struct ash_job *job = start(core, "a", "");
    settle();
    assert_int_equal(end(job), 0);
    assert_int_equal(called.prepare, 1);
    assert_int_equal(called.commit, 1);
    assert_int_equal(called.abort, 0);
    assert_int_equal(called.clean, 1);
    assert_true(called.events >= 2);
}

CORE_TEST(a_job_that_fails_is_aborted_and_tells_why)
{
    (void)opaque;
    memset(&called, 0, sizeof(called));
    struct ash_job *job = start(core, "a", "\"result\": 5, \"go\": true");
    settle();
    struct ash_job_info info = {.size = sizeof(info)};
    assert_int_equal(ash_job_info(job, &info), 0);
    assert_int_equal(info.state, ASH_JOB_CONCLUDED);
    assert_int_equal(info.result, -EIO);
    assert_non_null(strstr(info.message, "'a'"));
    assert_int_equal(end(job), -EIO);
    assert_int_equal(called.commit, 0);
    assert_int_equal(called.abort, 1);
    assert_int_equal(called.clean, 1);
}

ASH_CO_FN static void start_two(struct core *core, const char *first, const char *second,
                                struct ash_job *jobs[2])
{
    char text[400];
    snprintf(text, sizeof(text),
             "[{\"type\": \"fake\", \"job-id\": \"a\", \"auto-dismiss\": false%s},"
             " {\"type\": \"fake\", \"job-id\": \"b\", \"auto-dismiss\": false%s}]",
             first, second);
    json_t *descriptions = json_loads(text, 0, NULL);
    assert_non_null(descriptions);
    memset(&called, 0, sizeof(called));
    assert_int_equal(ash_co_job_start_all(core->loop, descriptions, NULL, NULL, jobs, NULL), 0);
    json_decref(descriptions);
    settle();
}

CORE_TEST(jobs_of_a_transaction_wait_for_one_another)
{
    (void)opaque;
    struct ash_job *jobs[2];
    start_two(core, ", \"go\": true", "", jobs);
    assert_int_equal(ash_job_state(jobs[0]), ASH_JOB_WAITING);
    assert_int_equal(ash_job_state(jobs[1]), ASH_JOB_RUNNING);
    assert_int_equal(called.commit, 0);
    assert_int_equal(end(jobs[1]), 0);
    assert_int_equal(end(jobs[0]), 0);
    assert_int_equal(called.commit, 2);
}

CORE_TEST(one_failure_aborts_the_whole_transaction)
{
    (void)opaque;
    struct ash_job *jobs[2];
    start_two(core, ", \"go\": true, \"result\": 28", "", jobs);
    assert_int_equal(end(jobs[0]), -ENOSPC);
    assert_int_equal(end(jobs[1]), -ECANCELED);
    assert_int_equal(called.commit, 0);
    assert_int_equal(called.abort, 2);
    assert_int_equal(called.clean, 2);
}

CORE_TEST(preparing_that_fails_aborts_the_whole_transaction)
{
    (void)opaque;
    struct ash_job *jobs[2];
    start_two(core, ", \"go\": true", ", \"go\": true, \"prepare-fails\": true", jobs);
    assert_int_equal(end(jobs[0]), -ECANCELED);
    assert_int_equal(end(jobs[1]), -EIO);
    assert_int_equal(called.commit, 0);
    assert_int_equal(called.abort, 2);
}

CORE_TEST(cancelling_a_job_that_waits_cancels_the_others)
{
    (void)opaque;
    struct ash_job *jobs[2];
    start_two(core, ", \"go\": true", "", jobs);
    assert_int_equal(ash_co_job_control(jobs[0], ASH_JOB_CANCEL, 0, NULL), 0);
    settle();
    assert_int_equal(end(jobs[0]), -ECANCELED);
    assert_int_equal(end(jobs[1]), -ECANCELED);
    assert_int_equal(called.abort, 2);
}

ASH_CO_FN static void finalize(struct core *core, void *opaque)
{
    (void)core;
    assert_int_equal(ash_co_job_control(opaque, ASH_JOB_FINALIZE, 0, NULL), 0);
}

/* finalize: prepares, yields ..................... commits
 * cancel:                     is refused           */
CORE_TEST(a_verb_is_refused_while_it_is_decided_how_a_job_ends)
{
    (void)opaque;
    struct ash_job *job = in_state(core, ASH_JOB_PENDING);
    memset(&called, 0, sizeof(called));
    core_spawn(core, finalize, job);
    while (called.prepare == 0) {
        ash_co_reschedule();
    }
    assert_int_equal(ash_job_state(job), ASH_JOB_PENDING);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), -EPERM);
    core_join(core);
    assert_int_equal(called.commit, 1);
    assert_int_equal(called.abort, 0);
    assert_int_equal(end(job), 0);
}

CORE_TEST(descriptions_that_are_wrong_are_refused_and_leave_nothing)
{
    (void)opaque;
    static const char *const wrong[] = {
        "{}",
        "{\"type\": \"nosuch\", \"job-id\": \"x\"}",
        "{\"type\": \"fake\"}",
        "{\"type\": \"fake\", \"job-id\": \"\"}",
        "{\"type\": \"fake\", \"job-id\": \"x\", \"nosuch\": 1}",
        "{\"type\": \"fake\", \"job-id\": \"x\", \"speed\": -1}",
        "[]",
        "7",
    };
    struct ash_job *job;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(wrong); i++) {
        struct ash_error error = ASH_ERROR_INIT;
        json_t *description = json_loads(wrong[i], JSON_DECODE_ANY, NULL);
        int ret = ash_co_job_start(core->loop, description, NULL, NULL, &job, &error);
        json_decref(description);
        assert_int_equal(ret, -EINVAL);
        assert_true(error.message[0] != '\0');
        assert_null(ash_job_find(core->loop, "x"));
    }
}

CORE_TEST(an_id_is_taken_until_its_job_is_dismissed)
{
    (void)opaque;
    struct ash_job *job = start(core, "x", "");
    struct ash_job *other;
    json_t *description = json_pack("{s:s, s:s}", "type", "fake", "job-id", "x");
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &other, NULL), -EEXIST);
    settle();
    end(job);
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &other, NULL), 0);
    json_decref(description);
    fake_of(other)->go = true;
    ash_job_kick(other);
    settle();
    assert_int_equal(ash_job_state(other), ASH_JOB_NULL); /* dismissed by itself */
    ash_job_unref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_state_accepts_its_verbs_and_no_other),
        cmocka_unit_test(a_job_that_ends_well_is_prepared_committed_and_cleaned_once),
        cmocka_unit_test(a_job_that_fails_is_aborted_and_tells_why),
        cmocka_unit_test(jobs_of_a_transaction_wait_for_one_another),
        cmocka_unit_test(one_failure_aborts_the_whole_transaction),
        cmocka_unit_test(preparing_that_fails_aborts_the_whole_transaction),
        cmocka_unit_test(cancelling_a_job_that_waits_cancels_the_others),
        cmocka_unit_test(a_verb_is_refused_while_it_is_decided_how_a_job_ends),
        cmocka_unit_test(descriptions_that_are_wrong_are_refused_and_leave_nothing),
        cmocka_unit_test(an_id_is_taken_until_its_job_is_dismissed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
