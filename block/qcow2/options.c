/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the options of an image that is open: what was given, what follows from it, and changing
 * it.
 *
 * 1. What follows from the options is computed, and refused, before anything is changed.
 * 2. The caches change while nothing is in them that has to be written: when the image is opened,
 * or when it is reopened, after writing was finished.
 *
 * Two are taken and have nothing to act on: pass-discard-snapshot, as images with internal
 * snapshots are read-only, and the overlap checks of snapshots' tables and of bitmaps, for the same
 * reason. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

#define GROW_AHEAD_MAX (256 * MiB)
#define NOT_GIVEN UINT64_MAX
#define REFCOUNT_CACHE_TABLES 4 /* of a cache-size that says nothing more */

#define GIVEN struct qcow2_given

const struct ash_option ash_qcow2_options[] = {
    ASH_OPTION_SWITCH("lazy-refcounts", GIVEN, lazy,
                      .help = "postpone refcount updates; as the image's header says"),
    ASH_OPTION_SWITCH("pass-discard-request", GIVEN, pass_request,
                      .help = "give back to the host what guests discard; as discard=unmap says"),
    ASH_OPTION_SWITCH("pass-discard-snapshot", GIVEN, pass_snapshot,
                      .help = "the same for clusters of deleted snapshots: without effect"),
    ASH_OPTION_SWITCH("pass-discard-other", GIVEN, pass_other,
                      .help = "the same for clusters that are freed otherwise; off"),
    ASH_OPTION_JSON("overlap-check", GIVEN, overlap,
                    .help = "which metadata is protected: none, constant, cached (the default), "
                            "all, or an object with template and a switch for each kind"),
    ASH_OPTION_SIZE("cache-size", GIVEN, cache_bytes, .def = NOT_GIVEN,
                    .help = "bound on cached L2 tables and refcount blocks together"),
    ASH_OPTION_SIZE("l2-cache-size", GIVEN, l2_cache_bytes, .def = NOT_GIVEN,
                    .help = "bound on cached L2 tables; a share of the loop's memory"),
    ASH_OPTION_SIZE("l2-cache-entry-size", GIVEN, l2_entry_bytes, .def = NOT_GIVEN,
                    .help = "how much of an L2 table is read and written at once; 4096"),
    ASH_OPTION_SIZE("refcount-cache-size", GIVEN, refcount_cache_bytes, .def = NOT_GIVEN,
                    .help = "bound on cached refcount blocks; a share of the loop's memory"),
    ASH_OPTION_UINT("cache-clean-interval", GIVEN, clean_interval_s, .def = 0,
                    .help = "seconds after which tables that nobody used leave memory; 0: never"),
    ASH_OPTION_SIZE("grow-ahead", GIVEN, grow_ahead_max, .def = GROW_AHEAD_MAX, .max = 4 * GiB,
                    .help = "how far the file is made longer ahead of what is allocated, at most "
                            "(cut off when the image is closed); 0: not at all"),
    ASH_OPTION_END,
};
static_assert(offsetof(struct ash_qcow2_state, given) == 0, "the options are read into the state");

/* --- overlap checks --- */

struct overlap {
    json_t *template;
    int header, l1, l2, reftable, refblock;
    int snapshot_table, inactive_l1, inactive_l2, bitmaps;
};

static const struct ash_option overlap_options[] = {
    ASH_OPTION_JSON("template", struct overlap, template),
    ASH_OPTION_SWITCH("main-header", struct overlap, header),
    ASH_OPTION_SWITCH("active-l1", struct overlap, l1),
    ASH_OPTION_SWITCH("active-l2", struct overlap, l2),
    ASH_OPTION_SWITCH("refcount-table", struct overlap, reftable),
    ASH_OPTION_SWITCH("refcount-block", struct overlap, refblock),
    ASH_OPTION_SWITCH("snapshot-table", struct overlap, snapshot_table),
    ASH_OPTION_SWITCH("inactive-l1", struct overlap, inactive_l1),
    ASH_OPTION_SWITCH("inactive-l2", struct overlap, inactive_l2),
    ASH_OPTION_SWITCH("bitmap-directory", struct overlap, bitmaps),
    ASH_OPTION_END,
};

#define KIND(name) (1u << QCOW2_KIND_##name)

static int template_kinds(const json_t *value, uint32_t *kinds, struct ash_error *error)
{
    static const uint32_t constant = KIND(HEADER) | KIND(L1) | KIND(REFTABLE);
    static const uint32_t cached = constant | KIND(L2) | KIND(REFBLOCK);
    static const struct {
        const char *name;
        uint32_t kinds;
    } templates[] = {{"none", 0}, {"constant", constant}, {"cached", cached}, {"all", cached}};
    const char *name = value == NULL ? "cached" : json_string_value(value);
    for (size_t i = 0; name != NULL && i < ASH_ARRAY_SIZE(templates); i++) {
        if (strcmp(templates[i].name, name) == 0) {
            *kinds = templates[i].kinds;
            return 0;
        }
    }
    return ash_error_set(error, -EINVAL,
                         "Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are any "
                         "of the following: none, constant, cached, all",
                         name != NULL ? name : "");
}

