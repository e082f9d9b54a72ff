/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Create options as -o gives them: "a=b,c=d", where ",," is a comma, several of which add up and
 * the last word counts.
 *
 * The names stay flat ("encrypt.format"), and the values text. ash_tool_options_check() refuses
 * what the format's table does not know, by name, so nothing is ever ignored. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "tools/common/tool.h"
#include "util/options.h"
#include "util/size.h"

/* The length is every format's, and no table's. */
static const struct ash_option size_table[] = {
    {.name = "size", .type = ASH_OPTION_TYPE_SIZE, .help = "Virtual disk size"},
    ASH_OPTION_END,
};

/* One item up to a lone comma, with doubled ones made single. *text is left at the comma or the
 * end. */
static char *next_item(const char **text)
{
    GString *item = g_string_new(NULL);
    const char *p = *text;
    while (*p != '\0' && (*p != ',' || p[1] == ',')) {
        p += *p == ',';
        g_string_append_c(item, *p++);
    }
    *text = p;
    return g_string_free(item, FALSE);
}

static bool take_item(struct ash_tool_options *options, char *item)
{
    if (strcmp(item, "help") == 0 || strcmp(item, "?") == 0) {
        options->help = item[0] == '?' ? "?" : "help";
        return true;
    }
    char *equals = strchr(item, '=');
    const char *value = "on";
    if (equals != NULL) {
        *equals = '\0';
        value = equals + 1;
    }
    if (item[0] == '\0' || !g_utf8_validate(value, -1, NULL) || !g_utf8_validate(item, -1, NULL)) {
        return false;
    }
    ash_tool_options_set(options, item, value);
    return true;
}

bool ash_tool_options_add(struct ash_tool_options *options, const char *text)
{
    const char *p = text;
    if (options->list == NULL) {
        options->list = json_object();
    }
    for (;;) {
        char *item = next_item(&p);
        bool good = take_item(options, item);
        g_free(item);
        if (!good) {
            ash_tool_error("Invalid option list: %s", text);
            return false;
        }
        if (*p == '\0') {
            return true;
        }
        p++;
    }
}

void ash_tool_options_clear(struct ash_tool_options *options)
{
    json_decref(options->list);
    options->list = NULL;
}

const char *ash_tool_options_get(const struct ash_tool_options *options, const char *name)
{
    return json_string_value(json_object_get(options->list, name));
}

void ash_tool_options_set(struct ash_tool_options *options, const char *name, const char *value)
{
    if (options->list == NULL) {
        options->list = json_object();
    }
    json_object_set_new(options->list, name, json_string(value));
}

static const struct ash_option *find_option(const struct ash_option *table, const char *name)
{
    for (; table != NULL && table->name != NULL; table++) {
        if (strcmp(table->name, name) == 0) {
            return table;
        }
    }
    return NULL;
}

/* The driver that makes the file of that name. */
static const struct ash_driver *protocol_of(const char *filename)
{
    for (const struct ash_driver *const *driver = ash_drivers; *driver != NULL; driver++) {
        const char *prefix = (*driver)->prefix;
        if (prefix != NULL && strncmp(filename, prefix, strlen(prefix)) == 0) {
            return *driver;
        }
    }
    return ash_driver_find("file");
}

const struct ash_option *ash_tool_create_option(const struct ash_driver *format,
                                                const char *filename, const char *name)
{
    if (strcmp(name, "size") == 0) {
        return size_table;
    }
    const struct ash_option *option = find_option(format->create_options, name);
    if (option == NULL && filename != NULL) {
        const struct ash_driver *protocol = protocol_of(filename);
        option = protocol != NULL ? find_option(protocol->create_options, name) : NULL;
    }
    return option;
}

/* Brings one value into the form in which it is shown. Names out of a list are left to the driver.
 */
