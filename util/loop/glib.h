/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop inside a GLib main context. */
#ifndef ASH_UTIL_LOOP_GLIB_H
#define ASH_UTIL_LOOP_GLIB_H

#include <glib.h>
#include <ashlar/loop.h>

/* A source that runs the loop whenever its descriptor is readable. The caller attaches it, on the
 * loop's owner thread, and unrefs it. The loop outlives the source. NULL when the engine has no
 * descriptor (the simulator). */
GSource *ash_loop_glib_source(struct ash_loop *loop);

#endif
