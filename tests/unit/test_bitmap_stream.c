/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bitmaps as streams: what is written is read back, and damaged or hostile streams are refused. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/bitmap/stream.h"
#include "util/prng.h"
#include "util/range.h"

/* A stream in memory. */
struct tape {
    GByteArray *bytes;
    size_t at;
    size_t piece_max; /* the longest piece that passed */
};

static int record(void *opaque, const void *data, size_t bytes)
{
    struct tape *tape = opaque;
    g_byte_array_append(tape->bytes, data, (guint)bytes);
    tape->piece_max = bytes > tape->piece_max ? bytes : tape->piece_max;
    return 0;
}

static int play(void *opaque, void *data, size_t bytes)
{
    struct tape *tape = opaque;
    tape->piece_max = bytes > tape->piece_max ? bytes : tape->piece_max;
    if (bytes > tape->bytes->len - tape->at) {
        return -EPIPE;
    }
    memcpy(data, tape->bytes->data + tape->at, bytes);
    tape->at += bytes;
    return 0;
}

static struct ash_bitmap_picture picture_of(uint64_t size_bytes, uint32_t shift)
{
    struct ash_bitmap_picture picture = {.shift = shift, .size_bytes = size_bytes};
    uint64_t granules = ash_div_round_up(size_bytes, UINT64_C(1) << shift);
    assert_int_equal(ash_hbitmap_init(&picture.bits, granules), 0);
    return picture;
}

static struct tape written(const struct ash_bitmap_picture *picture)
{
    struct tape tape = {.bytes = g_byte_array_new()};
    assert_int_equal(ash_bitmap_stream_write(picture, record, &tape), 0);
    return tape;
}

static void assert_equal(const struct ash_bitmap_picture *a, const struct ash_bitmap_picture *b)
{
    assert_int_equal(a->shift, b->shift);
    assert_int_equal(a->size_bytes, b->size_bytes);
    assert_int_equal(a->bits.bits, b->bits.bits);
    assert_int_equal(a->bits.count, b->bits.count);
    for (uint64_t i = 0; i < ash_hbitmap_word_count(&a->bits); i++) {
        assert_int_equal(ash_hbitmap_word(&a->bits, i), ash_hbitmap_word(&b->bits, i));
    }
}

/* Some runs of set bits, long and short. */
static void draw(struct ash_prng *prng, struct ash_hbitmap *bits)
{
    uint64_t runs = ash_prng_below(prng, 40);
    for (uint64_t i = 0; i < runs && bits->bits > 0; i++) {
        uint64_t first = ash_prng_below(prng, bits->bits);
        uint64_t most = ash_prng_chance(prng, 300) ? bits->bits : 200;
        uint64_t left = bits->bits - first;
        ash_hbitmap_set(bits, first, ash_prng_below(prng, (left < most ? left : most) + 1));
    }
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    const char *only = getenv("SEED");
    uint64_t begin = only != NULL ? strtoull(only, NULL, 10) : 0;
    for (uint64_t seed = begin; seed < (only != NULL ? begin + 1 : 200); seed++) {
        struct ash_prng prng;
        ash_prng_seed(&prng, seed);
        uint64_t most = ash_prng_chance(&prng, 100) ? UINT64_C(1) << 32 : UINT64_C(1) << 26;
        struct ash_bitmap_picture picture =
            picture_of(ash_prng_below(&prng, most), (uint32_t)ash_prng_between(&prng, 9, 31));
        draw(&prng, &picture.bits);
        struct tape tape = written(&picture);
        g_byte_array_append(tape.bytes, (const uint8_t *)"more", 4);
        struct ash_bitmap_picture copy;
        int ret = ash_bitmap_stream_read(&copy, picture.size_bytes, play, &tape, NULL);
        if (ret != 0 || tape.at != tape.bytes->len - 4 || tape.piece_max > 4096) {
            print_message("SEED=%lu before the command repeats it\n", (unsigned long)seed);
        }
        assert_int_equal(ret, 0);
        assert_int_equal(tape.at, tape.bytes->len - 4); /* no further than its end */
        assert_true(tape.piece_max <= 4096);
        assert_equal(&picture, &copy);
        ash_bitmap_picture_free(&picture);
        ash_bitmap_picture_free(&copy);
        g_byte_array_free(tape.bytes, TRUE);
    }
}

