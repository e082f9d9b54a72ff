/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A fault at each I/O of each job, at the source and at the target, once and for ever, under each
 * policy, while a guest writes.
 *
 * A trial is one job on a chain top -> mid -> base in a world of its own, with one fault. Its
 * number says which: SEED=number repeats it. How many I/Os there are is counted in a trial without
 * faults. By default a sample is tried; EVERY=1 tries all.
 *
 * What holds after each trial:
 *   - a job that says that it ended well has done what it promises, whatever failed meanwhile;
 *   - with "report" a job that met an error fails with it; with "ignore" it goes on; with "stop" it
 *     waits, without holding up the guest, and ends well when it is resumed after the mending;
 *   - the disk holds what the guest wrote, before and after it is closed and opened again;
 *   - images are consistent, without leaks where nothing failed; no node and no file stays open. */
#include "tests/unit/unit.h"
#include "block/bitmap/bitmap.h"
#include "block/graph/block.h"
#include "tests/unit/job_rig.h"

#define CLUSTER 4096
#define DISK_BYTES (1 * MiB + 128 * KiB)
#define SECTORS (DISK_BYTES / 512)
#define BUSY_SECTORS 320 /* at each end of the disk: where something is, and the guest writes */
#define FIRST_ID 4       /* of the guest's writes; below it are the layers' */
#define LAST_ID 63
#define MS UINT64_C(1000000)
#define FILES_MAX 3

enum policy { REPORT, IGNORE, STOP, ENOSPACE, POLICIES }; /* as in ash_on_error_names */

struct kind {
    const char *name;
    const char *job;
    const char *policies; /* format of the members that set them */
    const char *files[FILES_MAX];
    const char *disk; /* that has the contents when it ended well */
    bool bitmap;
    bool copies_moment;
};

#define ON_ERROR "\"on-error\": \"%s\""
#define ON_BOTH "\"on-source-error\": \"%s\", \"on-target-error\": \"%s\""
#define TO_TARGET "\"target\": \"target\", \"format\": \"qcow2\""

static const struct kind kinds[] = {
    {"stream", "\"type\": \"stream\"", ON_ERROR, {"base", "top"}, "top", false, false},
    {"commit",
     "\"type\": \"commit\", \"top-node\": \"mid\", \"base-node\": \"base\"",
     ON_ERROR,
     {"mid", "base", "top"},
     "top",
     false,
     false},
    {"commit of the active image",
     "\"type\": \"commit\", \"base-node\": \"base\"",
     ON_ERROR,
     {"top", "base"},
     "base",
     false,
     false},
    {"mirror",
     "\"type\": \"mirror\", \"granularity\": 4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target"},
     "target",
     false,
     false},
    {"mirror, copied by the kernel",
     "\"type\": \"mirror\", \"use-copy-range\": true, \"granularity\": 4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target"},
     "target",
     false,
     false},
    {"mirror, write-blocking",
     "\"type\": \"mirror\", \"copy-mode\": \"write-blocking\", \"granularity\": 4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target"},
     "target",
     false,
     false},
    {"mirror, incremental",
     "\"type\": \"mirror\", \"sync\": \"incremental\", \"bitmap\": \"b\", \"granularity\": "
     "4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target"},
     "target",
     true,
     false},
    {"backup",
     "\"type\": \"backup\", \"min-cluster-size\": 4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target"},
     "top",
     false,
     true},
    {"backup, incremental",
     "\"type\": \"backup\", \"sync\": \"incremental\", \"bitmap\": \"b\", "
     "\"min-cluster-size\": 4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target"},
     "top",
     true,
     true},
    {"backup, fleecing",
     "\"type\": \"backup\", \"fleecing\": "
     "\"json:{\\\"driver\\\":\\\"qcow2\\\",\\\"file\\\":{\\\"driver\\\":\\\"file\\\","
     "\\\"filename\\\":\\\"fleece\\\"}}\", \"min-cluster-size\": 4096, " TO_TARGET,
     ON_BOTH,
     {"top", "target", "fleece"},
     "top",
     false,
     true},
};

/* --- images, made once --- */

static const char *const names[] = {"base", "mid", "top", "fleece", "target", "equal"};
static struct {
    uint8_t *data;
    size_t bytes;
} images[ASH_ARRAY_SIZE(names)]; /* "equal" is a target that holds what the disk holds */

