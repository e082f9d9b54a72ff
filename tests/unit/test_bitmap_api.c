/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps through the public API: on a loop of the caller's thread and on one of its own. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ashlar/ashlar.h>
#include "util/co/co.h"

#define DISK                                                                                       \
    "json:{\"driver\":\"raw\",\"node-name\":\"top\",\"size\":1000000,\"file\":"                    \
    "{\"driver\":\"null-co\",\"node-name\":\"bottom\",\"size\":1048576}}"

struct rig {
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct ash_queue *queue; /* not on a loop with a thread of its own */
};

static void rig_up(struct rig *rig, uint32_t loop_flags)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_error error = ASH_ERROR_INIT;
    config.flags = loop_flags;
    options.flags = ASH_DISK_WRITE;
    assert_int_equal(ash_loop_new(&config, &rig->loop, &error), 0);
    if (loop_flags == 0) {
        assert_int_equal(ash_loop_bind(rig->loop), 0);
    }
    int ret = ash_disk_open_sync(rig->loop, DISK, &options, &rig->disk, &error);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    rig->queue = NULL;
    if (loop_flags == 0) {
        assert_int_equal(ash_queue_new(rig->disk, 4, &rig->queue, &error), 0);
    }
}

static int set_up(void **state)
{
    static struct rig rig;
    rig_up(&rig, 0);
    *state = &rig;
    return 0;
}

static int set_up_own_thread(void **state)
{
    static struct rig rig;
    rig_up(&rig, ASH_LOOP_OWN_THREAD);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    if (rig->queue != NULL) {
        ash_queue_free(rig->queue);
    }
    int ret = ash_disk_close_sync(rig->disk, NULL);
    ash_loop_free(rig->loop);
    return ret;
}

static void write_at(struct rig *rig, uint64_t offset, uint64_t bytes)
{
    struct ash_req req = {.op = ASH_ZERO, .offset = offset, .bytes = bytes};
    struct ash_cqe cqe;
    assert_int_equal(ash_queue_submit(rig->queue, &req, 1), 1);
    while (ash_queue_reap(rig->queue, &cqe, 1) == 0) {
        assert_true(ash_loop_run_once(rig->loop, -1, 0) >= 0);
    }
    assert_int_equal(cqe.result, 0);
}

static int create(struct rig *rig, const char *node, const char *name, uint64_t granularity,
                  uint32_t flags)
{
    struct ash_bitmap_options options = ASH_BITMAP_OPTIONS_INIT;
    options.node = node;
    options.name = name;
    options.granularity_bytes = granularity;
    options.flags = flags;
    return ash_disk_bitmap_create_sync(rig->disk, &options, NULL);
}

/* What a list tells, as a text. */
struct told {
    char text[1024];
    unsigned done;
    int ret;
    bool in_coroutine;
};

static void tell(void *opaque, const struct ash_bitmap_info *info)
{
    struct told *told = opaque;
    char line[200];
    assert_int_equal(info->size, sizeof(*info));
    snprintf(line, sizeof(line), "%s %lu %lu%s\n", info->name,
             (unsigned long)info->granularity_bytes, (unsigned long)info->dirty_bytes,
             (info->flags & ASH_BITMAP_INFO_RECORDING) != 0 ? " recording" : "");
    told->in_coroutine = told->in_coroutine || ash_co_self() != NULL;
    strncat(told->text, line, sizeof(told->text) - strlen(told->text) - 1);
}

static void tell_done(void *opaque, int ret, const struct ash_error *error)
{
    struct told *told = opaque;
    (void)error;
    told->done++;
    told->ret = ret;
    told->in_coroutine = told->in_coroutine || ash_co_self() != NULL;
}

static struct told list(struct rig *rig, const char *node)
{
    struct told told = {0};
    assert_int_equal(ash_disk_bitmap_list_sync(rig->disk, node, tell, &told, NULL), 0);
    return told;
}

