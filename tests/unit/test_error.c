/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filling struct ash_error, and what a failed assertion tells its host. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <ashlar/loop.h>
#include "tests/unit/dies.h"
#include "util/assert.h"
#include "util/error.h"

static void set_stores_code_and_message_and_returns_the_code(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;

    (void)state;
    assert_int_equal(ash_error_set(&error, -EINVAL, "File '%s' at %d", "a", 7), -EINVAL);
    assert_int_equal(error.code, -EINVAL);
    assert_string_equal(error.message, "File 'a' at 7");
}

static void a_second_set_replaces_the_first(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;

    (void)state;
    ash_error_set(&error, -EINVAL, "A long first message");
    ash_error_set(&error, -EIO, "Short");
    assert_int_equal(error.code, -EIO);
    assert_string_equal(error.message, "Short");
}

static void errno_appends_its_text(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;

    (void)state;
    assert_int_equal(ash_error_errno(&error, -ENOENT, "Cannot open '%s'", "x"), -ENOENT);
    assert_string_equal(error.message, "Cannot open 'x': No such file or directory");
}

static void prefix_precedes_the_message_and_keeps_the_code(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;

    (void)state;
    ash_error_set(&error, -EFBIG, "too big");
    assert_int_equal(ash_error_prefix(&error, "%s: ", "disk"), -EFBIG);
    assert_string_equal(error.message, "disk: too big");
}

static void all_accept_no_error(void **state)
{
    (void)state;
    assert_int_equal(ash_error_set(NULL, -EINVAL, "x"), -EINVAL);
    assert_int_equal(ash_error_errno(NULL, -EIO, "x"), -EIO);
    assert_int_equal(ash_error_prefix(NULL, "x"), 0);
}

static void a_message_may_quote_the_one_that_it_replaces(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;

    (void)state;
    ash_error_set(&error, -EINVAL, "inner");
    ash_error_set(&error, -EIO, "outer (%s)", error.message);
    assert_string_equal(error.message, "outer (inner)");
}

static void the_longest_message_fits_and_a_longer_one_ends_in_dots(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;
    char text[2000];

    (void)state;
    memset(text, 'a', sizeof(text));
    ash_error_set(&error, -EINVAL, "%.1015s", text);
    assert_int_equal(strlen(error.message), 1015);
    assert_int_equal(error.message[1014], 'a');
    ash_error_set(&error, -EINVAL, "%.1016s", text);
    assert_int_equal(strlen(error.message), 1015);
    assert_string_equal(error.message + 1011, "a...");
}

static void a_prefix_that_does_not_fit_cuts_the_end(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;
    char text[1000];

    (void)state;
    memset(text, 'a', sizeof(text));
    ash_error_set(&error, -EINVAL, "%.1000s", text);
    ash_error_prefix(&error, "%.999s", text);
    assert_string_equal(error.message + 1011, "a...");
}

static void a_cut_does_not_tear_a_character(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;
    char text[2001];

    (void)state;
    for (unsigned shift = 0; shift < 2; shift++) {
        memset(text, 'a', sizeof(text));
        for (unsigned i = shift; i + 2 < sizeof(text); i += 2) {
            memcpy(text + i, "\xc3\xa9", 2); /* e acute */
        }
        ash_error_set(&error, -EINVAL, "%.2000s", text);
        size_t length = strlen(error.message);
        assert_string_equal(error.message + length - 3, "...");
        assert_int_equal((unsigned char)error.message[length - 4], 0xa9);
        assert_int_equal((length - 3 - shift) % 2, 0);
    }
}

static void a_smaller_struct_of_the_caller_is_not_overrun(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;

    (void)state;
    memset(error.message, '#', sizeof(error.message));
    error.size = offsetof(struct ash_error, message) + 8;
    ash_error_set(&error, -EINVAL, "0123456789");
    assert_memory_equal(error.message, "0123...\0#", 9);
    ash_error_set(&error, -EINVAL, "0123456");
    assert_memory_equal(error.message, "0123456\0#", 9);
    error.size = offsetof(struct ash_error, message);
    ash_error_set(&error, -EIO, "abc");
    assert_memory_equal(error.message, "0123456\0#", 9);
    assert_int_equal(error.code, -EIO);
}

static void sets_success(void)
{
    struct ash_error error = ASH_ERROR_INIT;

    ash_error_set(&error, 0, "not an error");
}

static void an_error_without_a_negative_code_aborts(void **state)
{
    (void)state;
    assert_asserts(sets_success, "code < 0");
}

static void fatal_expecting_its_message(void *opaque, const char *message)
{
    /* Seen from outside as the way in which the child dies. */
    if (strcmp(opaque, "mine") == 0 && strstr(message, "assertion failed: 1 + 1 == 3") != NULL &&
        strstr(message, "test_error.c:") != NULL) {
        signal(SIGTERM, SIG_DFL);
        raise(SIGTERM);
    }
}

static void fails_an_assertion(void)
{
    char mine[] = "mine";
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = mine, .fatal = fatal_expecting_its_message};

    ash_assert_set_hooks(&hooks);
    ash_assert(1 + 1 == 3);
}

static void a_failed_assertion_tells_the_fatal_hook(void **state)
{
    (void)state;
    assert_dies(fails_an_assertion, SIGTERM);
}

static void fatal_failing_itself(void *opaque, const char *message)
{
    (void)opaque;
    (void)message;
    ash_assert(false);
}

static void fails_an_assertion_in_the_hook(void)
{
    struct ash_hooks hooks = {.size = sizeof(hooks), .fatal = fatal_failing_itself};

    ash_assert_set_hooks(&hooks);
    ash_assert(false);
}

static void a_fatal_hook_that_fails_is_not_called_again(void **state)
{
    (void)state;
    assert_dies(fails_an_assertion_in_the_hook, SIGABRT);
}

static void fails_an_assertion_without_hooks(void)
{
    ash_assert_set_hooks(NULL);
    ash_assert(false);
}

static void a_failed_assertion_aborts_without_hooks(void **state)
{
    (void)state;
    assert_dies(fails_an_assertion_without_hooks, SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_stores_code_and_message_and_returns_the_code),
        cmocka_unit_test(a_second_set_replaces_the_first),
        cmocka_unit_test(errno_appends_its_text),
        cmocka_unit_test(prefix_precedes_the_message_and_keeps_the_code),
        cmocka_unit_test(all_accept_no_error),
        cmocka_unit_test(a_message_may_quote_the_one_that_it_replaces),
        cmocka_unit_test(the_longest_message_fits_and_a_longer_one_ends_in_dots),
        cmocka_unit_test(a_prefix_that_does_not_fit_cuts_the_end),
        cmocka_unit_test(a_cut_does_not_tear_a_character),
        cmocka_unit_test(a_smaller_struct_of_the_caller_is_not_overrun),
        cmocka_unit_test(an_error_without_a_negative_code_aborts),
        cmocka_unit_test(a_failed_assertion_tells_the_fatal_hook),
        cmocka_unit_test(a_fatal_hook_that_fails_is_not_called_again),
        cmocka_unit_test(a_failed_assertion_aborts_without_hooks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
