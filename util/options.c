/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of drivers, from JSON into a struct, by a table.
 *
 * A table belongs to its driver and is constant; the struct belongs to the caller, and the strings
 * in it are freed by ash_options_clear().
 *
 * 1. A field is changed only by a value that was accepted.
 * 2. Text is accepted for every type, because that is what key=value has; JSON's own types only
 *    where they mean the same: no number for a bool, no fraction for a size. */
#include "util/options.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "util/assert.h"
#include "util/json.h"
#include "util/size.h"

static void *field_of(const struct ash_option *option, void *target)
{
    return (char *)target + option->offset;
}

static uint64_t max_of(const struct ash_option *option)
{
    return option->max != 0 ? option->max : INT64_MAX;
}

void ash_options_init(const struct ash_option *table, void *target)
{
    for (const struct ash_option *option = table; option->name != NULL; option++) {
        void *field = field_of(option, target);
        switch (option->type) {
        case ASH_OPTION_TYPE_BOOL:
            *(bool *)field = option->def != 0;
            break;
        case ASH_OPTION_TYPE_SWITCH:
            *(int *)field = -1;
            break;
        case ASH_OPTION_TYPE_SIZE:
        case ASH_OPTION_TYPE_UINT:
            *(uint64_t *)field = option->def;
            break;
        case ASH_OPTION_TYPE_STRING:
            *(char **)field = NULL;
            break;
        case ASH_OPTION_TYPE_ENUM:
            *(int *)field = (int)option->def;
            break;
        case ASH_OPTION_TYPE_JSON:
            *(json_t **)field = NULL;
            break;
        }
    }
}

/* What an option expected and did not get. */
static int refuse(const struct ash_option *option, const json_t *value, const char *expected,
                  struct ash_error *error)
{
    char *text = json_is_string(value) ? NULL : ash_json_text(value);

    ash_error_set(error, -EINVAL, "Parameter '%s' expects %s, not '%s'", option->name, expected,
                  text != NULL ? text : json_string_value(value));
    free(text);
    return -EINVAL;
}

int ash_option_bool_of_text(const char *text)
{
    static const char *const yes[] = {"on", "yes", "true", "y"};
    static const char *const no[] = {"off", "no", "false", "n"};

    for (unsigned i = 0; i < ASH_ARRAY_SIZE(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            return strcmp(text, yes[i]) == 0;
        }
    }
    return -1;
}

int ash_option_bool(const json_t *value)
{
    if (json_is_boolean(value)) {
        return json_is_true(value);
    }
    return json_is_string(value) ? ash_option_bool_of_text(json_string_value(value)) : -1;
}

static int take_bool(const struct ash_option *option, const json_t *value, bool *field,
                     struct ash_error *error)
{
    int on = ash_option_bool(value);

    if (on < 0) {
        return refuse(option, value, "'on' or 'off'", error);
    }
    *field = on;
    return 0;
}

static int take_switch(const struct ash_option *option, const json_t *value, int *field,
                       struct ash_error *error)
{
    bool on = false;
    int ret = take_bool(option, value, &on, error);
    if (ret == 0) {
        *field = on;
    }
    return ret;
}

/* A number from text: a size with its suffix, or a plain decimal or hexadecimal number. */
static bool parse_number(const struct ash_option *option, const char *text, uint64_t *number)
{
    bool hex = g_ascii_strncasecmp(text, "0x", 2) == 0;

    if (option->type == ASH_OPTION_TYPE_SIZE) {
        return ash_size_parse(text, 1, number) == 0;
    }
    return g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, 0, UINT64_MAX, number,
                                      NULL);
}

static int take_number(const struct ash_option *option, const json_t *value, uint64_t *field,
                       struct ash_error *error)
{
    bool is_size = option->type == ASH_OPTION_TYPE_SIZE;
    uint64_t number = 0;
    bool valid = false;

    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        number = (uint64_t)json_integer_value(value);
        valid = true;
    } else if (json_is_string(value)) {
        valid = parse_number(option, json_string_value(value), &number);
    }
    if (!valid) {
        return refuse(option, value, is_size ? "a size" : "a number", error);
    }
    if (number < option->min || number > max_of(option)) {
        g_autofree char *expected =
            g_strdup_printf("a %s from %" PRIu64 " to %" PRIu64, is_size ? "size" : "number",
                            option->min, max_of(option));
        return refuse(option, value, expected, error);
    }
    *field = number;
    return 0;
}

