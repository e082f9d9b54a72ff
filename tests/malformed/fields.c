/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/malformed/fields.h"
#include <endian.h>
#include <string.h>

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define UNKNOWN_EXTENSION 0x41534831u
#define BACKING ",backing_file=base,backing_fmt=raw"

/* The backing file is longer than one of them and shorter than the others. */
static const struct made_image bases[] = {
    {"v3-4k", "cluster_size=4096,compression_type=zstd" BACKING, 3 * MiB, 4096, false},
    {"v3-64k", "cluster_size=65536,lazy_refcounts=on" BACKING, 2 * MiB, 65536, false},
    {"v2-512", "cluster_size=512,compat=0.10" BACKING, 100 * 1024, 512, false},
    {"v3-1bit", "cluster_size=512,refcount_bits=1" BACKING, 30 * 1024, 512, false},
    {"v3-64bit", "cluster_size=1024,refcount_bits=64" BACKING, 200 * 1024, 1024, false},
};

const char *const base_names[] = {"v3-4k", "v3-64k", "v2-512", "v3-1bit", "v3-64bit", NULL};

/* Name, offset, bytes; from 72 on in version 3 only. */
static const struct {
    const char *name;
    uint32_t offset;
    uint32_t bytes;
} header[] = {
    {"magic", 0, 4},
    {"version", 4, 4},
    {"backing_file_offset", 8, 8},
    {"backing_file_size", 16, 4},
    {"cluster_bits", 20, 4},
    {"size", 24, 8},
    {"crypt_method", 32, 4},
    {"l1_size", 36, 4},
    {"l1_table_offset", 40, 8},
    {"refcount_table_offset", 48, 8},
    {"refcount_table_clusters", 56, 4},
    {"nb_snapshots", 60, 4},
    {"snapshots_offset", 64, 8},
    {"incompatible_features", 72, 8},
    {"compatible_features", 80, 8},
    {"autoclear_features", 88, 8},
    {"refcount_order", 96, 4},
    {"header_length", 100, 4},
    {"compression_type", 104, 1},
};

static uint64_t number(const struct base *base, uint64_t offset, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes && offset + i < base->count; i++) {
        value = value << 8 | base->bytes[offset + i];
    }
    return value;
}

static void put(uint8_t *to, uint32_t bytes, uint64_t value)
{
    for (uint32_t i = bytes; i > 0; i--, value >>= 8) {
        to[i - 1] = (uint8_t)value;
    }
}

static uint64_t cluster_bytes(const struct base *base)
{
    return UINT64_C(1) << base->layout.cluster_bits;
}

/* --- values --- */

static void add_bytes(struct field *field, const void *bytes, size_t count)
{
    g_ptr_array_add(field->values, g_bytes_new(bytes, count));
}

static void add_number(struct field *field, uint64_t value)
{
    uint8_t bytes[8];
    put(bytes, field->bytes, value);
    add_bytes(field, bytes, field->bytes);
}

/* What does not fit would be another number, which is there as well. */
static void add_fitting(struct field *field, uint64_t value)
{
    if (field->bytes == 8 || value >> (8 * field->bytes) == 0) {
        add_number(field, value);
    }
}

