/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backing up under guests: the target holds what the source held when the job was started, and the
 * source what the guests wrote. */
#include "tests/unit/unit.h"
#include "block/bitmap/bitmap.h"
#include "block/filter/fault.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

enum kind { KIND_FULL, KIND_TOP, KIND_INCREMENTAL, KINDS };
enum ending { END_WELL, END_CANCEL, END_FORCE, ENDINGS };

static unsigned seen[KINDS][ENDINGS];
static uint64_t copied_by_kernel; /* bytes */

/* What each byte of the disk may have held at the moment of the backup: a set of numbers. */
struct moment {
    uint64_t bytes;
    uint64_t *may;
};

struct plan {
    enum kind kind;
    enum ending ending;
    bool qcow2;
    bool compress;
    bool use_copy_range;
    bool fleecing;
    uint64_t cluster_bytes_min; /* 0: the default */
    const char *bitmap_mode;    /* NULL: no bitmap */
};

ASH_CO_FN static void create(struct core *core, const char *name, const char *format,
                             uint64_t bytes)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *options = json_object();
    if (strcmp(format, "qcow2") == 0) {
        json_object_set_new(options, "cluster_size",
                            json_integer((json_int_t)(1024 << ash_prng_below(&core->prng, 6))));
    }
    int ret =
        ash_image_create(core->loop, core_file(core, name, -1), format, bytes, options, &error);
    json_decref(options);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, error.message);
    }
    assert_int_equal(ret, 0);
}

/* A target that is to hold only what the topmost layer held stands on the layers below. */
static json_t *describe_target(struct core *core, struct chain *chain, const struct plan *plan)
{
    json_t *description =
        json_pack("{s:s, s:{s:s, s:s}}", "driver", plan->qcow2 ? "qcow2" : "raw", "file", "driver",
                  "file", "filename", core_file(core, "target", -1));
    if (plan->kind == KIND_TOP && chain->depth > 1) {
        json_object_set_new(description, "backing", chain_describe(core, chain, 1));
    }
    return description;
}

ASH_CO_FN static struct ash_job *start(struct core *core, struct chain *chain,
                                       const struct plan *plan, enum kind kind)
{
    static const char *const sync[] = {"full", "top", "incremental"};
    json_t *target = describe_target(core, chain, plan);
    char *text = json_dumps(target, JSON_COMPACT);
    char *name = g_strconcat("json:", text, NULL);
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "type", "backup", "device",
                  job_layer(chain, 0)->name, "sync", sync[kind], "target", name, "compress",
                  plan->compress, "use-copy-range", plan->use_copy_range);
    g_free(name);
    free(text);
    json_decref(target);
    if (plan->bitmap_mode != NULL && kind != KIND_TOP) {
        json_object_set_new(description, "sync",
                            json_string(kind == KIND_FULL ? "full" : "bitmap"));
        json_object_set_new(description, "bitmap", json_string("b"));
        json_object_set_new(description, "bitmap-mode", json_string(plan->bitmap_mode));
    } else if (kind == KIND_INCREMENTAL) {
        json_object_set_new(description, "bitmap", json_string("b"));
    }
    if (plan->cluster_bytes_min != 0) {
        json_object_set_new(description, "min-cluster-size",
                            json_integer((json_int_t)plan->cluster_bytes_min));
    }
    if (plan->fleecing) {
        json_object_set_new(description, "fleecing", json_string(core_file(core, "fleece", -1)));
    }
    return job_start(core, description);
}

/* Starts the job and notes what the disk may have held meanwhile. */
ASH_CO_FN static struct ash_job *start_noting(struct core *core, struct chain *chain,
                                              const struct plan *plan, enum kind kind,
                                              struct moment *moment)
{
    struct guest_op op;
    guest_read_begin(&chain->model, &op, 0, chain->model.bytes);
    struct ash_job *job = start(core, chain, plan, kind);
    moment->bytes = chain->model.bytes;
    moment->may = g_memdup2(op.beside, moment->bytes * sizeof(*moment->may));
    guest_read_end(&chain->model, &op, NULL);
    return job;
}

ASH_CO_FN static struct ash_disk *open_target(struct core *core, struct chain *chain,
                                              const struct plan *plan)
{
    return core_open_disk(core, describe_target(core, chain, plan), ASH_NODE_CHECK);
}

