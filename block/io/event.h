/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Named events: what a format is about to do, told to the node below it. Only the fault filter
 * listens; for all others it costs a look at a pointer. A listener may yield, so events are told
 * where a yield is allowed: just before the I/O that they name. */
#ifndef ASH_BLOCK_IO_EVENT_H
#define ASH_BLOCK_IO_EVENT_H

#include "block/driver.h"

extern const char *const ash_event_names[]; /* by enum, NULL-terminated */

ASH_CO_FN static inline void ash_edge_event(struct ash_edge *edge, enum ash_event event)
{
    if (ash_unlikely(edge->child->driver->event != NULL)) {
        edge->child->driver->event(edge->child, event);
    }
}

#endif
