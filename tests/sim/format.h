/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of formats: what a layer of a chain may be. */
#ifndef ASH_TESTS_SIM_FORMAT_H
#define ASH_TESTS_SIM_FORMAT_H

#include "tests/sim/sim.h"

#define SIM_FORMAT_BACKING (1u << 0)  /* can have an image below it */
#define SIM_FORMAT_COMPRESS (1u << 1) /* takes compressed writes */
#define SIM_FORMAT_CHECK (1u << 2)    /* its driver checks images */

struct sim_format {
    const char *name;
    uint32_t weight;
    uint32_t flags; /* SIM_FORMAT_* */

    /* Random options; the layer's bytes are drawn already and may be changed. */
    void (*choose)(struct sim_layer *layer, struct ash_prng *prng);
    /* Makes the image. `below`: the layer that it stands on, or NULL. */
    ASH_CO_PTR void (*create)(struct sim_disk *disk, struct sim_layer *layer,
                              const struct sim_layer *below);
    /* A new description of the node, without "backing". */
    json_t *(*describe)(const struct sim_layer *layer);
    /* Whether it can take this length. May be NULL: any. */
    bool (*may_resize)(const struct sim_disk *disk, const struct sim_layer *layer, uint64_t bytes);
    /* Whether the image has to be repaired before a check means anything. May be NULL. */
    bool (*dirty)(struct sim_run *run, const struct sim_layer *layer);
    /* Looks at the file itself while the machine is off. `clean`: nothing has gone wrong since it
     * was made or repaired. May be NULL. */
    void (*audit)(struct sim_run *run, const struct sim_layer *layer, bool clean);
};

extern const struct sim_format *const sim_formats[];

/* One of the table, by weight. */
const struct sim_format *sim_format_choose(struct ash_prng *prng, uint32_t flags);

extern const struct sim_format sim_format_raw;
extern const struct sim_format sim_format_qcow2;

/* "name=value,..." as an object of strings. */
json_t *sim_options(const char *text);

#endif
