/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptions: JSON, key=value text, dotted keys. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <glib.h>
#include "util/compiler.h"
#include "util/json.h"
#include "util/prng.h"

/* Takes the reference. */
static void assert_text(json_t *json, const char *expected)
{
    assert_non_null(json);
    char *text = ash_json_text(json);
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

static void assert_parses(const char *text, const char *expected)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *json = ash_json_parse(text, &error);

    if (json == NULL) {
        print_error("%s: %s\n", text, error.message);
    }
    assert_text(json, expected);
}

static void assert_refuses(const char *text, const char *message)
{
    struct ash_error error = ASH_ERROR_INIT;

    assert_null(ash_json_parse(text, &error));
    assert_int_equal(error.code, -EINVAL);
    if (strstr(error.message, message) == NULL) {
        print_error("%.200s: %s\n", text, error.message);
    }
    assert_non_null(strstr(error.message, message));
    assert_null(ash_json_parse(text, NULL));
}

static void assert_keyval(const char *text, const char *implied_key, const char *expected)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *json = ash_json_from_keyval(text, implied_key, &error);

    if (json == NULL) {
        print_error("%s: %s\n", text, error.message);
    }
    assert_text(json, expected);
}

static void assert_keyval_refuses(const char *text, const char *message)
{
    struct ash_error error = ASH_ERROR_INIT;

    assert_null(ash_json_from_keyval(text, NULL, &error));
    assert_int_equal(error.code, -EINVAL);
    if (strstr(error.message, message) == NULL) {
        print_error("%.200s: %s\n", text, error.message);
    }
    assert_non_null(strstr(error.message, message));
}

static void objects_keep_their_types_and_their_order(void **state)
{
    (void)state;
    assert_parses("{}", "{}");
    assert_parses(
        "{\"z\": 1, \"a\": true, \"m\": null, \"b\": \"x\", \"c\": [1, \"y\"], \"d\": {}}",
        "{\"z\": 1, \"a\": true, \"m\": null, \"b\": \"x\", \"c\": [1, \"y\"], \"d\": {}}");
}

static void dotted_keys_nest(void **state)
{
    (void)state;
    assert_parses("{\"driver\":\"qcow2\",\"file.driver\":\"file\",\"file.filename\":\"a\"}",
                  "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"a\"}}");
    assert_parses("{\"a.b\": {\"c.d\": 1}, \"a.b.c.e\": 2}",
                  "{\"a\": {\"b\": {\"c\": {\"d\": 1, \"e\": 2}}}}");
    assert_parses("{\"a\": [{\"b.c\": 1}]}", "{\"a\": [{\"b\": {\"c\": 1}}]}");
}

static void an_object_and_dotted_keys_into_it_are_merged(void **state)
{
    (void)state;
    assert_parses("{\"file\": {\"driver\": \"file\"}, \"file.filename\": \"a\"}",
                  "{\"file\": {\"driver\": \"file\", \"filename\": \"a\"}}");
    assert_parses("{\"file.filename\": \"a\", \"file\": {\"driver\": \"file\"}}",
                  "{\"file\": {\"filename\": \"a\", \"driver\": \"file\"}}");
}

static void numbered_parts_make_an_array(void **state)
{
    (void)state;
    assert_parses("{\"c.1.x\": \"b\", \"c.0.x\": \"a\"}",
                  "{\"c\": [{\"x\": \"a\"}, {\"x\": \"b\"}]}");
    assert_parses("{\"c.0.0\": 1, \"c.0.1\": 2}", "{\"c\": [[1, 2]]}");
    assert_parses("{\"c.00\": 1}", "{\"c\": {\"00\": 1}}");
    assert_parses("{\"0\": 1}", "{\"0\": 1}");
}

static void a_key_that_is_set_twice_is_refused(void **state)
{
    (void)state;
    assert_refuses("{\"a\": 1, \"a\": 2}", "duplicate");
    assert_refuses("{\"a\": {\"b\": 1}, \"a.b\": 2}", "'a.b' is set twice");
    assert_refuses("{\"a.b\": 1, \"a\": {\"b\": 2}}", "'b' is set twice");
    assert_refuses("{\"a\": [1], \"a.0\": 2}", "value and not a group");
}

static void a_key_that_is_value_and_object_is_refused(void **state)
{
    (void)state;
    assert_refuses("{\"file\": \"x\", \"file.filename\": \"a\"}",
                   "'file' is a value and not a group");
    assert_refuses("{\"file.filename\": \"a\", \"file\": \"x\"}", "'file' is set twice");
}

static void a_value_that_is_short_for_a_member_stands_beside_others(void **state)
{
    (void)state;
    const char *both = "{\"overlap-check\": {\"template\": \"all\", \"active-l1\": \"off\"}}";
    assert_parses("{\"overlap-check\": \"all\", \"overlap-check.active-l1\": \"off\"}", both);
    assert_parses("{\"overlap-check.active-l1\": \"off\", \"overlap-check\": \"all\"}",
                  "{\"overlap-check\": {\"active-l1\": \"off\", \"template\": \"all\"}}");
    assert_refuses("{\"overlap-check\": \"all\", \"overlap-check.template\": \"all\"}",
                   "'overlap-check.template' is set twice");
}

