/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that are ended by force while I/O of theirs never ends: stream and commit, whose I/O goes
 * through the guests' own chain, and mirror and backup, whose source is that. The job ends, guests
 * and other disks go on, what others do to the chain is refused and not waited for, and what stays
 * behind gives everything back when it ends after all. */
#include "tests/unit/unit.h"
#include "block/filter/fault.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

#define CLUSTER (64 * KiB)
#define BYTES (2 * MiB)
#define END_NS_MAX UINT64_C(1000000000) /* from force-cancel to the end, the grace included */
#define BREAKS 64                       /* more than a job does at once */

static const char *const layers[] = {"top", "mid", "base"};
static const char *const faults[] = {"top-fault", "mid-fault", "base-fault"};
enum layer { TOP, MID, BASE, LAYERS };

/* Mid holds the first MiB, of twos, and base all, of ones. */
struct rig {
    struct core *core;
    struct ash_disk *disk;
    struct ash_disk *other;
    struct ash_job *job;
    unsigned nodes; /* of the other disk */
};

static json_t *describe(struct core *core, enum layer layer)
{
    return json_pack("{s:s, s:s, s:o, s:{s:s, s:s, s:{s:s, s:s}}}", "driver", "qcow2", "node-name",
                     layers[layer], "backing",
                     layer == BASE ? json_null() : describe(core, layer + 1), "file", "driver",
                     "fault", "node-name", faults[layer], "file", "driver", "file", "filename",
                     core_file(core, layers[layer], -1));
}

ASH_CO_FN static struct ash_disk *open_from(struct core *core, enum layer layer)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = describe(core, layer);
    int ret =
        ash_co_disk_open(core->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

ASH_CO_FN static int write_at(struct ash_disk *disk, uint64_t offset, uint64_t bytes, uint8_t value)
{
    uint8_t *data = g_malloc(bytes);
    memset(data, value, bytes);
    int ret = ash_disk_write(disk, offset, data, bytes, 0);
    g_free(data);
    return ret;
}

ASH_CO_FN static uint8_t byte_at(struct ash_disk *disk, uint64_t offset)
{
    uint8_t data[512];
    assert_int_equal(ash_disk_read(disk, offset, data, sizeof(data)), 0);
    return data[0];
}

static unsigned count_nodes(struct core *core)
{
    unsigned count = 0;
    ash_list_for_each (node, &ash_block_of(core->loop)->nodes, struct ash_node, nodes_link) {
        count++;
    }
    return count;
}

ASH_CO_FN static void rig_up(struct core *core, struct rig *rig)
{
    *rig = (struct rig){.core = core};
    for (enum layer layer = LAYERS; layer-- > TOP;) {
        const char *path = core_file(core, layers[layer], -1);
        assert_int_equal(ash_image_create(core->loop, path, "qcow2", BYTES, NULL, NULL), 0);
        if (layer != TOP) {
            struct ash_disk *disk = open_from(core, layer);
            assert_int_equal(write_at(disk, 0, layer == BASE ? BYTES : MiB, layer == BASE ? 1 : 2),
                             0);
            assert_int_equal(ash_co_disk_close(disk, NULL), 0);
        }
    }
    rig->other = job_raw_disk(core, "other", MiB);
    rig->nodes = count_nodes(core);
    rig->disk = open_from(core, TOP);
    assert_int_equal(write_at(rig->other, 0, CLUSTER, 9), 0);
}

static struct ash_node *fault_of(struct rig *rig, enum layer layer)
{
    struct ash_node *node = ash_node_find(rig->core->loop, faults[layer]);
    assert_non_null(node);
    return node;
}

/* So many requests that tell of the event never end. */
static void stop(struct rig *rig, enum layer layer, const char *event, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(ash_fault_break(fault_of(rig, layer), event, "stop"), 0);
    }
}

ASH_CO_FN static void wait_until_stopped(struct rig *rig, enum layer layer)
{
    for (unsigned i = 0; !ash_fault_is_suspended(fault_of(rig, layer), "stop"); i++) {
        assert_true(i < 100000);
        ash_co_sleep(10000);
    }
    ash_co_sleep(5000000); /* and whoever else will be */
}

