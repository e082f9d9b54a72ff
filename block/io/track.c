/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tracking of requests in flight; the invariants stand in the header.
 *
 * A request waits for one conflicting earlier request at a time and then looks again from the
 * start. The list is in order of arrival and a request looks only at what stands before it, so the
 * relation "waits for" follows that order and has no cycles. */
#include "block/io/track.h"
#include "block/graph/node.h"
#include "util/assert.h"
#include "util/range.h"

void ash_track_init(struct ash_track *track)
{
    ash_list_init(&track->requests);
    track->serialising = 0;
    track->count = 0;
}

static struct ash_request *earlier_conflict(struct ash_track *track, struct ash_request *request)
{
    ash_list_for_each (other, &track->requests, struct ash_request, link) {
        if (other == request) {
            return NULL;
        }
        if ((request->serialising || other->serialising) &&
            ash_range_overlap(other->offset, other->bytes, request->offset, request->bytes)) {
            return other;
        }
    }
    return NULL;
}

void ash_track_begin(struct ash_request *request, struct ash_node *node, uint8_t op,
                     uint64_t offset, uint64_t bytes, bool serialising)
{
    struct ash_track *track = &node->track;
    request->node = node;
    request->op = op;
    request->serialising = serialising;
    request->waiting = false;
    request->offset = offset;
    request->bytes = bytes;
    ash_co_queue_init(&request->waiters);
    ash_list_push_back(&track->requests, &request->link);
    track->count++;
    track->serialising += serialising;
    if (ash_likely(track->serialising == 0)) {
        return;
    }
    struct ash_request *other;
    while ((other = earlier_conflict(track, request)) != NULL) {
        request->waiting = true;
        ash_co_queue_wait(&other->waiters);
    }
    request->waiting = false;
}

void ash_track_end(struct ash_request *request)
{
    struct ash_track *track = &request->node->track;
    ash_assert(track->count > 0);
    ash_list_remove(&request->link);
    track->count--;
    track->serialising -= request->serialising;
    if (ash_unlikely(!ash_co_queue_empty(&request->waiters))) {
        ash_co_queue_wake_all(&request->waiters);
    }
}

void ash_track_stop_serialising(struct ash_request *request)
{
    struct ash_track *track = &request->node->track;
    ash_assert(request->serialising);
    request->serialising = false;
    track->serialising--;
    ash_co_queue_wake_all(&request->waiters);
}

bool ash_track_changing(const struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    ash_list_for_each (request, &node->track.requests, struct ash_request, link) {
        bool changes =
            request->op == ASH_WRITE || request->op == ASH_ZERO || request->op == ASH_DISCARD;
        if (changes && ash_range_overlap(request->offset, request->bytes, offset, bytes)) {
            return true;
        }
    }
    return false;
}

void ash_track_drain(struct ash_node *node)
{
    while (node->track.count > 0) {
        struct ash_request *first = ash_list_first(&node->track.requests, struct ash_request, link);
        ash_co_queue_wait(&first->waiters);
    }
}
