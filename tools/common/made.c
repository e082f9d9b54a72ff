/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that a tool makes: not on top of what it reads from, and removed again if they do not come
 * about.
 *
 * Invariant: only a regular file that the name itself denotes is removed, never what a link or a
 * device leads to. */
#include <glib.h>
#include "block/driver.h"
#include "block/graph/open.h"
#include "tools/common/tool.h"
#include "util/engine/co_aio.h"

char *ash_tool_host_path(const char *filename)
{
    json_t *description = ash_describe(filename, "file", NULL);
    char *path = g_strdup(json_string_value(json_object_get(description, "filename")));
    json_decref(description);
    return path;
}

void ash_tool_remove_made(const char *filename)
{
    struct ash_engine *engine = ash_co_loop()->engine;
    struct ash_file_status status;
    char link[4096];
    struct iovec vec = {link, sizeof(link)};
    char *path = ash_tool_host_path(filename);
    struct ash_aio look = {.op = ASH_AIO_READLINK, .path = path, .iov = ash_iov_of(&vec, 1)};
    if (path != NULL && ash_co_path_status(engine, path, &status) == 0 && status.regular &&
        ash_co_aio(engine, &look) < 0) {
        struct ash_aio remove = {.op = ASH_AIO_UNLINK, .path = path};
        ash_co_aio(engine, &remove);
    }
    g_free(path);
}

bool ash_tool_reads_from(struct ash_disk *disk, const char *filename)
{
    struct ash_engine *engine = ash_co_loop()->engine;
    struct ash_file_status file;
    char *path = ash_tool_host_path(filename);
    bool known = path != NULL && ash_co_path_status(engine, path, &file) == 0;
    bool found = false;
    g_free(path);
    for (const struct ash_node *node = ash_disk_node(disk); known && node != NULL && !found;) {
        struct ash_file_status other;
        found = ash_co_path_status(engine, node->filename, &other) == 0 &&
                other.device == file.device && other.inode == file.inode;
        node = node->backing != NULL ? node->backing->child : NULL;
    }
    return found;
}
