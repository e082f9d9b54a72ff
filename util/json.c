/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptions of nodes as JSON objects.
 *
 * Texts come from users, from management programs and, where the caller allows it, from image
 * headers: they are bounded before anything is built from them.
 *
 * 1. No text longer than TEXT_BYTES_MAX is looked at, and nothing nests deeper than DEPTH_MAX, be
 * it by brackets or by dots in a key: all recursion here and in jansson ends.
 * 2. Expanding builds a new object and changes the given one only when it has succeeded.
 * 3. A key is never set twice silently, except that in key=value text the last of equal keys
 * counts, as users of qemu-img know it. */
#include "util/json.h"

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <string.h>
#include "util/compiler.h"

#define TEXT_BYTES_MAX (1 * MiB)
#define DEPTH_MAX 64

/* How deep brackets nest, without a look at whether they match: that is the parser's business. */
static unsigned bracket_depth(const char *text)
{
    unsigned depth = 0, deepest = 0;
    bool quoted = false;

    for (; *text != '\0'; text++) {
        if (quoted && *text == '\\' && text[1] != '\0') {
            text++;
        } else if (*text == '"') {
            quoted = !quoted;
        } else if (!quoted && (*text == '{' || *text == '[')) {
            depth++;
            deepest = ASH_MAX(deepest, depth);
        } else if (!quoted && (*text == '}' || *text == ']') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

static int check_length(const char *text, struct ash_error *error)
{
    if (strnlen(text, TEXT_BYTES_MAX + 1) > TEXT_BYTES_MAX) {
        return ash_error_set(error, -EINVAL, "The description is longer than 1 MiB");
    }
    return 0;
}

static int too_deep(struct ash_error *error)
{
    return ash_error_set(error, -EINVAL, "The description nests deeper than %d levels", DEPTH_MAX);
}

json_t *ash_json_parse(const char *text, struct ash_error *error)
{
    json_error_t json_error;

    if (check_length(text, error) < 0) {
        return NULL;
    }
    if (bracket_depth(text) > DEPTH_MAX) {
        too_deep(error);
        return NULL;
    }
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &json_error);
    if (json == NULL) {
        ash_error_set(error, -EINVAL, "The description is not valid JSON: line %d, column %d: %s",
                      json_error.line, json_error.column, json_error.text);
        return NULL;
    }
    if (!json_is_object(json)) {
        ash_error_set(error, -EINVAL, "The description is not a JSON object");
        json_decref(json);
        return NULL;
    }
    if (ash_json_expand(json, error) < 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* Copies a value up to a single comma and moves *text past it; two commas are one. */
static char *take_value(const char **text)
{
    GString *value = g_string_new(NULL);
    const char *p = *text;

    for (;;) {
        size_t plain = strcspn(p, ",");
        g_string_append_len(value, p, (gssize)plain);
        p += plain;
        if (p[0] != ',' || p[1] != ',') {
            break;
        }
        g_string_append_c(value, ',');
        p += 2;
    }
    *text = *p == ',' ? p + 1 : p;
    return g_string_free(value, FALSE);
}

/* Takes one key and its value off *text and sets it. */
static int take_pair(json_t *object, const char **text, const char *implied_key,
                     struct ash_error *error)
{
    size_t key_bytes = strcspn(*text, "=,");
    bool has_value = (*text)[key_bytes] == '=';
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;

    if (has_value || implied_key == NULL) {
        key = g_strndup(*text, key_bytes);
        *text += key_bytes + ((*text)[key_bytes] != '\0');
        value = has_value ? take_value(text) : g_strdup("on");
    } else {
        key = g_strdup(implied_key);
        value = take_value(text);
    }
    if (*key == '\0') {
        return ash_error_set(error, -EINVAL, "A parameter without a name precedes '%.40s'", *text);
    }
    json_t *string = json_string(value);
    if (string == NULL) {
        return ash_error_set(error, -EINVAL, "The value of parameter '%s' is not valid UTF-8", key);
    }
    if (json_object_set_new(object, key, string) < 0) {
        return ash_error_set(error, -EINVAL, "The name of a parameter is not valid UTF-8");
    }
    return 0;
}

json_t *ash_json_from_keyval(const char *text, const char *implied_key, struct ash_error *error)
{
    json_t *object = json_object();
    const char *at = text;
    int ret = check_length(text, error);

    while (ret == 0 && *at != '\0') {
        ret = take_pair(object, &at, at == text ? implied_key : NULL, error);
    }
    if (ret == 0) {
        ret = ash_json_expand(object, error);
    }
    if (ret < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static int expand_into(json_t *to, json_t *from, unsigned depth, struct ash_error *error);

/* Parameters that can be given as a value, which is short for one member of the group of their
 * name, and beside it others of its members: "overlap-check=none,overlap-check.main-header=on". */
static const struct {
    const char *name;
    const char *member;
} shorts[] = {{"overlap-check", "template"}};

static const char *short_for(const char *name)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(shorts); i++) {
        if (strcmp(name, shorts[i].name) == 0) {
            return shorts[i].member;
        }
    }
    return NULL;
}

/* The object at `name` in `to`, made if there is none; `key` is for the message. */
static int descend(json_t **to, const char *name, const char *key, unsigned depth,
                   struct ash_error *error)
{
    json_t *child = json_object_get(*to, name);

    if (depth > DEPTH_MAX) {
        return too_deep(error);
    }
    if (child == NULL) {
        child = json_object();
        json_object_set_new(*to, name, child);
    } else if (json_is_string(child) && short_for(name) != NULL) {
        child = json_pack("{s:O}", short_for(name), child);
        json_object_set_new(*to, name, child);
    } else if (!json_is_object(child)) {
        return ash_error_set(error, -EINVAL,
                             "Parameter '%s' is set, but '%s' is a value and not a group", key,
                             name);
    }
    *to = child;
    return 0;
}

/* A copy of an array in which objects are expanded. */
static int expand_array(json_t *from, json_t **to, unsigned depth, struct ash_error *error)
{
    json_t *array = json_array(), *value;
    size_t index;
    int ret = depth > DEPTH_MAX ? too_deep(error) : 0;

    json_array_foreach(from, index, value)
    {
        json_t *copy = json_incref(value);
        if (ret == 0 && json_is_array(value)) {
            json_decref(copy);
            ret = expand_array(value, &copy, depth + 1, error);
        } else if (ret == 0 && json_is_object(value)) {
            json_decref(copy);
            copy = json_object();
            ret = expand_into(copy, value, depth + 1, error);
        }
        json_array_append_new(array, copy);
    }
    *to = array;
    return ret;
}

/* Sets `name`, the last component of `key`. */
static int set_value(json_t *to, const char *name, json_t *value, const char *key, unsigned depth,
                     struct ash_error *error)
{
    json_t *set = json_incref(value);
    int ret = 0;

    if (json_is_object(value)) {
        json_decref(set);
        ret = descend(&to, name, key, depth, error);
        return ret < 0 ? ret : expand_into(to, value, depth + 1, error);
    }
    if (json_is_object(json_object_get(to, name)) && short_for(name) != NULL) {
        to = json_object_get(to, name);
        name = short_for(name);
    }
    if (json_object_get(to, name) != NULL) {
        json_decref(set);
        return ash_error_set(error, -EINVAL, "Parameter '%s' is set twice", key);
    }
    if (json_is_array(value)) {
        json_decref(set);
        ret = expand_array(value, &set, depth, error);
    }
    json_object_set_new(to, name, set);
    return ret;
}

/* Sets "a.b.c" in `to`, whose depth in the whole is depth - 1. */
static int set_key(json_t *to, const char *key, json_t *value, unsigned depth,
                   struct ash_error *error)
{
    g_autofree char *path = g_strdup(key);
    char *name = path;
    char *dot;

    while ((dot = strchr(name, '.')) != NULL && dot != name) {
        *dot = '\0';
        int ret = descend(&to, name, key, depth, error);
        if (ret < 0) {
            return ret;
        }
        name = dot + 1;
        depth++;
    }
    if (dot == name || *name == '\0') {
        return ash_error_set(error, -EINVAL, "Parameter '%s' has an empty component", key);
    }
    return set_value(to, name, value, key, depth, error);
}

static int expand_into(json_t *to, json_t *from, unsigned depth, struct ash_error *error)
{
    const char *key;
    json_t *value;

    json_object_foreach(from, key, value)
    {
        int ret = set_key(to, key, value, depth, error);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Whether a key is a number as an array's index is written. */
static bool is_index(const char *key)
{
    size_t digits = strspn(key, "0123456789");

    return digits > 0 && key[digits] == '\0' && (key[0] != '0' || digits == 1);
}

/* The array that an object with the keys 0 to n - 1 means; NULL and no error if its keys are names.
 */
static int array_of(json_t *object, const char *name, json_t **array, struct ash_error *error)
{
    size_t count = json_object_size(object), indexes = 0;
    const char *key;
    json_t *value;

    *array = NULL;
    json_object_foreach(object, key, value)
    {
        indexes += is_index(key);
    }
    if (indexes == 0) {
        return 0;
    }
    if (indexes < count) {
        return ash_error_set(error, -EINVAL, "Parameter '%s' has both numbered and named parts",
                             name);
    }
    json_t *elements = json_array();
    for (size_t i = 0; i < count; i++) {
        g_autofree char *index = g_strdup_printf("%zu", i);
        value = json_object_get(object, index);
        if (value == NULL) {
            json_decref(elements);
            return ash_error_set(error, -EINVAL, "Parameter '%s' lacks its part number %zu", name,
                                 i);
        }
        json_array_append(elements, value);
    }
    *array = elements;
    return 0;
}

/* Makes arrays of the objects below `json` whose keys are numbers. */
static int make_arrays(json_t *json, struct ash_error *error)
{
    const char *key;
    json_t *value, *array;
    size_t index;
    void *next;
    int ret = 0;

    if (json_is_array(json)) {
        json_array_foreach(json, index, value)
        {
            ret = ret < 0 ? ret : make_arrays(value, error);
        }
        return ret;
    }
    json_object_foreach_safe(json, next, key, value)
    {
        ret = make_arrays(value, error);
        if (ret == 0 && json_is_object(value)) {
            ret = array_of(value, key, &array, error);
            if (ret == 0 && array != NULL) {
                json_object_set_new(json, key, array);
            }
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int ash_json_expand(json_t *object, struct ash_error *error)
{
    json_t *expanded = json_object();
    int ret = expand_into(expanded, object, 2, error);

    if (ret == 0) {
        ret = make_arrays(expanded, error);
    }
    if (ret == 0) {
        json_object_clear(object);
        json_object_update(object, expanded);
    }
    json_decref(expanded);
    return ret;
}

char *ash_json_text(const json_t *json)
{
    return json_dumps(json, JSON_ENCODE_ANY);
}
