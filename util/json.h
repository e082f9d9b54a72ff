/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptions of nodes as JSON objects (jansson), from the forms in which people write them. */
#ifndef ASH_UTIL_JSON_H
#define ASH_UTIL_JSON_H

#include <jansson.h>
#include "util/error.h"

/* Parses "{...}" (what follows "json:"). Nesting and size are bounded: 64 levels, 1 MiB. Dotted keys are
 * expanded ("file.filename"). Returns a new reference or NULL. */
json_t *ash_json_parse(const char *text, struct ash_error *error);

/* Parses "a=b,c.d=e" as --image-opts and -o take it: ",," is a comma, a key without "=" is "on",
 * all values are strings, dotted keys nest, numeric components make arrays. The last of
 * equal keys counts. `implied_key` names a first value without key, or is NULL. */
json_t *ash_json_from_keyval(const char *text, const char *implied_key, struct ash_error *error);

/* Replaces dotted keys by nested objects, in place. Errors: a key that is both a value and an object,
 * set twice. */
int ash_json_expand(json_t *object, struct ash_error *error);

/* A one-line text, keys in order of insertion. To be freed with free(). */
char *ash_json_text(const json_t *json);

#endif
