/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory budget alone, with items that let themselves be evicted or not. */
#include "tests/unit/unit.h"
#include "block/map/budget.h"
#include "util/compiler.h"

#define ITEM_BYTES 100
#define ASKED_MAX 32 /* by one addition */

struct thing {
    struct ash_budget_item item;
    struct ash_budget *budget;
    bool stays;
    unsigned asked;
    bool gone;
};

static bool evict(struct ash_budget_item *item)
{
    struct thing *thing = ash_container_of(item, struct thing, item);
    thing->asked++;
    if (thing->stays) {
        return false;
    }
    ash_budget_remove(thing->budget, item);
    thing->gone = true;
    return true;
}

static void add(struct ash_budget *budget, struct thing *things, size_t count, bool stay)
{
    for (size_t i = 0; i < count; i++) {
        things[i] = (struct thing){
            .item = {.bytes = ITEM_BYTES, .evict = evict}, .budget = budget, .stays = stay};
        ash_list_init(&things[i].item.link);
        ash_budget_add(budget, &things[i].item);
    }
}

static unsigned asked(const struct thing *things, size_t count)
{
    unsigned sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += things[i].asked;
    }
    return sum;
}

static void the_item_that_was_not_used_for_longest_goes(void **state)
{
    struct ash_budget budget;
    struct thing things[4];
    (void)state;
    ash_budget_init(&budget, 3 * ITEM_BYTES);
    add(&budget, things, 3, false);
    ash_budget_touch(&budget, &things[0].item);
    add(&budget, &things[3], 1, false);
    assert_true(things[1].gone);
    assert_false(things[0].gone || things[2].gone || things[3].gone);
    assert_int_equal(budget.bytes, 3 * ITEM_BYTES);
}

static void items_that_stay_are_asked_a_bounded_number_of_times(void **state)
{
    struct ash_budget budget;
    struct thing staying[1000];
    struct thing last;
    (void)state;
    ash_budget_init(&budget, ASH_ARRAY_SIZE(staying) * ITEM_BYTES);
    add(&budget, staying, ASH_ARRAY_SIZE(staying), true);
    add(&budget, &last, 1, false);
    assert_in_range(asked(staying, ASH_ARRAY_SIZE(staying)), 1, ASKED_MAX);
    assert_true(ash_budget_exceeded(&budget));
}

/* Behind more items that stay than one addition asks there are some that would go. */
static void the_next_addition_asks_others(void **state)
{
    struct ash_budget budget;
    struct thing staying[2 * ASKED_MAX];
    struct thing going[4];
    struct thing more[4];
    (void)state;
    ash_budget_init(&budget, (ASH_ARRAY_SIZE(staying) + ASH_ARRAY_SIZE(going)) * ITEM_BYTES);
    add(&budget, staying, ASH_ARRAY_SIZE(staying), true);
    add(&budget, going, ASH_ARRAY_SIZE(going), false);
    add(&budget, more, ASH_ARRAY_SIZE(more), false);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(staying); i++) {
        assert_true(staying[i].asked <= 2);
    }
    assert_false(ash_budget_exceeded(&budget));
    for (size_t i = 0; i < ASH_ARRAY_SIZE(going); i++) {
        assert_true(going[i].gone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_item_that_was_not_used_for_longest_goes),
        cmocka_unit_test(items_that_stay_are_asked_a_bounded_number_of_times),
        cmocka_unit_test(the_next_addition_asks_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
