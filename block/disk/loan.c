/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks on loan: a node in one loop's graph that stands for a disk of another loop.
 *
 * The node is a leaf. What is asked of it crosses to the disk's loop, runs there in a coroutine of
 * its own as a request of one more guest, and crosses back, while the coroutine that asked sleeps.
 * What crosses lies on that one's stack, so nothing is allocated on the way and nothing can fail
 * there.
 *
 * Invariants:
 *  1. A crossing is touched by one thread at a time: by the borrower's until it is sent, by the
 *     disk's until it is sent back. The queues of posts order the two.
 *  2. After it was sent back it is not touched any more: it may be gone.
 *  3. The disk lives as long as the node: a loan counts as one of its queues.
 *  4. Nothing of the disk's graph is seen through the node: neither its nodes nor places in them.
 */
#include <ashlar/disk.h>
#include <errno.h>
#include <glib.h>
#include "block/disk/call.h"
#include "block/disk/disk.h"
#include "block/driver.h"
#include "block/graph/open.h"
#include "util/assert.h"
#include "util/error.h"
#include "util/loop/loop.h"

#define LENT_FLAGS (ASH_IO_PUBLIC_FLAGS | ASH_IO_COMPRESS | ASH_IO_STATUS_ZEROES)

struct lent {
    struct ash_disk *disk;
    struct ash_limits limits;
};

/* On the stack of the coroutine that waits for it. */
struct crossing {
    struct ash_post post;
    struct ash_disk *disk;
    struct ash_loop *home;
    struct ash_co *waiter;
    ASH_CO_PTR int (*run)(struct crossing *crossing);
    bool plain; /* run() does not yield, and cannot be without a coroutine */
    int ret;
    struct ash_node *node; /* not to be touched there but for what `run` is told to */
    const struct ash_io *io;
    uint64_t resized;
    uint64_t bytes; /* the length, before and after */
    int prealloc;
    struct ash_error *error;
};

static void come_home(void *opaque)
{
    const struct crossing *crossing = opaque;
    ash_co_wake(crossing->waiter);
}

static void send(struct ash_loop *loop, struct crossing *crossing, void (*fn)(void *opaque))
{
    crossing->post = (struct ash_post){.fn = fn, .opaque = crossing};
    int ret = ash_loop_send(loop, &crossing->post);
    ash_assert(ret == 0); /* neither loop is freed before the loan has ended */
}

static void run_there(void *opaque)
{
    struct crossing *crossing = opaque;
    ash_co_assert_inside();
    crossing->ret = crossing->run(crossing);
    send(crossing->home, crossing, come_home);
}

static void arrive(void *opaque)
{
    struct crossing *crossing = opaque;
    if (crossing->plain) {
        crossing->ret = crossing->run(crossing);
    } else {
        crossing->ret = ash_co_spawn(&crossing->disk->loop->sched, run_there, crossing);
        if (crossing->ret == 0) {
            return;
        }
    }
    send(crossing->home, crossing, come_home);
}

ASH_CO_FN static int cross(struct crossing *crossing, struct ash_node *node)
{
    const struct lent *lent = node->state;
    crossing->disk = lent->disk;
    crossing->home = node->loop;
    crossing->waiter = ash_co_self();
    crossing->node = node;
    send(crossing->disk->loop, crossing, arrive);
    ash_co_yield();
    return crossing->ret;
}

/* --- the node --- */

/* The borrower sleeps, so its node can be filled in from here. */
static int begin_there(struct crossing *crossing)
{
    struct ash_disk *disk = crossing->disk;
    struct ash_node *node = crossing->node;
    struct lent *lent = node->state;
    const struct ash_node *top = ash_disk_node(disk);
    ash_loop_assert_owner(disk->loop);
    disk->queues++;
    lent->limits = top->limits;
    node->size_bytes = top->size_bytes;
    node->flags |= (disk->root->needs & ASH_RIGHT_WRITE) != 0 ? ASH_NODE_WRITE : 0;
    node->flags |= top->flags & ASH_NODE_DISCARD;
    g_free(node->filename);
    node->filename = g_strdup(top->filename);
    return 0;
}

