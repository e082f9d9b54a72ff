/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/verify.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/unit/qcow2_rig.h"

uint32_t verify_peer_runs;

/* --- the file's own tables --- */

static bool is_dirty(struct run *run)
{
    uint8_t head[80] = {0};
    ash_sim_file_read(run->world, "image", 0, head, sizeof(head));
    return !run->v2 && (head[79] & 1);
}

static void audit(struct run *run, bool counted, bool leaks_allowed)
{
    struct rig rig = {.world = run->world};
    struct audit a;
    audit_image(&rig, "image", counted, &a);
    if (a.corruptions > 0) {
        run_fail(run, "%" PRIu64 " corruptions in the file, the first: %s", a.corruptions, a.first);
    }
    if (a.leaks > 0 && !leaks_allowed) {
        run_fail(run, "%" PRIu64 " leaks are left in the file", a.leaks);
    }
}

/* --- qemu-img --- */

static char peer_directory[] = "/tmp/ashlar-crash-XXXXXX";
static bool peer_ready;

bool verify_has_peer(void)
{
    static int known = -1;
    if (known < 0) {
        known = system("qemu-img --version >/dev/null 2>&1") == 0;
    }
    return known;
}

void verify_end(void)
{
    if (peer_ready) {
        char path[64];
        for (const char *const *name = (const char *const[]){"image", "base", "out", NULL}; *name;
             name++) {
            snprintf(path, sizeof(path), "%s/%s", peer_directory, *name);
            unlink(path);
        }
        rmdir(peer_directory);
    }
}

static void peer_show_output(void)
{
    char command[100];
    snprintf(command, sizeof(command), "head -n 20 %s/out >&2", peer_directory);
    if (system(command) != 0) {
        fprintf(stderr, "(no output)\n");
    }
}

static int peer_check(const char *options)
{
    char command[200];
    snprintf(command, sizeof(command), "qemu-img check -f qcow2 %s %s/image >%s/out 2>&1", options,
             peer_directory, peer_directory);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* 0: clean, 3: leaks. A dirty image has to be one that it can repair. */
static void peer(struct run *run, bool dirty, bool leaks_allowed)
{
    char path[64];
    if (!peer_ready && mkdtemp(peer_directory) == NULL) {
        run_fail(run, "no directory for qemu-img");
    }
    peer_ready = true;
    verify_peer_runs++;
    snprintf(path, sizeof(path), "%s/image", peer_directory);
    int ret = ash_sim_file_export(run->world, "image", path);
    if (ret == 0 && run->backing) {
        snprintf(path, sizeof(path), "%s/base", peer_directory);
        ret = ash_sim_file_export(run->world, "base", path);
    }
    if (ret < 0) {
        run_fail(run, "the image cannot be exported: %d", ret);
    }
    int status = dirty ? peer_check("-r all") : 0;
    if (status == 0) {
        status = peer_check("");
    }
    if (status != 0 && !(status == 3 && leaks_allowed)) {
        peer_show_output();
        run_fail(run, "qemu-img check ends with %d", status);
    }
}

/* --- through the driver --- */

static bool was_dirty;

static void first_finding(struct ash_check *check, const char *sentence)
{
    char *first = check->opaque;
    if (first[0] == '\0') {
        g_strlcpy(first, sentence, 300);
    }
}

ASH_CO_FN static struct ash_check our_check(struct run *run, uint32_t fix, const char *when)
{
    struct ash_node *node = ash_disk_node(run->disk);
    struct ash_error error = ASH_ERROR_INIT;
    char first[300] = "";
    struct ash_check check = {.fix = fix, .report = first_finding, .opaque = first};
    if (node->driver->check(node, &check, &error) < 0) {
        run_fail(run, "%s: check failed: %s", when, error.message);
    }
    if (check.corruptions > 0 || check.check_errors > 0) {
        run_fail(run, "%s: check finds %" PRIu64 " corruptions and %" PRIu64 " errors, first: %s",
                 when, check.corruptions, check.check_errors, first);
    }
    return check;
}

ASH_CO_FN static void compare_contents(struct run *run, bool after_cut)
{
    uint64_t bytes = (uint64_t)run->model.sectors * MODEL_SECTOR;
    uint8_t *buffer = g_malloc(bytes);
    int ret = ash_disk_read(run->disk, 0, buffer, bytes);
    if (ret < 0) {
        run_fail(run, "reading it all failed: %d", ret);
    }
    for (uint32_t i = 0; i < run->model.sectors; i++) {
        uint32_t value;
        const char *wrong =
            model_check(&run->model, i, buffer + (uint64_t)i * MODEL_SECTOR, after_cut, &value);
        if (wrong) {
            run_fail(run, "%s: %s", after_cut ? "after the cut" : "after the repair", wrong);
        }
        if (after_cut) {
            model_settle(&run->model, i, value, true);
        }
    }
    g_free(buffer);
}

static int look(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    if (run_open(run, 0, &error) < 0) {
        run_fail(run, "after the cut it cannot be opened for reading: %s", error.message);
    }
    if (!was_dirty) {
        our_check(run, 0, "after the cut");
    }
    uint32_t sectors = (uint32_t)(ash_disk_bytes(run->disk) / MODEL_SECTOR);
    if (!model_settle_size(&run->model, sectors)) {
        run_fail(run, "after the cut it is %u sectors long", sectors);
    }
    compare_contents(run, true);
    return ash_co_disk_close(run->disk, &error);
}

void verify_after_cut(struct run *run, bool with_peer)
{
    was_dirty = is_dirty(run);
    if (was_dirty && !run->lazy) {
        run_fail(run, "the dirty bit is set without lazy refcounts");
    }
    audit(run, !was_dirty, true);
    if (with_peer) {
        peer(run, was_dirty, true);
    }
    run_boot(run);
    if (run_call(run, look) < 0) {
        run_fail(run, "closing after reading failed");
    }
    run_halt(run);
}

/* Opening for writing has repaired it if it was dirty. */
static int repair(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    if (run_open(run, ASH_NODE_WRITE | ASH_NODE_DISCARD, &error) < 0) {
        run_fail(run, "it cannot be opened for writing: %s", error.message);
    }
    struct ash_check check = our_check(run, ASH_CHECK_FIX_LEAKS, "in the repair");
    if (check.leaks > 0) {
        run_fail(run, "%" PRIu64 " leaks were not repaired", check.leaks);
    }
    compare_contents(run, false);
    return ash_co_disk_close(run->disk, &error);
}

void verify_repaired(struct run *run, bool with_peer)
{
    run_boot(run);
    if (run_call(run, repair) < 0) {
        run_fail(run, "closing after the repair failed");
    }
    run_halt(run);
    if (is_dirty(run)) {
        run_fail(run, "the dirty bit is set after a clean end");
    }
    audit(run, true, false);
    if (with_peer) {
        peer(run, false, false);
    }
}
