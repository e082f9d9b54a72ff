/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each kind of job on real files, on a loop with a thread of its own, through the public API. A
 * second thread keeps the disk busy all the while: it writes at random places, reads, and knows
 * what each block must hold. A third, the test's own, starts the job, steers it and looks at it. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>
#include <ashlar/ashlar.h>
#include "block/disk/disk.h"
#include "block/image/image.h"
#include "tests/unit/temp_dir.h"
#include "util/assert.h"
#include "util/compiler.h"
#include "util/loop/loop.h"
#include "util/prng.h"
#include "util/range.h"

#define BLOCK_BYTES (4 * KiB)
#define DISK_BYTES (8 * MiB)
#define BLOCKS (DISK_BYTES / BLOCK_BYTES)
#define WORDS (BLOCK_BYTES / 8)
#define CLUSTER "8192" /* two blocks */
#define DEPTH 16
#define RUN_BLOCKS_MAX 8
#define AT_ONCE 64     /* blocks, where nobody else is at work */
#define SLOW "4194304" /* bytes per second: a job that is so slow is at work for two seconds */
#define SOME 200       /* requests: the load that a job meets in each of its phases */

/* --- what each block holds --- */

/* All by the thread of the load but for the snapshots, which the other takes under the lock. */
static struct {
    pthread_mutex_t lock;
    uint32_t begun[BLOCKS]; /* the number of the last write that was asked for */
    uint32_t ended[BLOCKS]; /* and of the last that has ended */
    bool busy[BLOCKS];      /* a request is in flight there */
} model = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t word_of(uint64_t block, uint64_t word, uint32_t number)
{
    return (uint64_t)number << 32 | block * WORDS | word;
}

static void fill(uint64_t *words, uint64_t block, uint32_t number)
{
    for (uint64_t i = 0; i < WORDS; i++) {
        words[i] = word_of(block, i, number);
    }
}

/* All of it is of the one write. */
static bool holds(const uint64_t *words, uint64_t block, uint32_t number)
{
    for (uint64_t i = 0; i < WORDS; i++) {
        if (words[i] != word_of(block, i, number)) {
            return false;
        }
    }
    return true;
}

/* It reads as zeroes. */
static bool is_nothing(const uint64_t *words)
{
    for (uint64_t i = 0; i < WORDS; i++) {
        if (words[i] != 0) {
            return false;
        }
    }
    return true;
}

/* --- requests from a thread that is not the loop's --- */

struct client {
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct ash_queue *queue; /* the loop's thread's */
    sem_t ready;             /* the queue is there, or gone */
    pthread_mutex_t lock;
    pthread_cond_t answer;
    struct request *answered; /* under the lock */
};

struct request {
    struct client *client;
    struct request *next;
    struct ash_req req;
    struct iovec vec;
    uint64_t block;
    uint64_t blocks;
    int result;
    uint64_t *words;
};

static void on_complete(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct client *client = opaque;
    pthread_mutex_lock(&client->lock);
    for (uint32_t i = 0; i < count; i++) {
        struct request *request = (struct request *)(uintptr_t)cqe[i].user_data;
        request->result = cqe[i].result;
        request->next = client->answered;
        client->answered = request;
    }
    pthread_cond_signal(&client->answer);
    pthread_mutex_unlock(&client->lock);
}

static void open_queue(void *opaque)
{
    struct client *client = opaque;
    int ret = ash_queue_new(client->disk, DEPTH, &client->queue, NULL);
    ash_assert(ret == 0);
    ash_queue_on_complete(client->queue, on_complete, client);
    sem_post(&client->ready);
}

static void close_queue(void *opaque)
{
    struct client *client = opaque;
    ash_queue_free(client->queue);
    sem_post(&client->ready);
}

static void wait_ready(struct client *client, void (*fn)(void *opaque))
{
    int ret = ash_loop_post(client->loop, fn, client);
    ash_assert(ret == 0);
    while (sem_wait(&client->ready) < 0) {
        ash_assert(errno == EINTR);
    }
}

