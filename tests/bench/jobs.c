/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs, measured through the public API.
 *
 *     jobs [-t CACHE] [-g SECONDS] [-d DEPTH] IMAGE [JOB]
 *
 * IMAGE is a file name or a description ("json:{...}"), and is opened for writing. JOB is the JSON
 * of a job, which is timed until it is ready or over; no user is there meanwhile.
 *
 * -g: a guest writes 4 KiB at depth 32, or DEPTH, with the job, if there is one, running all
 * through: first once to each 64 KiB in a random order (the first touch), then at random for so
 * many seconds. Then the job is cancelled if it has not ended.
 *
 * Prints what was found as one JSON object. */
#include <ashlar/ashlar.h>
#include <ashlar/job.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 32
#define STEPS 16 /* of a power of two: waits are told apart to a sixteenth */
#define KINDS (64 * STEPS)
#define BLOCK 4096u
#define TOUCH 65536u

struct guest {
    struct ash_loop *loop;
    struct ash_queue *queue;
    uint64_t bytes; /* of the disk */
    uint64_t random;
    uint64_t *order; /* the first touch: a permutation of the blocks of 64 KiB; NULL: at random */
    uint64_t next;
    bool stop;
    int failed;
    uint64_t done;
    uint64_t depth;
    uint64_t longest_ns;
    uint64_t waits[KINDS]; /* how many requests took so long */
    uint64_t begun_ns[DEPTH_MAX];
    unsigned char *memory;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t draw(struct guest *guest)
{
    guest->random ^= guest->random << 13;
    guest->random ^= guest->random >> 7;
    guest->random ^= guest->random << 17;
    return guest->random;
}

static void submit(struct guest *guest, uint64_t slot)
{
    uint64_t offset;
    if (guest->order == NULL) {
        offset = draw(guest) % (guest->bytes / BLOCK) * BLOCK;
    } else if (guest->next < guest->bytes / TOUCH) {
        offset = guest->order[guest->next++] * TOUCH + draw(guest) % (TOUCH / BLOCK) * BLOCK;
    } else {
        return;
    }
    struct iovec vec = {guest->memory + slot * BLOCK, BLOCK};
    struct ash_req req = {.op = ASH_WRITE,
                          .offset = offset,
                          .bytes = BLOCK,
                          .iov = &vec,
                          .iov_count = 1,
                          .user_data = slot};
    guest->begun_ns[slot] = now_ns();
    ash_queue_submit(guest->queue, &req, 1);
}

static unsigned kind_of(uint64_t ns)
{
    unsigned power = 63u - (unsigned)__builtin_clzll(ns | STEPS);
    return power * STEPS + (unsigned)(ns >> (power - 4) & (STEPS - 1));
}

/* So many of a thousand requests took no longer, in milliseconds. */
static double wait_ms(const struct guest *guest, uint64_t per_mille)
{
    uint64_t count = 0;
    unsigned kind = 0;
    while (kind < KINDS - 1 && (count += guest->waits[kind]) * 1000 < guest->done * per_mille) {
        kind++;
    }
    return (double)((STEPS + kind % STEPS + 1) * (UINT64_C(1) << kind / STEPS)) / STEPS / 1e6;
}

static void completed(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct guest *guest = opaque;
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < count; i++) {
        uint64_t took_ns = now - guest->begun_ns[cqe[i].user_data];
        guest->longest_ns = took_ns > guest->longest_ns ? took_ns : guest->longest_ns;
        guest->waits[kind_of(took_ns)]++;
        guest->failed = cqe[i].result < 0 ? cqe[i].result : guest->failed;
        guest->done++;
        if (!guest->stop && guest->failed == 0) {
            submit(guest, cqe[i].user_data);
        }
    }
}

/* Writes for so long, or until the blocks are touched; returns the rate. */
static double write_for(struct guest *guest, double seconds)
{
    uint64_t begin = now_ns();
    guest->done = 0;
    guest->longest_ns = 0;
    memset(guest->waits, 0, sizeof(guest->waits));
    guest->stop = false;
    for (uint64_t slot = 0; slot < guest->depth; slot++) {
        submit(guest, slot);
    }
    while (ash_queue_in_flight(guest->queue) > 0) {
        int ret = ash_loop_run_once(guest->loop, -1, 0);
        guest->failed = ret < 0 ? ret : guest->failed;
        if (guest->order == NULL && (double)(now_ns() - begin) > seconds * 1e9) {
            guest->stop = true;
        }
    }
    return (double)guest->done * 1e9 / (double)(now_ns() - begin);
}

static void shuffle(struct guest *guest)
{
    uint64_t count = guest->bytes / TOUCH;
    guest->order = malloc(count * sizeof(guest->order[0]));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t other = draw(guest) % (i + 1);
        guest->order[i] = guest->order[other];
        guest->order[other] = i;
    }
}

