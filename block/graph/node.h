/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes and edges of a block graph.
 *
 * A node is an instance of a driver: a file, an image format, a filter. An edge leads from a parent
 * node, or from a disk, to a child and carries rights. All fields belong to the owner thread of the
 * loop. Edges are made, moved and removed by plans only (block/graph/plan.h). */
#ifndef ASH_BLOCK_GRAPH_NODE_H
#define ASH_BLOCK_GRAPH_NODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "block/graph/user.h"
#include "block/io/track.h"
#include "util/error.h"
#include "util/list.h"
#include "util/loop/loop.h"

struct ash_driver;
struct ash_map;
struct ash_node;

enum ash_role {
    ASH_ROLE_FILE,    /* holds the parent's metadata and data */
    ASH_ROLE_DATA,    /* holds data only */
    ASH_ROLE_BACKING, /* is read where the parent holds nothing */
    ASH_ROLE_DISK,    /* the parent is a user's handle */
    ASH_ROLE_JOB,     /* a job's own way to a node, past filters on top of it */
};

/* Rights. `needs`: what the parent does through the edge. `allows`: what it can bear others to do.
 * The order is that of the bytes by which processes lock image files. */
#define ASH_RIGHT_READ (1u << 0) /* read, and find a consistent image */
#define ASH_RIGHT_WRITE (1u << 1)
#define ASH_RIGHT_REWRITE (1u << 2) /* write the same contents: as copy-on-read does */
#define ASH_RIGHT_RESIZE (1u << 3)
#define ASH_RIGHT_ALL 0xfu

struct ash_edge {
    struct ash_node *parent; /* NULL: a disk's edge */
    struct ash_node *child;
    const char *name; /* "file", "backing", "root": static */
    enum ash_role role;
    uint32_t needs;
    uint32_t allows;
    uint32_t lends; /* rights that a job lets others have here, and answers for: added to allows */
    bool frozen;    /* a job relies on where it leads: plans do not change it */
    struct ash_list parent_link; /* in parent->children */
    struct ash_list child_link;  /* in child->parents */
    struct ash_user *user;       /* of an edge without a parent: who uses it; NULL: nobody's */
};

/* What a driver asks of requests. 0 where there is no bound. Sizes in bytes; alignments are powers
 * of two, and every maximum is a multiple of request_alignment. */
struct ash_limits {
    uint32_t request_alignment; /* of offset and length of reads and writes; >= 1 */
    uint32_t memory_alignment;  /* of each piece of the vector, and, of several, of its length; a
                                   piece that is alone may have any length; >= 1 */
    uint32_t iov_max;           /* pieces */
    uint32_t transfer_max;
    uint64_t zero_max;
    uint32_t zero_alignment; /* below it, zeroes are written as data; 0: request_alignment */
    uint64_t discard_max;
    uint32_t discard_alignment; /* what does not fill it is dropped; 0: request_alignment */
    uint32_t optimal;
    uint32_t cluster; /* allocation unit of a format; 0: none */
};

#define ASH_NODE_WRITE (1u << 0)    /* opened for writing */
#define ASH_NODE_DISCARD (1u << 1)  /* discard=unmap */
#define ASH_NODE_DIRECT (1u << 2)   /* cache.direct */
#define ASH_NODE_NO_FLUSH (1u << 3) /* cache.no-flush */
#define ASH_NODE_FORCE_SHARE (1u << 4)
#define ASH_NODE_AUTO_READ_ONLY (1u << 5)
#define ASH_NODE_DETECT_ZEROES (1u << 6)
#define ASH_NODE_DETECT_UNMAP (1u << 7) /* detect-zeroes=unmap */
#define ASH_NODE_PROBED (1u << 8)       /* the format was guessed to be raw: block/io/guard.h */
#define ASH_NODE_NO_BACKING (1u << 9)   /* the chain below stays closed, and may not be named */
#define ASH_NODE_CHECK                                                                             \
    (1u << 10) /* opened to be checked: dirty and corrupt images open too, and                     \
                  nothing is repaired on the way */
