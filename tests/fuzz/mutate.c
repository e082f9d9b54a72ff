/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/mutate.h"
#include <endian.h>
#include <string.h>
#include "tests/fuzz/layout.h"

#define FLAGS UINT64_C(0xc0000000000001ff)

/* The fields of a header. */
static const struct {
    uint8_t offset;
    uint8_t bytes;
} fields[] = {
    {4, 4},   {8, 8},   {16, 4},  {20, 4},  {24, 8},  {32, 4},  {36, 4},  {40, 8},  {48, 8},
    {56, 4},  {60, 4},  {64, 8},  {72, 8},  {80, 8},  {88, 8},  {96, 4},  {100, 4}, {104, 1},
    {112, 4}, {116, 4}, {120, 4}, {124, 4}, {128, 8}, {136, 4}, {140, 4},
};

/* The place of metadata number n. */
static uint64_t metadata_place(const struct layout *layout, unsigned n)
{
    switch (n & 7) {
    case 0:
        return 0;
    case 1:
        return layout->l1_offset;
    case 2:
        return layout->reftable_offset;
    case 3:
        return layout_u64(layout, layout->reftable_offset + n / 8 * 8);
    default:
        return layout_u64(layout, layout->l1_offset + n / 8 * 8) & ~FLAGS;
    }
}

/* Where the bytes lie that are changed, and how many they are. */
static uint64_t place_of(const struct layout *layout, const struct mutation *mutation,
                         uint32_t *bytes)
{
    uint64_t unit = UINT64_C(1) << layout->cluster_bits;
    unsigned n = mutation->index;
    uint64_t at;
    *bytes = 8;
    switch (mutation->what & 7) {
    case 0:
        n %= ASH_ARRAY_SIZE(fields);
        *bytes = fields[n].bytes;
        return fields[n].offset;
    case 1:
        return layout->l1_offset + n % (layout->l1_entries + 1) * 8;
    case 2:
    case 3:
        return layout_l2_place(layout, n);
    case 4:
        return layout->reftable_offset + n % (layout->reftable_entries + 1) * 8;
    case 5: /* the refcount of host cluster n, or the byte that it is in */
        at = layout_u64(layout, layout->reftable_offset);
        *bytes = layout->order <= 3 ? 1 : 1u << (layout->order - 3);
        return at + (((uint64_t)n << layout->order) / 8) % unit;
    case 6: /* contents: what is compressed, above all */
        *bytes = 1;
        at = layout_u64(layout, layout_l2_place(layout, n));
        return (at & ((UINT64_C(1) << (62 - (layout->cluster_bits - 8))) - 1)) + mutation->how / 8;
    default:
        *bytes = 1;
        return 72 + n;
    }
}

static uint64_t change(const struct layout *layout, const struct mutation *mutation, uint64_t old)
{
    uint64_t unit = UINT64_C(1) << layout->cluster_bits;
    uint64_t value = mutation->value;
    switch (mutation->how & 7) {
    case 0:
        return old ^ UINT64_C(1) << (value & 63);
    case 1:
        return value;
    case 2:
        return old + (uint64_t)(int64_t)(int8_t)value;
    case 3:
        return (old & FLAGS) | metadata_place(layout, mutation->value);
    case 4:
        return layout_u64(layout, layout_l2_place(layout, value));
    case 5:
        return UINT64_MAX >> (value & 63);
    case 6: /* at and behind the end of the file, and far behind it */
        return (old & FLAGS) | ((layout->clusters + (value & 31)) * unit << (value >> 5 & 7) * 4);
    default:
        return (old & FLAGS) | value * unit;
    }
}

void mutate(struct ash_sim_world *world, const struct mutation *mutation)
{
    struct layout layout;
    uint32_t bytes;
    if (!layout_read(&layout, world, "image")) {
        return;
    }
    uint64_t at = place_of(&layout, mutation, &bytes);
    if (at <= layout.size && bytes <= layout.size - at) {
        uint64_t value = 0;
        memcpy((uint8_t *)&value + 8 - bytes, layout.bytes + at, bytes);
        value = htobe64(change(&layout, mutation, be64toh(value)));
        ash_sim_file_write(world, "image", at, (const uint8_t *)&value + 8 - bytes, bytes);
    }
    layout_free(&layout);
}