ASH_CO_FN static void verify_target(struct core *core, struct chain *chain, const struct plan *plan,
                                    const struct moment *moment)
{
    struct ash_disk *disk = open_target(core, chain, plan);
    uint8_t *buffer = g_malloc(moment->bytes);
    if (plan->qcow2) {
        check_image(core, disk);
    }
    assert_int_equal(ash_disk_read(disk, 0, buffer, moment->bytes), 0);
    for (uint64_t at = 0; at < moment->bytes; at++) {
        unsigned id = buffer[at] >> 2;
        if (buffer[at] != guest_byte(id, at) || (moment->may[at] >> id & 1) == 0) {
            print_message("seed %lu: byte %lu is %u, may be of %lx\n", (unsigned long)core->seed,
                          (unsigned long)at, buffer[at], (unsigned long)moment->may[at]);
            assert_true(false);
        }
    }
    g_free(buffer);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static int end_job(struct core *core, struct ash_job *job, enum ending ending)
{
    if (ash_prng_chance(&core->prng, 300)) {
        job_pause_a_while(core, job);
    }
    if (ending != END_WELL) {
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
        (void)!ash_co_job_control(job, ending == END_FORCE ? ASH_JOB_FORCE_CANCEL : ASH_JOB_CANCEL,
                                  0, NULL);
    }
    return job_finish(core, job);
}

static void draw_plan(struct core *core, struct plan *plan)
{
    static const char *const modes[] = {NULL, "on-success", "always", "never"};
    plan->kind = (enum kind)ash_prng_below(&core->prng, KINDS);
    plan->ending = (enum ending)ash_prng_below(&core->prng, ENDINGS);
    plan->qcow2 = plan->kind == KIND_TOP || ash_prng_chance(&core->prng, 700);
    plan->compress = plan->qcow2 && ash_prng_chance(&core->prng, 300);
    plan->fleecing = ash_prng_chance(&core->prng, 500);
    plan->cluster_bytes_min =
        ash_prng_chance(&core->prng, 300) ? UINT64_C(2048) << ash_prng_below(&core->prng, 4) : 0;
    plan->bitmap_mode = modes[ash_prng_below(&core->prng, 4)];
    plan->use_copy_range = ash_prng_chance(&core->prng, 400);
}

/* A full backup, so that the target lacks what changes from now on. */
ASH_CO_FN static void back_up_first(struct core *core, struct chain *chain, const struct plan *plan)
{
    struct plan first = *plan;
    struct moment moment;
    first.bitmap_mode = "on-success";
    struct ash_job *job = start_noting(core, chain, &first, KIND_FULL, &moment);
    assert_int_equal(job_finish(core, job), 0);
    verify_target(core, chain, &first, &moment);
    g_free(moment.may);
}

/* When a backup by bitmap has ended, well or not, the bitmap says what the next one has to copy. */
ASH_CO_FN static void back_up_the_rest(struct core *core, struct chain *chain,
                                       const struct plan *plan)
{
    struct plan last = *plan;
    struct moment moment;
    last.bitmap_mode = NULL;
    last.kind = KIND_INCREMENTAL;
    struct ash_job *job = start_noting(core, chain, &last, KIND_INCREMENTAL, &moment);
    assert_int_equal(job_finish(core, job), 0);
    verify_target(core, chain, &last, &moment);
    g_free(moment.may);
}

static void count_copies(void *opaque, const struct ash_sim_event *event)
{
    (void)opaque;
    if (event->phase == ASH_SIM_COMPLETED && event->aio->op == ASH_AIO_COPY && event->result > 0) {
        copied_by_kernel += (uint64_t)event->result;
    }
}

ASH_CO_FN static void backup_body(struct core *core, void *opaque)
{
    (void)opaque;
    if (!core_is_real()) {
        ash_sim_observe(core->world, count_copies, NULL);
    }
    struct chain chain;
    struct guest guests[GUESTS];
    struct plan plan;
    struct moment moment;
    struct ash_bitmap *bitmap;
    draw_plan(core, &plan);
    job_draw_layers(core, &chain, 1 + (unsigned)(core->seed % 3));
    chain_up(core, &chain);
    uint64_t longer = ash_prng_chance(&core->prng, 300) ? 200 * KiB : 0; /* than the disk */
    create(core, "target", plan.qcow2 ? "qcow2" : "raw", chain.bytes[0] + longer);
    create(core, "fleece", "qcow2", chain.bytes[0]);
    guests_start(core, &chain, guests, 40);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    uint64_t granularity = UINT64_C(512) << ash_prng_below(&core->prng, 8);
    assert_int_equal(ash_bitmap_new(job_layer(&chain, 0), "b", granularity, &bitmap, NULL), 0);
    if (plan.kind == KIND_INCREMENTAL) {
        back_up_first(core, &chain, &plan);
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
    }
    struct ash_job *job = start_noting(core, &chain, &plan, plan.kind, &moment);
    int ret = end_job(core, job, plan.ending);
    plan.ending = ret == 0 ? END_WELL : plan.ending;
    seen[plan.kind][plan.ending]++;
    assert_int_equal(ret, plan.ending == END_WELL ? 0 : -ECANCELED);
    if (ret == 0) {
        verify_target(core, &chain, &plan, &moment);
    }
    if (plan.kind == KIND_INCREMENTAL && plan.ending != END_FORCE) {
        back_up_the_rest(core, &chain, &plan);
    }
    g_free(moment.may);
    core_join(core);
    chain_verify(core, &chain);
    assert_false(bitmap->busy || bitmap->frozen);
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    chain.disk = chain_open(core, &chain, 0, ASH_NODE_CHECK);
    check_image(core, chain.disk);
    chain_verify(core, &chain);
    chain_down(&chain);
    /* A job that was ended by force leaves its target when what was on its way has arrived. */
    while (!ash_list_empty(&ash_block_of(core->loop)->nodes)) {
        ash_co_sleep(1000);
    }
}

static void a_backup_under_guests_is_of_one_moment(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 60 : 250, backup_body);
    for (unsigned i = 0; i < KINDS * ENDINGS; i++) {
        assert_true(getenv("SEED") != NULL || seen[i / ENDINGS][i % ENDINGS] > 0);
    }
    uint64_t least_bytes = fewer_if_sanitized(200) * KiB; /* the fewer seeds, the less */
    assert_true(getenv("SEED") != NULL || core_is_real() || copied_by_kernel > least_bytes);
}

