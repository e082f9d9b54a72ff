/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --object: secrets, for images that are encrypted or lie behind a password. There are none of
 * these yet, so a secret is checked for being one and then not needed; other objects are refused.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "tools/common/tool.h"
#include "util/json.h"

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static int refuse_unknown(json_t *object, struct ash_error *error)
{
    static const char *const known[] = {"qom-type", "id", "data", "file", "format", NULL};
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (!g_strv_contains(known, key)) {
            return ash_error_set(error, -EINVAL, "Parameter '%s' is unexpected", key);
        }
    }
    return 0;
}

static bool is_identifier(const char *id)
{
    static const char *const more = "0123456789-._";
    bool right = g_ascii_isalpha(id[0]);
    for (const char *p = id; right && *p != '\0'; p++) {
        right = g_ascii_isalpha(*p) || strchr(more, *p) != NULL;
    }
    return right;
}

static int check_secret(json_t *object, struct ash_error *error)
{
    const char *id = text_of(object, "id");
    const char *data = text_of(object, "data");
    const char *file = text_of(object, "file");
    const char *format = text_of(object, "format");
    if (id == NULL) {
        return ash_error_set(error, -EINVAL, "Parameter 'id' is missing");
    }
    if (!is_identifier(id)) {
        return ash_error_set(error, -EINVAL,
                             "Parameter 'id' expects an identifier\nIdentifiers consist of "
                             "letters, digits, '-', '.', '_', starting with a letter.");
    }
    if (format != NULL && strcmp(format, "raw") != 0 && strcmp(format, "base64") != 0) {
        return ash_error_set(error, -EINVAL, "Parameter 'format' does not accept value '%s'",
                             format);
    }
    if (data != NULL && file != NULL) {
        return ash_error_set(error, -EINVAL, "'file' and 'data' are mutually exclusive");
    }
    if (data == NULL && file == NULL) {
        return ash_error_set(error, -EINVAL, "Either 'file' or 'data' must be provided");
    }
    if (file != NULL && access(file, R_OK) < 0) {
        return ash_error_set(error, -errno, "Unable to read %s: %s", file, strerror(errno));
    }
    return refuse_unknown(object, error);
}

static int check_object(json_t *object, struct ash_error *error)
{
    const char *type = text_of(object, "qom-type");
    if (type == NULL) {
        return ash_error_set(error, -EINVAL, "Parameter 'qom-type' is missing");
    }
    if (strcmp(type, "secret") != 0) {
        return ash_error_set(error, -ENOTSUP,
                             "--object: '%s': no objects but secrets are supported by this version",
                             type);
    }
    return check_secret(object, error);
}

bool ash_tool_object(const char *text)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *object = ash_json_from_keyval(text, "qom-type", &error);
    int ret = object != NULL ? check_object(object, &error) : -EINVAL;
    if (ret < 0) {
        ash_tool_error("%s", error.message);
    }
    json_decref(object);
    return ret == 0;
}