static int run_guest(struct guest *guest, struct ash_disk *disk, double seconds,
                     struct ash_error *error)
{
    struct ash_disk_info info = {.size = sizeof(info)};
    ash_disk_info(disk, &info);
    guest->bytes = info.bytes;
    guest->random = 88172645463325252u;
    guest->memory = aligned_alloc(4096, DEPTH_MAX * BLOCK);
    memset(guest->memory, 0x5a, DEPTH_MAX * BLOCK);
    int ret = ash_queue_new(disk, DEPTH_MAX, &guest->queue, error);
    if (ret < 0) {
        return ret;
    }
    ash_queue_on_complete(guest->queue, completed, guest);
    shuffle(guest);
    double rate = write_for(guest, 0);
    printf("\"touch_rate\": %.0f, \"touch_median_ms\": %.3f, \"touch_p99_ms\": %.3f, "
           "\"touch_longest_ms\": %.2f, ",
           rate, wait_ms(guest, 500), wait_ms(guest, 990), (double)guest->longest_ns / 1e6);
    free(guest->order);
    guest->order = NULL;
    rate = write_for(guest, seconds);
    printf("\"rate\": %.0f, \"median_ms\": %.3f, \"p99_ms\": %.3f, \"longest_ms\": %.2f, ", rate,
           wait_ms(guest, 500), wait_ms(guest, 990), (double)guest->longest_ns / 1e6);
    ash_queue_free(guest->queue);
    free(guest->memory);
    return guest->failed;
}

static void heard(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    (void)opaque;
    (void)job;
    (void)event; /* it has made the loop turn, which is all that is wanted */
}

/* Until the job is ready, if `ready` will do, or over. Its result. */
static int wait_for(struct ash_loop *loop, struct ash_job *job, bool ready,
                    struct ash_job_info *info)
{
    for (;;) {
        info->size = sizeof(*info);
        ash_job_info(job, info);
        if (info->state >= ASH_JOB_CONCLUDED || (ready && info->state == ASH_JOB_READY)) {
            return info->result;
        }
        int ret = ash_loop_run_once(loop, -1, 0);
        if (ret < 0) {
            return ret;
        }
    }
}

static int run_job(struct ash_loop *loop, struct ash_disk *disk, const char *description,
                   double guest_seconds, uint64_t depth, struct ash_error *error)
{
    struct ash_job *job = NULL;
    struct ash_job_info info = {.size = sizeof(info)};
    uint64_t begin = now_ns();
    double cpu = cpu_seconds();
    int ret = 0;
    if (description != NULL) {
        ret = ash_job_start_sync(loop, description, heard, NULL, &job, error);
    }
    if (ret == 0 && guest_seconds > 0) {
        struct guest guest = {.loop = loop, .depth = depth};
        ret = run_guest(&guest, disk, guest_seconds, error);
        if (job != NULL) {
            ash_job_info(job, &info);
            printf("\"job_done\": %.3f, ",
                   (double)info.done_bytes / ((double)info.total_bytes + 1e-9));
            bool over = info.state >= ASH_JOB_CONCLUDED;
            ret = over ? info.result : ash_job_control_sync(job, ASH_JOB_CANCEL, 0, error);
        }
    } else if (ret == 0) {
        ret = wait_for(loop, job, true, &info);
        printf("\"seconds\": %.4f, \"cpu\": %.4f, ", (double)(now_ns() - begin) / 1e9,
               cpu_seconds() - cpu);
        snprintf(error->message, sizeof(error->message), "%s", info.message);
        if (info.state == ASH_JOB_READY) {
            ret = ash_job_control_sync(job, ASH_JOB_COMPLETE, 0, error);
        }
    }
    if (job != NULL) {
        int result = wait_for(loop, job, false, &info);
        ret = ret < 0 || result == -ECANCELED ? ret : result;
        ash_job_unref(job);
    }
    return ret;
}

int main(int argc, char **argv)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_loop *loop = NULL;
    struct ash_disk *disk = NULL;
    double seconds = 0;
    uint64_t depth = DEPTH_MAX;
    int option;
    options.flags = ASH_DISK_WRITE;
    while ((option = getopt(argc, argv, "t:g:d:")) != -1) {
        if (option == 't') {
            options.cache = optarg;
        } else if (option == 'g') {
            seconds = atof(optarg);
        } else if (option == 'd' && atoi(optarg) > 0 && atoi(optarg) <= DEPTH_MAX) {
            depth = (uint64_t)atoi(optarg);
        } else {
            return 2;
        }
    }
    if (optind >= argc || (seconds <= 0 && optind + 1 == argc)) {
        fprintf(stderr, "usage: %s [-t CACHE] [-g SECONDS] [-d DEPTH] IMAGE [JOB]\n", argv[0]);
        return 2;
    }
    int ret = ash_loop_new(NULL, &loop, &error);
    ret = ret < 0 ? ret : ash_loop_bind(loop);
    ret = ret < 0 ? ret : ash_disk_open_sync(loop, argv[optind], &options, &disk, &error);
    if (ret == 0) {
        printf("{");
        ret = run_job(loop, disk, argv[optind + 1], seconds, depth, &error);
        printf("\"engine\": \"%s\"}\n", ash_loop_engine(loop));
        int closed = ash_disk_close_sync(disk, ret < 0 ? NULL : &error);
        ret = ret < 0 ? ret : closed;
    }
    if (ret < 0) {
        fprintf(stderr, "%s: %s\n", argv[0],
                error.message[0] != '\0' ? error.message : strerror(-ret));
    }
    ash_loop_free(loop);
    return ret < 0;
}
