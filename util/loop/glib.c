/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop as a GSource. The loop's descriptor is level-triggered and covers everything, so the
 * source needs no prepare and no timeout of its own: GLib polls the descriptor, and each dispatch
 * is one turn. It owns nothing but its tag. */
#include "util/loop/glib.h"
#include "util/loop/loop.h"

/* Switches to coroutines in one dispatch: others in the main context get their turn too. */
enum { DISPATCH_BUDGET = 256 };

struct loop_source {
    GSource source;
    struct ash_loop *loop;
    gpointer tag;
};

static gboolean source_check(GSource *source)
{
    struct loop_source *loop_source = (struct loop_source *)source;
    return g_source_query_unix_fd(source, loop_source->tag) != 0;
}

static gboolean source_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    (void)callback;
    (void)opaque;
    struct loop_source *loop_source = (struct loop_source *)source;
    int result = ash_loop_run_once(loop_source->loop, 0, DISPATCH_BUDGET);
    if (result < 0) {
        ash_log(loop_source->loop, ASH_LOG_ERROR, "the engine failed in a main context: %s",
                g_strerror(-result));
    }
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs source_funcs = {
    .check = source_check,
    .dispatch = source_dispatch,
};

GSource *ash_loop_glib_source(struct ash_loop *loop)
{
    int fd = ash_loop_fd(loop);
    if (fd < 0) {
        return NULL;
    }
    GSource *source = g_source_new(&source_funcs, sizeof(struct loop_source));
    struct loop_source *loop_source = (struct loop_source *)source;
    loop_source->loop = loop;
    loop_source->tag = g_source_add_unix_fd(source, fd, G_IO_IN);
    g_source_set_name(source, "ashlar-loop");
    return source;
}
