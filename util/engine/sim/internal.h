/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of the simulated engine. Nobody but util/engine/sim includes this.
 *
 *   engine.c    clock, heap of events, submit and wait, holds
 *   request.c   what each request does, faults
 *   trace.c     hash and observer
 *   power.c     the cut and what it leaves
 *   world.c     world, names, files, direct access; host.c: to and from files of the host
 *   lock.c      byte-range locks
 *   content.c   bytes of a file, in terms of pages
 *   page.c      pages, their versions, flush
 *   tree.c      where the pages of a sparse file are found
 */
#ifndef ASH_UTIL_ENGINE_SIM_INTERNAL_H
#define ASH_UTIL_ENGINE_SIM_INTERNAL_H

#include <glib.h>
#include "util/engine/sim.h"

#define SIM_PAGE_BITS 12
#define SIM_PAGE_BYTES 4096
#define SIM_LEAF_BITS 6
#define SIM_LEAF_PAGES 64
#define SIM_FILE_BYTES_MAX (UINT64_C(1) << 62)
#define SIM_ALLOCATE_BYTES_MAX (64 * GiB) /* of one request, when the world has no capacity */

/* What some sectors of a page held before a change. The versions of a page, oldest first, and its
 * block are all the states that its sectors had since they were durable. */
struct sim_version {
    struct sim_version *next;
    uint64_t seq;      /* of the change that this was before */
    uint8_t mask;      /* sectors of the page */
    uint8_t data_mask; /* those of mask whose bytes are in block; the others were zeroes */
    uint8_t *block;    /* bytes at the places they have in the page; NULL if data_mask is 0 */
};

/* A page exists while it has a block, a version or something lost. */
struct sim_page {
    struct ash_list unsynced; /* in the inode's list while it has a version or something lost */
    uint64_t index;
    uint8_t *block; /* what reads see; NULL: zeroes */
    struct sim_version *oldest;
    struct sim_version *newest;
    struct sim_version *lost; /* durable bytes of sectors that a failed flush dropped; or NULL */
    uint32_t version_count;
};

/* 64 neighbouring pages. */
struct sim_leaf {
    uint64_t data;      /* pages with a block */
    uint64_t unwritten; /* pages without, that are allocated all the same */
    struct sim_page *pages[SIM_LEAF_PAGES];
};

/* Leaves by number, in order: a radix tree, as high as its largest index needs. */
struct sim_tree {
    void *root;
    unsigned height; /* levels of inner nodes above the leaves */
};

/* A change of the length that is not durable yet. */
struct sim_length {
    uint64_t seq;
    uint64_t before;
    bool gradual; /* by a write: the length may stop on the way */
    bool shrinks;
};

struct sim_inode {
    struct ash_list link; /* world->inodes */
    struct ash_sim_world *world;
    uint64_t number;
    char *path; /* NULL: unlinked */
    uint32_t opens;
    bool read_only;
    uint64_t modified_ns;
    uint64_t length;
    uint64_t short_offset; /* of the last transfer, if it was cut short; or UINT64_MAX */
    GArray *lengths;       /* struct sim_length, oldest first */
    struct sim_tree tree;
    struct sim_leaf *leaf_cached;
    uint64_t leaf_cached_index;
    uint64_t allocated_pages;
    struct ash_list unsynced; /* struct sim_page */
    struct ash_list locks;    /* struct sim_lock */
};

struct sim_file {
    struct ash_file file;
    struct ash_list link; /* world->open_files */
    struct sim_inode *inode;
};

/* A byte-range lock of an open file. */
struct sim_lock {
    struct ash_list link;
    struct sim_file *owner;
    int type;
    uint64_t start;
    uint64_t end; /* exclusive */
};

struct sim_hold {
    struct ash_list link;
    char *path;
    int op;
    uint64_t offset;
    uint64_t bytes;
};

enum sim_stage {
    SIM_STAGE_START,    /* to be carried out */
    SIM_STAGE_COMPLETE, /* to be completed with `result` */
};

