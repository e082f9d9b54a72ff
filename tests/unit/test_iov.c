/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cursors over vectors: at random against a flat buffer, and at the edges. */
#include "tests/unit/unit.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "tests/unit/dies.h"
#include "util/compiler.h"
#include "util/engine/engine.h"
#include "util/iov.h"
#include "util/prng.h"

#define MEMORY_BYTES 512
#define ELEMENTS_MAX 12

/* A vector over distinct pieces of `memory`, and for each of its bytes the address that the model
 * says it has. */
struct model {
    struct ash_prng prng;
    uint8_t memory[MEMORY_BYTES];
    struct iovec vec[ELEMENTS_MAX];
    uint32_t count;
    uint8_t *at[MEMORY_BYTES];
    size_t bytes;
};

static uint64_t below(struct model *model, uint64_t bound)
{
    return ash_prng_below(&model->prng, bound);
}

static void model_make(struct model *model, uint64_t seed)
{
    size_t used = 0;

    ash_prng_seed(&model->prng, seed);
    ash_prng_fill(&model->prng, model->memory, sizeof(model->memory));
    model->count = (uint32_t)below(model, ELEMENTS_MAX + 1);
    model->bytes = 0;
    for (uint32_t i = 0; i < model->count; i++) {
        size_t gap = ash_prng_chance(&model->prng, 500) ? 0 : below(model, 8);
        size_t length = below(model, 30);
        model->vec[i] = (struct iovec){model->memory + used + gap, length};
        if (ash_prng_chance(&model->prng, 300)) {
            /* Nobody may look at what an empty element points to. */
            length = gap = 0;
            model->vec[i] = (struct iovec){below(model, 2) ? NULL : (void *)8, 0};
        }
        for (size_t j = 0; j < length; j++) {
            model->at[model->bytes++] = model->memory + used + gap + j;
        }
        used += gap + length;
    }
}

/* A cursor at byte *start of the model, reached in two steps, and a length that fits behind it. */
static struct ash_iov model_cursor(struct model *model, size_t *start, size_t *bytes)
{
    struct ash_iov iov = ash_iov_of(model->count > 0 ? model->vec : NULL, model->count);

    *start = below(model, model->bytes + 1);
    *bytes = below(model, model->bytes - *start + 1);
    size_t first = below(model, *start + 1);
    return ash_iov_advance(ash_iov_advance(iov, first), *start - first);
}

static void check_bytes_and_pieces(struct model *model)
{
    size_t start, bytes, covered_bytes = 0;
    struct ash_iov iov = model_cursor(model, &start, &bytes);
    struct iovec out[ELEMENTS_MAX];
    uint32_t max = (uint32_t)below(model, ELEMENTS_MAX + 1);
    uint64_t covered;

    assert_int_equal(ash_iov_bytes(iov), model->bytes - start);
    uint32_t pieces = ash_iov_pieces(iov, bytes);
    uint32_t count = ash_iov_collect(iov, bytes, out, max, &covered);
    assert_int_equal(count, ASH_MIN(max, pieces));
    assert_true(count < pieces ? covered < bytes : covered == bytes);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(out[i].iov_len > 0);
        for (size_t j = 0; j < out[i].iov_len; j++) {
            assert_ptr_equal((uint8_t *)out[i].iov_base + j, model->at[start + covered_bytes]);
            covered_bytes++;
        }
    }
    assert_int_equal(covered_bytes, covered);
}

static void check_copies(struct model *model)
{
    size_t start, bytes;
    struct ash_iov iov = model_cursor(model, &start, &bytes);
    uint8_t buffer[MEMORY_BYTES + 1], expected[MEMORY_BYTES];

    buffer[bytes] = 0x5a;
    ash_iov_to_buffer(iov, buffer, bytes);
    for (size_t i = 0; i < bytes; i++) {
        assert_int_equal(buffer[i], *model->at[start + i]);
    }
    assert_int_equal(buffer[bytes], 0x5a);

    memcpy(expected, model->memory, sizeof(expected));
    ash_prng_fill(&model->prng, buffer, bytes);
    for (size_t i = 0; i < bytes; i++) {
        expected[model->at[start + i] - model->memory] = buffer[i];
    }
    ash_iov_from_buffer(iov, buffer, bytes);
    assert_memory_equal(model->memory, expected, sizeof(expected));
}

