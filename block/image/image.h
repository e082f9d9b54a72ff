/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on whole images: what ashlar-img is made of. */
#ifndef ASH_BLOCK_IMAGE_IMAGE_H
#define ASH_BLOCK_IMAGE_IMAGE_H

#include <jansson.h>
#include "block/driver.h"
#include "block/graph/open.h"

/* Makes an image. `options` are create options as a JSON object (values may be strings), "size" among
 * them; NULL: none. Unknown ones are refused by name. The driver's file is made by the protocol's
 * create_file, opened, and filled by the format's create. On failure a file that this call made is
 * removed again. */
ASH_CO_FN int ash_image_create(struct ash_loop *loop, const char *filename, const char *format,
                               uint64_t bytes, const json_t *options, struct ash_error *error);

/* The driver->measure of a format with create options. `source` NULL: an empty image of `bytes`. */
ASH_CO_FN int ash_image_measure(struct ash_loop *loop, const char *format, const json_t *options,
                                uint64_t bytes, struct ash_node *source,
                                struct ash_measure *measure, struct ash_error *error);

/* Has the image hold nothing of its own any more, so that what is below it shows. Stable when it
 * returns. The disk is open for writing, and nobody else uses it. -ENOTSUP: the format cannot. */
struct ash_disk;
ASH_CO_FN int ash_image_empty(struct ash_disk *disk, struct ash_error *error);

/* What `info --output=json` of qemu-img 7.2 prints for one layer; a new reference or NULL. */
ASH_CO_FN json_t *ash_image_info(struct ash_node *node);

#endif