static void client_begin(struct client *client, struct ash_loop *loop, struct ash_disk *disk)
{
    *client = (struct client){.loop = loop, .disk = disk};
    sem_init(&client->ready, 0, 0);
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->answer, NULL);
    wait_ready(client, open_queue);
}

static void client_end(struct client *client)
{
    wait_ready(client, close_queue);
    pthread_cond_destroy(&client->answer);
    pthread_mutex_destroy(&client->lock);
    sem_destroy(&client->ready);
}

static void submit(void *opaque)
{
    struct request *request = opaque;
    uint32_t taken = (uint32_t)ash_queue_submit(request->client->queue, &request->req, 1);
    ash_assert(taken == 1);
}

static void ask(struct request *request, enum ash_op op)
{
    request->vec = (struct iovec){request->words, request->blocks * BLOCK_BYTES};
    request->req = (struct ash_req){.op = (uint8_t)op,
                                    .offset = request->block * BLOCK_BYTES,
                                    .bytes = request->vec.iov_len,
                                    .iov = &request->vec,
                                    .iov_count = 1,
                                    .user_data = (uintptr_t)request};
    if (op == ASH_FLUSH) {
        request->req.offset = request->req.bytes = request->req.iov_count = 0;
    }
    int ret = ash_loop_post(request->client->loop, submit, request);
    ash_assert(ret == 0);
}

/* A list of at least one. */
static struct request *answers(struct client *client)
{
    pthread_mutex_lock(&client->lock);
    while (client->answered == NULL) {
        pthread_cond_wait(&client->answer, &client->lock);
    }
    struct request *first = client->answered;
    client->answered = NULL;
    pthread_mutex_unlock(&client->lock);
    return first;
}

/* --- the load --- */

struct load {
    pthread_t thread;
    struct client client;
    struct ash_prng prng;
    struct request requests[DEPTH];
    struct request *idle;
    uint64_t last_writes; /* as the disk's statistics had it */
    atomic_bool over;
    atomic_uint ended; /* requests */
    atomic_uint wrong;
};

/* Blocks that nobody is at; false: none was found. */
static bool draw_blocks(struct load *load, struct request *request)
{
    request->blocks = 1 + ash_prng_below(&load->prng, RUN_BLOCKS_MAX);
    request->block = ash_prng_below(&load->prng, BLOCKS - request->blocks + 1);
    for (uint64_t i = 0; i < request->blocks; i++) {
        if (model.busy[request->block + i]) {
            return false;
        }
    }
    return true;
}

static void begin_write(struct request *request)
{
    pthread_mutex_lock(&model.lock);
    for (uint64_t i = 0; i < request->blocks; i++) {
        uint64_t block = request->block + i;
        fill(request->words + i * WORDS, block, ++model.begun[block]);
    }
    pthread_mutex_unlock(&model.lock);
    ask(request, ASH_WRITE);
}

/* The next request; false: not now. */
static bool begin_one(struct load *load)
{
    struct request *request = load->idle;
    if (ash_prng_chance(&load->prng, 10)) {
        request->blocks = 0;
        load->idle = request->next;
        ask(request, ASH_FLUSH);
        return true;
    }
    if (!draw_blocks(load, request)) {
        return false;
    }
    load->idle = request->next;
    for (uint64_t i = 0; i < request->blocks; i++) {
        model.busy[request->block + i] = true;
    }
    if (ash_prng_chance(&load->prng, 500)) {
        begin_write(request);
    } else {
        memset(request->words, 0, request->blocks * BLOCK_BYTES);
        ask(request, ASH_READ);
    }
    return true;
}

static void end_one(struct load *load, struct request *request)
{
    bool wrong = request->result != 0;
    pthread_mutex_lock(&model.lock);
    for (uint64_t i = 0; i < request->blocks; i++) {
        uint64_t block = request->block + i;
        if (request->req.op == ASH_WRITE) {
            model.ended[block] = model.begun[block];
        } else if (!holds(request->words + i * WORDS, block, model.ended[block])) {
            wrong = true;
        }
        model.busy[block] = false;
    }
    pthread_mutex_unlock(&model.lock);
    request->next = load->idle;
    load->idle = request;
    atomic_fetch_add(&load->wrong, wrong);
    atomic_fetch_add(&load->ended, 1);
}

