/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/model_image.h"
#include <string.h>

/* A stretch of one history: what it may have held. */
struct part {
    uint64_t end;
    uint32_t first; /* of image->values */
    uint32_t count;
};

struct model_image {
    uint64_t bytes;
    GArray *parts;
    GArray *values;
};

struct model_image *model_image_take(struct model *model, struct model_op *read)
{
    struct model_image *image = g_new0(struct model_image, 1);
    image->bytes = read->bytes;
    image->parts = g_array_new(FALSE, FALSE, sizeof(struct part));
    image->values = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    for (uint64_t at = 0; at < image->bytes;) {
        uint64_t values[HISTORY_VALUES_MAX];
        struct part part = {.first = image->values->len};
        part.count = model_values(model, at, read->begin, values, &part.end);
        g_array_append_vals(image->values, values, part.count);
        g_array_append_val(image->parts, part);
        at = part.end;
    }
    (void)model_read_end(model, read, NULL);
    return image;
}

void model_image_free(struct model_image *image)
{
    if (image) {
        g_array_free(image->parts, TRUE);
        g_array_free(image->values, TRUE);
        g_free(image);
    }
}

uint64_t model_image_bytes(const struct model_image *image)
{
    return image->bytes;
}

/* Whether the place has to be as it was; cuts *end to where that changes. */
static bool is_exact(const GArray *exact, uint64_t offset, uint64_t *end)
{
    bool inside = exact == NULL;
    for (guint i = 0; exact != NULL && i < exact->len; i++) {
        const struct model_range *range = &g_array_index(exact, struct model_range, i);
        uint64_t range_end = range->offset + range->bytes;
        if (offset >= range->offset && offset < range_end) {
            inside = true;
            *end = MIN(*end, range_end);
        } else if (range->offset > offset) {
            *end = MIN(*end, range->offset);
        }
    }
    return inside;
}

const char *model_image_compare(const struct model_image *image, struct model *model,
                                uint64_t offset, const void *buffer, uint64_t bytes,
                                const GArray *exact)
{
    uint64_t end = MIN(offset + bytes, image->bytes);
    const char *wrong = NULL;
    uint64_t at = offset;
    for (guint i = 0; i < image->parts->len && at < end && !wrong;) {
        const struct part *part = &g_array_index(image->parts, struct part, i);
        uint64_t values[HISTORY_VALUES_MAX + 1] = {0};
        uint64_t stop = MIN(part->end, end);
        if (part->end <= at) {
            i++;
            continue;
        }
        memcpy(values, &g_array_index(image->values, uint64_t, part->first),
               part->count * sizeof(*values));
        uint32_t count = part->count + (is_exact(exact, at, &stop) ? 0 : 1);
        wrong = model_match(model, at, (const uint8_t *)buffer + (at - offset), stop - at, values,
                            count);
        at = stop;
    }
    return wrong;
}