ASH_CO_FN static void end_by_force(struct rig *rig)
{
    uint64_t begin_ns = ash_loop_now(rig->core->loop);
    assert_int_equal(ash_co_job_control(rig->job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(rig->core, rig->job), -ECANCELED);
    assert_true(ash_loop_now(rig->core->loop) - begin_ns < END_NS_MAX);
}

ASH_CO_FN static int try_job(struct rig *rig, json_t *description)
{
    struct ash_job *job;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_co_job_start(rig->core->loop, description, NULL, NULL, &job, &error);
    json_decref(description);
    if (ret == 0) {
        ash_job_unref(job);
    }
    return ret;
}

static json_t *stream(void)
{
    return json_pack("{s:s, s:s}", "type", "stream", "device", "top");
}

static json_t *commit(void)
{
    return json_pack("{s:s, s:s, s:s}", "type", "commit", "device", "top", "top-node", "mid");
}

static json_t *commit_active(void)
{
    return json_pack("{s:s, s:s}", "type", "commit", "device", "top");
}

/* What may be done to the disk is done, and the rest is refused: nothing waits. */
ASH_CO_FN static void others_go_on(struct rig *rig)
{
    struct core *core = rig->core;
    struct ash_error error = ASH_ERROR_INIT;
    uint64_t begin_ns = ash_loop_now(core->loop);
    assert_int_equal(write_at(rig->other, 0, CLUSTER, 9), 0);
    json_t *filter =
        json_pack("{s:s, s:s, s:s}", "driver", "throttle", "node-name", "t", "file", "top");
    assert_int_equal(ash_graft_insert_filter(core->loop, filter, &error), 0);
    json_decref(filter);
    assert_int_equal(ash_graft_remove_filter(core->loop, "t", &error), 0);
    assert_int_equal(try_job(rig, stream()), -EBUSY);
    assert_int_equal(try_job(rig, commit()), -EBUSY);
    assert_int_equal(try_job(rig, commit_active()), -EBUSY);
    struct ash_node *base = ash_node_find(core->loop, "base");
    assert_int_equal(ash_graft_set_flags(base, ASH_NODE_NO_FLUSH, 0, &error), -EBUSY);
    assert_non_null(strstr(error.message, "has not ended yet"));
    assert_true(ash_loop_now(core->loop) - begin_ns < END_NS_MAX);
}

/* What was left behind ends now. How long that takes depends on the machine. */
ASH_CO_FN static void let_go(struct rig *rig, enum layer layer)
{
    uint64_t end_ns = ash_loop_now(rig->core->loop) + JOB_NS_MAX;
    assert_int_equal(ash_fault_remove_break(fault_of(rig, layer), "stop"), 0);
    ash_co_sleep(100000000);
    while (ash_block_of(rig->core->loop)->forsaken > 0) {
        assert_true(ash_loop_now(rig->core->loop) < end_ns);
        ash_co_sleep(1000000);
    }
}

/* Whoever was the last to use the images has closed them. */
ASH_CO_FN static void wait_until_closed(struct rig *rig)
{
    uint64_t end_ns = ash_loop_now(rig->core->loop) + JOB_NS_MAX;
    while (count_nodes(rig->core) > rig->nodes) {
        assert_true(ash_loop_now(rig->core->loop) < end_ns);
        ash_co_sleep(1000000);
    }
}

/* The chain is as before the job, but for what the guest wrote, and can be worked on again. */
ASH_CO_FN static void all_is_given_back(struct rig *rig)
{
    struct core *core = rig->core;
    assert_int_equal(ash_block_of(core->loop)->forsaken, 0);
    assert_false(ash_node_writable(ash_node_find(core->loop, "base")));
    assert_int_equal(byte_at(rig->disk, MiB / 2), 2);
    assert_int_equal(byte_at(rig->disk, BYTES - CLUSTER), 1);
    assert_int_equal(job_finish(core, job_start(core, commit())), 0);
    assert_int_equal(job_finish(core, job_start(core, stream())), 0);
    assert_int_equal(byte_at(rig->disk, MiB / 2), 2);
    assert_int_equal(byte_at(rig->disk, BYTES - CLUSTER), 1);
}

ASH_CO_FN static void rig_down(struct rig *rig)
{
    assert_int_equal(ash_co_disk_close(rig->disk, NULL), 0);
    assert_int_equal(ash_co_disk_close(rig->other, NULL), 0);
    assert_true(ash_list_empty(&ash_block_of(rig->core->loop)->nodes));
}

/* --- stream --- */

/* stream: looks at base, held ... ended by force
 * guest:                                         writes what would have been looked at */
CORE_TEST(a_stream_that_looks_at_an_image_that_never_answers_ends)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig);
    stop(&rig, BASE, "read_aio", BREAKS);
    rig.job = job_start(core, stream());
    wait_until_stopped(&rig, BASE);
    end_by_force(&rig);
    others_go_on(&rig);
    assert_int_equal(write_at(rig.disk, 0, CLUSTER, 7), 0);
    let_go(&rig, BASE);
    assert_int_equal(byte_at(rig.disk, 0), 7);
    all_is_given_back(&rig);
    rig_down(&rig);
}