static void add_numbers(struct field *field, const struct base *base)
{
    static const uint64_t small[] = {0,  1,  2,  3,  4,  8,  9,   20,   21,
                                     22, 31, 32, 63, 64, 65, 512, 1023, 1024};
    static const uint8_t shifts[] = {16, 20, 24, 25, 28, 30, 31, 32, 40, 47,
                                     48, 53, 54, 55, 56, 57, 60, 61, 62};
    uint64_t old = number(base, field->offset, field->bytes);
    uint64_t unit = cluster_bytes(base);
    uint64_t end = (base->count + unit - 1) / unit * unit;
    uint64_t most = UINT64_MAX >> (64 - 8 * field->bytes);
    const uint64_t others[] = {2 * old,    old ^ 512,   unit,         unit - 1,
                               unit + 1,   2 * unit,    end,          end + unit,
                               end - unit, base->count, most / 2 + 1, most / 2};
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(small); i++) {
        add_fitting(field, small[i]);
    }
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(shifts); i++) {
        add_fitting(field, UINT64_C(1) << shifts[i]);
    }
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(others); i++) {
        add_fitting(field, others[i]);
    }
    for (unsigned i = 0; i < base->metadata->len; i++) {
        add_fitting(field, g_array_index(base->metadata, uint64_t, i));
        add_fitting(field, g_array_index(base->metadata, uint64_t, i) / unit);
    }
    const uint64_t wrapping[] = {old + 1, old - 1, most, most - 1, ~UINT64_C(511), ~(unit - 1)};
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(wrapping); i++) {
        add_number(field, wrapping[i]);
    }
}

static void add_flagged(struct field *field, uint64_t place)
{
    static const uint64_t flags[] = {0,
                                     1,
                                     UINT64_C(1) << 62,
                                     UINT64_C(1) << 63,
                                     UINT64_C(3) << 62,
                                     UINT64_C(1) << 63 | 1,
                                     UINT64_C(0xff) << 56,
                                     UINT64_C(0xff) << 1 | UINT64_C(1) << 63};
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(flags); i++) {
        add_number(field, place | flags[i]);
    }
}

/* Flags on what is there, on metadata, and on what lies far behind the end. */
static void add_entries(struct field *field, const struct base *base)
{
    uint64_t unit = cluster_bytes(base);
    add_flagged(field, number(base, field->offset, 8) & OFFSET_MASK);
    add_flagged(field, base->count / unit * unit + (1 << 30));
    for (unsigned i = 0; i < base->metadata->len; i++) {
        add_flagged(field, g_array_index(base->metadata, uint64_t, i));
    }
}

/* Compressed data of every length at places where there is none. */
static void add_coded(struct field *field, const struct base *base)
{
    uint32_t bits = base->layout.cluster_bits;
    uint32_t shift = 62 - (bits - 8);
    uint64_t end = base->count;
    const uint64_t offsets[] = {0,
                                base->coded_offset,
                                base->coded_offset + 1,
                                base->coded_offset + 511,
                                end - 1,
                                end - 512,
                                end,
                                end + cluster_bytes(base),
                                (UINT64_C(1) << shift) - 1,
                                g_array_index(base->metadata, uint64_t, base->metadata->len - 1)};
    const uint64_t sectors[] = {0, 1, (UINT64_C(1) << (bits - 8)) - 1};
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(offsets); i++) {
        for (unsigned k = 0; k < ASH_ARRAY_SIZE(sectors); k++) {
            add_number(field, UINT64_C(1) << 62 | sectors[k] << shift | offsets[i]);
        }
    }
}

#define ADD(field, text) add_bytes(field, text, sizeof(text) - 1)

/* Of backing files. Long ones run into what follows. */
static void add_names(struct field *field)
{
    uint8_t filled[200];
    ADD(field, "\0");
    ADD(field, IMAGE_NAME);
    ADD(field, "json:{\"driver\":\"null-co\"}");
    ADD(field, "nbd://127.0.0.1:1/x");
    ADD(field, "/");
    ADD(field, ".");
    ADD(field, "file:base");
    ADD(field, "a\0b");
    ADD(field, "/dev/null");
    ADD(field, "%s%n%s%n");
    memset(filled, 'x', sizeof(filled));
    add_bytes(field, filled, field->bytes);
    memset(filled, 0xff, sizeof(filled));
    add_bytes(field, filled, field->bytes);
    memset(filled, '[', sizeof(filled));
    memcpy(filled, "json:", 5);
    add_bytes(field, filled, sizeof(filled));
}

