/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write and read them. Parsing is exact: integers throughout, a fraction rounded to
 * the nearest byte, so that "1.1M" is 1153434 on every machine and in every locale. */
#include "util/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Digits of a fraction that count; more than a byte of 8 EiB needs. */
#define FRACTION_DIGITS 18

static const char suffixes[] = "bkmgtpe";

/* The digits at *text. -EINVAL: none; -ERANGE: more than a uint64_t holds. */
static int parse_integer(const char **text, unsigned base, uint64_t *value)
{
    const char *p = *text;
    bool overflow = false;

    *value = 0;
    for (; isxdigit((unsigned char)*p); p++) {
        unsigned digit = isdigit((unsigned char)*p)
                             ? (unsigned)(*p - '0')
                             : (unsigned)(tolower((unsigned char)*p) - 'a') + 10;
        if (digit >= base) {
            break;
        }
        overflow |= __builtin_mul_overflow(*value, base, value);
        overflow |= __builtin_add_overflow(*value, digit, value);
    }
    if (p == *text) {
        return -EINVAL;
    }
    *text = p;
    return overflow ? -ERANGE : 0;
}

/* The digits after a decimal point, as numerator and denominator. There may be none. */
static void parse_fraction(const char **text, uint64_t *numerator, uint64_t *denominator)
{
    const char *p = *text;

    *numerator = 0;
    *denominator = 1;
    for (unsigned digits = 0; isdigit((unsigned char)*p); p++, digits++) {
        if (digits < FRACTION_DIGITS) {
            *numerator = *numerator * 10 + (unsigned)(*p - '0');
            *denominator *= 10;
        }
    }
    *text = p;
}

/* The suffix at *text, and then the end. */
static int parse_unit(const char *text, uint64_t *unit)
{
    if (*text == '\0') {
        return 0;
    }
    const char *found = strchr(suffixes, tolower((unsigned char)*text));
    if (found == NULL || text[1] != '\0') {
        return -EINVAL;
    }
    *unit = UINT64_C(1) << (10 * (unsigned)(found - suffixes));
    return 0;
}

int ash_size_parse(const char *text, uint64_t default_unit, uint64_t *bytes)
{
    uint64_t whole, numerator = 0, denominator = 1, unit = default_unit;

    while (isspace((unsigned char)*text)) {
        text++;
    }
    text += *text == '+';
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    text += hex ? 2 : 0;
    int integer_error = parse_integer(&text, hex ? 16 : 10, &whole);
    if (integer_error == -EINVAL) {
        return -EINVAL;
    }
    if (!hex && *text == '.') {
        text++;
        parse_fraction(&text, &numerator, &denominator);
    }
    int ret = parse_unit(text, &unit);
    if (ret < 0) {
        return ret;
    }
    if (numerator != 0 && unit == 1) {
        return -EINVAL;
    }
    if (integer_error < 0) {
        return integer_error;
    }
    unsigned __int128 total = (unsigned __int128)whole * unit +
                              ((unsigned __int128)numerator * unit + denominator / 2) / denominator;
    if (total > INT64_MAX) {
        return -ERANGE;
    }
    *bytes = (uint64_t)total;
    return 0;
}

void ash_size_human(uint64_t bytes, char *out, size_t out_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)bytes;

    /* A thousand of a unit is shown in the next one, so that no more than three digits stand before
     * the point. */
    while (value >= 1000 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, out_bytes, "%0.3g %s", value, units[unit]);
}
