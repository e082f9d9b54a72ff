/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers, as commands take and print them. What is wrong with one goes to standard output, where
 * scripts look for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/io/shell.h"
#include "util/size.h"

bool ash_shell_size(const char *text, uint64_t *bytes)
{
    int ret = ash_size_parse(text, 1, bytes);
    if (ret == -ERANGE) {
        printf("Parsing error: argument too large -- %s\n", text);
    } else if (ret < 0) {
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n",
               text);
    }
    return ret == 0;
}

bool ash_shell_pattern(const char *text, uint8_t *pattern)
{
    uint64_t value;
    if (!ash_tool_number(text, UINT8_MAX, &value)) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *pattern = (uint8_t)value;
    return true;
}

/* A fraction of nothing but zeroes is left out. */
static void cut_zeroes(char *text)
{
    char *point = strchr(text, '.');
    if (point != NULL && strspn(point + 1, "0") == strlen(point + 1)) {
        *point = '\0';
    }
}

const char *ash_shell_bytes(double bytes, char text[static 64])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    char number[48];
    unsigned unit = 0;
    while (bytes >= 1024 && unit + 1 < ASH_ARRAY_SIZE(units)) {
        bytes /= 1024;
        unit++;
    }
    snprintf(number, sizeof(number), "%.*f", unit == 0 ? 6 : 3, bytes);
    cut_zeroes(number);
    snprintf(text, 64, "%s %s", number, units[unit]);
    return text;
}