/* First bytes of compressed data that no compressor wrote. */
static void add_contents(struct field *field)
{
    ADD(field, "\0\0\0\0\0\0\0\0");
    ADD(field, "\xff\xff\xff\xff\xff\xff\xff\xff");
    ADD(field, "\x28\xb5\x2f\xfd\xff\xff\xff\xff");
    ADD(field, "\x78\x9c\xff\xff\xff\xff\xff\xff");
    ADD(field, "\x28\xb5\x2f\xfd\xa4\xff\xff\xff");
    ADD(field, "\x03\0\0\0\0\0\0\0");
}

static int compare_values(const void *a, const void *b)
{
    return g_bytes_compare(*(GBytes *const *)a, *(GBytes *const *)b);
}

/* In order, each once, and none that is there already. */
static void tidy_values(struct field *field, const struct base *base)
{
    GBytes *old = g_bytes_new(base->bytes + field->offset, field->bytes);
    GPtrArray *values = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    GBytes *last = old;
    g_ptr_array_sort(field->values, compare_values);
    for (unsigned i = 0; i < field->values->len; i++) {
        GBytes *value = g_ptr_array_index(field->values, i);
        if (!g_bytes_equal(value, last) && !g_bytes_equal(value, old)) {
            g_ptr_array_add(values, g_bytes_ref(value));
            last = value;
        }
    }
    g_bytes_unref(old);
    g_ptr_array_free(field->values, TRUE);
    field->values = values;
}

/* --- fields --- */

static void field_free(void *opaque)
{
    struct field *field = opaque;
    g_ptr_array_free(field->values, TRUE);
    g_free(field->name);
    g_free(field);
}

/* Takes the name. */
static void add_field(struct base *base, char *name, uint64_t offset, uint32_t bytes,
                      enum field_kind kind)
{
    struct field *field = g_new0(struct field, 1);
    *field = (struct field){.name = name, .offset = offset, .bytes = bytes, .kind = kind};
    field->values = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    if (kind == FIELD_NAME) {
        add_names(field);
    } else if (kind == FIELD_CONTENT) {
        add_contents(field);
    } else {
        add_numbers(field, base);
    }
    if (kind == FIELD_ENTRY || kind == FIELD_L2) {
        add_entries(field, base);
    }
    if (kind == FIELD_L2) {
        add_coded(field, base);
    }
    tidy_values(field, base);
    g_ptr_array_add(base->fields, field);
}

static uint64_t extensions_at(const struct base *base)
{
    return number(base, 4, 4) == 3 ? number(base, 100, 4) : 72;
}

static void add_extensions(struct base *base)
{
    uint64_t at = extensions_at(base);
    uint32_t type = 1;
    for (unsigned i = 0; type != 0 && at + 8 <= cluster_bytes(base); i++) {
        type = (uint32_t)number(base, at, 4);
        add_field(base, g_strdup_printf("extension%u.type", i), at, 4, FIELD_NUMBER);
        add_field(base, g_strdup_printf("extension%u.length", i), at + 4, 4, FIELD_NUMBER);
        at += 8 + (number(base, at + 4, 4) + 7) / 8 * 8;
    }
}

/* The first clusters of made_build(), and the two tables above them. */
static void add_tables(struct base *base)
{
    static const char *const what[] = {"data", "data",  "zero_data", "zero",
                                       "none", "coded", "coded"};
    const struct layout *layout = &base->layout;
    for (unsigned i = 0; i < 3 && i < layout->l1_entries; i++) {
        add_field(base, g_strdup_printf("l1[%u]", i), layout->l1_offset + 8 * i, 8, FIELD_ENTRY);
    }
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(what); i++) {
        add_field(base, g_strdup_printf("l2[%u].%s", i, what[i]), layout_l2_place(layout, i), 8,
                  FIELD_L2);
    }
    for (unsigned i = 0; i < 2; i++) {
        add_field(base, g_strdup_printf("refcount_table[%u]", i), layout->reftable_offset + 8 * i,
                  8, FIELD_ENTRY);
    }
}

