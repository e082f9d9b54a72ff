/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Replays power cuts on real images: all sequences of up to three requests over two clusters, the
 * writes and flushes that each of them makes, and every image that a cut could leave behind
 * (log.h).
 *
 *   replay all CONFIGURATION [EVERY [OURS]]   all sequences; QEMU is shown each EVERYth, and of the
 *                                             others we look at each OURSth
 *   replay one CONFIGURATION REQUEST...       one, which says what it does
 *
 * Each such image has to open and to check clean but for leaks, by our own check and by qemu-img's;
 * ours and qemu-io have to read the same from it; and what they read is what the model
 * (tests/crash/model.h) allows at that moment: what was flushed is there, and no sector shows
 * another's bytes. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/driver.h"
#include "tests/crash/model.h"
#include "tests/replay/shelf.h"
#include "tests/unit/qcow2_rig.h"

enum { REQUESTS_MAX = 3, CLUSTERS = 2, CLUSTERS_MAX = 5 };

static const struct configuration {
    const char *name;
    const char *options;
    uint32_t unit; /* sectors of a cluster */
    bool backing;
} configurations[] = {
    {"plain", "cluster_size=512", 1, false},
    {"backing", "cluster_size=512", 1, true},
    {"old", "compat=0.10,cluster_size=512", 1, true},
    {"lazy", "cluster_size=512,lazy_refcounts=on", 1, false},
    {"bits", "cluster_size=512,refcount_bits=1", 1, false},
    {"large", "cluster_size=4k", 8, true},
};

static const char *const requests[] = {"w0", "w1", "w2", "p2",      "z0",   "z1",     "z2",   "u2",
                                       "d0", "d1", "d2", "overlay", "grow", "shrink", "flush"};

struct run {
    const struct configuration *config;
    const char *const *sequence;
    uint32_t count;
    char story[120];
    struct rig rig;
    struct ash_disk *disk;
    uint32_t top; /* number of its file */
    struct model model;
    struct log log;
    struct shelf *shelf;
    GArray *claims;   /* of struct claim */
    GBytes *expected; /* the last claim's; most are like it */
};

/* A cut left this image, of which this was expected. */
struct claim {
    struct shelf_image *image;
    GBytes *expected;
};

__attribute__((noreturn)) static void replay_fail(const struct run *run, const char *what)
{
    fprintf(stderr, "%s\nto repeat: replay one %s\n", what, run->story);
    exit(1);
}

/* --- what is expected: lengths, then for each sector its values; each list begins with its length
 * --- */

static void list(GByteArray *into, const uint32_t *values, uint32_t count)
{
    g_byte_array_append(into, (const uint8_t *)&count, sizeof(count));
    g_byte_array_append(into, (const uint8_t *)values, count * (guint)sizeof(*values));
}

static GBytes *expectation(const struct model *model)
{
    GByteArray *into = g_byte_array_new();
    list(into, model->sizes, model->size_count);
    for (uint32_t i = 0; i < model->sectors_max; i++) {
        const struct model_sector *s = &model->all[i];
        list(into, &g_array_index(s->values, uint32_t, s->durable), s->values->len - s->durable);
    }
    return g_byte_array_free_to_bytes(into);
}

/* Whether the next list has the value; moves on behind it. */
static bool in_list(const uint32_t **at, uint32_t value)
{
    uint32_t count = *(*at)++;
    bool found = false;
    for (; count > 0; count--) {
        found |= *(*at)++ == value;
    }
    return found;
}

static const char *judge(const struct shelf_image *image, GBytes *expected)
{
    static char sentence[200];
    const uint32_t *at = g_bytes_get_data(expected, NULL);
    uint32_t sectors = (uint32_t)(image->bytes / MODEL_SECTOR);
    if (!in_list(&at, sectors)) {
        snprintf(sentence, sizeof(sentence), "it is %u sectors long", sectors);
        return sentence;
    }
    for (uint32_t i = 0; i < sectors; i++) {
        uint8_t stamp[MODEL_SECTOR];
        const uint8_t *found = image->content + (size_t)i * MODEL_SECTOR;
        uint32_t value;
        memcpy(&value, found, sizeof(value));
        model_stamp(stamp, value, i);
        if (memcmp(stamp, found, MODEL_SECTOR) != 0) {
            snprintf(sentence, sizeof(sentence), "sector %u holds a mixture, or another's bytes",
                     i);
            return sentence;
        }
        if (!in_list(&at, value)) {
            snprintf(sentence, sizeof(sentence), "sector %u holds value %u, which it cannot", i,
                     value);
            return sentence;
        }
    }
    return NULL;
}