static uint32_t switched(uint32_t kinds, int on, uint32_t kind)
{
    return on < 0 ? kinds : on ? kinds | kind : kinds & ~kind;
}

static int take_overlap(json_t *object, struct overlap *overlap, struct ash_error *error)
{
    int ret = ash_options_take(overlap_options, object, overlap, error);
    if (ret == 0 && json_object_size(object) > 0) {
        ret = ash_error_set(error, -EINVAL,
                            "Block format 'qcow2' does not support the option 'overlap-check.%s'",
                            json_object_iter_key(json_object_iter(object)));
    }
    return ret;
}

/* Which kinds of metadata nothing else may be written over. */
static int overlap_kinds(const json_t *given, uint32_t *kinds, struct ash_error *error)
{
    struct overlap overlap;
    if (!json_is_object(given)) {
        return template_kinds(given, kinds, error);
    }
    json_t *object = json_copy((json_t *)given);
    ash_options_init(overlap_options, &overlap);
    int ret = take_overlap(object, &overlap, error);
    if (ret == 0) {
        ret = template_kinds(overlap.template, kinds, error);
    }
    *kinds = switched(*kinds, overlap.header, KIND(HEADER));
    *kinds = switched(*kinds, overlap.l1, KIND(L1));
    *kinds = switched(*kinds, overlap.l2, KIND(L2));
    *kinds = switched(*kinds, overlap.reftable, KIND(REFTABLE));
    *kinds = switched(*kinds, overlap.refblock, KIND(REFBLOCK));
    ash_options_clear(overlap_options, &overlap);
    json_decref(object);
    return ret;
}

/* --- what follows from what was given --- */

static bool is_given(uint64_t bytes)
{
    return bytes != NOT_GIVEN;
}

static int settle_caches(const struct qcow2_given *given, uint32_t cluster_bytes,
                         struct qcow2_settings *set, struct ash_error *error)
{
    bool all = is_given(given->cache_bytes);
    bool l2 = is_given(given->l2_cache_bytes);
    bool refcounts = is_given(given->refcount_cache_bytes);
    if (all && l2 && refcounts) {
        return ash_error_set(error, -EINVAL,
                             "cache-size, l2-cache-size and refcount-cache-size may not be set at "
                             "the same time");
    }
    if (all && l2 && given->l2_cache_bytes > given->cache_bytes) {
        return ash_error_set(error, -EINVAL, "l2-cache-size may not exceed cache-size");
    }
    if (all && refcounts && given->refcount_cache_bytes > given->cache_bytes) {
        return ash_error_set(error, -EINVAL, "refcount-cache-size may not exceed cache-size");
    }
    set->l2_cache_bytes = l2 ? given->l2_cache_bytes : NOT_GIVEN;
    set->refcount_cache_bytes = refcounts ? given->refcount_cache_bytes : NOT_GIVEN;
    if (all && l2) {
        set->refcount_cache_bytes = given->cache_bytes - given->l2_cache_bytes;
    } else if (all && refcounts) {
        set->l2_cache_bytes = given->cache_bytes - given->refcount_cache_bytes;
    } else if (all) {
        uint64_t few = (uint64_t)REFCOUNT_CACHE_TABLES * cluster_bytes;
        set->refcount_cache_bytes = ASH_MIN(few, given->cache_bytes);
        set->l2_cache_bytes = given->cache_bytes - set->refcount_cache_bytes;
    }
    if (is_given(set->refcount_cache_bytes) &&
        set->refcount_cache_bytes / cluster_bytes > INT_MAX) {
        return ash_error_set(error, -EINVAL, "Refcount cache size too big");
    }
    return 0;
}