/* stream: reads base, held ... ended by force ............................... is answered, writes
 * nothing guest:                                     writes and discards there at once */
CORE_TEST(a_stream_that_reads_an_image_that_never_answers_ends_and_lets_guests_go_on)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig);
    assert_int_equal(byte_at(rig.disk, MiB), 1); /* the tables are in memory */
    assert_int_equal(byte_at(rig.disk, 0), 2);
    stop(&rig, BASE, "read_aio", BREAKS);
    rig.job = job_start(core, stream());
    wait_until_stopped(&rig, BASE);
    end_by_force(&rig);
    assert_int_equal(write_at(rig.disk, MiB, CLUSTER, 7), 0);
    assert_int_equal(ash_disk_zero(rig.disk, MiB + CLUSTER, CLUSTER, 0), 0);
    others_go_on(&rig);
    let_go(&rig, BASE);
    assert_int_equal(byte_at(rig.disk, MiB), 7);
    assert_int_equal(byte_at(rig.disk, MiB + CLUSTER), 0);
    all_is_given_back(&rig);
    rig_down(&rig);
}

struct writer {
    struct ash_disk *disk;
    uint64_t offset;
    bool done;
};

static void write_body(struct core *core, void *opaque)
{
    struct writer *writer = opaque;
    (void)core;
    ash_co_assert_inside();
    assert_int_equal(write_at(writer->disk, writer->offset, CLUSTER, 7), 0);
    writer->done = true;
}

/* stream: writes the overlay, held ... ended by force ............. ends its write
 * guest:                                              writes there ............... and wins
 * guest:                                              writes elsewhere */
CORE_TEST(a_stream_whose_write_never_ends_ends_and_holds_up_only_who_writes_there)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig);
    assert_int_equal(write_at(rig.disk, MiB - CLUSTER, CLUSTER, 2), 0); /* tables are made */
    assert_int_equal(ash_disk_flush(rig.disk), 0);
    stop(&rig, TOP, "write_aio", 1);
    rig.job = job_start(core, stream());
    wait_until_stopped(&rig, TOP);
    end_by_force(&rig);
    others_go_on(&rig);
    /* Which of the two was stopped is not said: one of them waits, and the other does not. */
    struct writer writers[] = {{.disk = rig.disk, .offset = 0}, {.disk = rig.disk, .offset = MiB}};
    core_spawn(core, write_body, &writers[0]);
    core_spawn(core, write_body, &writers[1]);
    ash_co_sleep(100000000);
    assert_int_equal(writers[0].done + writers[1].done, 1);
    let_go(&rig, TOP);
    core_join(core);
    assert_int_equal(byte_at(rig.disk, 0), 7);
    assert_int_equal(byte_at(rig.disk, MiB), 7);
    all_is_given_back(&rig);
    rig_down(&rig);
}

/* --- commit --- */