/* A request in flight. */
struct sim_request {
    struct ash_list link; /* world->held, or the engine's free ones */
    struct ash_aio *aio;
    enum sim_stage stage;
    uint64_t complete_ns;
    uint64_t seq; /* FLUSH: covers changes up to this one; others: the change that it was */
    bool stall;   /* held once it was carried out */
    int64_t result;
};

struct sim_event {
    uint64_t time_ns;
    uint64_t tie; /* random: events of one instant come in any order */
    struct sim_request *request;
};

struct sim_engine {
    struct ash_engine engine;
    struct ash_sim_world *world;
    struct sim_event *heap;
    uint32_t heap_count;
    uint32_t heap_max;
    struct ash_list polls; /* struct ash_aio, by link */
    struct ash_list free_requests;
    bool woken; /* atomic; any thread */
};

struct ash_sim_world {
    struct ash_sim_config config;
    struct ash_prng prng;
    uint64_t now_ns;
    uint64_t seq;              /* of the last change */
    uint64_t randoms;          /* asked for by the library: they leave `prng` alone */
    uint64_t mutations;        /* requests that changed or flushed something */
    struct sim_engine *engine; /* or NULL */

    GHashTable *names;          /* path -> struct sim_inode; looked up, never iterated */
    struct ash_list inodes;     /* in order of creation */
    struct ash_list open_files; /* in order of opening */
    uint32_t open_count;
    uint32_t leaked_files;
    uint64_t inode_last;
    uint64_t allocated_pages;
    unsigned sector_bits;

    void *free_blocks; /* each begins with the address of the next */
    struct sim_version *free_versions;
    struct sim_page *free_pages; /* through unsynced.next */

    bool power_is_cut;
    uint64_t cut_after; /* mutations until the armed cut; 0: not armed */
    enum ash_sim_cut cut_mode;

    struct ash_list holds;
    struct ash_list held;
    uint32_t held_count;

    char *aim_path; /* NULL: no faults are aimed */
    uint64_t aim_skip;
    uint64_t aim_count;
    int aim_error;

    uint64_t trace_hash;
    void (*observer)(void *opaque, const struct ash_sim_event *event);
    void *observer_opaque;
};

/* tree.c */
struct sim_leaf *ash_sim_tree_get(const struct sim_tree *tree, uint64_t index);
struct sim_leaf *ash_sim_tree_make(struct sim_tree *tree, uint64_t index);
/* The first leaf at *index or after it; *index becomes its index. NULL: none. */
struct sim_leaf *ash_sim_tree_next(const struct sim_tree *tree, uint64_t *index);
/* Frees the leaves, not what they point to. */
void ash_sim_tree_free(struct sim_tree *tree);

/* page.c */
struct sim_leaf *ash_sim_leaf(struct sim_inode *inode, uint64_t page_index);
const uint8_t *ash_sim_page_read(struct sim_inode *inode, uint64_t page_index);
bool ash_sim_page_allocated(struct sim_inode *inode, uint64_t page_index);
/* The block of a page of which bytes [from, to) are about to change, in change `seq`; the others
 * stay. Bytes in between are undefined only when the whole page changes. */
uint8_t *ash_sim_page_change(struct sim_inode *inode, uint64_t page_index, size_t from, size_t to,
                             uint64_t seq);
/* The page becomes zeroes, and unwritten or a hole. */
void ash_sim_page_clear(struct sim_inode *inode, uint64_t page_index, bool unwritten, uint64_t seq);
/* Changes of [from, to) up to `seq` are durable. */
void ash_sim_page_harden(struct sim_inode *inode, uint64_t page_index, size_t from, size_t to,
                         uint64_t seq);
/* All changes up to `seq` are durable; `failed`: they are, they are lost, or they stay as they are,
 * page by page. */
void ash_sim_inode_flush(struct sim_inode *inode, uint64_t seq, bool failed);
/* Each unsynced sector becomes the last of its versions for which keep() is true, the durable one
 * if there is none; then nothing is unsynced any more. */