static void broken_arrays_are_refused(void **state)
{
    (void)state;
    assert_refuses("{\"c.0\": 1, \"c.2\": 2}", "lacks its part number 1");
    assert_refuses("{\"c.1\": 1}", "lacks its part number 0");
    assert_refuses("{\"c.0\": 1, \"c.x\": 2}", "both numbered and named");
    assert_refuses("{\"c.99999999999999999999\": 1}", "lacks its part number 0");
}

static void empty_components_are_refused(void **state)
{
    (void)state;
    assert_refuses("{\"\": 1}", "empty component");
    assert_refuses("{\".\": 1}", "empty component");
    assert_refuses("{\".a\": 1}", "empty component");
    assert_refuses("{\"a.\": 1}", "empty component");
    assert_refuses("{\"a..b\": 1}", "empty component");
}

static void what_is_not_an_object_is_refused(void **state)
{
    static const char *const texts[] = {"",
                                        "x",
                                        "[1]x",
                                        "1",
                                        "\"a\"",
                                        "{",
                                        "}",
                                        "{]",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{} {}",
                                        "{\"a\": \"\\u0000\"}",
                                        "{\"a\": \"\xff\"}",
                                        "{\"a\": 99999999999999999999}",
                                        "{\"a\": 1e999}",
                                        "{\"a\": nan}",
                                        "{'a': 1}"};

    (void)state;
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(texts); i++) {
        assert_refuses(texts[i], "not valid JSON");
    }
    assert_refuses("[1]", "not a JSON object");
}

/* {"a": {"a": ... }}, `depth` objects. */
static char *nested_objects(unsigned depth)
{
    GString *text = g_string_new("{");

    for (unsigned i = 1; i < depth; i++) {
        g_string_append(text, "\"a\":{");
    }
    for (unsigned i = 0; i < depth; i++) {
        g_string_append_c(text, '}');
    }
    return g_string_free(text, FALSE);
}

/* "a.a.a...", as long as it takes to nest `depth` objects. */
static char *nested_key(unsigned depth)
{
    GString *text = g_string_new("a");

    for (unsigned i = 1; i < depth; i++) {
        g_string_append(text, ".a");
    }
    return g_string_free(text, FALSE);
}

