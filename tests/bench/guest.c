/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest for benchmarks: random requests of one size through the public API, for a time.
 *
 *     guest [-f FORMAT] [-t CACHE] [-d DEPTH] [-b BYTES] [-s SECONDS] [-w PER CENT] [-r BYTES] [-k]
 * [-c] [-m] [-W] IMAGE
 *
 * -w: how many of 100 requests are writes.  -r: the set of blocks, from the beginning of the disk
 * on. -k: first a warming pass that reads each block of 64 KiB once; its rate is printed as "cold".
 * -c: stop after the cold pass. -m: tell the library of the guest's memory (ash_memory_add).
 * -W: the disk is opened for writing, though nothing may be written.
 *
 * Prints one line: requests per second, CPU time per request, peak memory, engine. */
#include <ashlar/ashlar.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WARM_BLOCK 65536

struct guest {
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct ash_queue *queue;
    unsigned depth;
    uint64_t bytes;
    uint64_t set_bytes;
    unsigned write_percent;
    uint64_t random;
    uint64_t next;  /* cold pass: the next block */
    uint64_t limit; /* cold pass: their number; 0: random requests */
    bool stop;
    bool tell_memory;
    uint64_t in_flight;
    uint64_t done;
    int failed;
    unsigned char *memory;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * 1000u;
}

static uint64_t draw(struct guest *guest)
{
    guest->random ^= guest->random << 13;
    guest->random ^= guest->random >> 7;
    guest->random ^= guest->random << 17;
    return guest->random;
}

static void submit(struct guest *guest, const uint64_t *slots, uint32_t count)
{
    struct ash_req req[64];
    struct iovec vec[64];
    uint32_t filled = 0;
    for (uint32_t i = 0; i < count && !guest->stop; i++) {
        uint64_t offset;
        uint64_t bytes = guest->bytes;
        if (guest->limit != 0) {
            if (guest->next == guest->limit) {
                break;
            }
            offset = guest->next++ * WARM_BLOCK;
        } else {
            offset = draw(guest) % (guest->set_bytes / bytes) * bytes;
        }
        bool writes = guest->limit == 0 && draw(guest) % 100 < guest->write_percent;
        vec[filled] = (struct iovec){guest->memory + slots[i] * guest->bytes, bytes};
        req[filled] = (struct ash_req){.op = writes ? ASH_WRITE : ASH_READ,
                                       .offset = offset,
                                       .bytes = bytes,
                                       .iov = &vec[filled],
                                       .iov_count = 1,
                                       .user_data = slots[i]};
        filled++;
    }
    if (filled > 0) {
        guest->in_flight += (uint64_t)ash_queue_submit(guest->queue, req, filled);
    }
}

static void completed(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct guest *guest = opaque;
    uint64_t slots[64];
    for (uint32_t i = 0; i < count; i++) {
        if (cqe[i].result < 0) {
            guest->failed = cqe[i].result;
            guest->stop = true;
        }
        slots[i] = cqe[i].user_data;
    }
    guest->in_flight -= count;
    guest->done += count;
    submit(guest, slots, count);
}

/* Runs until the time is over or the blocks are; returns nanoseconds. */
static uint64_t run(struct guest *guest, uint64_t limit, double seconds)
{
    uint64_t begin = now_ns();
    guest->stop = false;
    guest->done = 0;
    guest->next = 0;
    guest->limit = limit;
    for (uint64_t first = 0; first < guest->depth;) {
        uint64_t slots[64];
        uint32_t count = 0;
        while (count < 64 && first < guest->depth) {
            slots[count++] = first++;
        }
        submit(guest, slots, count);
    }
    uint64_t end = begin + (uint64_t)(seconds * 1e9);
    unsigned turns = 0;
    while (guest->in_flight > 0) {
        int ret = ash_loop_run_once(guest->loop, -1, 0);
        if (ret < 0) {
            guest->failed = ret;
            break;
        }
        if (limit == 0 && ++turns % 64 == 0 && now_ns() > end) {
            guest->stop = true;
        }
    }
    return now_ns() - begin;
}