static void check_fill_and_zero(struct model *model)
{
    size_t start, bytes;
    struct ash_iov iov = model_cursor(model, &start, &bytes);
    uint8_t value = (uint8_t)below(model, 3);
    uint8_t expected[MEMORY_BYTES];

    memcpy(expected, model->memory, sizeof(expected));
    for (size_t i = 0; i < bytes; i++) {
        expected[model->at[start + i] - model->memory] = value;
    }
    ash_iov_fill(iov, value, bytes);
    assert_memory_equal(model->memory, expected, sizeof(expected));

    assert_int_equal(ash_iov_is_zero(iov, bytes), bytes == 0 || value == 0);
    if (bytes > 0) {
        ash_iov_fill(iov, 0, bytes);
        *model->at[start + below(model, bytes)] = 1;
        assert_false(ash_iov_is_zero(iov, bytes));
    }
}

static void check_contiguous_and_aligned(struct model *model)
{
    size_t start, bytes;
    struct ash_iov iov = model_cursor(model, &start, &bytes);
    struct iovec out[ELEMENTS_MAX];
    size_t alignment = (size_t)1 << below(model, 4), unit = (size_t)1 << below(model, 4);
    bool contiguous = true, aligned = true;
    uint64_t covered;
    void *base;

    for (size_t i = 1; i < bytes; i++) {
        contiguous &= model->at[start + i] == model->at[start + i - 1] + 1;
    }
    assert_int_equal(ash_iov_contiguous(iov, bytes, &base), contiguous);
    if (contiguous && bytes > 0) {
        assert_ptr_equal(base, model->at[start]);
    }
    uint32_t count = ash_iov_collect(iov, bytes, out, ELEMENTS_MAX, &covered);
    for (uint32_t i = 0; i < count; i++) {
        aligned &= (uintptr_t)out[i].iov_base % alignment == 0 && out[i].iov_len % unit == 0;
    }
    assert_int_equal(ash_iov_aligned(iov, bytes, alignment, unit), aligned);
}

static uint64_t failing_seed;

static void check_random_vectors(void (*check)(struct model *model))
{
    for (uint64_t seed = 0; seed < 5000; seed++) {
        struct model model;
        failing_seed = seed;
        model_make(&model, seed);
        check(&model);
    }
    failing_seed = UINT64_MAX;
}

/* Runs after a test, also after one that failed. */
static int tell_seed(void **state)
{
    (void)state;
    if (failing_seed != UINT64_MAX) {
        print_error("the vector of seed %" PRIu64 "\n", failing_seed);
    }
    return 0;
}

static void lengths_and_pieces_are_those_of_the_model(void **state)
{
    (void)state;
    check_random_vectors(check_bytes_and_pieces);
}

static void copies_are_those_of_the_model(void **state)
{
    (void)state;
    check_random_vectors(check_copies);
}

static void fills_and_zero_tests_are_those_of_the_model(void **state)
{
    (void)state;
    check_random_vectors(check_fill_and_zero);
}

static void contiguity_and_alignment_are_those_of_the_model(void **state)
{
    (void)state;
    check_random_vectors(check_contiguous_and_aligned);
}

static void a_null_vector_has_no_bytes(void **state)
{
    struct ash_iov iov = ash_iov_of(NULL, 0);
    struct iovec out;
    uint64_t covered = 1;
    void *base;

    (void)state;
    assert_int_equal(ash_iov_bytes(iov), 0);
    assert_int_equal(ash_iov_bytes(ash_iov_advance(iov, 0)), 0);
    assert_int_equal(ash_iov_collect(iov, 0, &out, 1, &covered), 0);
    assert_int_equal(covered, 0);
    assert_int_equal(ash_iov_pieces(iov, 0), 0);
    assert_true(ash_iov_contiguous(iov, 0, &base));
    assert_true(ash_iov_aligned(iov, 0, 512, 512));
    assert_true(ash_iov_is_zero(iov, 0));
    ash_iov_fill(iov, 1, 0);
    ash_iov_to_buffer(iov, NULL, 0);
    ash_iov_from_buffer(iov, NULL, 0);
}

