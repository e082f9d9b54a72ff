/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Valid images, made by our own code on a simulated machine: what the fuzzers begin with. */
#ifndef ASH_TESTS_FUZZ_MADE_H
#define ASH_TESTS_FUZZ_MADE_H

#include "tests/fuzz/fuzz.h"

/* In the order in which inputs name them: new ones go to the end. */
struct made_image {
    const char *name;    /* of a seed file */
    const char *options; /* of creation, name=value,... */
    uint64_t bytes;      /* of the disk */
    uint32_t unit;       /* bytes of a cluster */
    bool unclean;        /* as it is when the program dies before it closes the image */
};
extern const struct made_image made_images[];
extern const unsigned made_image_count;

/* What the backing file "base" holds, and for how long. */
#define MADE_BASE_BYTES (40u * 1024)
uint8_t made_base_byte(uint64_t offset);

/* What the guest wrote into cluster n, if it did. */
uint8_t made_guest_byte(uint64_t cluster);

/* Makes "base" and "image": clusters of data, compressed ones, zeroes, holes. The machine is halted
 * before and after. */
void made_build(struct fuzz_machine *machine, const struct made_image *made);

#endif
