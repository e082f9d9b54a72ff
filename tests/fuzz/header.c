/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* header: the first bytes of a file, to the probes of all drivers and to the parser of qcow2
 * headers.
 *
 *  1. A header that was parsed can be written again if it fits, and then says the same.
 *  2. A failure is explained. */
#include <errno.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "tests/fuzz/fuzz.h"

static bool same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static bool same_extensions(const struct ash_qcow2_header *a, const struct ash_qcow2_header *b)
{
    const struct ash_list *one = a->extensions.next;
    const struct ash_list *two = b->extensions.next;
    while (one != &a->extensions && two != &b->extensions) {
        const struct qcow2_extension *left = ash_list_entry(one, struct qcow2_extension, link);
        const struct qcow2_extension *right = ash_list_entry(two, struct qcow2_extension, link);
        if (left->type != right->type || left->bytes != right->bytes ||
            memcmp(left->data, right->data, left->bytes) != 0) {
            return false;
        }
        one = one->next;
        two = two->next;
    }
    return one == &a->extensions && two == &b->extensions;
}

/* The places of what moves when it is written again are not compared. */
static bool same(const struct ash_qcow2_header *a, const struct ash_qcow2_header *b)
{
    struct qcow2_fields left = a->fields, right = b->fields;
    left.backing_offset = right.backing_offset = 0;
    left.header_bytes = right.header_bytes = 0;
    return memcmp(&left, &right, sizeof(left)) == 0 &&
           same_text(a->backing_file, b->backing_file) &&
           same_text(a->backing_format, b->backing_format) &&
           a->unknown_bytes == b->unknown_bytes && same_extensions(a, b);
}

static void write_again(struct ash_qcow2_header *header, size_t bytes)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_qcow2_header again;
    uint8_t *cluster = g_malloc(bytes);
    int ret = ash_qcow2_header_serialise(header, cluster, bytes);
    if (ret == 0) {
        ash_qcow2_header_init(&again);
        if (ash_qcow2_header_parse(&again, cluster, bytes, "again", &error) < 0) {
            fuzz_fail("a header that was written is not understood: %s", error.message);
        }
        if (!same(header, &again)) {
            fuzz_fail("a header that was written says something else");
        }
        ash_qcow2_header_clear(&again);
    } else if (ret != -ENOSPC) {
        fuzz_fail("writing a header fails with %d", ret);
    }
    g_free(cluster);
}

void fuzz_one(const uint8_t *data, size_t bytes)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_qcow2_header header;
    if (ash_driver_probe(data, MIN(bytes, 2048)) == NULL) {
        fuzz_fail("no driver takes the file");
    }
    uint32_t cluster_bytes = ash_qcow2_header_cluster_bytes(data, bytes);
    size_t count = cluster_bytes > 0 ? MIN(bytes, cluster_bytes) : bytes;
    ash_qcow2_header_init(&header);
    int ret = ash_qcow2_header_parse(&header, data, count, "image", &error);
    if (ret < 0 && (error.message[0] == '\0' || error.code != ret)) {
        fuzz_fail("a header is refused with %d, and nothing is said", ret);
    }
    if (ret == 0) {
        if (ash_qcow2_features_check(&header, false, "image", &error) == 0) {
            ash_qcow2_features_check(&header, true, "image", &error);
        }
        write_again(&header, cluster_bytes);
    }
    ash_qcow2_header_clear(&header);
}
