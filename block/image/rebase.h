/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving an image that no guest uses another backing file. */
#ifndef ASH_BLOCK_IMAGE_REBASE_H
#define ASH_BLOCK_IMAGE_REBASE_H

#include "block/disk/disk.h"

struct ash_rebase {
    struct ash_disk *overlay; /* open for writing on its present chain */
    struct ash_disk *backing; /* what it is to stand on; NULL: on nothing */
    /* Told how far it is; false: stop. May be NULL. */
    bool (*progress)(struct ash_rebase *rebase, uint64_t done_bytes, uint64_t total_bytes);
};

/* Has the overlay hold what it lacks and the new backing image says otherwise: then it reads the
 * same on either, and ash_image_set_backing() may follow. The overlay stays valid on its present
 * chain, whether it fails or not. -EINTR: it was told to stop. */
ASH_CO_FN int ash_image_rebase(struct ash_rebase *rebase, struct ash_error *error);

/* Writes the header's backing strings (NULL: none), after all that the image holds is stable. The
 * chain that is open stays as it is: close the disk next. */
ASH_CO_FN int ash_image_set_backing(struct ash_disk *disk, const char *file, const char *format,
                                    struct ash_error *error);

#endif