/* The disk counts on its own thread what this one asked for. */
static void look_at_disk(struct load *load)
{
    struct ash_disk_stats stats = {.size = sizeof(stats)};
    struct ash_disk_info info = {.size = sizeof(info)};
    bool wrong = ash_disk_stats(load->client.disk, &stats) != 0 ||
                 ash_disk_info(load->client.disk, &info) != 0 || info.bytes != DISK_BYTES ||
                 stats.op[ASH_WRITE].count < load->last_writes || stats.op[ASH_WRITE].errors != 0;
    load->last_writes = stats.op[ASH_WRITE].count;
    atomic_fetch_add(&load->wrong, wrong);
}

static void *load_main(void *opaque)
{
    struct load *load = opaque;
    unsigned in_flight = 0;
    for (;;) {
        bool over = atomic_load(&load->over);
        while (!over && load->idle != NULL && begin_one(load)) {
            in_flight++;
        }
        if (in_flight == 0 && over) {
            return NULL;
        }
        if (in_flight == 0) {
            continue;
        }
        for (struct request *next, *request = answers(&load->client); request != NULL;
             request = next) {
            next = request->next;
            end_one(load, request);
            in_flight--;
        }
        look_at_disk(load);
    }
}

static void load_begin(struct load *load, struct ash_loop *loop, struct ash_disk *disk,
                       uint64_t seed)
{
    memset(load, 0, sizeof(*load));
    client_begin(&load->client, loop, disk);
    ash_prng_seed(&load->prng, seed);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct request *request = &load->requests[i];
        request->client = &load->client;
        request->words = aligned_alloc(BLOCK_BYTES, RUN_BLOCKS_MAX * BLOCK_BYTES);
        request->next = load->idle;
        load->idle = request;
    }
    assert_int_equal(pthread_create(&load->thread, NULL, load_main, load), 0);
}

static void load_stop(struct load *load)
{
    atomic_store(&load->over, true);
    pthread_join(load->thread, NULL);
}

static void load_end(struct load *load)
{
    load_stop(load);
    client_end(&load->client);
    for (unsigned i = 0; i < DEPTH; i++) {
        free(load->requests[i].words);
    }
    assert_int_equal(atomic_load(&load->wrong), 0);
}

/* Until the load has ended so many requests more. */
static void let_load_do(struct load *load, unsigned count)
{
    const struct timespec while_ = {.tv_nsec = 200000};
    unsigned first = atomic_load(&load->ended);
    while (atomic_load(&load->ended) - first < count) {
        nanosleep(&while_, NULL);
    }
}

/* --- images --- */

static struct ash_loop *loop;
static struct ash_error error;
static struct ash_disk *disk;
static struct load load;

struct image {
    const char *name;
    const char *backing; /* NULL: none */
};

static int make_image_body(void *opaque)
{
    const struct image *image = opaque;
    ash_co_assert_inside();
    json_t *options =
        json_pack("{s:s}", "cluster_size", CLUSTER); /* a part of them is copied on write */
    if (image->backing != NULL) {
        json_object_set_new(options, "backing_file", json_string(temp_path(image->backing)));
        json_object_set_new(options, "backing_fmt", json_string("qcow2"));
    }
    int ret = ash_image_create(loop, temp_path(image->name), "qcow2", DISK_BYTES, options, &error);
    json_decref(options);
    return ret;
}

static int check_image_body(void *opaque)
{
    struct ash_check check = {.report = NULL};
    struct ash_node *node = ash_disk_node(opaque);
    ash_co_assert_inside();
    int ret = node->driver->check(node, &check, &error);
    return ret < 0 ? ret : (int)(check.corruptions + check.leaks + check.check_errors);
}