static void advancing_to_the_end_leaves_no_element(void **state)
{
    char byte;
    struct iovec vec[] = {{&byte, 1}, {NULL, 0}, {NULL, 0}};
    struct ash_iov iov = ash_iov_advance(ash_iov_of(vec, 3), 1);

    (void)state;
    assert_int_equal(iov.count, 0);
    assert_int_equal(ash_iov_bytes(iov), 0);
}

static void the_bytes_of_a_file_have_a_place_and_no_pieces(void **state)
{
    struct ash_file file = {.fd = -1};
    struct iovec vec = {&file, UINT32_MAX};
    struct ash_iov memory = ash_iov_of(&vec, 1);
    struct ash_iov iov = ash_iov_of_file(&file, UINT64_C(5) << 32);

    (void)state;
    assert_false(ash_iov_is_file(&memory));
    assert_true(ash_iov_is_file(&iov));
    assert_int_equal(ash_iov_pieces(iov, UINT64_C(1) << 40), 1);
    iov = ash_iov_advance(iov, UINT64_C(3) << 32);
    assert_true(ash_iov_is_file(&iov));
    assert_ptr_equal(iov.file, &file);
    assert_true(iov.skip == UINT64_C(8) << 32);
}

static void looks_into_a_file(void)
{
    struct ash_file file = {.fd = -1};
    char byte;

    ash_iov_to_buffer(ash_iov_of_file(&file, 0), &byte, 1);
}

static void measures_a_file(void)
{
    struct ash_file file = {.fd = -1};

    ash_iov_bytes(ash_iov_of_file(&file, 0));
}

static void looking_into_a_file_aborts(void **state)
{
    (void)state;
    assert_asserts(looks_into_a_file, "iov->count != ASH_IOV_FILE");
    assert_asserts(measures_a_file, "!ash_iov_is_file(&iov)");
}

static void lengths_beyond_32_bits_are_summed(void **state)
{
    char byte; /* only the lengths matter: nothing is touched */
    struct iovec vec[] = {{&byte, (size_t)3 << 32}, {&byte, (size_t)2 << 32}};
    struct ash_iov iov = ash_iov_of(vec, 2);

    (void)state;
    assert_true(ash_iov_bytes(iov) == UINT64_C(5) << 32);
    assert_true(ash_iov_bytes(ash_iov_advance(iov, UINT64_C(4) << 32)) == UINT64_C(1) << 32);
}

static void a_single_byte_is_found_wherever_it_is(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 600; bytes++) {
        uint8_t *buffer = malloc(bytes + 3);
        memset(buffer, 1, bytes + 3);
        /* Neighbours that are not zero, and an odd address. */
        memset(buffer + 1, 0, bytes);
        assert_true(ash_buffer_is_zero(buffer + 1, bytes));
        for (size_t i = 0; i < bytes; i++) {
            buffer[1 + i] = 0x80;
            assert_false(ash_buffer_is_zero(buffer + 1, bytes));
            buffer[1 + i] = 0;
        }
        free(buffer);
    }
}

static void advances_past_the_end(void)
{
    char byte;
    struct iovec vec = {&byte, 1};

    ash_iov_advance(ash_iov_of(&vec, 1), 2);
}

static void advancing_past_the_end_aborts(void **state)
{
    (void)state;
    assert_asserts(advances_past_the_end, "iov->count > 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(lengths_and_pieces_are_those_of_the_model, tell_seed),
        cmocka_unit_test_teardown(copies_are_those_of_the_model, tell_seed),
        cmocka_unit_test_teardown(fills_and_zero_tests_are_those_of_the_model, tell_seed),
        cmocka_unit_test_teardown(contiguity_and_alignment_are_those_of_the_model, tell_seed),
        cmocka_unit_test(a_null_vector_has_no_bytes),
        cmocka_unit_test(advancing_to_the_end_leaves_no_element),
        cmocka_unit_test(the_bytes_of_a_file_have_a_place_and_no_pieces),
        cmocka_unit_test(looking_into_a_file_aborts),
        cmocka_unit_test(lengths_beyond_32_bits_are_summed),
        cmocka_unit_test(a_single_byte_is_found_wherever_it_is),
        cmocka_unit_test(advancing_past_the_end_aborts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