/* --- states --- */

static void state(void *opaque, const struct log_bytes *files, uint32_t count)
{
    struct run *run = opaque;
    struct claim claim = {shelf_put(run->shelf, files, MIN(count, run->top + 1), run->story), NULL};
    GBytes *expected = expectation(&run->model);
    if (run->expected && g_bytes_equal(run->expected, expected)) {
        g_bytes_unref(expected);
    } else {
        if (run->expected) {
            g_bytes_unref(run->expected);
        }
        run->expected = expected;
    }
    gsize size;
    const void *data = g_bytes_get_data(run->expected, &size);
    uint64_t hash = shelf_hash(data, size, 4);
    if (!g_hash_table_contains(claim.image->judged, &hash)) {
        g_hash_table_add(claim.image->judged, g_memdup2(&hash, sizeof(hash)));
        claim.expected = g_bytes_ref(run->expected);
        g_array_append_val(run->claims, claim);
    }
}

static void judge_claims(struct run *run)
{
    for (uint32_t i = 0; i < run->claims->len; i++) {
        struct claim *claim = &g_array_index(run->claims, struct claim, i);
        const char *wrong = shelf_look(claim->image);
        wrong = wrong ? wrong : judge(claim->image, claim->expected);
        if (wrong) {
            replay_fail(run, wrong);
        }
        g_bytes_unref(claim->expected);
    }
    g_array_set_size(run->claims, 0);
}

/* --- requests --- */

static uint64_t bytes_of(uint32_t sectors)
{
    return (uint64_t)sectors * MODEL_SECTOR;
}

ASH_CO_FN static int do_write(struct run *run, uint32_t first, uint32_t count)
{
    uint8_t *buffer = g_malloc(bytes_of(count));
    uint32_t value = model_new_value(&run->model);
    for (uint32_t i = 0; i < count; i++) {
        model_stamp(buffer + bytes_of(i), value, first + i);
    }
    model_begin(&run->model, first, count, value);
    int ret = ash_disk_write(run->disk, bytes_of(first), buffer, bytes_of(count), 0);
    model_completed(&run->model, first, count);
    g_free(buffer);
    return ret;
}

ASH_CO_FN static int do_zero(struct run *run, uint32_t first, uint32_t count, uint32_t flags)
{
    model_begin(&run->model, first, count, 0);
    int ret = ash_disk_zero(run->disk, bytes_of(first), bytes_of(count), flags);
    model_completed(&run->model, first, count);
    return ret;
}

/* Afterwards it is what it was, or zeroes; reading says which. */
ASH_CO_FN static int do_discard(struct run *run, uint32_t first, uint32_t count)
{
    model_begin(&run->model, first, count, 0);
    int ret = ash_disk_discard(run->disk, bytes_of(first), bytes_of(count));
    uint8_t *buffer = g_malloc(bytes_of(count));
    ret = ret < 0 ? ret : ash_disk_read(run->disk, bytes_of(first), buffer, bytes_of(count));
    for (uint32_t i = 0; i < count && ret == 0; i++) {
        uint32_t value;
        const char *wrong =
            model_check(&run->model, first + i, buffer + bytes_of(i), false, &value);
        if (wrong) {
            replay_fail(run, wrong);
        }
        model_settle(&run->model, first + i, value, false);
    }
    g_free(buffer);
    return ret;
}

ASH_CO_FN static int do_flush(struct run *run)
{
    uint32_t *mark = model_flush_begin(&run->model);
    int ret = ash_disk_flush(run->disk);
    model_flush_end(&run->model, mark, ret == 0);
    return ret;
}

ASH_CO_FN static int do_resize(struct run *run, uint32_t sectors)
{
    struct ash_error error = ASH_ERROR_INIT;
    model_resize_begin(&run->model, sectors);
    int ret = ash_co_disk_resize(run->disk, bytes_of(sectors), ASH_RESIZE_SHRINK, 0, &error);
    model_resize_end(&run->model, sectors, run->config->unit);
    return ret;
}

ASH_CO_FN static int do_close(struct run *run)
{
    struct ash_error error = ASH_ERROR_INIT;
    uint32_t *mark = model_flush_begin(&run->model);
    int ret = ash_co_disk_close(run->disk, &error);
    model_flush_end(&run->model, mark, ret == 0);
    return ret;
}

