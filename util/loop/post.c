/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Posts: calls that any thread sends to the loop's thread.
 *
 * A list under a mutex. Batches cross elsewhere, by rings, so posts are rare; what matters is that
 * none is lost and that a poster never touches a loop that is gone.
 *
 * Invariants:
 *  1. `pending` says whether the list holds something. The loop reads it before it sleeps.
 *  2. Who makes the list non-empty wakes the engine, always, after `pending` is set. The engine's
 *     wake ends the wait that sleeps or else the next one, so there is no moment, between the
 * loop's look at `pending` and its sleep, in which a post can be missed. The one exception is the
 * owner itself: it is awake, and looks before it sleeps.
 *  3. Waking happens under the lock. Once `closed` is set and the lock was taken again, no poster
 * is inside the engine any more.
 *  4. One ash_posts_run() runs what was there when it began; what they post themselves comes in the
 *     next turn. */
#include <errno.h>
#include <stdlib.h>
#include "util/assert.h"
#include "util/loop/private.h"

int ash_posts_init(struct ash_posts *posts)
{
    posts->last = &posts->first;
    return -pthread_mutex_init(&posts->lock, NULL);
}

bool ash_posts_pending(struct ash_posts *posts)
{
    return atomic_load_explicit(&posts->pending, memory_order_acquire);
}

static int append(struct ash_loop *loop, struct ash_post *post)
{
    struct ash_posts *posts = &ash_loop_private(loop)->posts;
    int result = 0;
    pthread_mutex_lock(&posts->lock);
    if (posts->closed) {
        result = -ESHUTDOWN;
    } else {
        bool was_empty = posts->first == NULL;
        *posts->last = post;
        posts->last = &post->next;
        if (was_empty) {
            atomic_store_explicit(&posts->pending, true, memory_order_release);
            if (!ash_loop_is_owner(loop)) {
                loop->engine->ops->wake(loop->engine);
            }
        }
    }
    pthread_mutex_unlock(&posts->lock);
    return result;
}

int ash_loop_send(struct ash_loop *loop, struct ash_post *post)
{
    ash_assert(post->fn != NULL);
    post->next = NULL;

    /* The engine's wake may be a cancellation point, and the lock is held there. */
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    int result = append(loop, post);
    if (result == 0 && ash_loop_is_owner(loop)) {
        ash_loop_kick(loop);
    }
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}

ASH_PUBLIC int ash_loop_post(struct ash_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct ash_post *post = malloc(sizeof(*post));
    if (post == NULL) {
        return -ENOMEM;
    }
    *post = (struct ash_post){.fn = fn, .opaque = opaque, .owned = true};
    int result = ash_loop_send(loop, post);
    if (result < 0) {
        free(post);
    }
    return result;
}

static struct ash_post *take_all(struct ash_posts *posts)
{
    pthread_mutex_lock(&posts->lock);
    struct ash_post *first = posts->first;
    posts->first = NULL;
    posts->last = &posts->first;
    atomic_store_explicit(&posts->pending, false, memory_order_release);
    pthread_mutex_unlock(&posts->lock);
    return first;
}

uint32_t ash_posts_run(struct ash_loop *loop)
{
    struct ash_posts *posts = &ash_loop_private(loop)->posts;
    if (!ash_posts_pending(posts)) {
        return 0;
    }
    uint32_t count = 0;
    struct ash_post *post = take_all(posts);
    while (post != NULL) {
        struct ash_post *next = post->next;
        bool owned = post->owned; /* otherwise it may be gone after the call */
        post->fn(post->opaque);
        if (owned) {
            free(post);
        }
        post = next;
        count++;
    }
    return count;
}

void ash_posts_close(struct ash_loop *loop)
{
    struct ash_posts *posts = &ash_loop_private(loop)->posts;
    pthread_mutex_lock(&posts->lock);
    posts->closed = true;
    atomic_store_explicit(&posts->stop, true, memory_order_release);
    loop->engine->ops->wake(loop->engine);
    pthread_mutex_unlock(&posts->lock);
}

void ash_posts_destroy(struct ash_posts *posts)
{
    /* The last poster, or the one who closed, may still be between its wake and its unlock. */
    pthread_mutex_lock(&posts->lock);
    ash_assert(posts->closed);
    ash_assert(posts->first == NULL);
    pthread_mutex_unlock(&posts->lock);
    pthread_mutex_destroy(&posts->lock);
}
