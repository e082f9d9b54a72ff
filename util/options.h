/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of drivers: one table serves parsing, defaults, help text and documentation.
 *
 * Values come from JSON with their types, or from key=value text as strings ("on", "64k"); both are
 * accepted for each type. */
#ifndef ASH_UTIL_OPTIONS_H
#define ASH_UTIL_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/error.h"

enum ash_option_type {
    ASH_OPTION_TYPE_BOOL,   /* bool */
    ASH_OPTION_TYPE_SWITCH, /* int: 1 on, 0 off; -1 where nothing was said */
    ASH_OPTION_TYPE_SIZE,   /* uint64_t bytes, suffixes allowed */
    ASH_OPTION_TYPE_UINT,   /* uint64_t */
    ASH_OPTION_TYPE_STRING, /* char *, g_malloc'ed or NULL */
    ASH_OPTION_TYPE_ENUM,   /* int: index into `values` */
    ASH_OPTION_TYPE_JSON,   /* json_t *, a reference or NULL: lists and objects as they stand */
};

struct ash_option {
    const char *name;   /* NULL ends the table; "a.b" is the key b in the object a */
    enum ash_option_type type;
    size_t offset;      /* of the field in the target struct */
    uint64_t def;       /* default; for enums the index, for bools 0 or 1; strings: NULL */
    uint64_t min, max;  /* SIZE, UINT; max 0: INT64_MAX */
    const char *const *values; /* ENUM: names, NULL-terminated */
    const char *help;
};

#define ASH_OPTION_BOOL(name_, type_, field_, ...)                                                 \
    {.name = (name_), .type = ASH_OPTION_TYPE_BOOL, .offset = offsetof(type_, field_), __VA_ARGS__}
#define ASH_OPTION_SWITCH(name_, type_, field_, ...)                                               \
    {.name = (name_), .type = ASH_OPTION_TYPE_SWITCH, .offset = offsetof(type_, field_), __VA_ARGS__}
#define ASH_OPTION_SIZE(name_, type_, field_, ...)                                                 \
    {.name = (name_), .type = ASH_OPTION_TYPE_SIZE, .offset = offsetof(type_, field_), __VA_ARGS__}
#define ASH_OPTION_UINT(name_, type_, field_, ...)                                                 \
    {.name = (name_), .type = ASH_OPTION_TYPE_UINT, .offset = offsetof(type_, field_), __VA_ARGS__}
#define ASH_OPTION_STRING(name_, type_, field_, ...)                                               \
    {.name = (name_), .type = ASH_OPTION_TYPE_STRING, .offset = offsetof(type_, field_), __VA_ARGS__}
#define ASH_OPTION_ENUM(name_, type_, field_, values_, ...)                                        \
    {.name = (name_), .type = ASH_OPTION_TYPE_ENUM, .offset = offsetof(type_, field_),             \
     .values = (values_), __VA_ARGS__}
#define ASH_OPTION_JSON(name_, type_, field_, ...)                                                 \
    {.name = (name_), .type = ASH_OPTION_TYPE_JSON, .offset = offsetof(type_, field_), __VA_ARGS__}
#define ASH_OPTION_END {.name = NULL}

/* Fills `target` with the defaults. */
void ash_options_init(const struct ash_option *table, void *target);

/* Takes each option that the table knows out of `object` (a shallow copy that the caller owns) and
 * into `target`; keys that it does not know stay. Call after ash_options_init(). Errors name the
 * option and the value. */
int ash_options_take(const struct ash_option *table, json_t *object, void *target,
                     struct ash_error *error);

/* What a value means that is on or off: 1 or 0, or -1 if it is neither. There are four spellings of each:
 * on, yes, true, y; off, no, false, n. */
int ash_option_bool(const json_t *value);
int ash_option_bool_of_text(const char *text);

/* An error naming the first key that is left in `object`; 0 if it is empty. `what` is for the sentence
 * ("Block format 'raw'"). */
int ash_options_refuse_rest(json_t *object, const char *what, struct ash_error *error);

/* Frees the strings, and drops the JSON, that ash_options_take() stored. */
void ash_options_clear(const struct ash_option *table, void *target);

#endif
