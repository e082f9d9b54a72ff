/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tests of jobs spend much of their time in these loops over bytes, so each does one thing. */
#include "tests/unit/guest_model.h"
#include <glib.h>
#include <string.h>
#include "util/assert.h"
#include "util/range.h"

/* Memory for what an operation knows of its bytes. It is used again: to get as much from the kernel
 * for each operation, and to touch it for the first time, costs more than what is done with it. */
struct guest_room {
    struct guest_room *next;
    uint64_t bytes; /* of an operation that fits */
    uint64_t sets[];
};

#define ROOM_BYTES_MIN 4096

static struct guest_room *room_get(struct guest_model *model, uint64_t bytes)
{
    struct guest_room **at = &model->spare;
    while (*at != NULL && (*at)->bytes < bytes) {
        at = &(*at)->next;
    }
    struct guest_room *room = *at;
    if (room != NULL) {
        *at = room->next;
        return room;
    }
    bytes = ASH_MAX(bytes, ROOM_BYTES_MIN);
    room = g_malloc(sizeof(*room) + bytes * (sizeof(room->sets[0]) + sizeof(bool)));
    room->bytes = bytes;
    return room;
}

static void room_put(struct guest_model *model, struct guest_room *room)
{
    room->next = model->spare;
    model->spare = room;
}

static void set_all(uint64_t *sets, uint64_t count, uint64_t set)
{
    for (uint64_t i = 0; i < count; i++) {
        sets[i] = set;
    }
}

static void add_to_all(uint64_t *sets, uint64_t count, uint64_t set)
{
    for (uint64_t i = 0; i < count; i++) {
        sets[i] |= set;
    }
}

void guest_model_init(struct guest_model *model, uint64_t bytes)
{
    model->bytes = bytes;
    model->may = g_new(uint64_t, bytes);
    set_all(model->may, bytes, 1);
    ash_list_init(&model->ops);
    model->spare = NULL;
}

void guest_model_free(struct guest_model *model)
{
    g_free(model->may);
    for (struct guest_room *room = model->spare, *next; room != NULL; room = next) {
        next = room->next;
        g_free(room);
    }
    model->spare = NULL;
}

void guest_model_resize(struct guest_model *model, uint64_t bytes)
{
    model->may = g_renew(uint64_t, model->may, bytes);
    if (bytes > model->bytes) {
        set_all(model->may + model->bytes, bytes - model->bytes, 1);
    }
    model->bytes = bytes;
}

/* The place changes seldom, so that units can be coded well. */
#define PLACE_BYTES 509

uint8_t guest_byte(unsigned id, uint64_t offset)
{
    return id == 0 ? 0 : (uint8_t)(id << 2 | ((offset / PLACE_BYTES) & 3));
}

/* How many of the bytes from offset on are in one place with the first. */
static uint64_t in_one_place(uint64_t offset, uint64_t bytes)
{
    return ASH_MIN(bytes, PLACE_BYTES - offset % PLACE_BYTES);
}

void guest_fill(unsigned id, uint64_t offset, uint8_t *buffer, uint64_t bytes)
{
    for (uint64_t i = 0, run; i < bytes; i += run) {
        run = in_one_place(offset + i, bytes - i);
        memset(buffer + i, guest_byte(id, offset + i), run);
    }
}

static void op_begin(struct guest_model *model, struct guest_op *op, bool reads, unsigned id,
                     uint64_t offset, uint64_t bytes)
{
    ash_assert(offset + bytes <= model->bytes);
    *op = (struct guest_op){.reads = reads, .id = id, .offset = offset, .bytes = bytes};
    op->room = room_get(model, bytes);
    op->beside = op->room->sets;
    op->busy = (bool *)(op->room->sets + op->room->bytes);
}

static void op_end(struct guest_model *model, struct guest_op *op)
{
    ash_list_remove(&op->link);
    room_put(model, op->room);
}

/* Tells both of two operations of one another; one of them is a write at least. */
static void meet(struct guest_op *a, struct guest_op *b)
{
    uint64_t start = ASH_MAX(a->offset, b->offset);
    uint64_t end = ASH_MIN(a->offset + a->bytes, b->offset + b->bytes);
    if (start >= end) {
        return;
    }
    if (!b->reads) {
        add_to_all(a->beside + (start - a->offset), end - start, UINT64_C(1) << b->id);
    }
    if (!a->reads) {
        add_to_all(b->beside + (start - b->offset), end - start, UINT64_C(1) << a->id);
    }
    if (a->reads) {
        memset(a->busy + (start - a->offset), true, end - start);
    }
    if (b->reads) {
        memset(b->busy + (start - b->offset), true, end - start);
    }
}

void guest_write_begin(struct guest_model *model, struct guest_op *op, unsigned id, uint64_t offset,
                       uint64_t bytes)
{
    op_begin(model, op, false, id, offset, bytes);
    memset(op->beside, 0, bytes * sizeof(*op->beside));
    ash_list_for_each (other, &model->ops, struct guest_op, link) {
        meet(op, other);
    }
    ash_list_push_back(&model->ops, &op->link);
    add_to_all(model->may + offset, bytes, UINT64_C(1) << id);
}

void guest_write_end(struct guest_model *model, struct guest_op *op, bool sure)
{
    uint64_t *may = model->may + op->offset;
    if (sure) {
        memcpy(may, op->beside, op->bytes * sizeof(*may));
    } else {
        for (uint64_t i = 0; i < op->bytes; i++) {
            may[i] |= op->beside[i];
        }
    }
    add_to_all(may, op->bytes, UINT64_C(1) << op->id);
    op_end(model, op);
}

void guest_read_begin(struct guest_model *model, struct guest_op *op, uint64_t offset,
                      uint64_t bytes)
{
    op_begin(model, op, true, 0, offset, bytes);
    memset(op->busy, 0, bytes * sizeof(*op->busy));
    memcpy(op->beside, model->may + offset, bytes * sizeof(*op->beside));
    ash_list_for_each (other, &model->ops, struct guest_op, link) {
        if (!other->reads) {
            meet(op, other);
        }
    }
    ash_list_push_back(&model->ops, &op->link);
}

/* The bytes [i, end) of a read, which are in one place; the index of the first wrong one, or end.
 */
static uint64_t take_in(struct guest_model *model, const struct guest_op *op, const uint8_t *buffer,
                        uint64_t i, uint64_t end)
{
    uint64_t *may = model->may + op->offset;
    unsigned place = guest_byte(GUEST_IDS - 1, op->offset + i) & 3;
    for (; i < end; i++) {
        unsigned id = buffer[i] >> 2;
        unsigned expected = id == 0 ? 0 : id << 2 | place;
        if (buffer[i] != expected || (op->beside[i] >> id & 1) == 0) {
            return i;
        }
        if (!op->busy[i]) {
            may[i] = UINT64_C(1) << id;
        }
    }
    return end;
}

int64_t guest_read_end(struct guest_model *model, struct guest_op *op, const uint8_t *buffer)
{
    int64_t wrong = -1;
    for (uint64_t i = 0, run; buffer != NULL && i < op->bytes && wrong < 0; i += run) {
        run = in_one_place(op->offset + i, op->bytes - i);
        uint64_t taken = take_in(model, op, buffer, i, i + run);
        if (taken != i + run) {
            wrong = (int64_t)(op->offset + taken);
        }
    }
    op_end(model, op);
    return wrong;
}