static uint64_t first_contents[SECTORS]; /* as `may` of a trial */

static void fill(uint64_t *words, unsigned id, uint64_t sector, uint64_t count)
{
    for (uint64_t i = 0; i < count * 64; i++) {
        words[i] = id == 0 ? 0 : (uint64_t)id << 32 | (sector + i / 64);
    }
}

ASH_CO_FN static struct ash_disk *open_by_header(struct core *core, const char *name,
                                                 const char *node_name, uint32_t flags)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", name);
    if (node_name != NULL) {
        json_object_set_new(description, "node-name", json_string(node_name));
    }
    int ret = ash_co_disk_open(core->loop, description, flags, &disk, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

ASH_CO_FN static void make_image(struct core *core, const char *name, const char *backing)
{
    json_t *options = json_pack("{s:i}", "cluster_size", CLUSTER);
    if (backing != NULL) {
        json_object_set_new(options, "backing_file", json_string(backing));
        json_object_set_new(options, "backing_fmt", json_string("qcow2"));
    }
    assert_int_equal(ash_image_create(core->loop, name, "qcow2", DISK_BYTES, options, NULL), 0);
    json_decref(options);
}

/* Writes id into each `every`th cluster of the two parts that are used. */
ASH_CO_FN static void make_contents(struct core *core, const char *name, unsigned id,
                                    unsigned every)
{
    struct ash_disk *disk = open_by_header(core, name, NULL, ASH_NODE_WRITE);
    for (uint64_t cluster = 0; cluster < DISK_BYTES / CLUSTER; cluster++) {
        uint64_t sector = cluster * 8;
        uint64_t words[CLUSTER / 8];
        bool used = sector < BUSY_SECTORS || sector >= SECTORS - BUSY_SECTORS;
        if (used && cluster % every != 1) {
            fill(words, id, sector, 8);
            assert_int_equal(ash_disk_write(disk, sector * 512, words, CLUSTER, 0), 0);
            for (unsigned i = 0; i < 8; i++) {
                first_contents[sector + i] = UINT64_C(1) << id;
            }
        }
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static void copy_contents(struct core *core, const char *from, const char *to)
{
    static uint8_t buffer[DISK_BYTES];
    struct ash_disk *source = open_by_header(core, from, NULL, 0);
    struct ash_disk *target = open_by_header(core, to, NULL, ASH_NODE_WRITE);
    assert_int_equal(ash_disk_read(source, 0, buffer, DISK_BYTES), 0);
    for (uint64_t at = 0; at < DISK_BYTES; at += CLUSTER) {
        uint64_t bytes =
            ash_iov_is_zero(ash_iov_of(&(struct iovec){buffer + at, CLUSTER}, 1), CLUSTER)
                ? 0
                : CLUSTER;
        assert_int_equal(ash_disk_write(target, at, buffer + at, bytes, 0), 0);
    }
    assert_int_equal(ash_co_disk_close(source, NULL), 0);
    assert_int_equal(ash_co_disk_close(target, NULL), 0);
}

static void make_images(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    for (unsigned sector = 0; sector < SECTORS; sector++) {
        first_contents[sector] = 1;
    }
    make_image(core, "base", NULL);
    make_contents(core, "base", 1, 4);
    make_image(core, "mid", "base");
    make_contents(core, "mid", 2, 2);
    make_image(core, "top", "mid");
    make_contents(core, "top", 3, 3);
    make_image(core, "fleece", NULL);
    make_image(core, "target", NULL);
    make_image(core, "equal", NULL);
    copy_contents(core, "top", "equal");
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(names); i++) {
        images[i].bytes = (size_t)ash_sim_file_bytes(core->world, names[i]);
        images[i].data = g_malloc(images[i].bytes);
        assert_int_equal(
            ash_sim_file_read(core->world, names[i], 0, images[i].data, images[i].bytes), 0);
    }
}

static int set_up(void **state)
{
    struct core core;
    (void)state;
    core_up(&core, 0);
    core_run(&core, make_images, NULL);
    core_down(&core);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(names); i++) {
        g_free(images[i].data);
    }
    return 0;
}

/* --- a trial --- */

struct trial {
    uint64_t number;
    const struct kind *kind;
    const char *file; /* that the fault is aimed at; NULL: no fault */
    enum policy policy;
    int error;
    bool for_ever;
    uint64_t nth;

    /* Seen of the file. */
    unsigned ios;
    unsigned hits;
    bool flush_failed; /* which no mending undoes */

    struct ash_disk *disk;
    struct ash_bitmap *bitmap;
    uint64_t may[SECTORS];    /* a set of ids: what a sector may hold */
    uint64_t moment[SECTORS]; /* when the job was started */

    unsigned id; /* of the guest's next write */
    bool guest_stops;
    uint64_t busy_since_ns; /* the guest is in a request; 0: not */

    unsigned told; /* errors that the job told of */
    unsigned stops;
    bool completed;
    bool pending; /* all was done but to change the graph, which is tried once */
    bool mended;
    int ret;
    char message[1016];
};

static void observe(void *opaque, const struct ash_sim_event *event)
{
    struct trial *t = opaque;
    const struct ash_aio *aio = event->aio;
    if (aio == NULL || event->path == NULL || t->file == NULL ||
        strcmp(event->path, t->file) != 0) {
        return;
    }
    bool counts = aio->op == ASH_AIO_READ || aio->op == ASH_AIO_WRITE || aio->op == ASH_AIO_FLUSH ||
                  aio->op == ASH_AIO_ALLOCATE || aio->op == ASH_AIO_TRUNCATE ||
                  aio->op == ASH_AIO_SEEK || aio->op == ASH_AIO_COPY;
    t->ios += counts && event->phase == ASH_SIM_SUBMITTED;
    if (counts && event->phase == ASH_SIM_COMPLETED && event->result == t->error) {
        t->hits++;
        t->flush_failed |= aio->op == ASH_AIO_FLUSH ||
                           (aio->op == ASH_AIO_WRITE && (aio->flags & ASH_AIO_DSYNC) != 0);
    }
}

static void mend(struct core *core, struct trial *t)
{
    ash_sim_aim(core->world, NULL, 0, 0, 0);
    t->mended = true;
}

/* One write, or zeroes. */
ASH_CO_FN static void guest_write(struct core *core, struct trial *t)
{
    uint64_t words[16 * 64];
    bool zero = ash_prng_chance(&core->prng, 200);
    unsigned id = zero ? 0 : t->id++;
    uint64_t count = ash_prng_between(&core->prng, 1, 16);
    uint64_t sector = ash_prng_below(&core->prng, BUSY_SECTORS - count);
    sector += ash_prng_chance(&core->prng, 500) ? SECTORS - BUSY_SECTORS : 0;
    fill(words, id, sector, count);
    for (uint64_t i = sector; i < sector + count; i++) {
        t->may[i] |= UINT64_C(1) << id;
    }
    t->busy_since_ns = ash_loop_now(core->loop);
    int ret = zero ? ash_disk_zero(t->disk, sector * 512, count * 512, 0)
                   : ash_disk_write(t->disk, sector * 512, words, count * 512, 0);
    t->busy_since_ns = 0;
    assert_true(ret == 0 || t->hits > 0);
    for (uint64_t i = sector; i < sector + count && ret == 0; i++) {
        t->may[i] = UINT64_C(1) << id;
    }
}

static void write_on(struct core *core, void *opaque)
{
    struct trial *t = opaque;
    ash_co_assert_inside();
    while (!t->guest_stops && t->id <= LAST_ID) {
        guest_write(core, t);
        ash_co_sleep(ash_prng_below(&core->prng, 20000));
    }
}

ASH_CO_FN static void verify(struct ash_disk *disk, const uint64_t *may)
{
    static uint64_t words[DISK_BYTES / 8];
    uint64_t wanted[64];
    assert_int_equal(ash_disk_read(disk, 0, words, DISK_BYTES), 0);
    for (uint64_t sector = 0; sector < SECTORS; sector++) {
        unsigned id = (unsigned)(words[sector * 64] >> 32) % 64;
        fill(wanted, id, sector, 1);
        if ((may[sector] >> id & 1) == 0 || memcmp(wanted, words + sector * 64, 512) != 0) {
            print_message("sector %lu is of %u, may be of %lx\n", (unsigned long)sector, id,
                          (unsigned long)may[sector]);
            assert_true(false);
        }
    }
}

/* --- the job --- */

static void hear(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    struct trial *t = opaque;
    t->told += event == ASH_JOB_IO_ERROR;
    t->pending |= ash_job_state(job) == ASH_JOB_PENDING;
}

ASH_CO_FN static int start_job(struct core *core, struct trial *t, struct ash_job **job)
{
    struct ash_error error = ASH_ERROR_INIT;
    const char *policy = ash_on_error_names[t->policy];
    char *policies = strcmp(t->kind->policies, ON_ERROR) == 0
                         ? g_strdup_printf(ON_ERROR, policy)
                         : g_strdup_printf(ON_BOTH, policy, policy);
    char *text =
        g_strdup_printf("{\"job-id\": \"j\", \"device\": \"top\", \"auto-dismiss\": false, %s, %s}",
                        t->kind->job, policies);
    json_t *description = json_loads(text, 0, NULL);
    assert_non_null(description);
    int ret = ash_co_job_start(core->loop, description, hear, t, job, &error);
    g_strlcpy(t->message, error.message, sizeof(t->message));
    json_decref(description);
    g_free(text);
    g_free(policies);
    return ret;
}

/* The job waits for the user, who mends what was broken. The guest does not wait with it. */
ASH_CO_FN static void resume(struct core *core, struct trial *t, struct ash_job *job)
{
    struct ash_job_info info = {.size = sizeof(info)};
    assert_int_equal(ash_job_info(job, &info), 0);
    assert_true(t->policy == STOP || (t->policy == ENOSPACE && info.io_error == -ENOSPC));
    assert_true(info.io_error == t->error || (info.io_error == -EIO && t->flush_failed));
    ash_co_sleep(20 * MS);
    assert_true(t->busy_since_ns == 0 || ash_loop_now(core->loop) - t->busy_since_ns < 10 * MS);
    mend(core, t);
    bool again = ++t->stops <= 3;
    assert_true(again || t->flush_failed);
    assert_int_equal(
        ash_co_job_control(job, again ? ASH_JOB_RESUME : ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
}

/* Does what a user does, until the job is over. */
ASH_CO_FN static void attend(struct core *core, struct trial *t, struct ash_job *job)
{
    uint64_t start_ns = ash_loop_now(core->loop);
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        enum ash_job_state state = ash_job_state(job);
        uint64_t since_ns = ash_loop_now(core->loop) - start_ns;
        if (state == ASH_JOB_PAUSED || state == ASH_JOB_STANDBY) {
            resume(core, t, job);
        } else if (state == ASH_JOB_READY && !t->completed) {
            t->completed = ash_co_job_control(job, ASH_JOB_COMPLETE, 0, NULL) == 0;
        } else if (since_ns > 100 * MS && !t->mended) {
            assert_int_equal(t->policy, IGNORE);
            mend(core, t);
        }
        if (since_ns > 1000 * MS) {
            print_message("still %s\n", ash_job_state_name(state));
            assert_true(false);
        }
        ash_co_sleep(t->completed ? 50000 : 20000);
    }
    t->ret = job->ret;
    g_strlcpy(t->message, job->error.message, sizeof(t->message));
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
}

/* Whether what the trial's job met may end it though the policy is to stop: what nobody can try
 * again. */
static bool is_final(const struct trial *t)
{
    return t->flush_failed || t->pending || strstr(t->message, "broke") != NULL;
}

static void check_outcome(const struct trial *t, bool started)
{
    bool stops = t->policy == STOP || (t->policy == ENOSPACE && t->error == -ENOSPC);
    if (t->ret < 0 && t->hits == 0) {
        print_message("%s\n", t->message);
    }
    assert_true(t->ret == 0 || t->hits > 0);
    assert_true(t->ret == 0 || t->ret == t->error || (t->flush_failed && t->ret == -EIO) ||
                (t->stops > 3 && t->ret == -ECANCELED));
    if (started && stops && t->ret < 0 && !is_final(t)) {
        print_message("it did not stop: %s\n", t->message);
        assert_true(false);
    }
    if (started && !stops && t->policy != IGNORE && t->told > 0) {
        assert_true(t->ret < 0);
    }
}

/* --- the whole of it --- */

static void keep_quiet(struct ash_check *check, const char *sentence)
{
    (void)check;
    (void)sentence;
}

ASH_CO_FN static void check_consistent(struct core *core, struct trial *t, const char *name)
{
    bool sound = t->file == NULL || strcmp(t->file, name) != 0 || t->hits == 0;
    struct ash_check check = {.report = sound ? print_finding : keep_quiet};
    struct ash_disk *disk = open_by_header(core, name, NULL, ASH_NODE_CHECK);
    struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(node->driver->check(node, &check, NULL), 0);
    assert_int_equal(check.corruptions + check.check_errors, 0);
    assert_true(check.leaks == 0 || !sound);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static void verify_image(struct core *core, const char *name, const uint64_t *may)
{
    struct ash_disk *disk = open_by_header(core, name, NULL, 0);
    verify(disk, may);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* A job that failed has given the bitmap back, which says what the next one has to copy. */
ASH_CO_FN static void back_up_again(struct core *core, struct trial *t)
{
    struct ash_job *job;
    assert_false(t->bitmap->busy || t->bitmap->frozen);
    assert_int_equal(start_job(core, t, &job), 0);
    attend(core, t, job);
    assert_int_equal(t->ret, 0);
    verify_image(core, "target", t->may);
}

ASH_CO_FN static void begin_trial(struct core *core, struct trial *t)
{
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(names); i++) {
        bool equal = strcmp(names[i], "equal") == 0;
        if (equal == t->kind->bitmap || (!equal && strcmp(names[i], "target") != 0)) {
            assert_int_equal(ash_sim_file_write(core->world, equal ? "target" : names[i], 0,
                                                images[i].data, images[i].bytes),
                             0);
        }
    }
    memcpy(t->may, first_contents, sizeof(t->may));
    t->id = FIRST_ID;
    json_t *below = json_null();
    for (unsigned i = 0; i < 3; i++) {
        below = json_pack("{s:s, s:s, s:{s:s, s:s}, s:o}", "driver", "qcow2", "node-name", names[i],
                          "file", "driver", "file", "filename", names[i], "backing", below);
    }
    assert_int_equal(
        ash_co_disk_open(core->loop, below, ASH_NODE_WRITE | ASH_NODE_DISCARD, &t->disk, NULL), 0);
    json_decref(below);
    if (t->kind->bitmap) {
        assert_int_equal(ash_bitmap_new(ash_disk_node(t->disk), "b", CLUSTER, &t->bitmap, NULL), 0);
        for (unsigned i = 0; i < 6; i++) {
            guest_write(core, t);
        }
    }
    memcpy(t->moment, t->may, sizeof(t->may));
}

ASH_CO_FN static void end_trial(struct core *core, struct trial *t)
{
    bool well = t->ret == 0;
    const char *name = well ? t->kind->disk : "top";
    assert_string_equal(ash_graft_mapped(ash_disk_node(t->disk))->filename, name);
    verify(t->disk, t->may);
    if (t->kind->copies_moment && well) {
        verify_image(core, "target", t->moment);
    } else if (t->kind->copies_moment && t->bitmap != NULL) {
        back_up_again(core, t);
    }
    int ret = ash_co_disk_close(t->disk, NULL);
    assert_true(ret == 0 || t->hits > 0);
    /* A job that was ended by force leaves its target when what was on its way has arrived. */
    while (!ash_list_empty(&ash_block_of(core->loop)->nodes)) {
        ash_co_sleep(1000);
    }
    if (ret == 0) {
        verify_image(core, name, t->may);
    }
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(names) - 1; i++) {
        check_consistent(core, t, names[i]);
    }
}

static void trial_body(struct core *core, void *opaque)
{
    struct trial *t = opaque;
    struct ash_job *job;
    ash_co_assert_inside();
    begin_trial(core, t);
    ash_sim_observe(core->world, observe, t);
    if (t->nth < UINT64_MAX) {
        ash_sim_aim(core->world, t->file, t->nth, t->for_ever ? UINT64_MAX : 1, t->error);
    }
    t->ret = start_job(core, t, &job);
    bool started = t->ret == 0;
    core_spawn(core, write_on, t);
    if (started) {
        attend(core, t, job);
    }
    unsigned ios = t->ios;
    t->guest_stops = true;
    core_join(core);
    check_outcome(t, started);
    mend(core, t);
    end_trial(core, t);
    t->ios = ios;
}

static void run_trial(struct trial *t)
{
    struct core core;
    struct ash_sim_config sim_config = {.seed = t->number, .latency_ns_max = 2000};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    core_up_with(&core, t->number, &sim_config, &loop_config);
    core_run(&core, trial_body, t);
    core_down(&core);
}

/* --- all of them --- */

#define COMBINATIONS (POLICIES * 4)
#define NTH_MAX 4096

static struct trial trial_of(uint64_t number)
{
    uint64_t combination = number / NTH_MAX % COMBINATIONS;
    uint64_t place = number / NTH_MAX / COMBINATIONS;
    return (struct trial){
        .number = number,
        .kind = &kinds[place / FILES_MAX],
        .file = kinds[place / FILES_MAX].files[place % FILES_MAX],
        .policy = (enum policy)(combination / 4),
        .error = (combination & 1) != 0 ? -ENOSPC : -EIO,
        .for_ever = (combination & 2) != 0,
        .nth = number % NTH_MAX,
    };
}

static uint64_t every(void)
{
    const char *text = getenv("EVERY");
    return text != NULL ? strtoull(text, NULL, 10) : 1000 / fewer_if_sanitized(333);
}

/* All combinations at each `every`th I/O to the file, each beginning with another. */
static void try_place(const struct kind *kind, uint64_t place, unsigned *stops, unsigned *trials)
{
    uint64_t first = place * COMBINATIONS * NTH_MAX;
    struct trial *t = g_new(struct trial, 1);
    *t = trial_of(first);
    t->nth = UINT64_MAX;
    run_trial(t);
    uint64_t ios = t->ios;
    assert_int_equal(t->ret, 0);
    assert_true(ios > 5);
    assert_true(ios < NTH_MAX);
    for (uint64_t combination = 0; combination < COMBINATIONS; combination++) {
        for (uint64_t nth = combination % every(); nth < ios; nth += every()) {
            *t = trial_of(first + combination * NTH_MAX + nth);
            run_trial(t);
            *stops += t->stops > 0;
            ++*trials;
        }
    }
    if (getenv("EVERY") != NULL) {
        print_message("%s: %lu I/Os to %s\n", kind->name, (unsigned long)ios, t->file);
    }
    g_free(t);
}

static void try_all(const struct kind *kind)
{
    unsigned stops = 0;
    unsigned trials = 0;
    uint64_t first = (uint64_t)(kind - kinds) * FILES_MAX;
    if (getenv("SEED") != NULL) {
        struct trial *t = g_new(struct trial, 1);
        if (core_first_seed() / NTH_MAX / COMBINATIONS / FILES_MAX == first / FILES_MAX) {
            *t = trial_of(core_first_seed());
            run_trial(t);
        }
        g_free(t);
        return;
    }
    for (unsigned i = 0; i < FILES_MAX && kind->files[i] != NULL; i++) {
        try_place(kind, first + i, &stops, &trials);
    }
    assert_true(stops > 0);
}

#define TRIALS(name, index)                                                                        \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        try_all(&kinds[index]);                                                                    \
    }

TRIALS(faults_of_a_stream, 0)
TRIALS(faults_of_a_commit, 1)
TRIALS(faults_of_a_commit_of_the_active_image, 2)
TRIALS(faults_of_a_mirror, 3)
TRIALS(faults_of_a_mirror_by_the_kernel, 4)
TRIALS(faults_of_a_blocking_mirror, 5)
TRIALS(faults_of_an_incremental_mirror, 6)
TRIALS(faults_of_a_backup, 7)
TRIALS(faults_of_an_incremental_backup, 8)
TRIALS(faults_of_a_backup_with_fleecing, 9)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_of_a_stream),
        cmocka_unit_test(faults_of_a_commit),
        cmocka_unit_test(faults_of_a_commit_of_the_active_image),
        cmocka_unit_test(faults_of_a_mirror),
        cmocka_unit_test(faults_of_a_mirror_by_the_kernel),
        cmocka_unit_test(faults_of_a_blocking_mirror),
        cmocka_unit_test(faults_of_an_incremental_mirror),
        cmocka_unit_test(faults_of_a_backup),
        cmocka_unit_test(faults_of_an_incremental_backup),
        cmocka_unit_test(faults_of_a_backup_with_fleecing),
    };
    cmocka_set_test_filter(getenv("TEST"));
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
