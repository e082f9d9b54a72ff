/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* O_DIRECT writes in the last, partial block of a file: whole blocks are written, and the file
 * stays as long as it is. On the simulator, and on each engine with files on the disk of the build.
 */
#include "tests/unit/unit.h"
#include <sys/stat.h>
#include "tests/unit/core_rig.h"

#define TAIL_BYTES 9000u
#define GUESTS 5

struct tail {
    const char *path;
    struct ash_disk *disk;
    uint64_t start; /* of the last TAIL_BYTES, or of the file */
    uint64_t bytes; /* length of the file */
    uint8_t model[TAIL_BYTES + 4096];
};

/* Neighbours in one block. */
struct guest {
    struct tail *tail;
    uint32_t from; /* in the tail */
    uint32_t bytes;
};

static uint64_t length_of(struct core *core, const char *path)
{
    if (core->world != NULL) {
        return (uint64_t)ash_sim_file_bytes(core->world, path);
    }
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

ASH_CO_FN static void change(struct core *core, struct guest *guest)
{
    struct tail *tail = guest->tail;
    uint32_t at = (uint32_t)ash_prng_below(&core->prng, guest->bytes);
    uint32_t bytes = 1 + (uint32_t)ash_prng_below(&core->prng, guest->bytes - at);
    uint32_t flags = ash_prng_below(&core->prng, 4) == 0 ? ASH_REQ_FUA : 0;
    uint64_t offset = tail->start + guest->from + at;
    uint8_t *model = tail->model + guest->from + at;
    if (ash_prng_below(&core->prng, 3) == 0) {
        memset(model, 0, bytes);
        assert_int_equal(ash_disk_zero(tail->disk, offset, bytes, flags), 0);
        return;
    }
    uint8_t value = (uint8_t)(1 + ash_prng_below(&core->prng, 255));
    uint8_t *own = malloc(bytes);
    memset(own, value, bytes);
    memset(model, value, bytes);
    assert_int_equal(ash_disk_write(tail->disk, offset, own, bytes, flags), 0);
    free(own);
}

static void guest_body(struct core *core, void *opaque)
{
    struct guest *guest = opaque;
    struct tail *tail = guest->tail;
    uint8_t found[TAIL_BYTES];
    ash_co_assert_inside();
    for (unsigned i = 0; i < 12; i++) {
        change(core, guest);
        assert_int_equal(ash_disk_bytes(tail->disk), tail->bytes);
        assert_int_equal(ash_disk_read(tail->disk, tail->start + guest->from, found, guest->bytes),
                         0);
        assert_memory_equal(found, tail->model + guest->from, guest->bytes);
    }
}

ASH_CO_FN static void open_tail(struct core *core, struct tail *tail)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver",
                                    "file", "filename", tail->path);
    int ret =
        ash_co_disk_open(core->loop, description,
                         ASH_NODE_WRITE | ASH_NODE_DIRECT | ASH_NODE_DISCARD, &tail->disk, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
}

static void one_length(struct core *core, void *opaque)
{
    struct tail *tail = opaque;
    struct guest guests[GUESTS];
    ash_co_assert_inside();
    open_tail(core, tail);
    uint32_t share = (uint32_t)(tail->bytes - tail->start) / GUESTS;
    for (unsigned i = 0; i < GUESTS; i++) {
        guests[i] = (struct guest){tail, i * share, share};
        if (i == GUESTS - 1) {
            guests[i].bytes = (uint32_t)(tail->bytes - tail->start) - guests[i].from;
        }
        core_spawn(core, guest_body, &guests[i]);
    }
    core_join(core);
    assert_int_equal(length_of(core, tail->path), tail->bytes);

    /* What a longer file shows is zeroes and not what filled up the block. */
    uint8_t found[100];
    assert_int_equal(ash_co_disk_resize(tail->disk, tail->bytes + 100, 0, 0, NULL), 0);
    assert_int_equal(ash_disk_read(tail->disk, tail->bytes, found, 100), 0);
    assert_true(ash_buffer_is_zero(found, 100));
    assert_int_equal(ash_disk_write(tail->disk, tail->bytes + 50, "end", 3, ASH_REQ_FUA), 0);
    assert_int_equal(ash_co_disk_close(tail->disk, NULL), 0);
    assert_int_equal(length_of(core, tail->path), tail->bytes + 100);
}

static void writes_to_an_odd_end_keep_the_length(void **state)
{
    static const uint64_t lengths[] = {13, 1000, 4095, 4097, 5000, 100000, 65536 + 512};
    (void)state;
    uint64_t end = core_end_seed(core_is_real() ? 2 : 12);
    for (uint64_t seed = core_first_seed(); seed < end; seed++) {
        for (size_t i = 0; i < ASH_ARRAY_SIZE(lengths); i++) {
            struct core core;
            struct tail tail = {.path = "./ashlar-direct-end.img", .bytes = lengths[i]};
            tail.start = lengths[i] > TAIL_BYTES ? lengths[i] - TAIL_BYTES : 0;
            core_up(&core, seed);
            if (core_is_real()) {
                char path[128];
                snprintf(path, sizeof(path), "./ashlar-direct-end-%s.img", getenv("ASHLAR_ENGINE"));
                tail.path = path;
                FILE *file = fopen(path, "w");
                assert_non_null(file);
                assert_int_equal(ftruncate(fileno(file), (off_t)lengths[i]), 0);
                fclose(file);
                core_run(&core, one_length, &tail);
                assert_int_equal(unlink(path), 0);
            } else {
                tail.path = core_file(&core, "odd", (int64_t)lengths[i]);
                core_run(&core, one_length, &tail);
            }
            core_down(&core);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_to_an_odd_end_keep_the_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