static struct ash_disk *open_image(const char *name, uint32_t flags)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_disk *opened = NULL;
    options.flags = flags;
    char *description = g_strdup_printf(
        "json:{\"driver\": \"qcow2\", \"node-name\": \"%s\", \"file\": {\"driver\": "
        "\"file\", \"filename\": \"%s\"}}",
        name, temp_path(name));
    int ret = ash_disk_open_sync(loop, description, &options, &opened, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    g_free(description);
    return opened;
}

/* Writes each step-th block, or reads all of them and tells what write each is of; 0: of none. */
static void pass_over(struct ash_disk *on, enum ash_op op, uint64_t step, uint32_t *numbers)
{
    struct client client;
    struct request request = {.client = &client, .blocks = step == 1 ? AT_ONCE : 1};
    request.words = aligned_alloc(BLOCK_BYTES, AT_ONCE * BLOCK_BYTES);
    client_begin(&client, loop, on);
    for (request.block = 0; request.block < BLOCKS; request.block += step * request.blocks) {
        for (uint64_t i = 0; op == ASH_WRITE && i < request.blocks; i++) {
            uint64_t block = request.block + i;
            model.ended[block] = ++model.begun[block];
            fill(request.words + i * WORDS, block, model.begun[block]);
        }
        ask(&request, op);
        assert_ptr_equal(answers(&client), &request);
        assert_int_equal(request.result, 0);
        for (uint64_t i = 0; op == ASH_READ && i < request.blocks; i++) {
            uint64_t block = request.block + i;
            numbers[block] = (uint32_t)(request.words[i * WORDS] >> 32);
            const uint64_t *words = request.words + i * WORDS;
            bool nothing = numbers[block] == 0 && is_nothing(words);
            assert_true(nothing || holds(words, block, numbers[block]));
        }
    }
    client_end(&client);
    free(request.words);
}

/* An image over another, which holds each step-th block itself. */
static void make(const char *name, const char *backing, uint64_t step)
{
    struct image image = {name, backing};
    assert_int_equal(ash_loop_run_sync(loop, make_image_body, &image), 0);
    if (step > 0) {
        struct ash_disk *made = open_image(name, ASH_DISK_WRITE);
        pass_over(made, ASH_WRITE, step, NULL);
        assert_int_equal(ash_disk_close_sync(made, NULL), 0);
    }
}

static void gone(const char *name)
{
    assert_int_equal(unlink(temp_path(name)), 0);
}

/* What the image holds, and that it is consistent. */
static void look(const char *name, uint32_t *numbers)
{
    struct ash_disk *made = open_image(name, 0);
    pass_over(made, ASH_READ, 1, numbers);
    assert_int_equal(ash_loop_run_sync(loop, check_image_body, made), 0);
    assert_int_equal(ash_disk_close_sync(made, NULL), 0);
}

/* The image holds what was written last. */
static void expect_all(const char *name)
{
    uint32_t *numbers = g_new0(uint32_t, BLOCKS);
    look(name, numbers);
    for (uint64_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(numbers[i], model.ended[i]);
    }
    g_free(numbers);
}

/* --- jobs --- */

struct watched {
    struct ash_job *job;
    sem_t event;
};

static void on_event(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    struct watched *watched = opaque;
    (void)job;
    ash_assert(event == ASH_JOB_STATE_CHANGED);
    sem_post(&watched->event);
}