ASH_CO_FN static int do_open(struct run *run)
{
    char name[8];
    struct ash_error error = ASH_ERROR_INIT;
    snprintf(name, sizeof(name), "f%u", run->top);
    return rig_open(&run->rig, name, ASH_NODE_WRITE | ASH_NODE_DISCARD, &run->disk, &error);
}

/* A snapshot: a new overlay on top. */
ASH_CO_FN static int do_overlay(struct run *run)
{
    char name[8];
    char options[200];
    int ret = do_close(run);
    snprintf(name, sizeof(name), "f%u", run->top + 1);
    snprintf(options, sizeof(options), "%s,backing_file=f%u,backing_fmt=qcow2",
             run->config->options, run->top);
    ret = ret < 0 ? ret : rig_create(&run->rig, name, bytes_of(run->model.sectors), options);
    run->top++;
    return ret < 0 ? ret : do_open(run);
}

/* A letter and which clusters: 0, 1, or 2 for both. What lies behind the end is left out. */
ASH_CO_FN static int do_range(struct run *run, char which, uint32_t cluster)
{
    uint32_t unit = run->config->unit;
    uint32_t first = cluster == 1 ? unit : 0;
    uint32_t end = MIN(cluster == 0 ? unit : 2 * unit, run->model.sectors);
    if (which == 'p') { /* from the middle of one to the middle of the other */
        first = unit / 2;
        end = MIN(unit + (unit + 1) / 2, end);
    }
    if (first >= end) {
        return 0;
    }
    switch (which) {
    case 'z':
        return do_zero(run, first, end - first, 0);
    case 'u':
        return do_zero(run, first, end - first, ASH_REQ_UNMAP);
    case 'd':
        return do_discard(run, first, end - first);
    default:
        return do_write(run, first, end - first);
    }
}

ASH_CO_FN static int do_request(struct run *run, const char *name)
{
    uint32_t unit = run->config->unit;
    if (!strcmp(name, "overlay")) {
        return do_overlay(run);
    }
    if (!strcmp(name, "grow")) {
        return do_resize(run, run->model.sectors + unit);
    }
    if (!strcmp(name, "shrink")) {
        return run->model.sectors > unit ? do_resize(run, run->model.sectors - unit) : 0;
    }
    return strcmp(name, "flush") ? do_range(run, name[0], (uint32_t)(name[1] - '0'))
                                 : do_flush(run);
}

/* --- a sequence --- */

static int create_co(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    char options[200];
    char name[8];
    snprintf(name, sizeof(name), "f%u", run->top);
    snprintf(options, sizeof(options), "%s%s", run->config->options,
             run->config->backing ? ",backing_file=f0,backing_fmt=raw" : "");
    return rig_create(&run->rig, name, bytes_of(run->model.sectors), options);
}

static int sequence_co(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    int ret = do_open(run);
    for (uint32_t i = 0; i < run->count && ret == 0; i++) {
        ret = do_request(run, run->sequence[i]);
    }
    return ret < 0 ? ret : do_close(run);
}

static void make_base(struct run *run, uint32_t sectors)
{
    uint8_t *bytes = g_malloc(bytes_of(sectors));
    for (uint32_t i = 0; i < sectors; i++) {
        model_stamp(bytes + bytes_of(i), MODEL_BASE, i);
    }
    ash_sim_file_write(run->rig.world, "f0", 0, bytes, bytes_of(sectors));
    g_free(bytes);
}

static void tell_story(struct run *run)
{
    g_strlcpy(run->story, run->config->name, sizeof(run->story));
    for (uint32_t i = 0; i < run->count; i++) {
        g_strlcat(run->story, " ", sizeof(run->story));
        g_strlcat(run->story, run->sequence[i], sizeof(run->story));
    }
}