int ash_qcow2_settle_options(const struct ash_qcow2_header *header, const struct qcow2_given *given,
                             struct qcow2_settings *set, struct ash_error *error)
{
    const struct qcow2_fields *f = &header->fields;
    uint32_t cluster_bytes = UINT32_C(1) << f->cluster_bits;
    uint64_t entry = is_given(given->l2_entry_bytes) ? given->l2_entry_bytes
                                                     : ASH_MIN(cluster_bytes, QCOW2_SLICE_BYTES);
    if (entry < 512 || entry > cluster_bytes || (entry & (entry - 1)) != 0) {
        return ash_error_set(error, -EINVAL,
                             "L2 cache entry size must be a power of two between 512 and the "
                             "cluster size (%" PRIu32 ")",
                             cluster_bytes);
    }
    if (given->lazy == 1 && f->version < 3) {
        return ash_error_set(error, -EINVAL,
                             "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
                             "compatibility level");
    }
    if (given->clean_interval_s > UINT_MAX) {
        return ash_error_set(error, -EINVAL, "Cache clean interval too big");
    }
    set->slice_bytes = entry;
    set->lazy =
        given->lazy >= 0 ? given->lazy : (f->compatible & QCOW2_COMPATIBLE_LAZY_REFCOUNTS) != 0;
    set->clean_interval_ns = given->clean_interval_s * UINT64_C(1000000000);
    int ret = settle_caches(given, cluster_bytes, set, error);
    return ret < 0 ? ret : overlap_kinds(given->overlap, &set->overlap, error);
}

bool ash_qcow2_passes_on(const struct ash_node *node, enum qcow2_pass pass)
{
    const struct qcow2_given *given = &qcow2_state(node)->given;
    switch (pass) {
    case QCOW2_PASS_REQUEST:
        return given->pass_request >= 0 ? given->pass_request != 0
                                        : (node->flags & ASH_NODE_DISCARD) != 0;
    case QCOW2_PASS_OTHER:
        return given->pass_other == 1;
    default:
        return false;
    }
}

/* --- cleaning the caches --- */

static void clean(struct ash_timer *timer)
{
    struct ash_qcow2_state *s = ash_container_of(timer, struct ash_qcow2_state, clean_timer);
    ash_table_cache_clean(&s->l2_cache);
    ash_table_cache_clean(&s->refcount_cache);
    ash_qcow2_clean_start(s->node);
}

void ash_qcow2_clean_start(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_timer_init(&s->clean_timer, clean);
    if (s->set.clean_interval_ns > 0) {
        ash_timer_set(node->loop, &s->clean_timer,
                      ash_loop_now(node->loop) + s->set.clean_interval_ns);
    }
}

void ash_qcow2_clean_stop(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->set.clean_interval_ns > 0) {
        ash_timer_cancel(node->loop, &s->clean_timer);
    }
}

/* --- changing them --- */

/* What was said of overlap checks before, with what is said now laid over it. */
static json_t *joined(const json_t *old, const json_t *new)
{
    json_t *object = json_object();
    const json_t *both[] = {old, new};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(both); i++) {
        if (json_is_object(both[i])) {
            json_object_update(object, (json_t *)both[i]);
        } else if (both[i] != NULL) {
            json_object_set(object, "template", (json_t *)both[i]);
        }
    }
    return object;
}

static int take_changes(struct ash_qcow2_state *s, json_t *options, struct qcow2_given *given,
                        struct qcow2_settings *set, struct ash_error *error)
{
    json_t *overlap = json_object_get(options, "overlap-check");
    if (overlap != NULL && given->overlap != NULL) {
        json_object_set_new(options, "overlap-check", joined(given->overlap, overlap));
    }
    int ret = ash_options_take(ash_qcow2_options, options, given, error);
    if (ret == 0 && json_object_size(options) > 0) {
        ret = ash_error_set(error, -EINVAL, "Cannot change the option '%s'",
                            json_object_iter_key(json_object_iter(options)));
    }
    return ret < 0 ? ret : ash_qcow2_settle_options(&s->header, given, set, error);
}

int ash_qcow2_reopen_options(struct ash_node *node, const json_t *options, uint32_t flags,
                             struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_change *change = g_new0(struct qcow2_change, 1);
    json_t *copy = json_deep_copy(options);
    (void)flags;
    ash_assert(s->change == NULL);
    change->given = s->given;
    json_incref(change->given.overlap);
    change->set = s->set;
    int ret = take_changes(s, copy, &change->given, &change->set, error);
    json_decref(copy);
    s->change = change;
    if (ret < 0) {
        ash_qcow2_change_drop(node);
    }
    return ret;
}

void ash_qcow2_change_drop(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->change != NULL) {
        ash_options_clear(ash_qcow2_options, &s->change->given);
        g_free(s->change);
        s->change = NULL;
    }
}

void ash_qcow2_change_apply(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->change == NULL) {
        return;
    }
    ash_assert(s->l2_cache.dirty_count == 0 && s->refcount_cache.dirty_count == 0);
    ash_qcow2_clean_stop(node);
    ash_options_clear(ash_qcow2_options, &s->given);
    s->given = s->change->given;
    s->set = s->change->set;
    g_free(s->change);
    s->change = NULL;
    ash_qcow2_caches_renew(node);
    ash_qcow2_clean_start(node);
}