/* It stays slow while the load goes on beside it, and then goes as fast as it can. */
static void job_begin(struct watched *watched, const char *members)
{
    char *description = g_strdup_printf(
        "{\"device\": \"disk\", \"auto-dismiss\": false, \"speed\": " SLOW ", %s}", members);
    sem_init(&watched->event, 0, 0);
    int ret = ash_job_start_sync(loop, description, on_event, watched, &watched->job, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    g_free(description);
}

static struct ash_job_info info_of(const struct watched *watched)
{
    struct ash_job_info info = {.size = sizeof(info)};
    assert_int_equal(ash_job_info(watched->job, &info), 0);
    return info;
}

static void wait_for(struct watched *watched, enum ash_job_state state)
{
    while (info_of(watched).state != (uint32_t)state) {
        assert_int_not_equal(info_of(watched).state, ASH_JOB_CONCLUDED);
        while (sem_wait(&watched->event) < 0) {
            assert_int_equal(errno, EINTR);
        }
    }
}

static void apply(struct watched *watched, enum ash_job_verb verb, uint64_t value)
{
    assert_int_equal(ash_job_control_sync(watched->job, verb, value, &error), 0);
}

static void meet_load(struct watched *watched)
{
    let_load_do(&load, SOME);
    assert_int_equal(info_of(watched).state, ASH_JOB_RUNNING);
    apply(watched, ASH_JOB_PAUSE, 0);
    wait_for(watched, ASH_JOB_PAUSED);
    let_load_do(&load, SOME / 4);
    apply(watched, ASH_JOB_RESUME, 0);
    apply(watched, ASH_JOB_SET_SPEED, 0);
}

static void job_end(struct watched *watched)
{
    wait_for(watched, ASH_JOB_CONCLUDED);
    struct ash_job_info info = info_of(watched);
    assert_string_equal(info.message, "");
    assert_int_equal(info.result, 0);
    apply(watched, ASH_JOB_DISMISS, 0);
    ash_job_unref(watched->job);
    let_load_do(&load, SOME); /* and the disk goes on */
    sem_destroy(&watched->event);
}

/* It gets ready, keeps up with the load, and leads it over. */
static void job_pivot(struct watched *watched)
{
    wait_for(watched, ASH_JOB_READY);
    let_load_do(&load, SOME);
    apply(watched, ASH_JOB_COMPLETE, 0);
    job_end(watched);
}

static void disk_begin(uint64_t seed)
{
    disk = open_image("disk", ASH_DISK_WRITE);
    load_begin(&load, loop, disk, seed);
}

static void disk_end(void)
{
    load_end(&load);
    struct ash_disk *closing = disk;
    disk = NULL;
    assert_int_equal(ash_disk_close_sync(closing, &error), 0);
}

static int set_up(void **state)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    (void)state;
    config.flags = ASH_LOOP_OWN_THREAD;
    error = (struct ash_error)ASH_ERROR_INIT;
    memset(model.begun, 0, sizeof(model.begun));
    memset(model.ended, 0, sizeof(model.ended));
    return temp_dir_make("/tmp") < 0 ? -1 : ash_loop_new(&config, &loop, NULL);
}

/* A test that failed leaves its disk open. */
static int tear_down(void **state)
{
    (void)state;
    bool failed = disk != NULL;
    if (failed) {
        load_stop(&load);
        disk = NULL;
    } else {
        ash_loop_free(loop);
    }
    temp_dir_remove();
    return failed ? -1 : 0;
}

static void a_stream_under_load(void **state)
{
    struct watched job;
    (void)state;
    make("base", NULL, 1);
    make("disk", "base", 3);
    disk_begin(1);
    job_begin(&job, "\"type\": \"stream\"");
    meet_load(&job);
    job_end(&job);
    disk_end();
    gone("base");
    expect_all("disk");
}

static void a_commit_below_the_load(void **state)
{
    struct watched job;
    (void)state;
    make("base", NULL, 2);
    make("mid", "base", 1);
    make("disk", "mid", 7);
    disk_begin(2);
    char *members = g_strdup_printf("\"type\": \"commit\", \"top\": \"%s\"", temp_path("mid"));
    job_begin(&job, members);
    g_free(members);
    meet_load(&job);
    job_end(&job);
    disk_end();
    gone("mid");
    expect_all("disk");
}

static void a_commit_of_the_image_under_load(void **state)
{
    struct watched job;
    (void)state;
    make("base", NULL, 2);
    make("disk", "base", 1);
    disk_begin(3);
    job_begin(&job, "\"type\": \"commit\"");
    meet_load(&job);
    job_pivot(&job);
    disk_end();
    gone("disk");
    expect_all("base");
}