ASH_CO_FN static void end_forced_commit(struct core *core, json_t *description, const char *event)
{
    struct rig rig;
    rig_up(core, &rig);
    stop(&rig, BASE, event, BREAKS);
    rig.job = job_start(core, description);
    wait_until_stopped(&rig, BASE);
    end_by_force(&rig);
    assert_string_equal(ash_disk_node(rig.disk)->name, "top");
    assert_int_equal(write_at(rig.disk, 0, CLUSTER, 7), 0);
    assert_int_equal(byte_at(rig.disk, MiB / 2), 2);
    others_go_on(&rig);
    let_go(&rig, BASE);
    assert_int_equal(byte_at(rig.disk, 0), 7);
    all_is_given_back(&rig);
    rig_down(&rig);
}

CORE_TEST(a_commit_to_a_base_that_never_answers_ends)
{
    (void)opaque;
    end_forced_commit(core, commit(), "write_aio");
}

CORE_TEST(a_commit_to_a_base_that_never_gets_stable_ends)
{
    (void)opaque;
    end_forced_commit(core, commit(), "flush_to_disk");
}

CORE_TEST(a_commit_of_the_active_image_to_a_base_that_never_answers_ends)
{
    (void)opaque;
    end_forced_commit(core, commit_active(), "write_aio");
}

CORE_TEST(a_commit_of_the_active_image_to_a_base_that_never_gets_stable_ends)
{
    (void)opaque;
    end_forced_commit(core, commit_active(), "flush_to_disk");
}

/* What a commit reads never comes: nothing of it is written when it comes after all. */
CORE_TEST(a_commit_of_an_image_that_never_answers_ends_and_writes_nothing_late)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig);
    assert_int_equal(byte_at(rig.disk, 0), 2); /* the tables are in memory */
    stop(&rig, MID, "read_aio", BREAKS);
    rig.job = job_start(core, commit());
    wait_until_stopped(&rig, MID);
    end_by_force(&rig);
    others_go_on(&rig);
    let_go(&rig, MID);
    assert_int_equal(ash_co_disk_close(rig.disk, NULL), 0);
    rig.disk = open_from(core, BASE);
    assert_int_equal(byte_at(rig.disk, 0), 1);
    assert_int_equal(ash_co_disk_close(rig.disk, NULL), 0);
    rig.disk = open_from(core, TOP);
    all_is_given_back(&rig);
    rig_down(&rig);
}

/* --- closing, and targets --- */

/* The disk is closed while what was left behind still waits; then the images close, too. */
ASH_CO_FN static void close_meanwhile(struct core *core, json_t *description, const char *event)
{
    struct rig rig;
    rig_up(core, &rig);
    stop(&rig, BASE, event, BREAKS);
    rig.job = job_start(core, description);
    wait_until_stopped(&rig, BASE);
    end_by_force(&rig);
    uint64_t begin_ns = ash_loop_now(core->loop);
    assert_int_equal(ash_co_disk_close(rig.disk, NULL), 0);
    assert_true(ash_loop_now(core->loop) - begin_ns < END_NS_MAX);
    assert_int_equal(write_at(rig.other, 0, CLUSTER, 9), 0);
    let_go(&rig, BASE);
    wait_until_closed(&rig);
    rig.disk = open_from(core, TOP);
    all_is_given_back(&rig);
    rig_down(&rig);
}

CORE_TEST(a_disk_is_closed_though_a_stream_left_io_behind)
{
    (void)opaque;
    close_meanwhile(core, stream(), "read_aio");
}

CORE_TEST(a_disk_is_closed_though_a_commit_left_io_behind)
{
    (void)opaque;
    close_meanwhile(core, commit(), "write_aio");
}

CORE_TEST(a_disk_is_closed_though_a_commit_of_the_active_image_left_io_behind)
{
    (void)opaque;
    close_meanwhile(core, commit_active(), "write_aio");
}