/* --- small disks --- */

#define CLUSTER (64 * KiB)
#define SMALL_BYTES (4 * CLUSTER)

ASH_CO_FN static struct ash_disk *small_disk(struct core *core, const char *name)
{
    return job_raw_disk(core, name, SMALL_BYTES);
}

static void run(void (*body)(struct core *core, void *opaque))
{
    struct core core;
    core_up(&core, core_first_seed());
    core_run(&core, body, NULL);
    core_down(&core);
}

ASH_CO_FN static uint64_t counted(struct core *core, const char *name)
{
    return job_counted(core_open_disk(core, job_describe_raw(core, name, -1), 0));
}

ASH_CO_FN static void together_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct job_counter counter = {{small_disk(core, "d0"), small_disk(core, "d1")}, 1, false};
    struct ash_job *jobs[2];
    core_spawn(core, job_count_on, &counter);
    ash_co_sleep(ash_prng_below(&core->prng, 100000));
    (void)core_file(core, "t0", SMALL_BYTES);
    (void)core_file(core, "t1", SMALL_BYTES);
    json_t *both = json_array();
    for (unsigned i = 0; i < 2; i++) {
        json_array_append_new(both, json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "backup",
                                              "device", i == 0 ? "d0" : "d1", "target",
                                              core_file(core, i == 0 ? "t0" : "t1", -1), "format",
                                              "raw", "auto-dismiss", 0));
    }
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_co_job_start_all(core->loop, both, NULL, NULL, jobs, &error);
    assert_int_equal(ret, 0);
    assert_int_equal(job_finish(core, jobs[0]), 0);
    assert_int_equal(job_finish(core, jobs[1]), 0);
    /* None is made if one cannot be. */
    json_object_set_new(json_array_get(both, 1), "target", json_string("no/such/file"));
    assert_true(ash_co_job_start_all(core->loop, both, NULL, NULL, jobs, &error) < 0);
    json_decref(both);
    counter.stop = true;
    core_join(core);
    uint64_t first = counted(core, "t0");
    uint64_t second = counted(core, "t1");
    assert_true(second <= first && first - second <= 1);
    assert_int_equal(ash_co_disk_close(counter.disk[0], NULL), 0);
    assert_int_equal(ash_co_disk_close(counter.disk[1], NULL), 0);
}

static void backups_of_a_transaction_are_of_one_moment(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(core_is_real() ? 5 : 50); seed++) {
        struct core core;
        core_up(&core, seed);
        core_run(&core, together_body, NULL);
        core_down(&core);
    }
}

static json_t *small_backup(const char *sync, const char *policy)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "backup", "device", "d", "target", "t",
                     "sync", sync, "on-target-error", policy);
}

struct one_write {
    struct ash_disk *disk;
    int ret;
};

