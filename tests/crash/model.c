/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/model.h"
#include <stdio.h>
#include <string.h>

static uint32_t value_at(const struct model_sector *s, uint32_t index)
{
    return g_array_index(s->values, uint32_t, index);
}

void model_init(struct model *model, uint32_t sectors, uint32_t sectors_max, uint32_t base_sectors)
{
    *model = (struct model){
        .sectors = sectors, .sectors_max = sectors_max, .next_value = MODEL_BASE, .size_count = 1};
    model->sizes[0] = sectors;
    model->all = g_new0(struct model_sector, sectors_max);
    for (uint32_t i = 0; i < sectors_max; i++) {
        uint32_t first = i < base_sectors ? MODEL_BASE : 0;
        model->all[i].values = g_array_new(FALSE, FALSE, sizeof(uint32_t));
        g_array_append_val(model->all[i].values, first);
    }
}

void model_free(struct model *model)
{
    for (uint32_t i = 0; i < model->sectors_max; i++) {
        g_array_free(model->all[i].values, TRUE);
    }
    g_free(model->all);
}

bool model_claim(struct model *model, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        if (model->all[i].busy) {
            return false;
        }
    }
    for (uint32_t i = first; i < first + count; i++) {
        model->all[i].busy = true;
    }
    return true;
}

void model_release(struct model *model, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        model->all[i].busy = false;
    }
}

uint32_t model_new_value(struct model *model)
{
    return ++model->next_value;
}

void model_stamp(uint8_t *bytes, uint32_t value, uint32_t sector)
{
    uint32_t words[MODEL_SECTOR / 4];
    for (uint32_t i = 0; i < MODEL_SECTOR / 4; i += 2) {
        words[i] = value;
        words[i + 1] = value ? sector : 0;
    }
    memcpy(bytes, words, sizeof(words));
}

void model_begin(struct model *model, uint32_t first, uint32_t count, uint32_t value)
{
    for (uint32_t i = first; i < first + count; i++) {
        g_array_append_val(model->all[i].values, value);
    }
}

void model_completed(struct model *model, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        model->all[i].completed = model->all[i].values->len - 1;
    }
}

void model_durable(struct model *model, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        model->all[i].durable = model->all[i].completed;
    }
}

uint32_t *model_flush_begin(const struct model *model)
{
    uint32_t *mark = g_new(uint32_t, model->sectors_max);
    for (uint32_t i = 0; i < model->sectors_max; i++) {
        mark[i] = model->all[i].completed;
    }
    return mark;
}

void model_flush_end(struct model *model, uint32_t *mark, bool good)
{
    for (uint32_t i = 0; good && i < model->sectors_max; i++) {
        model->all[i].durable = MAX(model->all[i].durable, mark[i]);
    }
    g_free(mark);
}

void model_resize_begin(struct model *model, uint32_t sectors)
{
    uint32_t low = MIN(sectors, model->sectors);
    uint32_t high = MAX(sectors, model->sectors);
    if (model->size_count < MODEL_SIZES_MAX) {
        model->sizes[model->size_count++] = sectors;
    }
    model_begin(model, low, high - low, 0);
}

void model_resize_end(struct model *model, uint32_t sectors, uint32_t unit)
{
    uint32_t old = model->sectors;
    model->sectors = sectors;
    model->sizes[0] = sectors;
    model->size_count = 1;
    if (sectors > old) {
        model_completed(model, old, sectors - old);
        return;
    }
    uint32_t kept = MIN((sectors + unit - 1) / unit * unit, old);
    model_completed(model, kept, old - kept);
    model_durable(model, kept, old - kept);
}

const char *model_check(const struct model *model, uint32_t sector, const uint8_t *bytes,
                        bool after_cut, uint32_t *value)
{
    static char sentence[160];
    const struct model_sector *s = &model->all[sector];
    uint8_t expected[MODEL_SECTOR];
    uint32_t words[2];
    memcpy(words, bytes, sizeof(words));
    *value = words[0];
    model_stamp(expected, words[0], sector);
    if (memcmp(expected, bytes, MODEL_SECTOR) != 0) {
        snprintf(sentence, sizeof(sentence),
                 "sector %u holds a mixture, or another's bytes: it begins with value %u of "
                 "sector %u",
                 sector, words[0], words[1]);
        return sentence;
    }
    uint32_t from = after_cut ? s->durable : s->completed;
    for (uint32_t i = from; i < s->values->len; i++) {
        if (value_at(s, i) == words[0]) {
            return NULL;
        }
    }
    snprintf(sentence, sizeof(sentence), "sector %u holds value %u; %s is %u, the newest is %u",
             sector, words[0], after_cut ? "durable" : "completed", value_at(s, from),
             value_at(s, s->values->len - 1));
    return sentence;
}

void model_settle(struct model *model, uint32_t sector, uint32_t value, bool after_cut)
{
    struct model_sector *s = &model->all[sector];
    if (after_cut) {
        g_array_set_size(s->values, 0);
        s->durable = 0;
        s->busy = false;
    }
    if (s->values->len == 0 || value_at(s, s->values->len - 1) != value) {
        g_array_append_val(s->values, value);
    }
    s->completed = s->values->len - 1;
}

bool model_settle_size(struct model *model, uint32_t sectors)
{
    bool known = false;
    for (uint32_t i = 0; i < model->size_count; i++) {
        known |= model->sizes[i] == sectors;
    }
    model->sectors = model->sizes[0] = sectors;
    model->size_count = 1;
    return known;
}
