/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making a loop: its configuration, and the hooks of its host. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/dies.h"
#include "util/assert.h"
#include "util/loop/loop.h"

static struct ash_loop *loop;

static int set_up(void **state)
{
    (void)state;
    int result = ash_loop_new(NULL, &loop, NULL);
    return result < 0 ? result : ash_loop_bind(loop);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    return 0;
}

/* ---- configuration ---- */

static void expect_refused(const struct ash_loop_config *config, const char *names)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_loop *none = NULL;
    assert_int_equal(ash_loop_new(config, &none, &error), -EINVAL);
    assert_null(none);
    assert_int_equal(error.code, -EINVAL);
    assert_non_null(strstr(error.message, names));
}

static void *alloc_aligned(void *opaque, size_t bytes, size_t alignment)
{
    size_t *live = opaque;
    *live += bytes;
    void *memory;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

static void free_aligned(void *opaque, void *memory, size_t bytes)
{
    size_t *live = opaque;
    *live -= bytes;
    free(memory);
}

static void wrong_field_of_the_configuration_is_named(void **state)
{
    (void)state;
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.size = 4;
    expect_refused(&config, "size is 4");
    config = (struct ash_loop_config)ASH_LOOP_CONFIG_INIT;
    config.flags = 0x80;
    expect_refused(&config, "flags are 0x80");
    config = (struct ash_loop_config)ASH_LOOP_CONFIG_INIT;
    config.depth = 4097;
    expect_refused(&config, "depth is 4097");
    config = (struct ash_loop_config)ASH_LOOP_CONFIG_INIT;
    config.workers = 65;
    expect_refused(&config, "workers is 65");

    struct ash_hooks hooks = {.size = sizeof(hooks), .alloc = alloc_aligned};
    config = (struct ash_loop_config)ASH_LOOP_CONFIG_INIT;
    config.hooks = &hooks;
    expect_refused(&config, "alloc and free");
    hooks = (struct ash_hooks){.size = 1};
    expect_refused(&config, "size is 1");
}

static void configuration_of_a_newer_caller_is_taken_if_it_asks_for_nothing_new(void **state)
{
    (void)state;
    struct {
        struct ash_loop_config known;
        uint64_t future;
    } newer = {ASH_LOOP_CONFIG_INIT, 0};
    newer.known.size = sizeof(newer);
    struct ash_loop *other;
    assert_int_equal(ash_loop_new(&newer.known, &other, NULL), 0);
    ash_loop_free(other);
    newer.future = 1;
    expect_refused(&newer.known, "does not know");
}

static void configuration_of_an_older_caller_gets_defaults(void **state)
{
    (void)state;
    struct ash_loop_config older = ASH_LOOP_CONFIG_INIT;
    older.size = offsetof(struct ash_loop_config, depth);
    older.depth = 1000000; /* not part of it */
    struct ash_loop *other;
    assert_int_equal(ash_loop_new(&older, &other, NULL), 0);
    assert_int_equal(other->metadata_bytes_max, 32 * MiB);
    ash_loop_free(other);
}

static void engine_in_use_is_the_one_that_was_asked_for(void **state)
{
    (void)state;
    const char *name = getenv("ASHLAR_ENGINE");
    if (name != NULL) {
        assert_string_equal(ash_loop_engine(loop), name);
    }
}

static void loop_is_bound_once(void **state)
{
    (void)state;
    assert_int_equal(ash_loop_bind(loop), -EBUSY);
}

static void loop_that_was_never_bound_can_be_freed(void **state)
{
    (void)state;
    struct ash_loop *other;
    assert_int_equal(ash_loop_new(NULL, &other, NULL), 0);
    ash_loop_free(other);
}

/* ---- the host's hooks ---- */

static void buffers_are_aligned(void **state)
{
    (void)state;
    for (size_t alignment = 16; alignment <= 1 << 21; alignment *= 2) {
        char *buffer = ash_buffer_alloc(loop, 100, alignment);
        assert_non_null(buffer);
        assert_int_equal((uintptr_t)buffer % alignment, 0);
        memset(buffer, 1, 100);
        ash_buffer_free(loop, buffer, 100);
    }
    ash_buffer_free(loop, NULL, 0);
}

static void large_buffers_are_kept_while_somebody_wants_that(void **state)
{
    (void)state;
    ash_buffers_keep(loop);
    ash_buffers_keep(loop);
    char *first = ash_buffer_alloc(loop, 600000, 16);
    char *other = ash_buffer_alloc(loop, 70000, 16);
    ash_buffer_free(loop, first, 600000);
    ash_buffer_free(loop, other, 70000);
    assert_int_equal(loop->buffers.count, 2);
    /* Another length of the same power of two, and all of that can be used. */
    char *second = ash_buffer_alloc(loop, 1 << 20, 4096);
    assert_ptr_equal(second, first);
    memset(second, 1, 1 << 20);
    ash_buffers_unkeep(loop);
    char *aligned = ash_buffer_alloc(loop, 70000, 1 << 21);
    assert_int_equal((uintptr_t)aligned % (1 << 21), 0);
    assert_int_equal(loop->buffers.count, 1);
    ash_buffer_free(loop, aligned, 70000);
    assert_int_equal(loop->buffers.count, 2);
    ash_buffers_unkeep(loop);
    assert_int_equal(loop->buffers.count, 0);
    ash_buffer_free(loop, second, 1 << 20);
    assert_int_equal(loop->buffers.count, 0);
}

static void only_so_many_buffers_are_kept(void **state)
{
    (void)state;
    char *buffers[ASH_BUFFERS_KEPT_MAX + 1];
    ash_buffers_keep(loop);
    for (int i = 0; i <= ASH_BUFFERS_KEPT_MAX; i++) {
        buffers[i] = ash_buffer_alloc(loop, 65536, 4096);
    }
    for (int i = 0; i <= ASH_BUFFERS_KEPT_MAX; i++) {
        ash_buffer_free(loop, buffers[i], 65536);
    }
    assert_int_equal(loop->buffers.count, ASH_BUFFERS_KEPT_MAX);
    ash_buffers_unkeep(loop);
    assert_int_equal(loop->buffers.count, 0);
}

static struct ash_loop *loop_with(const struct ash_hooks *hooks)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.hooks = hooks;
    struct ash_loop *other;
    assert_int_equal(ash_loop_new(&config, &other, NULL), 0);
    return other;
}