static void nesting_ends_at_64_levels(void **state)
{
    g_autofree char *most = nested_objects(64), *more = nested_objects(65);
    g_autofree char *brackets = g_strnfill(100000, '[');

    (void)state;
    assert_parses(
        "{\"a\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"{{\"}",
        "{\"a\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"{{\"}");
    json_t *json = ash_json_parse(most, NULL);
    assert_non_null(json);
    json_decref(json);
    assert_refuses(more, "deeper than 64");
    assert_refuses(brackets, "deeper than 64");
}

static void nesting_by_dots_ends_at_64_levels_too(void **state)
{
    g_autofree char *most = nested_key(64), *more = nested_key(65), *huge = nested_key(500000);
    g_autofree char *both = g_strdup_printf("{\"x\": {\"y\": [{\"%s\": 1}]}}", most);

    (void)state;
    json_t *json = ash_json_from_keyval(most, NULL, NULL);
    assert_non_null(json);
    json_decref(json);
    assert_keyval_refuses(more, "deeper than 64");
    assert_keyval_refuses(huge, "deeper than 64");
    assert_refuses(both, "deeper than 64");
}

static void texts_end_at_1_mib(void **state)
{
    g_autofree char *spaces = g_strnfill(MiB, ' ');
    g_autofree char *value = g_strnfill(MiB + 1, 'x');

    (void)state;
    memcpy(spaces + MiB - 2, "{}", 2);
    assert_parses(spaces, "{}");
    g_autofree char *longer = g_strconcat(" ", spaces, NULL);
    assert_refuses(longer, "longer than 1 MiB");
    assert_keyval_refuses(value, "longer than 1 MiB");
}

static void key_value_text_makes_strings(void **state)
{
    (void)state;
    assert_keyval("", NULL, "{}");
    assert_keyval("a=1", NULL, "{\"a\": \"1\"}");
    assert_keyval("z=1,a=x=y", NULL, "{\"z\": \"1\", \"a\": \"x=y\"}");
    assert_keyval("a=,b=2", NULL, "{\"a\": \"\", \"b\": \"2\"}");
    assert_keyval("a=1,", NULL, "{\"a\": \"1\"}");
}

static void two_commas_are_one_in_a_value(void **state)
{
    (void)state;
    assert_keyval("a=x,,y,b=,,", NULL, "{\"a\": \"x,y\", \"b\": \",\"}");
    assert_keyval("a=x,,,b=1", NULL, "{\"a\": \"x,\", \"b\": \"1\"}");
    assert_keyval("a=,,,,", NULL, "{\"a\": \",,\"}");
}

static void a_key_without_a_value_is_on(void **state)
{
    (void)state;
    assert_keyval("a,b=2,c", NULL, "{\"a\": \"on\", \"b\": \"2\", \"c\": \"on\"}");
}

static void the_implied_key_takes_a_first_value_without_key(void **state)
{
    (void)state;
    assert_keyval("qcow2,a=1", "driver", "{\"driver\": \"qcow2\", \"a\": \"1\"}");
    assert_keyval("x,,y=z,a", "driver", "{\"driver\": \"x,y=z\", \"a\": \"on\"}");
    assert_keyval("a=1,qcow2", "driver", "{\"a\": \"1\", \"qcow2\": \"on\"}");
    assert_keyval("a=1", "driver", "{\"a\": \"1\"}");
}

static void the_last_of_equal_keys_counts_in_text(void **state)
{
    (void)state;
    assert_keyval("size=512,b=1,size=1024", NULL, "{\"size\": \"1024\", \"b\": \"1\"}");
}

static void dots_nest_in_text_as_in_json(void **state)
{
    (void)state;
    assert_keyval(
        "driver=qcow2,file.driver=file,file.filename=a.img", NULL,
        "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"a.img\"}}");
    assert_keyval("c.0=a,c.1=b", NULL, "{\"c\": [\"a\", \"b\"]}");
    assert_keyval_refuses("file=x,file.filename=a", "value and not a group");
    assert_keyval_refuses("file..filename=a", "empty component");
}

static void nameless_and_garbled_parameters_are_refused(void **state)
{
    (void)state;
    assert_keyval_refuses("=x", "without a name");
    assert_keyval_refuses(",a=1", "without a name");
    assert_keyval_refuses("a=1,=2", "without a name");
    assert_keyval_refuses("a=\xff", "'a' is not valid UTF-8");
    assert_keyval_refuses("\xff=a", "not valid UTF-8");
}

static void a_failed_expansion_leaves_the_object(void **state)
{
    json_t *object = json_pack("{s:i, s:i}", "a", 1, "a.b", 2);

    (void)state;
    assert_int_equal(ash_json_expand(object, NULL), -EINVAL);
    assert_text(object, "{\"a\": 1, \"a.b\": 2}");
}

/* Any text ends in an object or in an error with a message; the checkers see to the rest. */
static void random_texts_end_in_an_object_or_an_error(void **state)
{
    static const char alphabet[] = "a,=.0b1{}[]\":\\ \n";
    char text[41];

    (void)state;
    for (uint64_t seed = 0; seed < 50000; seed++) {
        struct ash_error error = ASH_ERROR_INIT;
        struct ash_prng prng;
        ash_prng_seed(&prng, seed);
        size_t length = ash_prng_below(&prng, sizeof(text));
        for (size_t i = 0; i < length; i++) {
            text[i] = alphabet[ash_prng_below(&prng, sizeof(alphabet) - 1)];
        }
        text[length] = '\0';
        json_t *json = seed % 2 == 0 ? ash_json_parse(text, &error)
                                     : ash_json_from_keyval(text, "driver", &error);
        if (json != NULL ? !json_is_object(json) : error.message[0] == '\0') {
            print_error("seed %" PRIu64 ": '%s'\n", seed, text);
            fail();
        }
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_keep_their_types_and_their_order),
        cmocka_unit_test(dotted_keys_nest),
        cmocka_unit_test(an_object_and_dotted_keys_into_it_are_merged),
        cmocka_unit_test(numbered_parts_make_an_array),
        cmocka_unit_test(a_key_that_is_set_twice_is_refused),
        cmocka_unit_test(a_key_that_is_value_and_object_is_refused),
        cmocka_unit_test(a_value_that_is_short_for_a_member_stands_beside_others),
        cmocka_unit_test(broken_arrays_are_refused),
        cmocka_unit_test(empty_components_are_refused),
        cmocka_unit_test(what_is_not_an_object_is_refused),
        cmocka_unit_test(nesting_ends_at_64_levels),
        cmocka_unit_test(nesting_by_dots_ends_at_64_levels_too),
        cmocka_unit_test(texts_end_at_1_mib),
        cmocka_unit_test(key_value_text_makes_strings),
        cmocka_unit_test(two_commas_are_one_in_a_value),
        cmocka_unit_test(a_key_without_a_value_is_on),
        cmocka_unit_test(the_implied_key_takes_a_first_value_without_key),
        cmocka_unit_test(the_last_of_equal_keys_counts_in_text),
        cmocka_unit_test(dots_nest_in_text_as_in_json),
        cmocka_unit_test(nameless_and_garbled_parameters_are_refused),
        cmocka_unit_test(a_failed_expansion_leaves_the_object),
        cmocka_unit_test(random_texts_end_in_an_object_or_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
