/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests on a chain: several at once, with all operations, each checking what it reads against the
 * chain's model. */
#ifndef ASH_TESTS_CHAIN_GUESTS_H
#define ASH_TESTS_CHAIN_GUESTS_H

#include "tests/unit/chain_rig.h"

#define GUESTS 8
#define IDS_EACH 7 /* numbers of one guest, taken in turn */
#define PIECES_MAX 24

static unsigned alloc_fails_per_mille; /* 0: memory never runs out */
static struct ash_prng alloc_prng;

static void *alloc_hook(void *opaque, size_t bytes, size_t alignment)
{
    void *memory;
    (void)opaque;
    if (alloc_fails_per_mille > 0 && ash_prng_chance(&alloc_prng, alloc_fails_per_mille)) {
        return NULL;
    }
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

static void free_hook(void *opaque, void *memory, size_t bytes)
{
    (void)opaque;
    (void)bytes;
    free(memory);
}

static unsigned guests_failed; /* requests, over all runs: that a test meets what it is for */

struct guest {
    struct chain *chain;
    unsigned number;
    unsigned turns;
    unsigned next_id;
};

static unsigned take_id(struct guest *guest)
{
    return 8 + guest->number * IDS_EACH + guest->next_id++ % IDS_EACH;
}

/* Cuts a buffer into pieces at random, empty ones too. */
static uint32_t cut(struct core *core, uint8_t *buffer, uint64_t bytes, struct iovec *vec)
{
    uint32_t count = 0;
    while (bytes > 0 && count < PIECES_MAX - 1 && !ash_prng_chance(&core->prng, 400)) {
        uint64_t piece = ash_prng_below(&core->prng, bytes + 1);
        vec[count++] = (struct iovec){buffer, piece};
        buffer += piece;
        bytes -= piece;
    }
    vec[count++] = (struct iovec){buffer, bytes};
    return count;
}

static void draw(struct core *core, const struct chain *chain, uint64_t *offset, uint64_t *bytes)
{
    uint64_t size = chain->model.bytes;
    uint64_t longest = ash_prng_chance(&core->prng, 100) ? size : 3 * chain->unit[0];
    *offset = ash_prng_below(&core->prng, size);
    *bytes = ash_prng_between(&core->prng, 1, ASH_MIN(size - *offset, longest));
    if (ash_prng_chance(&core->prng, 300)) { /* whole units */
        *offset -= *offset % chain->unit[0];
        *bytes = ASH_MIN(size - *offset, *bytes - *bytes % chain->unit[0] + chain->unit[0]);
    }
}

static void check_result(struct core *core, const struct chain *chain, int ret)
{
    bool may_fail = (ret == -EIO && chain->commit_fails > 0) ||
                    (ret == -ENOSPC && chain->slots_max > 0) ||
                    (ret == -ENOMEM && alloc_fails_per_mille > 0);
    guests_failed += ret < 0;
    if (ret < 0 && !may_fail) {
        print_message("seed %lu: result %d\n", (unsigned long)core->seed, ret);
    }
    assert_true(ret == 0 || may_fail);
}

ASH_CO_FN static void do_read(struct core *core, struct guest *guest)
{
    struct chain *chain = guest->chain;
    struct iovec vec[PIECES_MAX];
    struct guest_op op;
    struct ash_io io = {.op = ASH_READ};
    draw(core, chain, &io.offset, &io.bytes);
    uint8_t *buffer = g_malloc(io.bytes);
    memset(buffer, 0xff, io.bytes);
    io.iov = ash_iov_of(vec, cut(core, buffer, io.bytes, vec));
    guest_read_begin(&chain->model, &op, io.offset, io.bytes);
    int ret = ash_disk_io(chain->disk, &io);
    check_result(core, chain, ret);
    int64_t wrong = guest_read_end(&chain->model, &op, ret == 0 ? buffer : NULL);
    if (wrong >= 0) {
        print_message("seed %lu: byte %ld is %u\n", (unsigned long)core->seed, (long)wrong,
                      buffer[(uint64_t)wrong - io.offset]);
    }
    assert_int_equal(wrong, -1);
    g_free(buffer);
}

ASH_CO_FN static void do_write(struct core *core, struct guest *guest, uint32_t flags)
{
    struct chain *chain = guest->chain;
    struct iovec vec[PIECES_MAX];
    struct guest_op op;
    struct ash_io io = {.op = ASH_WRITE, .flags = flags};
    draw(core, chain, &io.offset, &io.bytes);
    if ((flags & ASH_IO_COMPRESS) != 0) {
        io.offset -= io.offset % chain->unit[0];
        io.bytes = ASH_MIN(chain->model.bytes - io.offset,
                           io.bytes - io.bytes % chain->unit[0] + chain->unit[0]);
    }
    unsigned id = take_id(guest);
    uint8_t *buffer = g_malloc(io.bytes);
    guest_fill(id, io.offset, buffer, io.bytes);
    io.iov = ash_iov_of(vec, cut(core, buffer, io.bytes, vec));
    guest_write_begin(&chain->model, &op, id, io.offset, io.bytes);
    int ret = ash_disk_io(chain->disk, &io);
    check_result(core, chain, ret);
    guest_write_end(&chain->model, &op, ret == 0);
    g_free(buffer);
}

ASH_CO_FN static void do_clear(struct core *core, struct guest *guest, uint8_t what, uint32_t flags)
{
    struct chain *chain = guest->chain;
    struct guest_op op;
    struct ash_io io = {.op = what, .flags = flags};
    draw(core, chain, &io.offset, &io.bytes);
    guest_write_begin(&chain->model, &op, 0, io.offset, io.bytes);
    int ret = ash_disk_io(chain->disk, &io);
    check_result(core, chain, ret);
    guest_write_end(&chain->model, &op, ret == 0 && what == ASH_ZERO);
}

/* A range that is said to be zero, is. */
ASH_CO_FN static void do_status(struct core *core, struct guest *guest)
{
    struct chain *chain = guest->chain;
    struct guest_op op;
    struct ash_status status = {0};
    struct ash_io io = {.op = ASH_STATUS, .status = &status};
    draw(core, chain, &io.offset, &io.bytes);
    guest_read_begin(&chain->model, &op, io.offset, io.bytes);
    int ret = ash_disk_io(chain->disk, &io);
    check_result(core, chain, ret);
    assert_true(ret < 0 || (status.bytes > 0 && status.bytes <= io.bytes));
    op.bytes = (status.flags & ASH_STATUS_ZERO) != 0 ? status.bytes : 0;
    uint8_t *zeroes = g_malloc0(io.bytes);
    assert_int_equal(guest_read_end(&chain->model, &op, zeroes), -1);
    g_free(zeroes);
}

static void guest_run(struct core *core, void *opaque)
{
    struct guest *guest = opaque;
    ash_co_assert_inside();
    for (unsigned i = 0; i < guest->turns; i++) {
        uint64_t what = ash_prng_below(&core->prng, 100);
        uint32_t fua = ash_prng_chance(&core->prng, 150) ? ASH_REQ_FUA : 0;
        if (what < 35) {
            do_read(core, guest);
        } else if (what < 65) {
            do_write(core, guest, fua);
        } else if (what < 70) {
            do_write(core, guest, guest->chain->no_coded ? fua : fua | ASH_IO_COMPRESS);
        } else if (what < 82) {
            do_clear(core, guest, ASH_ZERO,
                     fua | (ash_prng_chance(&core->prng, 500) ? ASH_REQ_UNMAP : 0));
        } else if (what < 90) {
            do_clear(core, guest, ASH_DISCARD, 0);
        } else if (what < 93) {
            check_result(core, guest->chain, ash_disk_flush(guest->chain->disk));
        } else {
            do_status(core, guest);
        }
        if (!guest->chain->qcow2 && ash_prng_chance(&core->prng, 50)) {
            uint64_t offset;
            uint64_t bytes;
            draw(core, guest->chain, &offset, &bytes);
            map_format_share(ash_disk_node(guest->chain->disk), offset, bytes);
        }
    }
}

/* Starts them; core_join() waits for them. */
static inline void guests_start(struct core *core, struct chain *chain, struct guest guests[GUESTS],
                                unsigned turns)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        guests[i] = (struct guest){.chain = chain, .number = i, .turns = turns};
        core_spawn(core, guest_run, &guests[i]);
    }
}

static void print_finding(struct ash_check *check, const char *sentence)
{
    (void)check;
    print_message("%s\n", sentence);
}

/* The disk's image is consistent, without leaks. */
ASH_CO_FN static inline void check_image(struct core *core, struct ash_disk *disk)
{
    struct ash_check check = {.report = print_finding};
    struct ash_node *node = ash_disk_node(disk);
    assert_int_equal(node->driver->check(node, &check, NULL), 0);
    if (check.corruptions + check.leaks + check.check_errors > 0) {
        print_message("seed %lu: corruptions %lu, leaks %lu\n", (unsigned long)core->seed,
                      (unsigned long)check.corruptions, (unsigned long)check.leaks);
    }
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks, 0);
    assert_int_equal(check.check_errors, 0);
}

#endif