static void write_once(struct core *core, void *opaque)
{
    struct one_write *write = opaque;
    char sector[512] = "new";
    (void)core;
    ash_co_assert_inside();
    write->ret = ash_disk_write(write->disk, 0, sector, sizeof(sector), 0);
}

/* Starts a backup, and a guest's write whose copy hangs in the target, which the caller releases.
 */
ASH_CO_FN static struct ash_job *hang_the_copy_for(struct core *core, struct one_write *write,
                                                   struct ash_node **target)
{
    char sector[512] = "old";
    *target = job_faulty_node(core, "t", SMALL_BYTES, json_object());
    assert_int_equal(ash_disk_write(write->disk, 0, sector, sizeof(sector), 0), 0);
    struct ash_job *job = job_start(core, small_backup("none", "report"));
    assert_int_equal(ash_fault_break(*target, "write_aio", "hang"), 0);
    core_spawn(core, write_once, write);
    while (!ash_fault_is_suspended(*target, "hang")) {
        ash_co_sleep(1000);
    }
    return job;
}

ASH_CO_FN static void dead_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct one_write write = {small_disk(core, "d"), 1};
    struct ash_node *target;
    struct ash_job *job = hang_the_copy_for(core, &write, &target);
    assert_int_equal(write.ret, 1);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), -ECANCELED);
    core_join(core);
    assert_int_equal(write.ret, 0);
    assert_int_equal(ash_co_disk_close(write.disk, NULL), 0);
    assert_int_equal(ash_fault_resume(target, "hang"), 0);
    ash_node_unref(target);
    while (!ash_list_empty(&ash_block_of(core->loop)->nodes)) {
        ash_co_sleep(1000);
    }
}

static void force_frees_guests_from_a_target_that_never_answers(void **state)
{
    (void)state;
    run(dead_body);
}

/* A guest's write waits for its copy, which hangs in the target -> cancel: the guest goes on, and
 * the job waits for the target; after that nobody uses it. Or until it is ended by force. */
ASH_CO_FN static void cancel_body(struct core *core, void *opaque)
{
    bool force = *(const bool *)opaque;
    struct one_write write = {small_disk(core, "d"), 1};
    struct ash_node *target;
    struct ash_job *job = hang_the_copy_for(core, &write, &target);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    core_join(core);
    assert_int_equal(write.ret, 0);
    ash_co_sleep(100000000);
    assert_int_not_equal(ash_job_state(job), ASH_JOB_CONCLUDED);
    if (force) {
        assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
        assert_int_equal(job_finish(core, job), -ECANCELED);
        assert_int_equal(ash_fault_resume(target, "hang"), 0);
    } else {
        assert_int_equal(ash_fault_resume(target, "hang"), 0);
        assert_int_equal(job_finish(core, job), -ECANCELED);
        assert_true(ash_list_empty(&target->parents));
    }
    assert_int_equal(ash_co_disk_close(write.disk, NULL), 0);
    ash_node_unref(target);
    while (!ash_list_empty(&ash_block_of(core->loop)->nodes)) {
        ash_co_sleep(1000);
    }
}

/* backup, sync=none: reads for a guest, held ... cancelled ........ ends, and has not the new
 * guest:             waits for that ............. goes on, writes                         */
