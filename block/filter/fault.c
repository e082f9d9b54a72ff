/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fault: a filter that makes requests fail, late, or stop, as its description says.
 *
 *     {"driver": "fault", "seed": 1,
 *      "inject-error": [{"event": "l2_update", "iotype": "write", "errno": 28, "once": true}],
 *      "inject-delay": [{"iotype": "read", "delay-ns": 1000000, "per-mille": 10}],
 *      "set-state": [{"event": "flush_to_disk", "state": 1, "new_state": 2}],
 *      "file": ...}
 *
 * Events. Every request is one before it is looked at: read_aio, write_aio, pwritev_zero,
 * pwritev_discard, flush_to_disk. Formats above tell of more, just before the I/O that they name
 * (ash_edge_event()); enum ash_event lists them all.
 *
 * State. The filter is in state 1 at first. At an event, each "set-state" rule for it whose "state"
 * is the present one, or 0, puts it into "new_state"; the first that fits counts.
 *
 * Rules. A rule with an event is active from that event on, if the filter was in its state then,
 * until another event makes rules active; one without is always active, in its state. An active
 * rule meets the requests of its "iotype" (all but block-status unless it says) that touch its
 * place: "sector", or "offset" and "length". It passes over the first "skip" of them, and then acts
 * on "count" (0: on all; "once" is a count of 1), each with a chance of "per-mille".
 *
 * An error is "errno" (5 unless it says), returned in place of the request; "after" carries the
 * request out first, as when only the answer is lost. Unless "immediately", the request yields
 * before it fails. Delays are added up, and errors come after them.
 *
 * Suspension. Who comes to the event of a break stops there until it is told to go on (fault.h); no
 * description can ask for that. A pause waits for it, as for a request that hangs: that is what it
 * is for. */
#include "block/filter/fault.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/filter/filter.h"
#include "block/io/event.h"
#include "util/assert.h"
#include "util/prng.h"
#include "util/range.h"

extern const struct ash_driver ash_driver_fault;

#define ANYWHERE UINT64_MAX
#define DELAY_NS_MAX UINT64_C(3600000000000)
#define IOTYPE_ALL ASH_OP_COUNT

static const char *const iotypes[] = {
    [ASH_READ] = "read",         [ASH_WRITE] = "write",
    [ASH_FLUSH] = "flush",       [ASH_DISCARD] = "discard",
    [ASH_ZERO] = "write-zeroes", [ASH_STATUS] = "block-status",
    [IOTYPE_ALL] = "all",        NULL,
};

enum kind { KIND_ERROR, KIND_DELAY, KIND_SET_STATE, KIND_LISTS, KIND_BREAK = KIND_LISTS };

static const char *const kind_names[KIND_LISTS] = {"inject-error", "inject-delay", "set-state"};

struct rule {
    struct ash_list link;
    enum kind kind;
    int event; /* enum ash_event */
    uint64_t state;
    uint64_t new_state;
    char *tag;
    int iotype;
    uint64_t error;
    uint64_t sector;
    uint64_t offset;
    uint64_t length;
    bool once;
    bool immediately;
    bool after;
    uint64_t skip;
    uint64_t count;
    uint64_t per_mille;
    uint64_t delay_ns;
    bool active; /* of rules with an event */
};

/* A coroutine that stopped, on its stack. */
struct stopped {
    struct ash_list link;
    struct ash_co *co;
    char *tag;
};

struct fault_state {
    json_t *lists[KIND_LISTS];
    uint64_t seed;
    struct ash_list rules; /* of struct rule, in the order of the description */
    struct ash_list stopped;
    uint64_t state;
    struct ash_prng prng;
};

static const struct ash_option fault_options[] = {
    ASH_OPTION_JSON("inject-error", struct fault_state, lists[KIND_ERROR]),
    ASH_OPTION_JSON("inject-delay", struct fault_state, lists[KIND_DELAY]),
    ASH_OPTION_JSON("set-state", struct fault_state, lists[KIND_SET_STATE]),
    ASH_OPTION_UINT("seed", struct fault_state, seed, .def = 0, .help = "of chances"),
    ASH_OPTION_END,
};