#define ASH_NODE_NO_LOCK (1u << 11)
#define ASH_NODE_HEADER_URLS (1u << 12) /* the caller lets header strings be json: or URLs */
#define ASH_NODE_GROWS (1u << 13) /* set by a driver: a write beyond the end extends the node */
#define ASH_NODE_JOBS (1u << 15)  /* a job's own filter: nobody else takes it out of the graph */
#define ASH_NODE_LEFT (1u << 16)  /* taken out, and what a job has left behind stands on it */
/* With NO_BACKING: it may be named, and who opened the node asks ash_node_backing() for it. */
#define ASH_NODE_BACKING_TOLD (1u << 17)
#define ASH_NODE_BACKING_FILE (1u << 14) /* opened as somebody's backing node */

/* Who has to know of it before a node gets longer. */
struct ash_growth_watch {
    /* Bytes from `offset` on are about to appear. An error: they do not. */
    ASH_CO_PTR int (*growing)(struct ash_growth_watch *watch, uint64_t offset, uint64_t bytes,
                              struct ash_error *error);
};

struct ash_node {
    struct ash_loop *loop;
    const struct ash_driver *driver;
    void *state;       /* driver->state_size bytes */
    char *name;        /* unique on the loop; "#block7" if the user gave none */
    char *filename;    /* the path, or a text that names the node in messages; never NULL */
    json_t *options;   /* as opened: for "json:" file names; never NULL */
    uint32_t flags;    /* ASH_NODE_* */
    bool mark_held;    /* block/io/mark.h: by a job */
    bool mark_idle;    /* on disk, and held by nobody */
    bool mark_leaving; /* a change is taking it away, or has done so */
    uint32_t refs;     /* edges to it, and holders of a pointer */
    bool open;         /* with all that it stands on: by its name the node can be found */
    uint64_t size_bytes;
    uint64_t resizes; /* changes of the length so far */
    struct ash_growth_watch *growth_watch; /* NULL: nobody has to know */
    struct ash_limits limits;
    struct ash_list parents;  /* of edges, by child_link */
    struct ash_list children; /* of edges, by parent_link */
    struct ash_edge *file;    /* the children by role; NULL where there is none */
    struct ash_edge *data;
    struct ash_edge *backing;
    char *backing_file;   /* from the header, or NULL */
    char *backing_format; /* from the header, or NULL */
    struct ash_track track;
    struct ash_list bitmaps;    /* of struct ash_bitmap: block/bitmap/bitmap.h */
    struct ash_user own;        /* opening, background work, closing */
    struct ash_map *map;        /* of nodes whose driver maps: locks, pins, what walks found */
    struct ash_list nodes_link; /* in the loop's list of nodes */
};

/* Takes a reference; the owner thread. */
void ash_node_ref(struct ash_node *node);

/* Drops one. The last one flushes and closes the node and drops its children, in a loop and not by
 * recursion. Returns the first error of closing, or 0 while references remain. */
ASH_CO_FN int ash_node_unref(struct ash_node *node);

/* By node name, among those that are open; NULL. */
struct ash_node *ash_node_find(struct ash_loop *loop, const char *name);

/* Whether a node has the name, one that opens or closes at the moment included. */
bool ash_node_name_taken(struct ash_loop *loop, const char *name);

/* Whether what the node does not hold comes from a backing node. */
static inline bool ash_node_is_mapped(const struct ash_node *node)
{
    return node->map != NULL;
}

static inline bool ash_node_writable(const struct ash_node *node)
{
    return (node->flags & ASH_NODE_WRITE) != 0;
}

/* "qcow2 image 'a.qcow2'": for the beginning of messages; valid until the next call with `buffer`.
 */
const char *ash_node_label(const struct ash_node *node, char buffer[static 300]);

#endif