static void add_refcounts(struct base *base)
{
    uint64_t block = number(base, base->layout.reftable_offset, 8);
    uint32_t bytes = base->layout.order <= 3 ? 1 : 1u << (base->layout.order - 3);
    for (unsigned i = 0; i < 24; i += 3) {
        add_field(base, g_strdup_printf("refcount[%u]", i), block + (uint64_t)i * bytes, bytes,
                  FIELD_NUMBER);
    }
}

static void add_fields(struct base *base)
{
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(header); i++) {
        if (header[i].offset < 72 || base->layout.version == 3) {
            add_field(base, g_strdup(header[i].name), header[i].offset, header[i].bytes,
                      FIELD_NUMBER);
        }
    }
    add_extensions(base);
    add_tables(base);
    add_refcounts(base);
    add_field(base, g_strdup("backing_file_name"), number(base, 8, 8),
              (uint32_t)number(base, 16, 4), FIELD_NAME);
    add_field(base, g_strdup("coded_data"), base->coded_offset, 8, FIELD_CONTENT);
}

/* --- images --- */

/* In front of the others. The backing file's name moves up. */
static void add_unknown_extension(struct base *base)
{
    static const char content[16] = "kept as it is";
    uint8_t extension[8 + sizeof(content)];
    uint64_t at = extensions_at(base);
    uint64_t unit = base->made->unit;
    put(extension, 4, UNKNOWN_EXTENSION);
    put(extension + 4, 4, sizeof(content) - 3);
    memcpy(extension + 8, content, sizeof(content));
    memmove(base->bytes + at + sizeof(extension), base->bytes + at, unit - at - sizeof(extension));
    memcpy(base->bytes + at, extension, sizeof(extension));
    put(base->bytes + 8, 8, number(base, 8, 8) + sizeof(extension));
}

static void make_bytes(struct base *base)
{
    struct fuzz_machine machine;
    fuzz_machine_init(&machine, 1);
    made_build(&machine, base->made);
    base->count = (size_t)ash_sim_file_bytes(machine.world, "image");
    base->bytes = g_malloc(base->count);
    ash_sim_file_read(machine.world, "image", 0, base->bytes, base->count);
    ash_sim_file_read(machine.world, "base", 0, base->backing, sizeof(base->backing));
    add_unknown_extension(base);
    ash_sim_file_write(machine.world, "image", 0, base->bytes, base->count);
    if (!layout_read(&base->layout, machine.world, "image") || !base->layout.metadata_good) {
        fuzz_fail("%s is not a good image", base->made->name);
    }
    fuzz_machine_free(&machine);
}

struct base *base_new(const char *name)
{
    unsigned index = 0;
    while (index < ASH_ARRAY_SIZE(bases) && strcmp(bases[index].name, name) != 0) {
        index++;
    }
    if (index == ASH_ARRAY_SIZE(bases)) {
        return NULL;
    }
    struct base *base = g_new0(struct base, 1);
    base->made = &bases[index];
    make_bytes(base);
    base->metadata = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    for (uint64_t i = 0; i < base->layout.clusters; i++) {
        uint64_t offset = i << base->layout.cluster_bits;
        if (base->layout.tables[i] > 0) {
            g_array_append_val(base->metadata, offset);
        }
    }
    uint64_t coded = number(base, layout_l2_place(&base->layout, 5), 8);
    base->coded_offset = coded & ((UINT64_C(1) << (62 - (base->layout.cluster_bits - 8))) - 1);
    base->fields = g_ptr_array_new_with_free_func(field_free);
    add_fields(base);
    return base;
}

void base_free(struct base *base)
{
    g_ptr_array_free(base->fields, TRUE);
    g_array_free(base->metadata, TRUE);
    layout_free(&base->layout);
    g_free(base->bytes);
    g_free(base);
}

const struct field *base_field(const struct base *base, const char *name)
{
    for (unsigned i = 0; i < base->fields->len; i++) {
        const struct field *field = g_ptr_array_index(base->fields, i);
        if (strcmp(field->name, name) == 0) {
            return field;
        }
    }
    return NULL;
}