static int check_value(struct ash_tool_options *options, const struct ash_option *option,
                       struct ash_error *error)
{
    const char *text = ash_tool_options_get(options, option->name);
    char number[32];
    uint64_t value;
    switch (option->type) {
    case ASH_OPTION_TYPE_BOOL:
        if (ash_option_bool_of_text(text) < 0) {
            return ash_error_set(error, -EINVAL, "Parameter '%s' expects 'on' or 'off'",
                                 option->name);
        }
        return 0;
    case ASH_OPTION_TYPE_SIZE:
        if (ash_size_parse(text, 1, &value) < 0) {
            return ash_error_set(
                error, -EINVAL,
                "Parameter '%s' expects a non-negative number below 2^64\n"
                "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
                "peta-\nand exabytes, respectively.",
                option->name);
        }
        snprintf(number, sizeof(number), "%" PRIu64, value);
        ash_tool_options_set(options, option->name, number);
        return 0;
    case ASH_OPTION_TYPE_UINT:
        if (!ash_tool_number(text, UINT64_MAX, &value)) {
            return ash_error_set(error, -EINVAL, "Parameter '%s' expects a number", option->name);
        }
        return 0;
    default:
        return 0;
    }
}

int ash_tool_options_check(struct ash_tool_options *options, const struct ash_driver *format,
                           const char *filename, struct ash_error *error)
{
    if (options->list == NULL) {
        return 0;
    }
    json_t *given = json_copy(options->list);
    const char *name;
    json_t *value;
    int ret = 0;
    json_object_foreach(given, name, value)
    {
        const struct ash_option *option = ash_tool_create_option(format, filename, name);
        if (option == NULL) {
            ret = ash_error_set(error, -EINVAL, "Invalid parameter '%s'", name);
        } else {
            ret = check_value(options, option, error);
        }
        if (ret < 0) {
            break;
        }
    }
    json_decref(given);
    return ret;
}

static int by_name(const void *a, const void *b)
{
    const struct ash_option *const *left = a;
    const struct ash_option *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static void collect(GPtrArray *all, const struct ash_option *table)
{
    for (; table != NULL && table->name != NULL; table++) {
        g_ptr_array_add(all, (gpointer)table);
    }
}

static const char *type_name(enum ash_option_type type)
{
    switch (type) {
    case ASH_OPTION_TYPE_BOOL:
        return "bool (on/off)";
    case ASH_OPTION_TYPE_SIZE:
        return "size";
    case ASH_OPTION_TYPE_UINT:
        return "num";
    default:
        return "str";
    }
}

void ash_tool_options_help(const struct ash_driver *format, const char *filename)
{
    GPtrArray *all = g_ptr_array_new();
    /* That of a raw image is a matter of what holds the file. */
    if (filename != NULL || strcmp(format->name, "raw") != 0) {
        collect(all, format->create_options);
    }
    collect(all, size_table);
    if (filename != NULL) {
        const struct ash_driver *protocol = protocol_of(filename);
        if (protocol != NULL && protocol != format) {
            collect(all, protocol->create_options);
        }
        printf("Supported options:\n");
    } else {
        printf("Supported %s options:\n", format->name);
    }
    qsort(all->pdata, all->len, sizeof(gpointer), by_name);
    for (guint i = 0; i < all->len; i++) {
        const struct ash_option *option = g_ptr_array_index(all, i);
        char *left = g_strdup_printf("%s=<%s>", option->name, type_name(option->type));
        printf("  %-22s - %s\n", left, option->help != NULL ? option->help : "");
        g_free(left);
    }
    g_ptr_array_free(all, TRUE);
    if (filename == NULL) {
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    }
}

int ash_tool_format(const char *name, const struct ash_driver **driver, struct ash_error *error)
{
    *driver = ash_driver_find(name);
    if (*driver == NULL) {
        return ash_error_set(error, -EINVAL, "Unknown file format '%s'", name);
    }
    if ((*driver)->create == NULL && (*driver)->create_file == NULL) {
        return ash_error_set(error, -ENOTSUP, "Format driver '%s' does not support image creation",
                             name);
    }
    return 0;
}