typedef bool sim_keep_fn(const void *opaque, uint64_t seq, uint64_t page_index, unsigned sector);
void ash_sim_inode_settle(struct sim_inode *inode, sim_keep_fn *keep, const void *opaque);
/* Frees all pages and versions. */
void ash_sim_inode_free_pages(struct sim_inode *inode);
void ash_sim_pools_free(struct ash_sim_world *world);

/* content.c. Ranges are valid and below SIM_FILE_BYTES_MAX. */
void ash_sim_content_read(struct sim_inode *inode, uint64_t offset, uint64_t bytes,
                          struct ash_iov iov);
/* Bytes written, less when space ran out. */
uint64_t ash_sim_content_write(struct sim_inode *inode, uint64_t offset, uint64_t bytes,
                               struct ash_iov iov, uint64_t seq, uint64_t new_pages_max);
/* Zeroes a range and frees, or keeps allocated, what it covers. */
void ash_sim_content_zero(struct sim_inode *inode, uint64_t offset, uint64_t bytes, bool allocate,
                          uint64_t seq);
void ash_sim_content_allocate(struct sim_inode *inode, uint64_t offset, uint64_t bytes);
/* Pages of the range that are not allocated; when all of them would be no more than `enough`, it
 * does not look. */
uint64_t ash_sim_content_missing(struct sim_inode *inode, uint64_t offset, uint64_t bytes,
                                 uint64_t enough);
void ash_sim_content_set_length(struct sim_inode *inode, uint64_t length, bool gradual,
                                uint64_t seq);
void ash_sim_content_truncate(struct sim_inode *inode, uint64_t length, uint64_t seq);
/* Lets go of everything from `length` on without a trace: for after a cut. */
void ash_sim_content_trim(struct sim_inode *inode, uint64_t length);
void ash_sim_content_lengths_durable(struct sim_inode *inode, uint64_t seq);
void ash_sim_content_harden(struct sim_inode *inode, uint64_t offset, uint64_t bytes, uint64_t seq);
/* As lseek(2). */
int64_t ash_sim_content_seek(struct sim_inode *inode, uint64_t offset, bool data);
uint64_t ash_sim_pages_left(const struct ash_sim_world *world);

/* lock.c */
int ash_sim_lock(struct sim_file *file, int type, uint64_t offset, uint64_t bytes, bool test);
void ash_sim_unlock_all(struct sim_file *file);

/* world.c */
struct sim_inode *ash_sim_find(struct ash_sim_world *world, const char *path);
struct sim_inode *ash_sim_create(struct ash_sim_world *world, const char *path);
int ash_sim_unlink(struct ash_sim_world *world, const char *path);
int ash_sim_rename(struct ash_sim_world *world, const char *path, const char *path2);
int ash_sim_open(struct ash_sim_world *world, const char *path, uint32_t flags,
                 struct ash_file **file);
void ash_sim_close(struct sim_file *file);

/* request.c */
bool ash_sim_is_mutation(const struct ash_aio *aio);
/* Whether it is carried out some time before it completes. */
bool ash_sim_has_two_stages(const struct ash_aio *aio);
/* `faults`: errors, short transfers and lack of space may be simulated. */
int64_t ash_sim_carry_out(struct ash_sim_world *world, struct sim_request *request, bool faults);
/* What is left to do when it completes: ASH_AIO_DSYNC. Returns the result. */
int64_t ash_sim_finish(struct ash_sim_world *world, struct sim_request *request);
/* Whether it works without power. */
bool ash_sim_needs_no_power(const struct ash_aio *aio);

/* engine.c */
/* Fails all that is in flight or held and needs power. */
void ash_sim_fail_in_flight(struct sim_engine *engine);

/* trace.c */
void ash_sim_trace(struct ash_sim_world *world, enum ash_sim_phase phase, const struct ash_aio *aio,
                   int64_t result);

static inline struct sim_file *ash_sim_file_of(struct ash_file *file)
{
    return ash_container_of(file, struct sim_file, file);
}

static inline size_t ash_sim_sector_bytes(const struct ash_sim_world *world)
{
    return (size_t)1 << world->sector_bits;
}

#endif