ASH_CO_FN static int lent_open(struct ash_node *node, struct ash_error *error)
{
    (void)error;
    struct crossing crossing = {.run = begin_there, .plain = true};
    return cross(&crossing, node);
}

static int end_there(struct crossing *crossing)
{
    crossing->disk->queues--;
    return 0;
}

ASH_CO_FN static int lent_close(struct ash_node *node)
{
    struct crossing crossing = {.run = end_there, .plain = true};
    return cross(&crossing, node);
}

static int io_there(struct crossing *crossing)
{
    struct ash_io io = *crossing->io;
    ash_co_assert_inside();
    io.flags &= LENT_FLAGS;
    return ash_disk_io(crossing->disk, &io);
}

ASH_CO_FN static int lent_io(struct ash_node *node, const struct ash_io *io)
{
    struct crossing crossing = {.run = io_there, .io = io};
    return cross(&crossing, node);
}

/* A leaf holds all that it shows. */
ASH_CO_FN static int lent_status(struct ash_node *node, const struct ash_io *io)
{
    int ret = lent_io(node, io);
    if (ret == 0) {
        io->status->flags &= ~(ASH_STATUS_OFFSET | ASH_STATUS_COMPRESSED);
        io->status->flags |= ASH_STATUS_ALLOCATED;
        io->status->depth = 0;
        io->status->node = node;
        io->status->host = node;
        io->status->host_offset = 0;
    }
    return ret;
}

static int resize_there(struct crossing *crossing)
{
    ash_co_assert_inside();
    int ret = ash_co_disk_resize(crossing->disk, crossing->resized, ASH_RESIZE_SHRINK,
                                 crossing->prealloc, crossing->error);
    crossing->bytes = ash_disk_bytes(crossing->disk);
    return ret;
}

ASH_CO_FN static int lent_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                 struct ash_error *error)
{
    struct ash_error own = ASH_ERROR_INIT;
    struct crossing crossing = {.run = resize_there,
                                .resized = bytes,
                                .prealloc = (int)prealloc,
                                .error = &own,
                                .bytes = node->size_bytes};
    int ret = cross(&crossing, node);
    node->size_bytes = crossing.bytes;
    if (ret < 0 && own.code == 0) {
        return ash_error_errno(error, ret, "'%s' cannot be resized", node->filename);
    }
    return ret < 0 ? ash_error_set(error, ret, "%s", own.message) : 0;
}

static void lent_limits(const struct ash_node *node, struct ash_limits *limits)
{
    const struct lent *lent = node->state;
    *limits = lent->limits;
}

/* Not in the table of drivers: no description names it. */
static const struct ash_driver driver_lent = {
    .name = "lent-disk",
    .kind = ASH_DRIVER_PROTOCOL,
    .state_size = sizeof(struct lent),
    .open = lent_open,
    .close = lent_close,
    .limits = lent_limits,
    .resize = lent_resize,
    .io =
        {
            [ASH_READ] = lent_io,
            [ASH_WRITE] = lent_io,
            [ASH_FLUSH] = lent_io,
            [ASH_DISCARD] = lent_io,
            [ASH_ZERO] = lent_io,
            [ASH_STATUS] = lent_status,
        },
};

/* --- the public calls --- */

struct ash_loan {
    struct ash_node *node;
};

struct loan_call {
    struct ash_call call;
    struct ash_disk *disk; /* to be lent; NULL: the loan ends */
    char *node_name;
    struct ash_loan *loan;
    ash_disk_lent_fn *lent;
    ash_done_fn *done;
    void *opaque;
};

