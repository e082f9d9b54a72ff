/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of drivers, by a table. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>
#include "util/compiler.h"
#include "util/json.h"
#include "util/options.h"

struct target {
    bool lazy;
    uint64_t size;
    uint64_t cluster_size;
    uint64_t bits;
    char *filename;
    int preallocation;
    uint64_t inner_size;
    bool inner_lazy;
    int maybe;
    json_t *rules;
};

static const char *const preallocations[] = {"off", "metadata", "falloc", "full", NULL};

static const struct ash_option table[] = {
    ASH_OPTION_BOOL("lazy", struct target, lazy, .def = 1),
    ASH_OPTION_SIZE("size", struct target, size, .def = 7),
    ASH_OPTION_SIZE("cluster_size", struct target, cluster_size, .def = 65536, .min = 512,
                    .max = 2 * MiB),
    ASH_OPTION_UINT("bits", struct target, bits, .def = 16, .min = 1, .max = 64),
    ASH_OPTION_STRING("filename", struct target, filename),
    ASH_OPTION_ENUM("preallocation", struct target, preallocation, preallocations, .def = 1),
    ASH_OPTION_SIZE("inner.size", struct target, inner_size, .def = 3),
    ASH_OPTION_BOOL("inner.lazy", struct target, inner_lazy, .def = 0),
    ASH_OPTION_SWITCH("maybe", struct target, maybe),
    ASH_OPTION_JSON("rules", struct target, rules),
    ASH_OPTION_END,
};

static struct target target;

static int setup(void **state)
{
    (void)state;
    ash_options_init(table, &target);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ash_options_clear(table, &target);
    return 0;
}

/* Takes the options of a description; all its keys must be known. */
static void take(const char *text)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *object =
        text[0] == '{' ? ash_json_parse(text, &error) : ash_json_from_keyval(text, NULL, &error);

    assert_non_null(object);
    int ret = ash_options_take(table, object, &target, &error);
    if (ret != 0) {
        print_error("%s: %s\n", text, error.message);
    }
    assert_int_equal(ret, 0);
    assert_int_equal(json_object_size(object), 0);
    json_decref(object);
}

static void assert_refuses(const char *text, const char *message)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct target before = target;
    json_t *object =
        text[0] == '{' ? ash_json_parse(text, &error) : ash_json_from_keyval(text, NULL, &error);

    assert_non_null(object);
    assert_int_equal(ash_options_take(table, object, &target, &error), -EINVAL);
    assert_int_equal(error.code, -EINVAL);
    assert_string_equal(error.message, message);
    assert_int_equal(before.lazy, target.lazy);
    assert_int_equal(before.size, target.size);
    assert_int_equal(before.cluster_size, target.cluster_size);
    assert_int_equal(before.bits, target.bits);
    assert_int_equal(before.preallocation, target.preallocation);
    assert_int_equal(before.maybe, target.maybe);
    json_decref(object);
}

static void defaults_fill_the_target(void **state)
{
    (void)state;
    assert_true(target.lazy);
    assert_int_equal(target.size, 7);
    assert_int_equal(target.cluster_size, 65536);
    assert_int_equal(target.bits, 16);
    assert_null(target.filename);
    assert_int_equal(target.preallocation, 1);
    take("{}");
    assert_int_equal(target.cluster_size, 65536);
}

static void json_types_are_taken(void **state)
{
    (void)state;
    assert_int_equal(target.maybe, -1);
    take("{\"maybe\": true, \"lazy\": false, \"size\": 1048576, \"bits\": 64, \"filename\": \"a\", "
         "\"preallocation\": \"full\"}");
    assert_int_equal(target.maybe, 1);
    assert_false(target.lazy);
    assert_int_equal(target.size, MiB);
    assert_int_equal(target.bits, 64);
    assert_string_equal(target.filename, "a");
    assert_int_equal(target.preallocation, 3);
}

