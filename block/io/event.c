/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The names of events. */
#include "block/io/event.h"

const char *const ash_event_names[] = {
    [ASH_EVENT_NONE] = "none",
    [ASH_EVENT_READ_AIO] = "read_aio",
    [ASH_EVENT_WRITE_AIO] = "write_aio",
    [ASH_EVENT_PWRITEV_ZERO] = "pwritev_zero",
    [ASH_EVENT_PWRITEV_DISCARD] = "pwritev_discard",
    [ASH_EVENT_FLUSH_TO_DISK] = "flush_to_disk",
    [ASH_EVENT_L2_LOAD] = "l2_load",
    [ASH_EVENT_L2_UPDATE] = "l2_update",
    [ASH_EVENT_REFBLOCK_LOAD] = "refblock_load",
    [ASH_EVENT_REFBLOCK_UPDATE] = "refblock_update",
    [ASH_EVENT_L1_UPDATE] = "l1_update",
    [ASH_EVENT_REFTABLE_UPDATE] = "reftable_update",
    [ASH_EVENT_HEADER_UPDATE] = "header_update",
    NULL,
};