static void bitmaps_are_made_marked_listed_cleared_and_deleted(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(create(rig, NULL, "first", 4096, 0), 0);
    assert_int_equal(create(rig, NULL, "second", 0, ASH_BITMAP_DISABLED), 0);
    write_at(rig, 5000, 1);
    assert_string_equal(list(rig, NULL).text, "first 4096 4096 recording\nsecond 65536 0\n");
    assert_int_equal(ash_disk_bitmap_enable_sync(rig->disk, NULL, "second", NULL), 0);
    assert_int_equal(ash_disk_bitmap_disable_sync(rig->disk, NULL, "first", NULL), 0);
    write_at(rig, 999999, 1);
    assert_string_equal(list(rig, NULL).text, "first 4096 4096\nsecond 65536 16960 recording\n");
    assert_int_equal(ash_disk_bitmap_clear_sync(rig->disk, NULL, "second", NULL), 0);
    assert_int_equal(ash_disk_bitmap_delete_sync(rig->disk, NULL, "first", NULL), 0);
    assert_string_equal(list(rig, NULL).text, "second 65536 0 recording\n");
}

/* It completes in a later turn, once, and not in a coroutine. */
static void expect_done(struct rig *rig, int ret, struct told *told)
{
    assert_int_equal(ret, 0);
    assert_int_equal(told->done, 0);
    for (int i = 0; i < 10 || told->done == 0; i++) {
        assert_true(ash_loop_run_once(rig->loop, 0, 0) >= 0);
    }
    assert_int_equal(told->done, 1);
    assert_int_equal(told->ret, 0);
    assert_false(told->in_coroutine);
    *told = (struct told){0};
}

static void calls_with_a_callback_do_what_those_do_that_wait(void **state)
{
    struct rig *rig = *state;
    struct ash_bitmap_options options = ASH_BITMAP_OPTIONS_INIT;
    struct ash_bitmap_source source = {.name = "a"};
    struct told told = {0};
    options.name = "a";
    options.granularity_bytes = 4096;
    expect_done(rig, ash_disk_bitmap_create(rig->disk, &options, tell_done, &told), &told);
    options.name = "b";
    expect_done(rig, ash_disk_bitmap_create(rig->disk, &options, tell_done, &told), &told);
    expect_done(rig, ash_disk_bitmap_disable(rig->disk, NULL, "b", tell_done, &told), &told);
    write_at(rig, 5000, 1);
    assert_string_equal(list(rig, NULL).text, "a 4096 4096 recording\nb 4096 0\n");
    expect_done(rig, ash_disk_bitmap_merge(rig->disk, NULL, "b", &source, 1, tell_done, &told),
                &told);
    expect_done(rig, ash_disk_bitmap_clear(rig->disk, NULL, "a", tell_done, &told), &told);
    expect_done(rig, ash_disk_bitmap_enable(rig->disk, NULL, "b", tell_done, &told), &told);
    assert_string_equal(list(rig, NULL).text, "a 4096 0 recording\nb 4096 4096 recording\n");
}

static void a_bitmap_lies_on_the_node_that_is_named(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(create(rig, "bottom", "b", 4096, 0), 0);
    assert_int_equal(create(rig, "top", "b", 65536, 0), 0);
    write_at(rig, 0, 1);
    assert_string_equal(list(rig, "bottom").text, "b 4096 4096 recording\n");
    assert_string_equal(list(rig, NULL).text, "b 65536 65536 recording\n");
}

static void what_cannot_be_done_says_why(void **state)
{
    struct rig *rig = *state;
    struct ash_error error = ASH_ERROR_INIT;
    assert_int_equal(create(rig, NULL, "b", 4096, 0), 0);
    assert_int_equal(create(rig, NULL, "b", 4096, 0), -EEXIST);
    assert_int_equal(create(rig, NULL, NULL, 4096, 0), -EINVAL);
    assert_int_equal(create(rig, NULL, "c", 1000, 0), -EINVAL);
    assert_int_equal(create(rig, NULL, "c", 4096, 1u << 31), -EINVAL);
    assert_int_equal(create(rig, "nowhere", "c", 4096, 0), -ENOENT);
    assert_int_equal(ash_disk_bitmap_delete_sync(rig->disk, NULL, "none", &error), -ENOENT);
    assert_non_null(strstr(error.message, "'none'"));
    assert_int_equal(ash_disk_bitmap_clear_sync(rig->disk, "nowhere", "b", &error), -ENOENT);
    assert_non_null(strstr(error.message, "'nowhere'"));
}