static void text_is_taken_for_every_type(void **state)
{
    (void)state;
    assert_int_equal(target.maybe, -1);
    take("maybe=off,lazy=off,size=1.5G,cluster_size=2M,bits=0x10,filename=a,,b,preallocation=off");
    assert_int_equal(target.maybe, 0);
    assert_false(target.lazy);
    assert_int_equal(target.size, 3 * GiB / 2);
    assert_int_equal(target.cluster_size, 2 * MiB);
    assert_int_equal(target.bits, 16);
    assert_string_equal(target.filename, "a,b");
    assert_int_equal(target.preallocation, 0);
}

static void bools_have_four_spellings_each(void **state)
{
    static const char *const yes[] = {"lazy=on", "lazy=yes", "lazy=true", "lazy=y", "lazy"};
    static const char *const no[] = {"lazy=off", "lazy=no", "lazy=false", "lazy=n"};

    (void)state;
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(yes); i++) {
        target.lazy = false;
        take(yes[i]);
        assert_true(target.lazy);
    }
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(no); i++) {
        target.lazy = true;
        take(no[i]);
        assert_false(target.lazy);
    }
}

static void bad_bools_are_refused(void **state)
{
    (void)state;
    assert_refuses("lazy=abc", "Parameter 'lazy' expects 'on' or 'off', not 'abc'");
    assert_refuses("lazy=", "Parameter 'lazy' expects 'on' or 'off', not ''");
    assert_refuses("{\"lazy\": 1}", "Parameter 'lazy' expects 'on' or 'off', not '1'");
    assert_refuses("maybe=abc", "Parameter 'maybe' expects 'on' or 'off', not 'abc'");
    assert_refuses("{\"lazy\": null}", "Parameter 'lazy' expects 'on' or 'off', not 'null'");
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    assert_refuses("size=abc", "Parameter 'size' expects a size, not 'abc'");
    assert_refuses("size=-1", "Parameter 'size' expects a size, not '-1'");
    assert_refuses("size=8E", "Parameter 'size' expects a size, not '8E'");
    assert_refuses("{\"size\": -1}", "Parameter 'size' expects a size, not '-1'");
    assert_refuses("{\"size\": true}", "Parameter 'size' expects a size, not 'true'");
    assert_refuses("{\"size\": 1.5}", "Parameter 'size' expects a size, not '1.5'");
    assert_refuses("size.x=1", "Parameter 'size' expects a size, not '{\"x\": \"1\"}'");
}

static void sizes_out_of_range_are_refused(void **state)
{
    (void)state;
    assert_refuses("cluster_size=511",
                   "Parameter 'cluster_size' expects a size from 512 to 2097152, not '511'");
    assert_refuses("{\"cluster_size\": 2097153}",
                   "Parameter 'cluster_size' expects a size from 512 to 2097152, not '2097153'");
    take("cluster_size=512");
    take("cluster_size=2M");
    take("size=9223372036854775807");
    assert_true(target.size == INT64_MAX);
}

static void bad_numbers_are_refused(void **state)
{
    (void)state;
    assert_refuses("bits=abc", "Parameter 'bits' expects a number, not 'abc'");
    assert_refuses("bits=1k", "Parameter 'bits' expects a number, not '1k'");
    assert_refuses("bits=", "Parameter 'bits' expects a number, not ''");
    assert_refuses("bits=0x", "Parameter 'bits' expects a number, not '0x'");
    assert_refuses("bits=-1", "Parameter 'bits' expects a number, not '-1'");
    assert_refuses("bits=0x-1", "Parameter 'bits' expects a number, not '0x-1'");
    assert_refuses("bits=18446744073709551616",
                   "Parameter 'bits' expects a number, not '18446744073709551616'");
    assert_refuses("bits=65", "Parameter 'bits' expects a number from 1 to 64, not '65'");
    assert_refuses("bits=0", "Parameter 'bits' expects a number from 1 to 64, not '0'");
}

