/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options that every node has. They set or clear flags; what a description does not say stays
 * as the parent has it. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/graph/describe.h"
#include "util/options.h"

/* 1: on, 0: off, -1: not there, or -EINVAL with an error. Takes the key out. */
static int take_bool(json_t *object, const char *key, const char *label, struct ash_error *error)
{
    json_t *value = object != NULL ? json_object_get(object, key) : NULL;
    if (value == NULL) {
        return -1;
    }
    int result = ash_option_bool(value);
    if (result < 0) {
        return ash_error_set(error, -EINVAL, "Parameter '%s' expects 'on' or 'off'", label);
    }
    json_object_del(object, key);
    return result;
}

static int take_flag(json_t *object, const char *key, const char *label, uint32_t flag,
                     uint32_t *flags, struct ash_error *error)
{
    int on = take_bool(object, key, label, error);
    if (on == 1) {
        *flags |= flag;
    } else if (on == 0) {
        *flags &= ~flag;
    } else if (on == -EINVAL) {
        return on;
    }
    return 0;
}

/* The text of a key, taken out, or NULL. *ret becomes -EINVAL if it is no text. */
static char *take_text(json_t *object, const char *key, int *ret, struct ash_error *error)
{
    json_t *value = json_object_get(object, key);
    if (value == NULL) {
        return NULL;
    }
    if (!json_is_string(value)) {
        *ret = ash_error_set(error, -EINVAL, "Parameter '%s' expects a text", key);
        return NULL;
    }
    char *text = g_strdup(json_string_value(value));
    json_object_del(object, key);
    return text;
}

static int take_discard(json_t *description, uint32_t *flags, struct ash_error *error)
{
    int ret = 0;
    char *text = take_text(description, "discard", &ret, error);
    if (text == NULL) {
        return ret;
    }
    if (strcmp(text, "unmap") == 0 || strcmp(text, "on") == 0) {
        *flags |= ASH_NODE_DISCARD;
    } else if (strcmp(text, "ignore") == 0 || strcmp(text, "off") == 0) {
        *flags &= ~ASH_NODE_DISCARD;
    } else {
        ret = ash_error_set(error, -EINVAL, "Invalid discard option '%s': use 'ignore' or 'unmap'",
                            text);
    }
    g_free(text);
    return ret;
}

static int take_detect_zeroes(json_t *description, uint32_t *flags, struct ash_error *error)
{
    int ret = 0;
    char *text = take_text(description, "detect-zeroes", &ret, error);
    if (text == NULL) {
        return ret;
    }
    *flags &= ~(ASH_NODE_DETECT_ZEROES | ASH_NODE_DETECT_UNMAP);
    if (strcmp(text, "on") == 0) {
        *flags |= ASH_NODE_DETECT_ZEROES;
    } else if (strcmp(text, "unmap") == 0) {
        *flags |= ASH_NODE_DETECT_ZEROES | ASH_NODE_DETECT_UNMAP;
        if ((*flags & ASH_NODE_DISCARD) == 0) {
            ret = ash_error_set(error, -EINVAL,
                                "setting detect-zeroes to unmap is not allowed without setting "
                                "discard operation to unmap");
        }
    } else if (strcmp(text, "off") != 0) {
        ret = ash_error_set(error, -EINVAL,
                            "Invalid detect-zeroes option '%s': use 'off', 'on' or 'unmap'", text);
    }
    g_free(text);
    return ret;
}

static int take_cache(json_t *description, uint32_t *flags, struct ash_error *error)
{
    json_t *cache = json_object_get(description, "cache");
    if (cache == NULL) {
        return 0;
    }
    if (!json_is_object(cache)) {
        return ash_error_set(error, -EINVAL, "Parameter 'cache' expects an object");
    }
    int ret = take_flag(cache, "direct", "cache.direct", ASH_NODE_DIRECT, flags, error);
    if (ret == 0) {
        ret = take_flag(cache, "no-flush", "cache.no-flush", ASH_NODE_NO_FLUSH, flags, error);
    }
    if (ret == 0 && json_object_size(cache) > 0) {
        return ash_error_set(error, -EINVAL, "Block options do not include 'cache.%s'",
                             json_object_iter_key(json_object_iter(cache)));
    }
    if (ret == 0) {
        json_object_del(description, "cache");
    }
    return ret;
}

int ash_node_options_take(json_t *description, uint32_t flags, struct ash_node_options *options,
                          struct ash_error *error)
{
    int ret = 0;
    *options = (struct ash_node_options){.flags = flags};
    options->driver = take_text(description, "driver", &ret, error);
    if (ret == 0) {
        options->name = take_text(description, "node-name", &ret, error);
    }
    if (ret < 0) {
        return ret;
    }
    int read_only = take_bool(description, "read-only", "read-only", error);
    if (read_only == -EINVAL) {
        return read_only;
    }
    if (read_only == 1) {
        options->flags &= ~ASH_NODE_WRITE;
    }
    int copy_on_read = take_bool(description, "copy-on-read", "copy-on-read", error);
    if (copy_on_read == -EINVAL) {
        return copy_on_read;
    }
    options->copy_on_read = copy_on_read == 1;
    ret = take_flag(description, "auto-read-only", "auto-read-only", ASH_NODE_AUTO_READ_ONLY,
                    &options->flags, error);
    if (ret == 0) {
        ret = take_flag(description, "force-share", "force-share", ASH_NODE_FORCE_SHARE,
                        &options->flags, error);
    }
    if (ret == 0) {
        ret = take_cache(description, &options->flags, error);
    }
    if (ret == 0) {
        ret = take_discard(description, &options->flags, error);
    }
    if (ret == 0) {
        ret = take_detect_zeroes(description, &options->flags, error);
    }
    if (ret == 0 && (options->flags & ASH_NODE_FORCE_SHARE) != 0 &&
        (options->flags & ASH_NODE_WRITE) != 0) {
        ret =
            ash_error_set(error, -EINVAL, "force-share=on can only be used with read-only images");
    }
    return ret;
}

void ash_node_options_clear(struct ash_node_options *options)
{
    g_free(options->driver);
    g_free(options->name);
    *options = (struct ash_node_options){.flags = 0};
}