static void a_merge_of_several_is_whole_or_not_at_all(void **state)
{
    struct rig *rig = *state;
    struct ash_bitmap_source sources[2] = {{NULL, "fine"}, {NULL, "missing"}};
    assert_int_equal(create(rig, NULL, "fine", 512, 0), 0);
    assert_int_equal(create(rig, NULL, "to", 65536, ASH_BITMAP_DISABLED), 0);
    write_at(rig, 70000, 1);
    assert_int_equal(ash_disk_bitmap_merge_sync(rig->disk, NULL, "to", sources, 2, NULL), -ENOENT);
    assert_string_equal(list(rig, NULL).text, "fine 512 512 recording\nto 65536 0\n");
    assert_int_equal(ash_disk_bitmap_merge_sync(rig->disk, NULL, "to", sources, 1, NULL), 0);
    assert_string_equal(list(rig, NULL).text, "fine 512 512 recording\nto 65536 65536\n");
    sources[1] = (struct ash_bitmap_source){"bottom", "other length"};
    assert_int_equal(create(rig, "bottom", "other length", 512, 0), 0);
    assert_int_equal(ash_disk_bitmap_merge_sync(rig->disk, NULL, "to", sources, 2, NULL), -EINVAL);
}

static void completions_come_once_later_and_on_the_plain_stack(void **state)
{
    struct rig *rig = *state;
    struct told told = {0};
    assert_int_equal(create(rig, NULL, "b", 4096, 0), 0);
    assert_int_equal(ash_disk_bitmap_list(rig->disk, NULL, tell, tell_done, &told), 0);
    assert_int_equal(told.done, 0);
    assert_string_equal(told.text, "");
    for (unsigned i = 0; i < 5; i++) {
        assert_true(ash_loop_run_once(rig->loop, 0, 0) >= 0);
    }
    assert_int_equal(told.done, 1);
    assert_int_equal(told.ret, 0);
    assert_false(told.in_coroutine);
    assert_string_equal(told.text, "b 4096 0 recording\n");
    assert_int_equal(ash_disk_bitmap_delete(rig->disk, NULL, "none", tell_done, &told), 0);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(ash_loop_run_once(rig->loop, 0, 0) >= 0);
    }
    assert_int_equal(told.done, 2);
    assert_int_equal(told.ret, -ENOENT);
}

/* A stream, with room for a small bitmap. */
struct stream {
    uint8_t bytes[8192];
    size_t used;
    size_t at;
    bool in_coroutine;
    int fail;
    struct told told;
};

static int sink(void *opaque, const void *data, size_t bytes)
{
    struct stream *stream = opaque;
    stream->in_coroutine = stream->in_coroutine || ash_co_self() != NULL;
    if (stream->fail != 0) {
        return stream->fail;
    }
    assert_true(bytes <= sizeof(stream->bytes) - stream->used);
    memcpy(stream->bytes + stream->used, data, bytes);
    stream->used += bytes;
    return 0;
}

static int source(void *opaque, void *data, size_t bytes)
{
    struct stream *stream = opaque;
    stream->in_coroutine = stream->in_coroutine || ash_co_self() != NULL;
    if (bytes > stream->used - stream->at) {
        return -EPIPE;
    }
    memcpy(data, stream->bytes + stream->at, bytes);
    stream->at += bytes;
    return 0;
}

static void stream_done(void *opaque, int ret, const struct ash_error *error)
{
    struct stream *stream = opaque;
    tell_done(&stream->told, ret, error);
}

static void what_is_saved_is_loaded(void **state)
{
    struct rig *rig = *state;
    struct stream stream = {0};
    struct ash_bitmap_options options = ASH_BITMAP_OPTIONS_INIT;
    assert_int_equal(create(rig, NULL, "b", 4096, 0), 0);
    write_at(rig, 123456, 98765);
    write_at(rig, 999999, 1);
    assert_int_equal(ash_disk_bitmap_save_sync(rig->disk, NULL, "b", sink, &stream, NULL), 0);
    options.name = "copy";
    options.flags = ASH_BITMAP_DISABLED;
    assert_int_equal(ash_disk_bitmap_load_sync(rig->disk, &options, source, &stream, NULL), 0);
    assert_int_equal(stream.at, stream.used);
    assert_false(stream.in_coroutine);
    assert_string_equal(list(rig, NULL).text, "b 4096 102976 recording\ncopy 4096 102976\n");
    assert_int_equal(ash_disk_bitmap_load_sync(rig->disk, &options, source, &stream, NULL), -EPIPE);
    stream.at = 0;
    assert_int_equal(ash_disk_bitmap_load_sync(rig->disk, &options, source, &stream, NULL),
                     -EEXIST);
    stream.at = 0;
    options.node = "bottom"; /* of another length */
    assert_int_equal(ash_disk_bitmap_load_sync(rig->disk, &options, source, &stream, NULL),
                     -EINVAL);
}