ASH_CO_FN static int begin(struct loan_call *c)
{
    struct ash_error *error = &c->call.error;
    if (c->disk->loop == c->call.loop) {
        return ash_error_set(error, -EINVAL, "A disk cannot be lent to the loop that it is of");
    }
    struct lent lent = {.disk = c->disk};
    struct ash_node *node;
    int ret = ash_node_make(c->call.loop, &driver_lent, c->node_name, &lent, &node, error);
    if (ret == 0) {
        c->loan = g_new0(struct ash_loan, 1);
        c->loan->node = node;
    }
    return ret;
}

ASH_CO_FN static int end(struct loan_call *c)
{
    struct ash_node *node = c->loan->node;
    if (node->refs > 1) {
        return ash_error_set(&c->call.error, -EBUSY, "Node '%s' is in use", node->name);
    }
    g_free(c->loan);
    return ash_node_unref(node);
}

static int run(struct ash_call *call)
{
    struct loan_call *c = ash_container_of(call, struct loan_call, call);
    ash_co_assert_inside();
    return c->disk != NULL ? begin(c) : end(c);
}

static void call_free(struct loan_call *c)
{
    g_free(c->node_name);
    g_free(c);
}

static void finish(struct ash_call *call)
{
    struct loan_call *c = ash_container_of(call, struct loan_call, call);
    if (c->lent != NULL) {
        c->lent(c->opaque, call->ret, call->ret == 0 ? c->loan : NULL, &call->error);
    } else if (c->done != NULL) {
        c->done(c->opaque, call->ret, &call->error);
    }
    call_free(c);
}

static struct loan_call *call_new(struct ash_loop *loop, struct ash_disk *disk,
                                  const char *node_name, struct ash_loan *loan)
{
    struct loan_call *c = g_new0(struct loan_call, 1);
    ash_call_init(&c->call, loop, run, finish);
    c->disk = disk;
    c->node_name = g_strdup(node_name);
    c->loan = loan;
    return c;
}

static int post(struct loan_call *c)
{
    int ret = ash_call_post(&c->call);
    if (ret < 0) {
        call_free(c);
    }
    return ret;
}

ASH_PUBLIC int ash_disk_lend(struct ash_disk *disk, struct ash_loop *loop, const char *node_name,
                             ash_disk_lent_fn *done, void *opaque)
{
    struct loan_call *c = call_new(loop, disk, node_name, NULL);
    c->lent = done;
    c->opaque = opaque;
    return post(c);
}

/* Who waits on the thread that has to run the disk's loop meanwhile waits for ever. */
static int refuse_to_wait(const struct ash_disk *disk, const struct ash_loop *loop,
                          struct ash_error *error)
{
    if (disk->loop == loop || !ash_loop_is_owner(disk->loop)) {
        return 0;
    }
    return ash_error_set(error, -EDEADLK,
                         "This thread runs the disk's loop and cannot wait for it");
}

ASH_PUBLIC int ash_disk_lend_sync(struct ash_disk *disk, struct ash_loop *loop,
                                  const char *node_name, struct ash_loan **loan,
                                  struct ash_error *error)
{
    int refused = refuse_to_wait(disk, loop, error);
    if (refused < 0) {
        return refused;
    }
    struct loan_call *c = call_new(loop, disk, node_name, NULL);
    int ret = ash_call_sync(&c->call, error);
    if (ret == 0) {
        *loan = c->loan;
    }
    call_free(c);
    return ret;
}

ASH_PUBLIC int ash_loan_end(struct ash_loan *loan, ash_done_fn *done, void *opaque)
{
    struct loan_call *c = call_new(loan->node->loop, NULL, NULL, loan);
    c->done = done;
    c->opaque = opaque;
    return post(c);
}

ASH_PUBLIC int ash_loan_end_sync(struct ash_loan *loan, struct ash_error *error)
{
    const struct lent *lent = loan->node->state;
    int refused = refuse_to_wait(lent->disk, loan->node->loop, error);
    if (refused < 0) {
        return refused;
    }
    struct loan_call *c = call_new(loan->node->loop, NULL, NULL, loan);
    int ret = ash_call_sync(&c->call, error);
    call_free(c);
    return ret;
}