static void bad_strings_and_names_are_refused(void **state)
{
    (void)state;
    assert_refuses("{\"filename\": 1}", "Parameter 'filename' expects a string, not '1'");
    assert_null(target.filename);
    assert_refuses("preallocation=abc", "Parameter 'preallocation' expects one of: off, metadata, "
                                        "falloc, full, not 'abc'");
    assert_refuses("{\"preallocation\": 1}", "Parameter 'preallocation' expects one of: off, "
                                             "metadata, falloc, full, not '1'");
}

static void taking_a_string_again_replaces_it(void **state)
{
    (void)state;
    take("filename=a");
    take("filename=b");
    assert_string_equal(target.filename, "b");
}

static void unknown_keys_stay_and_the_first_is_refused_by_name(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *object = ash_json_from_keyval("foo=1,size=2,bar=3", NULL, NULL);

    (void)state;
    assert_int_equal(ash_options_take(table, object, &target, &error), 0);
    assert_int_equal(target.size, 2);
    assert_int_equal(json_object_size(object), 2);
    assert_int_equal(ash_options_refuse_rest(object, "Block format 'raw'", &error), -EINVAL);
    assert_string_equal(error.message, "Block format 'raw' does not support the option 'foo'");
    json_object_clear(object);
    assert_int_equal(ash_options_refuse_rest(object, "Block format 'raw'", &error), 0);
    json_decref(object);
}

static void a_dotted_name_is_a_key_in_an_object(void **state)
{
    (void)state;
    take("{\"inner\": {\"size\": 12, \"lazy\": true}}");
    assert_int_equal(target.inner_size, 12);
    assert_true(target.inner_lazy);
    take("inner.size=13,inner.lazy=off");
    assert_int_equal(target.inner_size, 13);
    assert_false(target.inner_lazy);
}

static void what_is_unknown_in_an_object_stays_there(void **state)
{
    (void)state;
    json_t *inner = json_pack("{s:i, s:i}", "size", 14, "other", 1);
    json_t *object = json_pack("{s:O}", "inner", inner);
    assert_int_equal(ash_options_take(table, object, &target, NULL), 0);
    assert_int_equal(target.inner_size, 14);
    assert_int_equal(json_object_size(json_object_get(object, "inner")), 1);
    assert_int_equal(json_object_size(inner), 2); /* it may be somebody else's too */
    assert_int_equal(ash_options_refuse_rest(object, "A table", NULL), -EINVAL);
    json_decref(object);
    object = json_pack("{s:i}", "inner", 5);
    assert_int_equal(ash_options_take(table, object, &target, NULL), 0);
    assert_int_equal(json_object_size(object), 1);
    json_decref(object);
    json_decref(inner);
}

static void json_is_taken_as_it_stands(void **state)
{
    (void)state;
    assert_null(target.rules);
    take("{\"rules\": [1]}");
    take("{\"rules\": [{\"a\": 1}, {\"b\": [2]}]}");
    json_t *expected = json_loads("[{\"a\": 1}, {\"b\": [2]}]", 0, NULL);
    assert_true(json_equal(target.rules, expected));
    json_decref(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_dotted_name_is_a_key_in_an_object),
        TEST(what_is_unknown_in_an_object_stays_there),
        TEST(json_is_taken_as_it_stands),
        TEST(defaults_fill_the_target),
        TEST(json_types_are_taken),
        TEST(text_is_taken_for_every_type),
        TEST(bools_have_four_spellings_each),
        TEST(bad_bools_are_refused),
        TEST(bad_sizes_are_refused),
        TEST(sizes_out_of_range_are_refused),
        TEST(bad_numbers_are_refused),
        TEST(bad_strings_and_names_are_refused),
        TEST(taking_a_string_again_replaces_it),
        TEST(unknown_keys_stay_and_the_first_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