static void *alloc_nothing(void *opaque, size_t bytes, size_t alignment)
{
    (void)opaque;
    (void)bytes;
    (void)alignment;
    return NULL;
}

static void host_that_is_out_of_memory_gives_no_buffer(void **state)
{
    (void)state;
    struct ash_hooks hooks = {.size = sizeof(hooks), .alloc = alloc_nothing, .free = free_aligned};
    struct ash_loop *other = loop_with(&hooks);
    assert_null(ash_buffer_alloc(other, 100, 4096));
    ash_loop_free(other);
}

static void buffers_come_from_the_hooks_of_the_host(void **state)
{
    (void)state;
    size_t live = 0;
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &live, .alloc = alloc_aligned, .free = free_aligned};
    struct ash_loop *other = loop_with(&hooks);
    hooks = (struct ash_hooks){0}; /* they were copied */
    void *buffer = ash_buffer_alloc(other, 12345, 4096);
    assert_int_equal(live, 12345);
    ash_buffer_free(other, buffer, 12345);
    assert_int_equal(live, 0);
    ash_loop_free(other);
}

static void *alloc_misaligned(void *opaque, size_t bytes, size_t alignment)
{
    return (char *)alloc_aligned(opaque, bytes + alignment, alignment) + 16;
}

static void free_misaligned(void *opaque, void *memory, size_t bytes)
{
    *(size_t *)opaque += bytes;
    free((char *)memory - 16);
}

static void misaligned_buffer_of_the_host_is_given_back(void **state)
{
    (void)state;
    size_t live = 0;
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &live, .alloc = alloc_misaligned, .free = free_misaligned};
    struct ash_loop *other = loop_with(&hooks);
    assert_null(ash_buffer_alloc(other, 100, 4096));
    assert_int_equal(live, 100 + 4096 + 100);
    ash_loop_free(other);
}

static char logged[2048];
static enum ash_log_level logged_level;

static void keep_log(void *opaque, enum ash_log_level level, const char *message)
{
    (void)opaque;
    logged_level = level;
    assert_true(strlen(message) < sizeof(logged));
    memcpy(logged, message, strlen(message) + 1);
}

static void log_reaches_the_hook_as_one_line(void **state)
{
    (void)state;
    struct ash_hooks hooks = {.size = sizeof(hooks), .log = keep_log};
    struct ash_loop *other = loop_with(&hooks);
    errno = ENOSPC;
    ash_log(other, ASH_LOG_WARNING, "file '%s' has %d", "a\nb\x1b[2J", 7);
    assert_int_equal(errno, ENOSPC);
    assert_string_equal(logged, "file 'a?b?[2J' has 7");
    assert_int_equal(logged_level, ASH_LOG_WARNING);

    char name[3000];
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    ash_log(other, ASH_LOG_ERROR, "%s", name);
    assert_int_equal(strlen(logged), 1023);
    assert_string_equal(logged + 1020, "...");
    ash_loop_free(other);
    ash_log(loop, ASH_LOG_ERROR, "nobody listens");
}

static int fatal_pipe[2];

static void tell_fatal(void *opaque, const char *message)
{
    (void)opaque;
    if (write(fatal_pipe[1], message, strlen(message)) < 0) {
        _exit(1);
    }
}

static void fail_in_turn(void *opaque)
{
    ash_assert(opaque == fail_in_turn);
}

static void fail_an_assertion(void)
{
    struct ash_hooks hooks = {.size = sizeof(hooks), .fatal = tell_fatal};
    struct ash_loop *other = loop_with(&hooks);
    if (ash_loop_bind(other) < 0 || ash_loop_post(other, fail_in_turn, NULL) < 0) {
        _exit(2);
    }
    ash_loop_run_once(other, -1, 0);
}

static void fatal_hook_is_told_before_the_abort(void **state)
{
    (void)state;
    assert_int_equal(pipe(fatal_pipe), 0);
    assert_dies(fail_an_assertion, SIGABRT);
    close(fatal_pipe[1]);
    char message[512] = "";
    assert_true(read(fatal_pipe[0], message, sizeof(message) - 1) > 0);
    assert_non_null(strstr(message, "opaque == fail_in_turn"));
    close(fatal_pipe[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_field_of_the_configuration_is_named),
        cmocka_unit_test(configuration_of_a_newer_caller_is_taken_if_it_asks_for_nothing_new),
        cmocka_unit_test(configuration_of_an_older_caller_gets_defaults),
        TEST(engine_in_use_is_the_one_that_was_asked_for),
        TEST(loop_is_bound_once),
        cmocka_unit_test(loop_that_was_never_bound_can_be_freed),
        TEST(buffers_are_aligned),
        TEST(large_buffers_are_kept_while_somebody_wants_that),
        TEST(only_so_many_buffers_are_kept),
        TEST(host_that_is_out_of_memory_gives_no_buffer),
        TEST(buffers_come_from_the_hooks_of_the_host),
        TEST(misaligned_buffer_of_the_host_is_given_back),
        TEST(log_reaches_the_hook_as_one_line),
        TEST(fatal_hook_is_told_before_the_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
