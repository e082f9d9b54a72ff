/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk may have held at a moment that is over: kept until a copy of it can be looked at. */
#ifndef ASH_TESTS_SIM_MODEL_IMAGE_H
#define ASH_TESTS_SIM_MODEL_IMAGE_H

#include <glib.h>
#include "tests/sim/model.h"

struct model_image;

/* Where something has to be as it was. */
struct model_range {
    uint64_t offset;
    uint64_t bytes;
};

/* What the read, which is over with this, may have found. */
struct model_image *model_image_take(struct model *model, struct model_op *read);
void model_image_free(struct model_image *image); /* may be NULL */
uint64_t model_image_bytes(const struct model_image *image);

/* What is wrong with a part of a copy, or NULL. `exact`: of struct model_range; elsewhere zeroes
 * will do as well. NULL: all of it has to be as it was. */
const char *model_image_compare(const struct model_image *image, struct model *model,
                                uint64_t offset, const void *buffer, uint64_t bytes,
                                const GArray *exact);

#endif