/* It begins in the background, where it might chase the load for ever. */
static void a_mirror_under_load_and_its_pivot(void **state)
{
    struct watched job;
    (void)state;
    make("target", NULL, 0);
    make("disk", NULL, 1);
    disk_begin(4);
    char *members = g_strdup_printf(
        "\"type\": \"mirror\", \"sync\": \"full\", \"format\": \"qcow2\", \"target\": \"%s\"",
        temp_path("target"));
    job_begin(&job, members);
    g_free(members);
    meet_load(&job);
    let_load_do(&load, SOME);
    assert_int_equal(ash_job_change_sync(job.job, "{\"copy-mode\": \"write-blocking\"}", &error),
                     0);
    job_pivot(&job);
    disk_end();
    gone("disk");
    expect_all("target");
}

static void copy_numbers(uint32_t *to, const uint32_t *from)
{
    pthread_mutex_lock(&model.lock);
    memcpy(to, from, sizeof(model.ended));
    pthread_mutex_unlock(&model.lock);
}

/* It is consistent, has of each block what that was at the moment, and gave nearly all of it back.
 */
static void expect_fleece(const char *name, const uint32_t *copy)
{
    uint32_t *numbers = g_new0(uint32_t, BLOCKS);
    unsigned kept = 0;
    look(name, numbers);
    for (uint64_t i = 0; i < BLOCKS; i++) {
        assert_true(numbers[i] == 0 || numbers[i] == copy[i]);
        kept += numbers[i] != 0;
    }
    assert_true(kept < BLOCKS / 16);
    g_free(numbers);
}

/* The moment lies within the call that starts the job: the target has of each block what had been
 * written by its beginning, or what was asked for by its end. */
static void back_up(const char *more, const char *fleece, uint64_t seed)
{
    struct watched job;
    uint32_t *before = g_new(uint32_t, BLOCKS);
    uint32_t *after = g_new(uint32_t, BLOCKS);
    uint32_t *copy = g_new(uint32_t, BLOCKS);
    make("target", NULL, 0);
    make("disk", NULL, 1);
    disk_begin(seed);
    char *members = g_strdup_printf("\"type\": \"backup\", \"sync\": \"full\", \"format\": "
                                    "\"qcow2\", \"target\": \"%s\"%s",
                                    temp_path("target"), more);
    let_load_do(&load, SOME);
    copy_numbers(before, model.ended);
    job_begin(&job, members);
    copy_numbers(after, model.begun);
    meet_load(&job);
    job_end(&job);
    disk_end();
    expect_all("disk");
    look("target", copy);
    unsigned since = 0;
    for (uint64_t i = 0; i < BLOCKS; i++) {
        assert_in_range(copy[i], before[i], after[i]);
        since += copy[i] != model.ended[i];
    }
    if (fleece != NULL) {
        expect_fleece(fleece, copy);
    }
    assert_true(since > SOME / 2); /* or the load has touched nothing that the moment kept */
    g_free(members);
    g_free(before);
    g_free(after);
    g_free(copy);
}

static void a_backup_under_load(void **state)
{
    (void)state;
    back_up("", NULL, 5);
}

static void a_backup_with_fleecing_under_load(void **state)
{
    (void)state;
    make("fleece", NULL, 0);
    char *fleecing = g_strdup_printf(
        ", \"fleecing\": \"json:{\\\"driver\\\": \\\"qcow2\\\", \\\"file\\\": {\\\"driver\\\": "
        "\\\"file\\\", \\\"filename\\\": \\\"%s\\\"}}\"",
        temp_path("fleece"));
    back_up(fleecing, "fleece", 6);
    g_free(fleecing);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_stream_under_load),
        TEST(a_commit_below_the_load),
        TEST(a_commit_of_the_image_under_load),
        TEST(a_mirror_under_load_and_its_pivot),
        TEST(a_backup_under_load),
        TEST(a_backup_with_fleecing_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
