/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Create options of a driver, for creating and measuring alike. */
#ifndef ASH_BLOCK_IMAGE_OPTIONS_H
#define ASH_BLOCK_IMAGE_OPTIONS_H

#include <jansson.h>
#include "block/driver.h"

/* Takes what the driver knows out of `rest` into a new struct of its own; NULL and an error. */
void *ash_create_options_take(const struct ash_driver *driver, json_t *rest,
                              struct ash_error *error);
void ash_create_options_free(const struct ash_driver *driver, void *options);

/* An error that names the first option nobody took; 0 if there is none. */
int ash_create_options_refuse_rest(const json_t *rest, struct ash_error *error);

#endif