static void run_sequence(struct shelf *shelf, const struct configuration *config,
                         const char *const *sequence, uint32_t count)
{
    struct ash_sim_config world = {.latency_ns_min = 1000, .latency_ns_max = 1000};
    struct run run = {.config = config, .sequence = sequence, .count = count, .shelf = shelf};
    /* The base ends in the first cluster that growing adds. */
    uint32_t base = config->backing ? CLUSTERS * config->unit + (config->unit + 1) / 2 : 0;
    tell_story(&run);
    model_init(&run.model, CLUSTERS * config->unit, CLUSTERS_MAX * config->unit, base);
    run.claims = g_array_new(FALSE, FALSE, sizeof(struct claim));
    run.top = config->backing ? 1 : 0;
    run.log = (struct log){.state = state, .opaque = &run};
    rig_world(&run.rig, &world);
    if (base > 0) {
        make_base(&run, base);
    }
    rig_boot(&run.rig);
    int ret = ash_loop_run_sync(run.rig.loop, create_co, &run);
    log_begin(&run.log, run.rig.world, MODEL_SECTOR);
    for (uint32_t i = 0; i <= run.top; i++) {
        log_take_file(&run.log, run.rig.world, i == 0 ? "f0" : "f1");
    }
    ret = ret < 0 ? ret : ash_loop_run_sync(run.rig.loop, sequence_co, &run);
    if (ret < 0) {
        replay_fail(&run, "a request failed");
    }
    log_end(&run.log, run.rig.world);
    rig_halt(&run.rig);
    ash_sim_world_free(run.rig.world);
    judge_claims(&run);
    g_array_unref(run.claims);
    g_clear_pointer(&run.expected, g_bytes_unref);
    model_free(&run.model);
}

/* --- all of them --- */

static void show(struct shelf *shelf)
{
    struct shelf_image *which = NULL;
    const char *wrong = shelf_show(shelf, &which);
    if (wrong) {
        fprintf(stderr, "%s\nto repeat: replay one %s\n", wrong, which ? which->story : "");
        exit(1);
    }
}

/* Of which each `every`th is taken, or all others but for each `without`th. Returns how many. */
static uint32_t sequences(struct shelf *shelf, const struct configuration *config, uint32_t every,
                          uint32_t without)
{
    const uint32_t base = (uint32_t)G_N_ELEMENTS(requests);
    uint32_t number = 0;
    uint32_t runs = 0;
    uint32_t total = 1;
    for (uint32_t length = 1; length <= REQUESTS_MAX; length++) {
        total *= base;
        for (uint32_t code = 0; code < total; code++) {
            const char *sequence[REQUESTS_MAX];
            uint32_t rest = code;
            for (uint32_t i = 0; i < length; i++, rest /= base) {
                sequence[i] = requests[rest % base];
            }
            bool wanted = number % every == 0 && (without == 0 || number % without != 0);
            number++;
            if (wanted) {
                run_sequence(shelf, config, sequence, length);
                runs++;
            }
        }
    }
    return runs;
}

/* First those whose images QEMU is shown: programs started are what costs. */
static void all_sequences(struct shelf *shelf, const struct configuration *config, uint32_t every,
                          uint32_t ours)
{
    uint32_t runs = sequences(shelf, config, every, 0);
    show(shelf);
    runs += sequences(shelf, config, ours, every);
    printf("%u sequences, %" PRIu64 " states after a cut, %u distinct images; qemu-img checked %u, "
           "qemu-io read %u\n",
           runs, shelf->states, g_hash_table_size(shelf->images), shelf->checks, shelf->read);
}

static int usage(const char *program)
{
    fprintf(
        stderr,
        "usage: %s all CONFIGURATION [EVERY [OURS]] | one CONFIGURATION REQUEST...\nCONFIGURATION:",
        program);
    for (size_t i = 0; i < G_N_ELEMENTS(configurations); i++) {
        fprintf(stderr, " %s", configurations[i].name);
    }
    fprintf(stderr, "\nREQUEST:");
    for (size_t i = 0; i < G_N_ELEMENTS(requests); i++) {
        fprintf(stderr, " %s", requests[i]);
    }
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv)
{
    const struct configuration *config = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(configurations) && argc > 2; i++) {
        if (!strcmp(argv[2], configurations[i].name)) {
            config = &configurations[i];
        }
    }
    if (config == NULL) {
        return usage(argv[0]);
    }
    struct shelf shelf;
    shelf_init(&shelf);
    if (!strcmp(argv[1], "all")) {
        all_sequences(&shelf, config, argc > 3 ? MAX(1, (uint32_t)atoi(argv[3])) : 1,
                      argc > 4 ? MAX(1, (uint32_t)atoi(argv[4])) : 1);
    } else if (!strcmp(argv[1], "one") && argc > 3 && argc <= 3 + REQUESTS_MAX) {
        run_sequence(&shelf, config, (const char *const *)argv + 3, (uint32_t)argc - 3);
        show(&shelf);
        printf("%" PRIu64 " states, %u images\n", shelf.states, g_hash_table_size(shelf.images));
    } else {
        return usage(argv[0]);
    }
    shelf_free(&shelf);
    return 0;
}