static int take_string(const struct ash_option *option, const json_t *value, char **field,
                       struct ash_error *error)
{
    if (!json_is_string(value)) {
        return refuse(option, value, "a string", error);
    }
    g_free(*field);
    *field = g_strdup(json_string_value(value));
    return 0;
}

static int take_enum(const struct ash_option *option, const json_t *value, int *field,
                     struct ash_error *error)
{
    const char *text = json_string_value(value);

    for (int i = 0; text != NULL && option->values[i] != NULL; i++) {
        if (strcmp(text, option->values[i]) == 0) {
            *field = i;
            return 0;
        }
    }
    g_autofree char *names = g_strjoinv(", ", (char **)option->values);
    g_autofree char *expected = g_strdup_printf("one of: %s", names);
    return refuse(option, value, expected, error);
}

static int take_one(const struct ash_option *option, const json_t *value, void *target,
                    struct ash_error *error)
{
    void *field = field_of(option, target);

    switch (option->type) {
    case ASH_OPTION_TYPE_BOOL:
        return take_bool(option, value, field, error);
    case ASH_OPTION_TYPE_SWITCH:
        return take_switch(option, value, field, error);
    case ASH_OPTION_TYPE_SIZE:
    case ASH_OPTION_TYPE_UINT:
        return take_number(option, value, field, error);
    case ASH_OPTION_TYPE_STRING:
        return take_string(option, value, field, error);
    case ASH_OPTION_TYPE_ENUM:
        return take_enum(option, value, field, error);
    case ASH_OPTION_TYPE_JSON:
        json_decref(*(json_t **)field);
        *(json_t **)field = json_deep_copy(value);
        return 0;
    }
    ash_assert(false);
    return -EINVAL;
}

/* The object that holds a key of this name, and the key: of "a.b", the object a, which becomes the
 * caller's own copy in `object`. NULL: there is none. */
static json_t *holder_of(json_t *object, const char *name, const char **key)
{
    const char *dot = strchr(name, '.');
    *key = dot != NULL ? dot + 1 : name;
    if (dot == NULL) {
        return object;
    }
    g_autofree char *outer = g_strndup(name, (gsize)(dot - name));
    json_t *inner = json_object_get(object, outer);
    if (!json_is_object(inner) || json_object_get(inner, *key) == NULL) {
        return NULL;
    }
    inner = json_copy(inner);
    json_object_set_new(object, outer, inner);
    return inner;
}

/* Takes the key away, and what it leaves empty. */
static void remove_key(json_t *object, json_t *holder, const char *name, const char *key)
{
    json_object_del(holder, key);
    if (holder != object && json_object_size(holder) == 0) {
        g_autofree char *outer = g_strndup(name, (gsize)(key - name - 1));
        json_object_del(object, outer);
    }
}

int ash_options_take(const struct ash_option *table, json_t *object, void *target,
                     struct ash_error *error)
{
    for (const struct ash_option *option = table; option->name != NULL; option++) {
        const char *key;
        json_t *holder = holder_of(object, option->name, &key);
        json_t *value = holder != NULL ? json_object_get(holder, key) : NULL;
        if (value == NULL) {
            continue;
        }
        int ret = take_one(option, value, target, error);
        if (ret < 0) {
            return ret;
        }
        remove_key(object, holder, option->name, key);
    }
    return 0;
}

/* "a", or "a.b.c" of the first that is in the objects below it. */
static char *first_name(const char *key, const json_t *value)
{
    void *first = json_object_iter((json_t *)value);
    if (first == NULL) {
        return g_strdup(key);
    }
    char *below = first_name(json_object_iter_key(first), json_object_iter_value(first));
    char *name = g_strdup_printf("%s.%s", key, below);
    g_free(below);
    return name;
}

int ash_options_refuse_rest(json_t *object, const char *what, struct ash_error *error)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        char *name = first_name(key, value);
        ash_error_set(error, -EINVAL, "%s does not support the option '%s'", what, name);
        g_free(name);
        return -EINVAL;
    }
    return 0;
}

void ash_options_clear(const struct ash_option *table, void *target)
{
    for (const struct ash_option *option = table; option->name != NULL; option++) {
        if (option->type == ASH_OPTION_TYPE_STRING) {
            char **field = field_of(option, target);
            g_free(*field);
            *field = NULL;
        } else if (option->type == ASH_OPTION_TYPE_JSON) {
            json_t **field = field_of(option, target);
            json_decref(*field);
            *field = NULL;
        }
    }
}