#define RULE_EVENT                                                                                 \
    ASH_OPTION_ENUM("event", struct rule, event, ash_event_names, .def = ASH_EVENT_NONE),          \
        ASH_OPTION_UINT("state", struct rule, state, .def = 0)
#define RULE_REQUESTS                                                                              \
    RULE_EVENT, ASH_OPTION_ENUM("iotype", struct rule, iotype, iotypes, .def = IOTYPE_ALL),        \
        ASH_OPTION_UINT("sector", struct rule, sector, .def = ANYWHERE, .max = INT64_MAX / 512),   \
        ASH_OPTION_SIZE("offset", struct rule, offset, .def = 0),                                  \
        ASH_OPTION_SIZE("length", struct rule, length, .def = ANYWHERE),                           \
        ASH_OPTION_BOOL("once", struct rule, once, .def = 0),                                      \
        ASH_OPTION_UINT("skip", struct rule, skip, .def = 0),                                      \
        ASH_OPTION_UINT("count", struct rule, count, .def = 0),                                    \
        ASH_OPTION_UINT("per-mille", struct rule, per_mille, .def = 1000, .max = 1000)

static const struct ash_option error_options[] = {
    RULE_REQUESTS,
    ASH_OPTION_UINT("errno", struct rule, error, .def = EIO, .min = 1, .max = 4095),
    ASH_OPTION_BOOL("immediately", struct rule, immediately, .def = 0),
    ASH_OPTION_BOOL("after", struct rule, after, .def = 0),
    ASH_OPTION_END,
};

static const struct ash_option delay_options[] = {
    RULE_REQUESTS,
    ASH_OPTION_UINT("delay-ns", struct rule, delay_ns, .def = 0, .max = DELAY_NS_MAX),
    ASH_OPTION_END,
};

static const struct ash_option state_options[] = {
    RULE_EVENT,
    ASH_OPTION_UINT("new_state", struct rule, new_state, .def = 1, .min = 1),
    ASH_OPTION_END,
};

static const struct ash_option *const rule_options[KIND_LISTS] = {error_options, delay_options,
                                                                  state_options};

/* Rules from the description. */

static void rule_free(struct rule *rule)
{
    ash_list_remove(&rule->link);
    g_free(rule->tag);
    g_free(rule);
}

static int check_rule(const struct rule *rule, struct ash_error *error)
{
    if (rule->kind == KIND_SET_STATE && rule->event == ASH_EVENT_NONE) {
        return ash_error_set(error, -EINVAL, "A rule of 'set-state' needs an 'event'");
    }
    return 0;
}

static int take_rule(struct fault_state *state, enum kind kind, json_t *object,
                     struct ash_error *error)
{
    struct rule *rule = g_new0(struct rule, 1);
    json_t *rest = json_copy(object);
    char *what = g_strdup_printf("A rule of '%s'", kind_names[kind]);
    rule->kind = kind;
    ash_options_init(rule_options[kind], rule);
    ash_list_push_back(&state->rules, &rule->link);
    int ret = ash_options_take(rule_options[kind], rest, rule, error);
    if (ret == 0) {
        ret = ash_options_refuse_rest(rest, what, error);
    }
    if (ret == 0) {
        ret = check_rule(rule, error);
    }
    if (rule->once) {
        rule->count = 1;
    }
    if (rule->sector != ANYWHERE && (kind == KIND_ERROR || kind == KIND_DELAY)) {
        rule->offset = rule->sector * 512;
        rule->length = 512;
    }
    json_decref(rest);
    g_free(what);
    return ret;
}