static void saving_and_loading_complete_on_the_plain_stack(void **state)
{
    struct rig *rig = *state;
    struct stream stream = {0};
    struct ash_bitmap_options options = ASH_BITMAP_OPTIONS_INIT;
    assert_int_equal(create(rig, NULL, "b", 4096, 0), 0);
    write_at(rig, 123456, 98765);
    assert_int_equal(ash_disk_bitmap_save(rig->disk, NULL, "b", sink, stream_done, &stream), 0);
    while (stream.told.done < 1) {
        assert_true(ash_loop_run_once(rig->loop, -1, 0) >= 0);
    }
    assert_int_equal(stream.told.ret, 0);
    options.name = "copy";
    assert_int_equal(ash_disk_bitmap_load(rig->disk, &options, source, stream_done, &stream), 0);
    while (stream.told.done < 2) {
        assert_true(ash_loop_run_once(rig->loop, -1, 0) >= 0);
    }
    assert_int_equal(stream.told.ret, 0);
    assert_false(stream.in_coroutine);
    assert_string_equal(list(rig, NULL).text,
                        "b 4096 102400 recording\ncopy 4096 102400 recording\n");
    stream.fail = -ENOSPC;
    assert_int_equal(ash_disk_bitmap_save(rig->disk, NULL, "b", sink, stream_done, &stream), 0);
    while (stream.told.done < 3) {
        assert_true(ash_loop_run_once(rig->loop, -1, 0) >= 0);
    }
    assert_int_equal(stream.told.ret, -ENOSPC);
}

static void any_thread_may_ask_a_loop_with_its_own(void **state)
{
    /* 245 granules of 4 KiB: three words of dirty ones, one of clean ones. */
    static const uint8_t bytes[] = {'a', 's', 'h',  'b',  'i',  't', 's', 1, 0, 0, 0,   0, 12, 0,
                                    0,   0,   0x40, 0x42, 0x0f, 0,   0,   0, 0, 0, 245, 0, 0,  0,
                                    0,   0,   0,    0,    192,  0,   0,   0, 0, 0, 0,   0, 1,  0,
                                    0,   0,   3,    0,    0,    0,   0,   0, 0, 0, 1,   0, 0,  0};
    struct rig *rig = *state;
    struct stream stream = {.used = sizeof(bytes)};
    struct ash_bitmap_options options = ASH_BITMAP_OPTIONS_INIT;
    memcpy(stream.bytes, bytes, sizeof(bytes));
    options.name = "b";
    assert_int_equal(ash_disk_bitmap_load_sync(rig->disk, &options, source, &stream, NULL), 0);
    assert_string_equal(list(rig, NULL).text, "b 4096 786432 recording\n");
    stream = (struct stream){0};
    assert_int_equal(ash_disk_bitmap_save_sync(rig->disk, NULL, "b", sink, &stream, NULL), 0);
    assert_int_equal(stream.used, sizeof(bytes));
    assert_memory_equal(stream.bytes, bytes, sizeof(bytes));
    struct ash_bitmap_source from = {NULL, "b"};
    assert_int_equal(create(rig, NULL, "c", 65536, 0), 0);
    assert_int_equal(ash_disk_bitmap_merge_sync(rig->disk, NULL, "c", &from, 1, NULL), 0);
    assert_int_equal(ash_disk_bitmap_delete_sync(rig->disk, NULL, "b", NULL), 0);
    assert_string_equal(list(rig, NULL).text, "c 65536 786432 recording\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(bitmaps_are_made_marked_listed_cleared_and_deleted),
        TEST(calls_with_a_callback_do_what_those_do_that_wait),
        TEST(a_bitmap_lies_on_the_node_that_is_named),
        TEST(what_cannot_be_done_says_why),
        TEST(a_merge_of_several_is_whole_or_not_at_all),
        TEST(completions_come_once_later_and_on_the_plain_stack),
        TEST(what_is_saved_is_loaded),
        TEST(saving_and_loading_complete_on_the_plain_stack),
        cmocka_unit_test_setup_teardown(any_thread_may_ask_a_loop_with_its_own, set_up_own_thread,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
