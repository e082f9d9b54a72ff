/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program with an event loop of its own, into which Ashlar fits as one descriptor.
 *
 *     epoll IMAGE [FORMAT]
 *
 * writes a pattern all over the image, 64 KiB at a time and 16 requests at once, reads it back, and
 * prints how many bytes agreed. A timer of the program's own ticks meanwhile in the same epoll set.
 */
#include <ashlar/ashlar.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define DEPTH 16
#define CHUNK 65536

struct program {
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct ash_queue *queue;
    uint64_t disk_bytes;
    uint64_t next;   /* offset of the next request */
    uint64_t agreed; /* bytes that read back as written */
    uint32_t in_flight;
    uint8_t op; /* ASH_WRITE, then ASH_READ, then ASH_FLUSH */
    int failed; /* a negative errno */
    unsigned ticks;
    unsigned char *buffers[DEPTH];
};

static unsigned char pattern_at(uint64_t offset)
{
    return (unsigned char)(offset / CHUNK * 31 + 7);
}

/* One request over slot `slot`; its number comes back as user_data. */
static void submit(struct program *program, uint64_t slot)
{
    uint64_t left = program->disk_bytes - program->next;
    if (left == 0 || program->failed != 0) {
        return;
    }
    uint64_t bytes = left < CHUNK ? left : CHUNK;
    struct iovec vec = {program->buffers[slot], bytes};
    struct ash_req req = {
        .op = program->op,
        .offset = program->next,
        .bytes = bytes,
        .iov = &vec, /* copied by submit */
        .iov_count = 1,
        .user_data = program->next << 8 | slot,
    };
    memset(vec.iov_base, program->op == ASH_WRITE ? pattern_at(program->next) : 0, bytes);
    ash_queue_submit(program->queue, &req, 1);
    program->next += bytes;
    program->in_flight++;
}

static void check(struct program *program, uint64_t slot, uint64_t offset)
{
    uint64_t left = program->disk_bytes - offset;
    uint64_t bytes = left < CHUNK ? left : CHUNK;
    for (uint64_t i = 0; i < bytes; i++) {
        program->agreed += program->buffers[slot][i] == pattern_at(offset);
    }
}

static void flush(struct program *program)
{
    struct ash_req req = {.op = ASH_FLUSH};
    program->op = ASH_FLUSH;
    program->in_flight++;
    ash_queue_submit(program->queue, &req, 1);
}

/* Called by ash_loop_run_once(), on this thread, outside of the library's calls that submit. */
static void completed(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct program *program = opaque;
    for (uint32_t i = 0; i < count; i++) {
        program->in_flight--;
        if (cqe[i].result < 0) {
            program->failed = cqe[i].result;
            continue;
        }
        if (program->op == ASH_READ) {
            check(program, cqe[i].user_data & 0xff, cqe[i].user_data >> 8);
        }
        if (program->op != ASH_FLUSH) {
            submit(program, cqe[i].user_data & 0xff);
        }
    }
}

static void start(struct program *program, uint8_t op)
{
    program->op = op;
    program->next = 0;
    for (unsigned slot = 0; slot < DEPTH; slot++) {
        submit(program, slot);
    }
}

/* The program's own loop: runs until nothing is in flight. */
static int run(struct program *program, int epoll, int timer)
{
    while (program->in_flight > 0) {
        struct epoll_event event;
        int ready = epoll_wait(epoll, &event, 1, -1);
        if (ready < 0 && errno != EINTR) {
            return -errno;
        }
        if (ready == 1 && event.data.fd == timer) {
            uint64_t expirations;
            program->ticks += read(timer, &expirations, sizeof(expirations)) > 0;
        } else if (ready == 1) {
            int ret = ash_loop_run_once(program->loop, 0, 0);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return program->failed;
}

static int watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_all(struct program *program, const char *image, const char *format,
                    struct ash_error *error)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    options.format = format;
    int ret = ash_loop_new(NULL, &program->loop, error);
    if (ret == 0) {
        ret = ash_loop_bind(program->loop);
    }
    if (ret == 0) {
        ret = ash_disk_open_sync(program->loop, image, &options, &program->disk, error);
    }
    if (ret == 0) {
        ret = ash_queue_new(program->disk, DEPTH, &program->queue, error);
    }
    if (ret == 0) {
        struct ash_disk_info info = {.size = sizeof(info)};
        ret = ash_disk_info(program->disk, &info);
        program->disk_bytes = info.bytes;
        ash_queue_on_complete(program->queue, completed, program);
    }
    return ret;
}

int main(int argc, char **argv)
{
    struct program program = {0};
    struct ash_error error = ASH_ERROR_INIT;
    if (argc < 2) {
        fprintf(stderr, "usage: %s IMAGE [FORMAT]\n", argv[0]);
        return 2;
    }
    int ret = open_all(&program, argv[1], argc > 2 ? argv[2] : NULL, &error);
    if (ret < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], error.code != 0 ? error.message : strerror(-ret));
        return 1;
    }
    for (unsigned slot = 0; slot < DEPTH; slot++) {
        program.buffers[slot] = aligned_alloc(4096, CHUNK);
    }

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec every = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
    timerfd_settime(timer, 0, &every, NULL);
    watch(epoll, timer);
    watch(epoll, ash_loop_fd(program.loop));

    start(&program, ASH_WRITE);
    ret = run(&program, epoll, timer);
    if (ret == 0) {
        start(&program, ASH_READ);
        ret = run(&program, epoll, timer);
    }
    if (ret == 0) {
        flush(&program);
        ret = run(&program, epoll, timer);
    }
    printf("%llu of %llu bytes agree\n", (unsigned long long)program.agreed,
           (unsigned long long)program.disk_bytes);

    ash_queue_free(program.queue);
    int close_ret = ash_disk_close_sync(program.disk, &error);
    ash_loop_free(program.loop);
    for (unsigned slot = 0; slot < DEPTH; slot++) {
        free(program.buffers[slot]);
    }
    close(timer);
    close(epoll);
    if (ret < 0 || close_ret < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], strerror(ret < 0 ? -ret : -close_ret));
        return 1;
    }
    return program.agreed == program.disk_bytes ? 0 : 1;
}