static int start(struct guest *guest, const char *image, struct ash_disk_options *options,
                 struct ash_error *error)
{
    int ret = ash_loop_new(NULL, &guest->loop, error);
    if (ret == 0) {
        ret = ash_loop_bind(guest->loop);
    }
    if (ret == 0) {
        ret = ash_disk_open_sync(guest->loop, image, options, &guest->disk, error);
    }
    if (ret == 0) {
        ret = ash_queue_new(guest->disk, guest->depth, &guest->queue, error);
    }
    if (ret == 0) {
        struct ash_disk_info info = {.size = sizeof(info)};
        ret = ash_disk_info(guest->disk, &info);
        if (guest->set_bytes == 0 || guest->set_bytes > info.bytes) {
            guest->set_bytes = info.bytes;
        }
        guest->memory = aligned_alloc(4096, guest->depth * guest->bytes);
        memset(guest->memory, 0x5a, guest->depth * guest->bytes);
        ash_queue_on_complete(guest->queue, completed, guest);
    }
    if (ret == 0 && guest->tell_memory) {
        uint32_t id;
        ret = ash_memory_add(guest->loop, guest->memory, guest->depth * guest->bytes, 0, &id);
    }
    return ret;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

struct settings {
    struct ash_disk_options options;
    double seconds;
    bool cold;
    bool cold_only;
};

static bool parse(int argc, char **argv, struct guest *guest, struct settings *settings)
{
    int option;
    while ((option = getopt(argc, argv, "f:t:d:b:s:w:r:kcmW")) != -1) {
        switch (option) {
        case 'f':
            settings->options.format = optarg;
            break;
        case 't':
            settings->options.cache = optarg;
            break;
        case 'd':
            guest->depth = (unsigned)atoi(optarg);
            break;
        case 'b':
            guest->bytes = strtoull(optarg, NULL, 0);
            break;
        case 's':
            settings->seconds = atof(optarg);
            break;
        case 'w':
            guest->write_percent = (unsigned)atoi(optarg);
            break;
        case 'r':
            guest->set_bytes = strtoull(optarg, NULL, 0);
            break;
        case 'k':
            settings->cold = true;
            break;
        case 'c':
            settings->cold = settings->cold_only = true;
            break;
        case 'm':
            guest->tell_memory = true;
            break;
        case 'W':
            settings->options.flags |= ASH_DISK_WRITE;
            break;
        default:
            return false;
        }
    }
    settings->options.flags |= guest->write_percent > 0 ? ASH_DISK_WRITE : 0;
    return optind + 1 == argc;
}

int main(int argc, char **argv)
{
    struct guest guest = {.depth = 32, .bytes = 4096, .random = 88172645463325252u};
    struct settings settings = {.options = ASH_DISK_OPTIONS_INIT, .seconds = 2};
    struct ash_error error = ASH_ERROR_INIT;
    if (!parse(argc, argv, &guest, &settings)) {
        fprintf(stderr, "usage: %s [options] IMAGE\n", argv[0]);
        return 2;
    }
    int ret = start(&guest, argv[optind], &settings.options, &error);
    if (ret < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], error.message);
        return 1;
    }
    if (settings.cold) {
        uint64_t blocks = guest.set_bytes / WARM_BLOCK;
        uint64_t took = run(&guest, blocks, 0);
        printf("cold %.0f/s ", (double)guest.done * 1e9 / (double)took);
    }
    uint64_t cpu = cpu_ns();
    uint64_t took = settings.cold_only || guest.failed != 0 ? 1 : run(&guest, 0, settings.seconds);
    cpu = cpu_ns() - cpu;
    double rate = settings.cold_only ? 0 : (double)guest.done * 1e9 / (double)took;
    printf("rate %.0f/s cpu %.0f ns peak %ld KiB engine %s\n", rate,
           guest.done != 0 ? (double)cpu / (double)guest.done : 0, peak_kib(),
           ash_loop_engine(guest.loop));
    ash_queue_free(guest.queue);
    ret = ash_disk_close_sync(guest.disk, &error);
    ash_loop_free(guest.loop);
    free(guest.memory);
    if (guest.failed != 0 || ret < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], strerror(guest.failed != 0 ? -guest.failed : -ret));
        return 1;
    }
    return 0;
}
