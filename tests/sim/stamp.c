/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/stamp.h"
#include <string.h>
#include "util/assert.h"

/* The eight bytes at offset index * 8. They look like noise, but three of four values have the
 * second half of each sector like the first, all but its last word: so they can be coded, and
 * quickly. */
static uint64_t word_at(uint64_t value, uint64_t index)
{
    if (value == 0) {
        return 0;
    }
    if (value % 4 != 0 && index % 64 != 63) {
        index &= ~UINT64_C(32);
    }
    uint64_t x = value << 40 ^ index;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint8_t byte_at(uint64_t value, uint64_t offset)
{
    return (uint8_t)(word_at(value, offset / 8) >> offset % 8 * 8);
}

void stamp_fill(uint64_t value, uint64_t offset, void *buffer, uint64_t bytes)
{
    uint8_t *at = buffer;
    if (value == 0) {
        memset(buffer, 0, bytes);
        return;
    }
    for (; bytes > 0 && offset % 8 != 0; bytes--) {
        *at++ = byte_at(value, offset++);
    }
    for (; bytes >= 8; bytes -= 8, offset += 8, at += 8) {
        uint64_t word = word_at(value, offset / 8);
        memcpy(at, &word, 8);
    }
    for (; bytes > 0; bytes--) {
        *at++ = byte_at(value, offset++);
    }
}

uint64_t stamp_match(uint64_t value, uint64_t offset, const void *buffer, uint64_t bytes)
{
    const uint8_t *at = buffer;
    uint64_t done = 0;
    for (; done < bytes && (offset + done) % 8 != 0; done++) {
        if (at[done] != byte_at(value, offset + done)) {
            return done;
        }
    }
    for (; done + 8 <= bytes; done += 8) {
        uint64_t word;
        memcpy(&word, at + done, 8);
        if (word != word_at(value, (offset + done) / 8)) {
            break;
        }
    }
    while (done < bytes && at[done] == byte_at(value, offset + done)) {
        done++;
    }
    return done;
}