/* The bytes themselves, so that the format stays: 3 words of 512-byte granules and 10 more. */
static void the_format_is_what_the_header_says(void **state)
{
    static const uint8_t expected[] = {
        'a',  's',  'h', 'b', 'i', 't', 's', 1, 0,  0, 0, 0, 9, 0, 0, 0, /* */
        0x01, 0x92, 1,   0,   0,   0,   0,   0,                          /* 201 * 512 + 1 bytes */
        202,  0,    0,   0,   0,   0,   0,   0, 67, 0, 0, 0, 0, 0, 0, 0, /* */
        0,    0,    0,   0,   1,   0,   0,   0,                          /* one clean word */
        1,    0,    0,   0,   1,   0,   0,   0,                          /* one dirty one */
        2,    0,    0,   0,   2,   0,   0,   0, 2,  1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0};
    struct ash_bitmap_picture picture = picture_of(201 * 512 + 1, 9);
    (void)state;
    ash_hbitmap_set(&picture.bits, 64, 64);
    ash_hbitmap_set(&picture.bits, 129, 1);
    ash_hbitmap_set(&picture.bits, 136, 1);
    ash_hbitmap_set(&picture.bits, 201, 1);
    struct tape tape = written(&picture);
    assert_int_equal(tape.bytes->len, sizeof(expected));
    assert_memory_equal(tape.bytes->data, expected, sizeof(expected));
    ash_bitmap_picture_free(&picture);
    g_byte_array_free(tape.bytes, TRUE);
}

static void a_clean_bitmap_of_16_tib_takes_a_few_bytes(void **state)
{
    struct ash_bitmap_picture picture = picture_of(UINT64_C(16) << 40, 16);
    (void)state;
    ash_hbitmap_set(&picture.bits, 12345678, 3);
    struct tape tape = written(&picture);
    assert_true(tape.bytes->len < 100);
    struct ash_bitmap_picture copy;
    assert_int_equal(ash_bitmap_stream_read(&copy, picture.size_bytes, play, &tape, NULL), 0);
    assert_int_equal(copy.bits.count, 3);
    ash_bitmap_picture_free(&picture);
    ash_bitmap_picture_free(&copy);
    g_byte_array_free(tape.bytes, TRUE);
}

struct broken_sink {
    unsigned left; /* calls until it fails */
};

static int sink_until(void *opaque, const void *data, size_t bytes)
{
    struct broken_sink *sink = opaque;
    (void)data;
    (void)bytes;
    return sink->left-- == 0 ? -ENOSPC : 0;
}

static void a_sink_that_fails_ends_the_writing(void **state)
{
    struct ash_bitmap_picture picture = picture_of(1 << 20, 9);
    (void)state;
    ash_hbitmap_set(&picture.bits, 3, 1);
    for (unsigned calls = 0; calls < 4; calls++) {
        struct broken_sink sink = {calls};
        assert_int_equal(ash_bitmap_stream_write(&picture, sink_until, &sink), -ENOSPC);
        assert_int_equal(sink.left, UINT_MAX); /* not called again */
    }
    ash_bitmap_picture_free(&picture);
}

/* Hostile streams. */

#define HOSTILE_BYTES (1000 * 4096 + 17)

static struct tape sample(void)
{
    struct ash_bitmap_picture picture = picture_of(HOSTILE_BYTES, 12);
    ash_hbitmap_set(&picture.bits, 100, 400);
    ash_hbitmap_set(&picture.bits, 900, 1);
    ash_hbitmap_set(&picture.bits, 1000, 1); /* the last one */
    struct tape tape = written(&picture);
    ash_bitmap_picture_free(&picture);
    return tape;
}

