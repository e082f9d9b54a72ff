/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps, measured.
 *
 *     bitmaps large                  a bitmap of 16 TiB at 64 KiB: memory, a whole scan
 *     bitmaps guest COUNT SECONDS [-t CACHE] IMAGE
 *                                    4 KiB random writes at depth 64 to a node with COUNT bitmaps
 *
 * Prints one line of numbers and their names. */
#include <ashlar/ashlar.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include "util/hbitmap.h"
#include "util/prng.h"

#define LARGE_BITS (UINT64_C(1) << 28)
#define DEPTH 64
#define BLOCK 4096

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static unsigned long scan(const struct ash_hbitmap *map)
{
    unsigned long found = 0;
    for (uint64_t bit = ash_hbitmap_next_set(map, 0, UINT64_MAX); bit != ASH_HBITMAP_NONE;
         bit = ash_hbitmap_next_set(map, bit + 1, UINT64_MAX)) {
        found++;
    }
    return found;
}

/* 1000 dirty granules in 2^28; then, for the memory, all of them. */
static int large(void)
{
    struct ash_hbitmap map;
    struct ash_prng prng;
    long before_kib = peak_kib();
    if (ash_hbitmap_init(&map, LARGE_BITS) < 0) {
        fprintf(stderr, "no memory\n");
        return 1;
    }
    ash_prng_seed(&prng, 1);
    for (int i = 0; i < 1000; i++) {
        ash_hbitmap_set(&map, ash_prng_below(&prng, LARGE_BITS), 1);
    }
    uint64_t begin_ns = now_ns();
    unsigned long found = scan(&map);
    uint64_t scan_ns = now_ns() - begin_ns;
    begin_ns = now_ns();
    ash_hbitmap_set(&map, 0, LARGE_BITS);
    uint64_t fill_ns = now_ns() - begin_ns;
    begin_ns = now_ns();
    uint64_t clear = ash_hbitmap_next_clear(&map, 0, UINT64_MAX);
    uint64_t clear_ns = now_ns() - begin_ns;
    printf("found %lu scan %lu ns fill %lu ns next-clear %lu ns memory %lu KiB\n", found,
           (unsigned long)scan_ns, (unsigned long)fill_ns, (unsigned long)clear_ns,
           (unsigned long)(peak_kib() - before_kib));
    ash_hbitmap_destroy(&map);
    return clear == ASH_HBITMAP_NONE ? 0 : 1;
}

struct guest {
    struct ash_queue *queue;
    struct ash_prng prng;
    uint64_t blocks;
    uint64_t done;
    uint64_t in_flight;
    bool stop;
    int failed;
    void *memory;
};

static void submit(struct guest *guest, uint32_t count)
{
    struct ash_req req[DEPTH];
    struct iovec vec = {guest->memory, BLOCK};
    for (uint32_t i = 0; i < count; i++) {
        req[i] = (struct ash_req){.op = ASH_WRITE,
                                  .offset = ash_prng_below(&guest->prng, guest->blocks) * BLOCK,
                                  .bytes = BLOCK,
                                  .iov = &vec,
                                  .iov_count = 1};
    }
    guest->in_flight += (uint64_t)ash_queue_submit(guest->queue, req, count);
}

static void completed(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct guest *guest = opaque;
    for (uint32_t i = 0; i < count; i++) {
        guest->failed = cqe[i].result < 0 ? cqe[i].result : guest->failed;
    }
    guest->done += count;
    guest->in_flight -= count;
    if (!guest->stop && guest->failed == 0) {
        submit(guest, count);
    }
}

static double rate(struct ash_loop *loop, struct guest *guest, double seconds)
{
    uint64_t begin_ns = now_ns();
    uint64_t end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    guest->done = 0;
    guest->stop = false;
    submit(guest, DEPTH);
    while (now_ns() < end_ns && guest->failed == 0) {
        ash_loop_run_once(loop, -1, 0);
    }
    double result = (double)guest->done * 1e9 / (double)(now_ns() - begin_ns);
    guest->stop = true;
    while (guest->in_flight > 0) {
        ash_loop_run_once(loop, -1, 0);
    }
    return result;
}

static int make_bitmaps(struct ash_disk *disk, int count, struct ash_error *error)
{
    int ret = 0;
    for (int i = 0; i < count && ret == 0; i++) {
        char name[16];
        struct ash_bitmap_options options = ASH_BITMAP_OPTIONS_INIT;
        snprintf(name, sizeof(name), "b%d", i);
        options.name = name;
        ret = ash_disk_bitmap_create_sync(disk, &options, error);
    }
    return ret;
}

static int run(int count, double seconds, const char *image, const char *cache)
{
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct guest guest = {0};
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_disk_info info = {sizeof(info)};
    options.flags = ASH_DISK_WRITE;
    options.format = "raw";
    options.cache = cache;
    if (ash_loop_new(NULL, &loop, &error) < 0 || ash_loop_bind(loop) < 0 ||
        ash_disk_open_sync(loop, image, &options, &disk, &error) < 0 ||
        ash_disk_info(disk, &info) < 0 || make_bitmaps(disk, count, &error) < 0 ||
        ash_queue_new(disk, DEPTH, &guest.queue, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    ash_prng_seed(&guest.prng, 1);
    guest.blocks = info.bytes / BLOCK;
    guest.memory = aligned_alloc(4096, BLOCK);
    memset(guest.memory, 1, BLOCK);
    ash_queue_on_complete(guest.queue, completed, &guest);
    rate(loop, &guest, seconds / 4); /* afterwards most bits are set */
    double result = rate(loop, &guest, seconds);
    printf("rate %.0f/s\n", result);
    ash_queue_free(guest.queue);
    ash_disk_close_sync(disk, NULL);
    ash_loop_free(loop);
    free(guest.memory);
    return guest.failed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "large") == 0) {
        return large();
    }
    if ((argc == 5 || (argc == 7 && strcmp(argv[4], "-t") == 0)) && strcmp(argv[1], "guest") == 0) {
        return run(atoi(argv[2]), atof(argv[3]), argv[argc - 1], argc == 7 ? argv[5] : NULL);
    }
    fprintf(stderr, "usage: bitmaps large | guest COUNT SECONDS [-t CACHE] IMAGE\n");
    return 2;
}
