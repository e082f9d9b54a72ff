/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of filters: what stands above a disk's top image, or below it, in a life. They change
 * nothing of what a disk holds. */
#include "tests/sim/filter.h"
#include <errno.h>

/* All disks with one share it, and so its limits. */
static void throttle(const struct sim_disk *disk, struct ash_prng *prng, json_t *description)
{
    struct ash_prng shared = sim_draw(disk->run, "throttle", disk->run->life, 0, 0);
    (void)prng;
    json_object_set_new(description, "throttle-group", json_string("group"));
    json_object_set_new(description, "limits.bps-total",
                        json_integer(INT64_C(1048576) << sim_below(&shared, 6)));
    json_object_set_new(description, "limits.iops-total",
                        json_integer(INT64_C(2000) << sim_below(&shared, 6)));
}

static const char *const types[] = {"read", "write", "flush", "write-zeroes", "discard"};

static json_t *rule(struct ash_prng *prng, uint64_t per_mille_max)
{
    const char *type = types[sim_below(prng, G_N_ELEMENTS(types))];
    return json_pack("{s:s, s:I}", "iotype", type, "per-mille",
                     (json_int_t)(1 + sim_below(prng, per_mille_max)));
}

static void fault(const struct sim_disk *disk, struct ash_prng *prng, json_t *description)
{
    static const int errors[] = {EIO, EIO, ENOSPC};
    json_t *delay = rule(prng, 300);
    uint64_t delay_ns = sim_below(prng, 4 * disk->run->latency_ns_max);
    json_object_set_new(delay, "delay-ns", json_integer((json_int_t)delay_ns));
    json_object_set_new(description, "inject-delay", json_pack("[o]", delay));
    json_object_set_new(description, "seed", json_integer((json_int_t)sim_below(prng, 1000)));
    if (disk->run->faulty) {
        json_t *error = rule(prng, 40);
        int number = errors[sim_below(prng, G_N_ELEMENTS(errors))];
        json_object_set_new(error, "errno", json_integer(number));
        json_object_set_new(description, "inject-error", json_pack("[o]", error));
    }
}

static const struct {
    const char *driver;
    bool above;
    uint64_t per_mille;
    void (*describe)(const struct sim_disk *disk, struct ash_prng *prng, json_t *description);
} filters[] = {
    {"throttle", true, 120, throttle},
    {"throttle", false, 60, throttle},
    {"fault", true, 80, fault},
    {"fault", false, 120, fault},
};

json_t *sim_filters_add(const struct sim_disk *disk, json_t *description)
{
    for (uint32_t i = 0; i < G_N_ELEMENTS(filters); i++) {
        struct ash_prng prng = sim_draw(disk->run, "filter", disk->run->life, disk->number, i);
        if (!ash_prng_chance(&prng, filters[i].per_mille) ||
            !sim_wants(disk->run, "filter.%u.%u.%u", disk->run->life, disk->number, i)) {
            continue;
        }
        json_t *filter = json_pack("{s:s}", "driver", filters[i].driver);
        filters[i].describe(disk, &prng, filter);
        if (filters[i].above) {
            json_object_set_new(filter, "file", description);
            description = filter;
        } else {
            json_t *lowest = description; /* under filters that stand above it */
            while (json_is_object(json_object_get(json_object_get(lowest, "file"), "file"))) {
                lowest = json_object_get(lowest, "file");
            }
            json_object_set(filter, "file", json_object_get(lowest, "file"));
            json_object_set_new(lowest, "file", filter);
        }
    }
    return description;
}