ASH_CO_FN static void late_read_body(struct core *core, void *opaque)
{
    char sector[512] = "old";
    (void)opaque;
    json_t *description = json_pack("{s:s, s:s, s:o}", "driver", "fault", "node-name", "d", "file",
                                    job_describe_raw(core, "d", SMALL_BYTES));
    struct one_write write = {core_open_disk(core, description, ASH_NODE_WRITE), 1};
    struct ash_node *source = ash_disk_node(write.disk);
    assert_int_equal(ash_disk_write(write.disk, 0, sector, sizeof(sector), 0), 0);
    struct ash_node *target = job_faulty_node(core, "t", SMALL_BYTES, json_object());
    struct ash_job *job = job_start(core, small_backup("none", "report"));
    assert_int_equal(ash_fault_break(source, "read_aio", "hang"), 0);
    core_spawn(core, write_once, &write);
    while (!ash_fault_is_suspended(source, "hang")) {
        ash_co_sleep(1000);
    }
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    core_join(core);
    assert_int_equal(write.ret, 0);
    assert_int_equal(ash_fault_resume(source, "hang"), 0);
    assert_int_equal(job_finish(core, job), -ECANCELED);
    assert_int_equal(ash_co_disk_close(write.disk, NULL), 0);
    ash_node_unref(target);
    struct ash_disk *disk = core_open_disk(core, job_describe_raw(core, "t", -1), 0);
    assert_int_equal(ash_disk_read(disk, 0, sector, sizeof(sector)), 0);
    assert_string_equal(sector, ""); /* it was not copied */
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static void what_is_read_after_guests_were_let_go_is_not_copied(void **state)
{
    (void)state;
    run(late_read_body);
}

static void a_backup_that_was_cancelled_leaves_its_target_to_others(void **state)
{
    (void)state;
    for (int force = 0; force < 2; force++) {
        struct core core;
        bool by_force = force == 1;
        core_up(&core, core_first_seed());
        core_run(&core, cancel_body, &by_force);
        core_down(&core);
    }
}

ASH_CO_FN static void none_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct one_write write = {small_disk(core, "d"), 1};
    struct ash_node *target = job_faulty_node(core, "t", SMALL_BYTES, json_object());
    char sector[512] = "old";
    assert_int_equal(ash_disk_write(write.disk, 0, sector, sizeof(sector), 0), 0);
    assert_int_equal(ash_disk_write(write.disk, CLUSTER, sector, sizeof(sector), 0), 0);
    struct ash_job *job = job_start(core, small_backup("none", "report"));
    core_spawn(core, write_once, &write);
    core_join(core);
    assert_int_equal(write.ret, 0);
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), -ECANCELED);
    assert_int_equal(ash_co_disk_close(write.disk, NULL), 0);
    ash_node_unref(target);
    assert_int_equal(counted(core, "t"), *(uint64_t *)(void *)sector);
}

static void sync_none_copies_what_guests_overwrite(void **state)
{
    (void)state;
    run(none_body);
}

ASH_CO_FN static void stop_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_disk *disk = small_disk(core, "d");
    struct ash_node *target =
        job_faulty_node(core, "t", SMALL_BYTES,
                        json_pack("{s:[{s:s, s:i, s:b}]}", "inject-error", "iotype", "write",
                                  "errno", ENOSPC, "once", 1));
    char sector[512] = "old";
    assert_int_equal(ash_disk_write(disk, 0, sector, sizeof(sector), 0), 0);
    struct ash_job *job = job_start(core, small_backup("full", "enospc"));
    job_wait_for(job, ASH_JOB_PAUSED);
    assert_int_equal(ash_job_state(job), ASH_JOB_PAUSED);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    ash_node_unref(target);
    assert_int_equal(counted(core, "t"), *(uint64_t *)(void *)sector);
}

static void a_job_that_stopped_for_space_goes_on(void **state)
{
    (void)state;
    run(stop_body);
}

ASH_CO_FN static void bad_body(struct core *core, void *opaque)
{
    static const char *const bad[][3] = {
        {"sync", "incremental", "sync=incremental needs 'bitmap'"},
        {"sync", "bitmap", "sync=bitmap needs 'bitmap'"},
        {"bitmap", "b", "'bitmap' needs 'bitmap-mode'"},
        {"bitmap-mode", "always", "'bitmap-mode' needs 'bitmap'"},
        {"target", "d", "'d' cannot be backed up to itself"},
        {"fleecing", "t", "The fleecing image cannot be the target"},
        {"device", "nobody", "nobody"},
        {"compress", "on", "takes no compressed clusters"},
    };
    (void)opaque;
    struct ash_disk *disk = small_disk(core, "d");
    struct ash_node *target = job_faulty_node(core, "t", SMALL_BYTES, json_object());
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ash_error error = ASH_ERROR_INIT;
        struct ash_job *job;
        json_t *description = small_backup("full", "report");
        json_object_set_new(description, bad[i][0], json_string(bad[i][1]));
        assert_true(ash_co_job_start(core->loop, description, NULL, NULL, &job, &error) < 0);
        json_decref(description);
        if (strstr(error.message, bad[i][2]) == NULL) {
            print_message("%s\n", error.message);
        }
        assert_non_null(strstr(error.message, bad[i][2]));
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    ash_node_unref(target);
}

static void descriptions_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    run(bad_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backup_under_guests_is_of_one_moment),
        cmocka_unit_test(backups_of_a_transaction_are_of_one_moment),
        cmocka_unit_test(force_frees_guests_from_a_target_that_never_answers),
        cmocka_unit_test(a_backup_that_was_cancelled_leaves_its_target_to_others),
        cmocka_unit_test(what_is_read_after_guests_were_let_go_is_not_copied),
        cmocka_unit_test(sync_none_copies_what_guests_overwrite),
        cmocka_unit_test(a_job_that_stopped_for_space_goes_on),
        cmocka_unit_test(descriptions_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
