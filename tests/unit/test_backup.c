/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backing up under guests: the target holds what the source held when the job was started, and the
 * source what the guests wrote. */
#include "tests/unit/unit.h"
#include "block/bitmap/bitmap.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

enum kind { KIND_FULL, KIND_TOP, KIND_INCREMENTAL, KINDS };
enum ending { END_WELL, END_CANCEL, END_FORCE, ENDINGS };

static unsigned seen[KINDS][ENDINGS];

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
    bool fleecing;
    const char *bitmap_mode; /* NULL: no bitmap */
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
    int ret = ash_image_create(core->loop, core_file(core, name, -1), format, bytes, options, &error);
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
    json_t *description = json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "backup", "device",
                                    job_layer(chain, 0)->name, "sync", sync[kind], "target", name,
                                    "compress", plan->compress);
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
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = describe_target(core, chain, plan);
    int ret = ash_co_disk_open(core->loop, description, ASH_NODE_CHECK, &disk, &error);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, error.message);
    }
    assert_int_equal(ret, 0);
    json_decref(description);
    return disk;
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
    plan->bitmap_mode = modes[ash_prng_below(&core->prng, 4)];
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

ASH_CO_FN static void backup_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct chain chain;
    struct guest guests[GUESTS];
    struct plan plan;
    struct moment moment;
    struct ash_bitmap *bitmap;
    draw_plan(core, &plan);
    if (getenv("SEED")) print_message("kind %d ending %d qcow2 %d compress %d fleecing %d mode %s\n", plan.kind, plan.ending, plan.qcow2, plan.compress, plan.fleecing, plan.bitmap_mode);
    job_draw_layers(core, &chain, 1 + (unsigned)(core->seed % 3));
    chain_up(core, &chain);
    create(core, "target", plan.qcow2 ? "qcow2" : "raw", chain.bytes[0]);
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
    job_run_seeds(core_is_real() ? 60 : 400, backup_body);
    for (unsigned i = 0; i < KINDS * ENDINGS; i++) {
        assert_true(getenv("SEED") != NULL || seen[i / ENDINGS][i % ENDINGS] > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backup_under_guests_is_of_one_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