/* Reads it; what is accepted must be whole. */
static int try(struct tape *tape)
{
    struct ash_bitmap_picture copy;
    struct ash_error error = ASH_ERROR_INIT;
    tape->at = 0;
    int ret = ash_bitmap_stream_read(&copy, HOSTILE_BYTES, play, tape, &error);
    if (ret == 0) {
        uint64_t end = copy.bits.bits;
        assert_int_equal(end, ash_div_round_up(HOSTILE_BYTES, UINT64_C(1) << copy.shift));
        assert_int_equal(copy.bits.count, ash_hbitmap_count(&copy.bits, 0, end));
        ash_bitmap_picture_free(&copy);
    } else {
        assert_int_equal(error.code, ret);
        assert_true(error.message[0] != '\0');
    }
    return ret;
}

static void a_stream_that_ends_early_is_refused(void **state)
{
    struct tape tape = sample();
    guint whole = tape.bytes->len;
    (void)state;
    for (guint bytes = 0; bytes < whole; bytes++) {
        g_byte_array_set_size(tape.bytes, bytes);
        assert_int_equal(try(&tape), -EPIPE);
        g_byte_array_free(tape.bytes, TRUE);
        tape = sample();
    }
    assert_int_equal(try(&tape), 0);
    g_byte_array_free(tape.bytes, TRUE);
}

static void a_damaged_byte_is_found_or_harmless(void **state)
{
    struct tape tape = sample();
    (void)state;
    for (guint at = 0; at < tape.bytes->len; at++) {
        uint8_t right = tape.bytes->data[at];
        for (unsigned wrong = 0; wrong < 256; wrong++) {
            tape.bytes->data[at] = (uint8_t)wrong;
            /* Words with other bits, as many of them, cannot be told from good ones; nor can a run
             * that is cut in two. A header can. */
            int ret = try(&tape);
            assert_true(ret == 0 || ret == -EINVAL || ret == -EPIPE);
            assert_true(ret != 0 || wrong == right || at >= 40);
        }
        tape.bytes->data[at] = right;
    }
    g_byte_array_free(tape.bytes, TRUE);
}

struct lie {
    const char *what;
    size_t at;
    uint64_t value;
    size_t bytes;
};

static void lies_in_the_header_and_in_chunks_are_refused(void **state)
{
    static const struct lie lies[] = {
        {"magic", 0, 'A', 1},
        {"version", 7, 2, 1},
        {"flags", 8, 1, 4},
        {"granularity too small", 12, 8, 4},
        {"granularity too large", 12, 32, 4},
        {"granularity that shifts beyond", 12, 0xffffffff, 4},
        {"length", 16, HOSTILE_BYTES + 1, 8},
        {"huge length", 16, UINT64_MAX, 8},
        {"granules, one more", 24, 1002, 8},
        {"granules, one less", 24, 1000, 8},
        {"granules, huge", 24, UINT64_MAX, 8},
        {"dirty", 32, 403, 8},
        {"kind", 40, 3, 4},
        {"no words", 44, 0, 4},
        {"more words than there are", 44, 17, 4},
        {"very many words", 44, UINT32_MAX, 4},
        {"dirty words up to the end", 40, 0x1000000001, 8}, /* the last word is short */
    };
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(lies); i++) {
        struct tape tape = sample();
        memcpy(tape.bytes->data + lies[i].at, &lies[i].value, lies[i].bytes);
        int ret = try(&tape);
        if (ret != -EINVAL) {
            print_message("%s\n", lies[i].what);
        }
        assert_int_equal(ret, -EINVAL);
        g_byte_array_free(tape.bytes, TRUE);
    }
}

static void bits_beyond_the_end_are_refused(void **state)
{
    struct tape tape = sample();
    (void)state;
    /* The last word, 8 bytes, is the last of the stream: granule 1000 is its bit 40. */
    tape.bytes->data[tape.bytes->len - 8 + 5] |= 2;
    assert_int_equal(try(&tape), -EINVAL);
    g_byte_array_free(tape.bytes, TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(the_format_is_what_the_header_says),
        cmocka_unit_test(a_clean_bitmap_of_16_tib_takes_a_few_bytes),
        cmocka_unit_test(a_sink_that_fails_ends_the_writing),
        cmocka_unit_test(a_stream_that_ends_early_is_refused),
        cmocka_unit_test(a_damaged_byte_is_found_or_harmless),
        cmocka_unit_test(lies_in_the_header_and_in_chunks_are_refused),
        cmocka_unit_test(bits_beyond_the_end_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