/* The job copies the disk to a target that stops. */
ASH_CO_FN static void end_forced_mirror(struct core *core, const char *event)
{
    struct rig rig;
    rig_up(core, &rig);
    json_t *target = json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "fault", "node-name", "target",
                               "file", "driver", "file", "filename", core_file(core, "copy", 0));
    struct ash_node *node;
    assert_int_equal(ash_node_open(core->loop, target, ASH_NODE_WRITE, &node, NULL), 0);
    json_decref(target);
    for (unsigned i = 0; i < BREAKS; i++) {
        assert_int_equal(ash_fault_break(node, event, "stop"), 0);
    }
    rig.job = job_start(
        core, json_pack("{s:s, s:s, s:s}", "type", "mirror", "device", "top", "target", "target"));
    for (unsigned i = 0; !ash_fault_is_suspended(node, "stop"); i++) {
        assert_true(i < 100000);
        ash_co_sleep(10000);
    }
    end_by_force(&rig);
    assert_int_equal(write_at(rig.disk, 0, CLUSTER, 7), 0);
    assert_int_equal(write_at(rig.other, 0, CLUSTER, 7), 0);
    assert_int_equal(ash_fault_remove_break(node, "stop"), 0);
    assert_int_equal(ash_node_unref(node), 0);
    ash_co_sleep(100000000);
    rig_down(&rig);
}

/* A target that takes all writes and never says that they are stable. */
CORE_TEST(force_ends_a_mirror_whose_target_never_gets_stable)
{
    (void)opaque;
    end_forced_mirror(core, "flush_to_disk");
}

CORE_TEST(force_ends_a_mirror_whose_target_never_answers)
{
    (void)opaque;
    end_forced_mirror(core, "write_aio");
}

/* --- sources --- */

static json_t *mirror(struct core *core)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "type", "mirror", "device", "top", "sync",
                     "full", "target", core_file(core, "copy", -1), "format", "raw",
                     "filter-node-name", "filter");
}

static json_t *backup(struct core *core)
{
    json_t *description = mirror(core);
    json_object_set_new(description, "type", json_string("backup"));
    return description;
}

ASH_CO_FN static struct ash_node *open_fleece(struct core *core)
{
    json_t *image = json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "fault", "node-name", "fleece",
                              "file", "driver", "file", "filename", core_file(core, "fleece", 0));
    struct ash_node *node;
    assert_int_equal(ash_node_open(core->loop, image, ASH_NODE_WRITE, &node, NULL), 0);
    json_decref(image);
    return node;
}

static json_t *fleecing(struct core *core, const char *image)
{
    json_t *description = backup(core);
    json_object_set_new(description, "fleecing", json_string(image));
    return description;
}

/* The job copies a disk, a layer of which stops. */
ASH_CO_FN static void begin_held_copy(struct core *core, struct rig *rig, json_t *description)
{
    rig_up(core, rig);
    core_file(core, "copy", 0);
    assert_int_equal(byte_at(rig->disk, MiB), 1); /* the tables are in memory */
    assert_int_equal(byte_at(rig->disk, 0), 2);
    stop(rig, BASE, "read_aio", BREAKS);
    rig->job = job_start(core, description);
    wait_until_stopped(rig, BASE);
}

/* The images of the job are free, and so is the name of its filter: it can be done now. */
ASH_CO_FN static void again(struct core *core, json_t *description)
{
    bool is_mirror = strcmp(json_string_value(json_object_get(description, "type")), "mirror") == 0;
    uint64_t end_ns = ash_loop_now(core->loop) + JOB_NS_MAX;
    while (g_hash_table_contains(ash_block_of(core->loop)->names, "filter")) { /* closing, too */
        assert_true(ash_loop_now(core->loop) < end_ns);
        ash_co_sleep(1000000);
    }
    struct ash_job *job = job_start(core, description);
    if (is_mirror) {
        job_wait_for(job, ASH_JOB_READY);
        assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    }
    assert_int_equal(job_finish(core, job), 0);
}

/* job:   reads the source, held ... ended by force ............... is answered, writes nothing
 * guest:                                          writes and reads beside it at once */
ASH_CO_FN static void end_held_copy(struct core *core, json_t *description)
{
    struct rig rig;
    begin_held_copy(core, &rig, json_incref(description));
    end_by_force(&rig);
    assert_string_equal(ash_disk_node(rig.disk)->name, "top");
    assert_int_equal(write_at(rig.disk, MiB, CLUSTER, 7), 0);
    assert_int_equal(byte_at(rig.disk, 0), 2);
    others_go_on(&rig);
    let_go(&rig, BASE);
    assert_int_equal(byte_at(rig.disk, MiB), 7);
    again(core, description);
    all_is_given_back(&rig);
    rig_down(&rig);
}

