/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding drivers in the table. The table itself is alone in block/drivers.c: a program that defines
 * a table of its own, as tests do, is linked with that one in its place. */
#include "block/driver.h"
#include <string.h>

extern const struct ash_driver ash_driver_raw;

const char *const ash_prealloc_names[] = {"off", "metadata", "falloc", "full", NULL};

const struct ash_driver *ash_driver_find(const char *name)
{
    for (const struct ash_driver *const *driver = ash_drivers; *driver != NULL; driver++) {
        if (strcmp((*driver)->name, name) == 0) {
            return *driver;
        }
    }
    return NULL;
}

const struct ash_driver *ash_driver_probe(const uint8_t *head, size_t bytes)
{
    const struct ash_driver *surest = &ash_driver_raw;
    int surest_score = 0;
    for (const struct ash_driver *const *driver = ash_drivers; *driver != NULL; driver++) {
        int score = (*driver)->probe != NULL ? (*driver)->probe(head, bytes) : 0;
        if (score > surest_score) {
            surest = *driver;
            surest_score = score;
        }
    }
    return surest;
}
