/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of filters: what stands above a disk's top image, or below it, in a life. They change
 * nothing of what a disk holds. */
#include "tests/sim/filter.h"
#include <errno.h>
#include <stdio.h>

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

static void copy_on_read(const struct sim_disk *disk, struct ash_prng *prng, json_t *description)
{
    (void)disk;
    (void)prng;
    (void)description;
}

/* What it counts in has to fit the disk's length, and so does each length that it gets. */
static bool can_be_logged(const struct sim_disk *disk)
{
    return disk->model.bytes % SIM_LOG_SECTOR == 0 && !disk->layers[0].odd;
}

static void log_writes(const struct sim_disk *disk, struct ash_prng *prng, json_t *description)
{
    char file[16];
    snprintf(file, sizeof(file), "d%u.log", disk->number);
    ash_sim_file_write(disk->run->world, file, 0, "", 1);
    json_object_set_new(description, "log",
                        json_pack("{s:s, s:s}", "driver", "file", "filename", file));
    json_object_set_new(description, "log-super-update-interval",
                        json_integer((json_int_t)(1 + sim_below(prng, 20))));
}

static const struct {
    const char *driver;
    bool above;
    uint64_t per_mille;
    void (*describe)(const struct sim_disk *disk, struct ash_prng *prng, json_t *description);
    bool (*legal)(const struct sim_disk *disk); /* may be NULL: always */
} filters[] = {
    {"throttle", true, 120, throttle},
    {"throttle", false, 60, throttle},
    {"fault", true, 80, fault},
    {"fault", false, 120, fault},
    {"copy-on-read", true, 100, copy_on_read},
    {"log-writes", true, 60, log_writes, can_be_logged},
};

/* The option of any node that puts one above it. */
static void add_copy_on_read(const struct sim_disk *disk, json_t *description)
{
    struct ash_prng prng = sim_draw(disk->run, "copy-on-read", disk->run->life, disk->number, 0);
    if (ash_prng_chance(&prng, 60) &&
        sim_wants(disk->run, "copy-on-read.%u.%u", disk->run->life, disk->number)) {
        json_object_set_new(description, "copy-on-read", json_true());
    }
}

json_t *sim_filters_add(struct sim_disk *disk, json_t *description)
{
    disk->logged = false;
    add_copy_on_read(disk, description);
    for (uint32_t i = 0; i < G_N_ELEMENTS(filters); i++) {
        struct ash_prng prng = sim_draw(disk->run, "filter", disk->run->life, disk->number, i);
        if (!ash_prng_chance(&prng, filters[i].per_mille) ||
            (filters[i].legal && !filters[i].legal(disk)) ||
            !sim_wants(disk->run, "filter.%u.%u.%u", disk->run->life, disk->number, i)) {
            continue;
        }
        json_t *filter = json_pack("{s:s}", "driver", filters[i].driver);
        filters[i].describe(disk, &prng, filter);
        disk->logged |= filters[i].legal == can_be_logged;
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