CORE_TEST(a_mirror_of_a_source_that_never_answers_ends)
{
    (void)opaque;
    end_held_copy(core, mirror(core));
}

CORE_TEST(a_backup_of_a_source_that_never_answers_ends)
{
    (void)opaque;
    end_held_copy(core, backup(core));
}

/* The snapshot that is read stays on its filter, off the guests' way. */
CORE_TEST(a_backup_with_fleecing_of_a_source_that_never_answers_ends)
{
    (void)opaque;
    end_held_copy(core, fleecing(core, core_file(core, "fleece", 0)));
}

/* backup: reads the source, held ....................... ended by force
 * guest:                          writes there, waits ............... and goes on */
ASH_CO_FN static void let_guest_go(struct core *core, json_t *description)
{
    struct rig rig;
    begin_held_copy(core, &rig, description);
    struct writer writer = {.disk = rig.disk, .offset = MiB};
    core_spawn(core, write_body, &writer);
    ash_co_sleep(100000000);
    assert_false(writer.done);
    end_by_force(&rig);
    core_join(core);
    let_go(&rig, BASE);
    assert_int_equal(byte_at(rig.disk, MiB), 7);
    all_is_given_back(&rig);
    rig_down(&rig);
}

CORE_TEST(a_guest_that_waits_for_a_copy_of_a_source_that_never_answers_goes_on)
{
    (void)opaque;
    let_guest_go(core, backup(core));
}

CORE_TEST(a_guest_that_waits_for_fleecing_from_a_source_that_never_answers_goes_on)
{
    (void)opaque;
    let_guest_go(core, fleecing(core, core_file(core, "fleece", 0)));
}

/* What a guest has changed is in the fleecing image, from which it never comes. */
CORE_TEST(a_backup_whose_fleecing_image_never_answers_ends)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig);
    core_file(core, "copy", 0);
    struct ash_node *fleece = open_fleece(core);
    for (unsigned i = 0; i < BREAKS; i++) {
        assert_int_equal(ash_fault_break(fleece, "read_aio", "stop"), 0);
    }
    json_t *description = fleecing(core, "fleece");
    json_object_set_new(description, "speed", json_integer(MiB));
    rig.job = job_start(core, description);
    assert_int_equal(write_at(rig.disk, MiB, CLUSTER, 7), 0);
    assert_int_equal(ash_co_job_control(rig.job, ASH_JOB_SET_SPEED, 0, NULL), 0);
    for (unsigned i = 0; !ash_fault_is_suspended(fleece, "stop"); i++) {
        assert_true(i < 100000);
        ash_co_sleep(10000);
    }
    end_by_force(&rig);
    assert_int_equal(write_at(rig.disk, MiB, CLUSTER, 8), 0);
    others_go_on(&rig);
    assert_int_equal(ash_fault_remove_break(fleece, "stop"), 0);
    ash_co_sleep(100000000);
    assert_int_equal(byte_at(rig.disk, MiB), 8);
    again(core, fleecing(core, "fleece"));
    all_is_given_back(&rig);
    assert_int_equal(ash_node_unref(fleece), 0);
    rig_down(&rig);
}

/* The disk is closed while its copy still waits for it; then the images close, too. */
ASH_CO_FN static void close_held_copy(struct core *core, json_t *description)
{
    struct rig rig;
    begin_held_copy(core, &rig, description);
    end_by_force(&rig);
    uint64_t begin_ns = ash_loop_now(core->loop);
    assert_int_equal(ash_co_disk_close(rig.disk, NULL), 0);
    assert_true(ash_loop_now(core->loop) - begin_ns < END_NS_MAX);
    assert_int_equal(write_at(rig.other, 0, CLUSTER, 9), 0);
    let_go(&rig, BASE);
    wait_until_closed(&rig);
    rig.disk = open_from(core, TOP);
    all_is_given_back(&rig);
    rig_down(&rig);
}

