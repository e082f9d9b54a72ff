/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/guest_model.h"
#include <glib.h>
#include "util/assert.h"

void guest_model_init(struct guest_model *model, uint64_t bytes)
{
    model->bytes = bytes;
    model->may = g_new(uint64_t, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        model->may[i] = 1;
    }
    ash_list_init(&model->ops);
}

void guest_model_free(struct guest_model *model)
{
    g_free(model->may);
}

void guest_model_resize(struct guest_model *model, uint64_t bytes)
{
    model->may = g_renew(uint64_t, model->may, bytes);
    for (uint64_t i = model->bytes; i < bytes; i++) {
        model->may[i] = 1;
    }
    model->bytes = bytes;
}

/* The place changes seldom, so that units can be coded well. */
uint8_t guest_byte(unsigned id, uint64_t offset)
{
    return id == 0 ? 0 : (uint8_t)(id << 2 | ((offset / 509) & 3));
}

void guest_fill(unsigned id, uint64_t offset, uint8_t *buffer, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        buffer[i] = guest_byte(id, offset + i);
    }
}

static void op_begin(struct guest_model *model, struct guest_op *op, bool reads, unsigned id,
                     uint64_t offset, uint64_t bytes)
{
    ash_assert(offset + bytes <= model->bytes);
    *op = (struct guest_op){.reads = reads, .id = id, .offset = offset, .bytes = bytes};
    op->beside = g_new0(uint64_t, bytes);
    op->busy = reads ? g_new0(bool, bytes) : NULL;
}

static void op_end(struct guest_op *op)
{
    ash_list_remove(&op->link);
    g_free(op->beside);
    g_free(op->busy);
}

/* Tells both of two operations of one another; one of them is a write at least. */
static void meet(struct guest_op *a, struct guest_op *b)
{
    uint64_t start = ASH_MAX(a->offset, b->offset);
    uint64_t end = ASH_MIN(a->offset + a->bytes, b->offset + b->bytes);
    for (uint64_t at = start; at < end; at++) {
        if (!b->reads) {
            a->beside[at - a->offset] |= UINT64_C(1) << b->id;
        }
        if (!a->reads) {
            b->beside[at - b->offset] |= UINT64_C(1) << a->id;
        }
        if (a->reads) {
            a->busy[at - a->offset] = true;
        }
        if (b->reads) {
            b->busy[at - b->offset] = true;
        }
    }
}

void guest_write_begin(struct guest_model *model, struct guest_op *op, unsigned id, uint64_t offset,
                       uint64_t bytes)
{
    op_begin(model, op, false, id, offset, bytes);
    ash_list_for_each (other, &model->ops, struct guest_op, link) {
        meet(op, other);
    }
    ash_list_push_back(&model->ops, &op->link);
    for (uint64_t i = 0; i < bytes; i++) {
        model->may[offset + i] |= UINT64_C(1) << id;
    }
}

void guest_write_end(struct guest_model *model, struct guest_op *op, bool sure)
{
    for (uint64_t i = 0; i < op->bytes; i++) {
        uint64_t *may = &model->may[op->offset + i];
        if (sure) {
            *may = 0;
        }
        *may |= UINT64_C(1) << op->id | op->beside[i];
    }
    op_end(op);
}

void guest_read_begin(struct guest_model *model, struct guest_op *op, uint64_t offset,
                      uint64_t bytes)
{
    op_begin(model, op, true, 0, offset, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        op->beside[i] = model->may[offset + i];
    }
    ash_list_for_each (other, &model->ops, struct guest_op, link) {
        if (!other->reads) {
            meet(op, other);
        }
    }
    ash_list_push_back(&model->ops, &op->link);
}

int64_t guest_read_end(struct guest_model *model, struct guest_op *op, const uint8_t *buffer)
{
    int64_t wrong = -1;
    for (uint64_t i = 0; buffer != NULL && i < op->bytes && wrong < 0; i++) {
        uint64_t at = op->offset + i;
        unsigned id = buffer[i] >> 2;
        if (buffer[i] != guest_byte(id, at) || (op->beside[i] >> id & 1) == 0) {
            wrong = (int64_t)at;
        } else if (!op->busy[i]) {
            model->may[at] = UINT64_C(1) << id;
        }
    }
    op_end(op);
    return wrong;
}
