/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The generic data path of mapped formats, against a model: several guests at once over chains of
 * images, with all operations, on a map that waits everywhere and reuses places at once. */
#include "tests/unit/unit.h"
#include "tests/unit/chain_guests.h"

static struct {
    unsigned reused;
    unsigned pinned;
    unsigned waited;
} seen; /* over all runs: that the test meets what it is for */

static void draw_chain(struct core *core, struct chain *chain, unsigned depth)
{
    static const uint64_t units[] = {512, 4096, 8192, 65536};
    *chain = (struct chain){.depth = depth, .delay_ns = 3000};
    for (unsigned layer = 0; layer < depth; layer++) {
        chain->unit[layer] = units[ash_prng_below(&core->prng, layer == 0 ? 3 : 4)];
        chain->bytes[layer] = ash_prng_between(&core->prng, 10000, 80000);
        if (chain->unit[layer] < sizeof(struct map_header)) {
            chain->unit[layer] = 1024;
        }
    }
    if (ash_prng_chance(&core->prng, 400)) {
        chain->slots_max = chain->bytes[0] / chain->unit[0] + ash_prng_below(&core->prng, 10);
    }
    if (ash_prng_chance(&core->prng, 250)) {
        chain->commit_fails = 50;
    }
    chain->no_zero = ash_prng_chance(&core->prng, 200);
}

ASH_CO_FN static void guests_body(struct core *core, void *opaque)
{
    struct chain chain;
    struct guest guests[GUESTS];
    draw_chain(core, &chain, *(unsigned *)opaque);
    chain_up(core, &chain);
    alloc_fails_per_mille = ash_prng_chance(&core->prng, 150) ? 40 : 0;
    guests_start(core, &chain, guests, 25);
    core_join(core);
    alloc_fails_per_mille = 0;
    chain_verify(core, &chain);
    struct map_format *map = map_format_of(ash_disk_node(chain.disk));
    seen.reused += map->reused;
    seen.pinned += map->pinned;
    seen.waited += map->waited;
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    chain.delay_ns = 0;
    chain.disk = chain_open(core, &chain, 0, 0);
    chain_verify(core, &chain);
    chain_down(&chain);
}

/* The same guests over qcow2, which has to be consistent afterwards. */
ASH_CO_FN static void qcow2_body(struct core *core, void *opaque)
{
    struct chain chain;
    struct guest guests[GUESTS];
    draw_chain(core, &chain, *(unsigned *)opaque);
    chain.qcow2 = true;
    chain.commit_fails = 0;
    chain.slots_max = 0;
    for (unsigned layer = 0; layer < chain.depth; layer++) {
        chain.unit[layer] = UINT64_C(512) << ash_prng_below(&core->prng, layer == 0 ? 5 : 8);
        chain.bytes[layer] = chain.bytes[layer] * 2 / 512 * 512;
    }
    chain_up(core, &chain);
    alloc_fails_per_mille = ash_prng_chance(&core->prng, 150) ? 40 : 0;
    guests_start(core, &chain, guests, 40);
    core_join(core);
    alloc_fails_per_mille = 0;
    chain_verify(core, &chain);
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    chain.disk = chain_open(core, &chain, 0, ASH_NODE_CHECK);
    check_image(core, chain.disk);
    chain_verify(core, &chain);
    chain_down(&chain);
}

static void run_seeds(uint64_t count, void (*body)(struct core *core, void *opaque))
{
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(count); seed++) {
        struct core core;
        struct ash_sim_config sim_config = {.seed = seed, .latency_ns_max = 4000};
        struct ash_hooks hooks = {.size = sizeof(hooks), .alloc = alloc_hook, .free = free_hook};
        struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
        unsigned depth = 1 + (unsigned)(seed % LAYERS_MAX);
        loop_config.hooks = &hooks;
        loop_config.metadata_bytes_max = seed % 3 == 0 ? 1024 : 0;
        ash_prng_seed(&alloc_prng, seed);
        core_up_with(&core, seed, &sim_config, &loop_config);
        core_run(&core, body, &depth);
        core_down(&core);
    }
}

static void guests_over_a_chain_find_what_they_wrote(void **state)
{
    (void)state;
    run_seeds(core_is_real() ? 60 : 300, guests_body);
    if (getenv("SEED") != NULL) {
        return;
    }
    print_message("reused %u, pinned %u, waited %u, failed %u\n", seen.reused, seen.pinned,
                  seen.waited, guests_failed);
    assert_true(seen.reused > 0);
    assert_true(guests_failed > 0);
    if (!core_is_real()) {
        assert_true(seen.pinned > 0);
        assert_true(seen.waited > 0);
    }
}

static void guests_over_a_chain_of_qcow2_find_what_they_wrote(void **state)
{
    (void)state;
    run_seeds(core_is_real() ? 60 : 300, qcow2_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests_over_a_chain_find_what_they_wrote),
        cmocka_unit_test(guests_over_a_chain_of_qcow2_find_what_they_wrote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