CORE_TEST(a_disk_is_closed_though_a_mirror_left_a_read_of_it_behind)
{
    (void)opaque;
    close_held_copy(core, mirror(core));
}

CORE_TEST(a_disk_is_closed_though_a_backup_left_a_read_of_it_behind)
{
    (void)opaque;
    close_held_copy(core, backup(core));
}

CORE_TEST(a_disk_is_closed_though_a_backup_with_fleecing_left_a_read_of_it_behind)
{
    (void)opaque;
    close_held_copy(core, fleecing(core, core_file(core, "fleece", 0)));
}

/* A filter of another job below could not be taken out under what stays behind: so that is waited
 * for. */
CORE_TEST(a_mirror_above_another_jobs_filter_waits_for_its_reads)
{
    struct rig rig;
    (void)opaque;
    rig_up(core, &rig);
    core_file(core, "copy", 0);
    core_file(core, "copy-mid", 0);
    struct ash_job *below =
        job_start(core, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "type", "backup", "device",
                                  "mid", "sync", "none", "target", core_file(core, "copy-mid", -1),
                                  "format", "raw", "filter-node-name", "below"));
    stop(&rig, BASE, "read_aio", BREAKS);
    rig.job = job_start(core, mirror(core));
    wait_until_stopped(&rig, BASE);
    assert_int_equal(ash_co_job_control(rig.job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    ash_co_sleep(END_NS_MAX / 2);
    assert_int_equal(ash_job_state(rig.job), ASH_JOB_ABORTING);
    let_go(&rig, BASE);
    assert_int_equal(job_finish(core, rig.job), -ECANCELED);
    assert_int_equal(ash_co_job_control(below, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, below), -ECANCELED);
    all_is_given_back(&rig);
    rig_down(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_that_looks_at_an_image_that_never_answers_ends),
        cmocka_unit_test(
            a_stream_that_reads_an_image_that_never_answers_ends_and_lets_guests_go_on),
        cmocka_unit_test(a_stream_whose_write_never_ends_ends_and_holds_up_only_who_writes_there),
        cmocka_unit_test(a_commit_to_a_base_that_never_answers_ends),
        cmocka_unit_test(a_commit_to_a_base_that_never_gets_stable_ends),
        cmocka_unit_test(a_commit_of_the_active_image_to_a_base_that_never_answers_ends),
        cmocka_unit_test(a_commit_of_the_active_image_to_a_base_that_never_gets_stable_ends),
        cmocka_unit_test(a_commit_of_an_image_that_never_answers_ends_and_writes_nothing_late),
        cmocka_unit_test(a_disk_is_closed_though_a_stream_left_io_behind),
        cmocka_unit_test(a_disk_is_closed_though_a_commit_left_io_behind),
        cmocka_unit_test(a_disk_is_closed_though_a_commit_of_the_active_image_left_io_behind),
        cmocka_unit_test(force_ends_a_mirror_whose_target_never_gets_stable),
        cmocka_unit_test(force_ends_a_mirror_whose_target_never_answers),
        cmocka_unit_test(a_mirror_of_a_source_that_never_answers_ends),
        cmocka_unit_test(a_backup_of_a_source_that_never_answers_ends),
        cmocka_unit_test(a_backup_with_fleecing_of_a_source_that_never_answers_ends),
        cmocka_unit_test(a_guest_that_waits_for_a_copy_of_a_source_that_never_answers_goes_on),
        cmocka_unit_test(a_guest_that_waits_for_fleecing_from_a_source_that_never_answers_goes_on),
        cmocka_unit_test(a_backup_whose_fleecing_image_never_answers_ends),
        cmocka_unit_test(a_disk_is_closed_though_a_mirror_left_a_read_of_it_behind),
        cmocka_unit_test(a_disk_is_closed_though_a_backup_left_a_read_of_it_behind),
        cmocka_unit_test(a_disk_is_closed_though_a_backup_with_fleecing_left_a_read_of_it_behind),
        cmocka_unit_test(a_mirror_above_another_jobs_filter_waits_for_its_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
