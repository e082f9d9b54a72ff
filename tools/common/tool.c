/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the tools speak, and the numbers they are told. */
#include "tools/common/tool.h"
#include <errno.h>
#include <glib.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/size.h"

static const char *tool_name = "ashlar";

void ash_tool_set_name(const char *argv0)
{
    const char *slash = argv0 != NULL ? strrchr(argv0, '/') : NULL;
    if (slash != NULL) {
        argv0 = slash + 1;
    }
    if (argv0 != NULL && argv0[0] != '\0') {
        tool_name = argv0;
    }
}

const char *ash_tool_name(void)
{
    return tool_name;
}

ASH_PRINTF(2, 0)
static void say(const char *kind, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s", tool_name, kind);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void ash_tool_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
}

void ash_tool_warning(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("warning: ", format, args);
    va_end(args);
}

int ash_tool_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
    fprintf(stderr, "Try '%s --help' for more information\n", tool_name);
    return 1;
}

int ash_tool_bad_option(int c, char *const *argv)
{
    const char *option = argv[optind - 1];
    if (c == ':') {
        return ash_tool_usage("missing argument for option '%s'", option);
    }
    return ash_tool_usage("unrecognized option '%s'", option);
}

bool ash_tool_size(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *bytes)
{
    int ret = ash_size_parse(text, 1, bytes);
    if (ret == 0 && *bytes >= min && *bytes <= max) {
        return true;
    }
    if (ret == 0 || ret == -ERANGE) {
        ash_tool_error("Invalid %s specified. Must be between %llu and %llu.", what,
                       (unsigned long long)min, (unsigned long long)max);
    } else {
        ash_tool_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        ash_tool_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    }
    return false;
}

bool ash_tool_number(const char *text, uint64_t max, uint64_t *number)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    if (errno != 0 || *end != '\0' || value > max) {
        return false;
    }
    *number = value;
    return true;
}

bool ash_tool_output(const char *text, enum ash_output *output)
{
    if (strcmp(text, "json") == 0) {
        *output = ASH_OUTPUT_JSON;
    } else if (strcmp(text, "human") == 0) {
        *output = ASH_OUTPUT_HUMAN;
    } else {
        ash_tool_error("--output must be used with human or json as argument.");
        return false;
    }
    return true;
}

void ash_tool_print_json(const json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(4) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
    printf("%s\n", text != NULL ? text : "null");
    free(text);
}

void ash_tool_print_specific(const json_t *data, int indent)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)data, key, value) {
        char *label = g_strdup(key);
        g_strdelimit(label, "-", ' ');
        printf("%*s%s:", indent, "", label);
        g_free(label);
        if (json_is_object(value)) {
            printf("\n");
            ash_tool_print_specific(value, indent + 4);
        } else if (json_is_string(value)) {
            printf(" %s\n", json_string_value(value));
        } else {
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            printf(" %s\n", text != NULL ? text : "");
            free(text);
        }
    }
}
