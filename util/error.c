/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filling a caller's struct ash_error.
 *
 * Owns nothing: the struct is the caller's, and a text is first built on the stack, so that an
 * argument may point into the very message that is replaced.
 *
 * 1. A message never reaches beyond what the caller's `size` says, whatever the library's own idea
 *    of the struct is.
 * 2. A message that was cut ends in "..." and not in the middle of a UTF-8 character. */
#include "util/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "util/assert.h"

#define MESSAGE_BYTES sizeof(((struct ash_error *)NULL)->message)

struct text {
    char bytes[MESSAGE_BYTES];
    size_t length;
    bool cut;
};

static void ASH_PRINTF(2, 0) text_append_list(struct text *text, const char *format, va_list args)
{
    size_t room = sizeof(text->bytes) - text->length;
    int length = vsnprintf(text->bytes + text->length, room, format, args);

    if (length < 0) {
        text->bytes[text->length] = '\0';
    } else if ((size_t)length >= room) {
        text->length = sizeof(text->bytes) - 1;
        text->cut = true;
    } else {
        text->length += (size_t)length;
    }
}

static void ASH_PRINTF(2, 3) text_append(struct text *text, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    text_append_list(text, format, args);
    va_end(args);
}

/* Where to cut so that at most `length` bytes stay and no character is torn. */
static size_t character_start(const char *bytes, size_t length)
{
    while (length > 0 && ((unsigned char)bytes[length] & 0xc0) == 0x80) {
        length--;
    }
    return length;
}

static void store(struct ash_error *error, int code, const struct text *text)
{
    size_t offset = offsetof(struct ash_error, message);
    size_t room = error->size > offset ? ASH_MIN(error->size - offset, MESSAGE_BYTES) : 0;
    size_t length = text->length;

    error->code = code;
    if (room < sizeof("...")) {
        return;
    }
    if (text->cut || length >= room) {
        length = character_start(text->bytes, ASH_MIN(length, room - sizeof("...")));
        memcpy(error->message, text->bytes, length);
        memcpy(error->message + length, "...", sizeof("..."));
    } else {
        memcpy(error->message, text->bytes, length + 1);
    }
}

int ash_error_set(struct ash_error *error, int code, const char *format, ...)
{
    struct text text = {.length = 0};
    va_list args;

    ash_assert(code < 0);
    if (error != NULL) {
        va_start(args, format);
        text_append_list(&text, format, args);
        va_end(args);
        store(error, code, &text);
    }
    return code;
}

int ash_error_errno(struct ash_error *error, int code, const char *format, ...)
{
    struct text text = {.length = 0};
    char reason[128];
    va_list args;

    ash_assert(code < 0);
    if (error != NULL) {
        va_start(args, format);
        text_append_list(&text, format, args);
        va_end(args);
        text_append(&text, ": %s", strerror_r(-code, reason, sizeof(reason)));
        store(error, code, &text);
    }
    return code;
}

int ash_error_prefix(struct ash_error *error, const char *format, ...)
{
    struct text text = {.length = 0};
    va_list args;

    if (error == NULL) {
        return 0;
    }
    va_start(args, format);
    text_append_list(&text, format, args);
    va_end(args);
    text_append(&text, "%s", error->message);
    store(error, error->code, &text);
    return error->code;
}

void ash_error_copy(struct ash_error *to, const struct ash_error *from)
{
    if (to != NULL) {
        ash_error_set(to, from->code, "%s", from->message);
    }
}