static int take_rules(struct fault_state *state, enum kind kind, struct ash_error *error)
{
    size_t index;
    json_t *object;
    if (state->lists[kind] != NULL && !json_is_array(state->lists[kind])) {
        return ash_error_set(error, -EINVAL, "Parameter '%s' expects a list", kind_names[kind]);
    }
    json_array_foreach(state->lists[kind], index, object)
    {
        if (!json_is_object(object)) {
            return ash_error_set(error, -EINVAL, "Parameter '%s' expects a list of rules",
                                 kind_names[kind]);
        }
        int ret = take_rule(state, kind, object, error);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void free_rules(struct fault_state *state)
{
    ash_list_for_each_safe (rule, &state->rules, struct rule, link) {
        rule_free(rule);
    }
}

ASH_CO_FN static int fault_open(struct ash_node *node, struct ash_error *error)
{
    struct fault_state *state = node->state;
    ash_list_init(&state->rules);
    ash_list_init(&state->stopped);
    ash_prng_seed(&state->prng, state->seed);
    state->state = 1;
    int ret = 0;
    for (int kind = 0; kind < KIND_LISTS && ret == 0; kind++) {
        ret = take_rules(state, (enum kind)kind, error);
    }
    if (ret < 0) {
        free_rules(state);
        return ret;
    }
    return ash_filter_open(node, error);
}

ASH_CO_FN static int fault_close(struct ash_node *node)
{
    struct fault_state *state = node->state;
    ash_assert(ash_list_empty(&state->stopped));
    free_rules(state);
    return 0;
}

/* Events. */

static bool in_state(const struct fault_state *state, const struct rule *rule)
{
    return rule->state == 0 || rule->state == state->state;
}

/* Which rules the event makes active, and which no longer. */
static void activate(struct fault_state *state, int event)
{
    bool any = false;
    ash_list_for_each (rule, &state->rules, struct rule, link) {
        any |= rule->event == event && rule->kind <= KIND_DELAY && in_state(state, rule);
    }
    if (!any) {
        return;
    }
    ash_list_for_each (rule, &state->rules, struct rule, link) {
        rule->active = rule->event == event && in_state(state, rule);
    }
}

static void change_state(struct fault_state *state, int event)
{
    ash_list_for_each (rule, &state->rules, struct rule, link) {
        if (rule->kind == KIND_SET_STATE && rule->event == event && in_state(state, rule)) {
            state->state = rule->new_state;
            return;
        }
    }
}

ASH_CO_FN static void stop(struct fault_state *state, struct rule *rule)
{
    struct stopped stopped = {.co = ash_co_self(), .tag = rule->tag};
    rule->tag = NULL;
    rule_free(rule);
    ash_list_push_back(&state->stopped, &stopped.link);
    ash_co_yield();
    ash_assert(ash_list_empty(&stopped.link));
    g_free(stopped.tag);
}

ASH_CO_FN static void fault_event(struct ash_node *node, enum ash_event event)
{
    struct fault_state *state = node->state;
    if (ash_list_empty(&state->rules)) {
        return;
    }
    activate(state, (int)event);
    struct rule *at = NULL;
    ash_list_for_each (rule, &state->rules, struct rule, link) {
        if (rule->kind == KIND_BREAK && rule->event == (int)event && in_state(state, rule)) {
            at = rule;
            break;
        }
    }
    change_state(state, (int)event);
    if (at != NULL) {
        stop(state, at);
    }
}

/* Requests. */

static bool touches(const struct rule *rule, const struct ash_io *io)
{
    if (rule->length == ANYWHERE && rule->offset == 0) {
        return true;
    }
    uint64_t length = ASH_MIN(rule->length, INT64_MAX - rule->offset);
    return ash_range_overlap(rule->offset, length, io->offset, io->bytes);
}

/* Whether the rule acts on this request; counts it. */
static bool acts(struct fault_state *state, struct rule *rule, const struct ash_io *io)
{
    bool active = rule->event == ASH_EVENT_NONE ? in_state(state, rule) : rule->active;
    bool type = rule->iotype == IOTYPE_ALL ? io->op != ASH_STATUS : rule->iotype == io->op;
    if (!active || !type || !touches(rule, io)) {
        return false;
    }
    if (rule->skip > 0) {
        rule->skip--;
        return false;
    }
    return rule->per_mille == 1000 || ash_prng_chance(&state->prng, (unsigned)rule->per_mille);
}

/* One of the times that a rule acts is used up; the last one takes the rule away. */
static void use_up(struct rule *rule)
{
    if (rule->count > 0 && --rule->count == 0) {
        rule_free(rule);
    }
}

/* What the rules hold for the request. */
struct verdict {
    uint64_t delay_ns;
    int ret; /* 0: no error */
    bool after;
    bool immediately;
};

static struct verdict judge(struct fault_state *state, const struct ash_io *io)
{
    struct verdict verdict = {0};
    ash_list_for_each_safe (rule, &state->rules, struct rule, link) {
        if (rule->kind == KIND_DELAY && acts(state, rule, io)) {
            verdict.delay_ns += rule->delay_ns;
            use_up(rule);
        } else if (rule->kind == KIND_ERROR && verdict.ret == 0 && acts(state, rule, io)) {
            verdict.ret = -(int)rule->error;
            verdict.after = rule->after;
            verdict.immediately = rule->immediately;
            use_up(rule);
        }
    }
    return verdict;
}

ASH_CO_FN static int fault_io(struct ash_node *node, const struct ash_io *io)
{
    static const enum ash_event events[ASH_OP_COUNT] = {
        [ASH_READ] = ASH_EVENT_READ_AIO,       [ASH_WRITE] = ASH_EVENT_WRITE_AIO,
        [ASH_ZERO] = ASH_EVENT_PWRITEV_ZERO,   [ASH_DISCARD] = ASH_EVENT_PWRITEV_DISCARD,
        [ASH_FLUSH] = ASH_EVENT_FLUSH_TO_DISK,
    };
    struct fault_state *state = node->state;
    if (io->op != ASH_STATUS) {
        fault_event(node, events[io->op]);
    }
    struct verdict verdict = judge(state, io);
    if (verdict.delay_ns > 0) {
        ash_co_sleep(verdict.delay_ns);
    }
    if (verdict.ret == 0) {
        return ash_edge_io(node->file, io);
    }
    if (verdict.after) {
        ash_edge_io(node->file, io);
    } else if (!verdict.immediately) {
        ash_co_reschedule();
    }
    return verdict.ret;
}

/* From the outside. */

bool ash_node_is_fault(const struct ash_node *node)
{
    return node->driver == &ash_driver_fault;
}

int ash_fault_break(struct ash_node *node, const char *event, const char *tag)
{
    struct fault_state *state = node->state;
    ash_assert(ash_node_is_fault(node));
    for (int i = ASH_EVENT_NONE + 1; ash_event_names[i] != NULL; i++) {
        if (strcmp(ash_event_names[i], event) == 0) {
            struct rule *rule = g_new0(struct rule, 1);
            rule->kind = KIND_BREAK;
            rule->event = i;
            rule->tag = g_strdup(tag);
            ash_list_push_back(&state->rules, &rule->link);
            return 0;
        }
    }
    return -EINVAL;
}

int ash_fault_resume(struct ash_node *node, const char *tag)
{
    struct fault_state *state = node->state;
    ash_assert(ash_node_is_fault(node));
    ash_list_for_each (stopped, &state->stopped, struct stopped, link) {
        if (strcmp(stopped->tag, tag) == 0) {
            ash_list_remove(&stopped->link);
            ash_co_wake(stopped->co);
            return 0;
        }
    }
    return -ENOENT;
}

int ash_fault_remove_break(struct ash_node *node, const char *tag)
{
    struct fault_state *state = node->state;
    int ret = -ENOENT;
    ash_assert(ash_node_is_fault(node));
    ash_list_for_each_safe (rule, &state->rules, struct rule, link) {
        if (rule->kind == KIND_BREAK && strcmp(rule->tag, tag) == 0) {
            rule_free(rule);
            ret = 0;
        }
    }
    while (ash_fault_resume(node, tag) == 0) {
        ret = 0;
    }
    return ret;
}

bool ash_fault_is_suspended(const struct ash_node *node, const char *tag)
{
    const struct fault_state *state = node->state;
    ash_assert(ash_node_is_fault(node));
    ash_list_for_each (stopped, &state->stopped, struct stopped, link) {
        if (strcmp(stopped->tag, tag) == 0) {
            return true;
        }
    }
    return false;
}

const struct ash_driver ash_driver_fault = {
    .name = "fault",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct fault_state),
    .options = fault_options,
    .open = fault_open,
    .close = fault_close,
    .limits = ash_filter_limits,
    .resize = ash_filter_resize,
    .event = fault_event,
    .io =
        {
            [ASH_READ] = fault_io,
            [ASH_WRITE] = fault_io,
            [ASH_ZERO] = fault_io,
            [ASH_DISCARD] = fault_io,
            [ASH_FLUSH] = fault_io,
            [ASH_STATUS] = fault_io,
        },
};
