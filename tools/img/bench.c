/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench: requests of one size at a steady step, so many in flight, through the queue that any user
 * of the library has, so that what is measured is the library.
 *
 * The offset wraps at the end of the image. Unless --no-drain is given, a flush waits for the
 * writes before it, and the writes after it wait for the flush. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <ashlar/queue.h>
#include "tools/common/tool.h"
#include "tools/img/img.h"
#include "util/size.h"

#define BATCH 64u
#define DEPTH_MAX 65536u
#define FLUSH_TAG UINT64_C(1)

struct bench {
    struct ash_tool_image image;
    struct ash_disk *disk;
    const char *engine;
    bool native;
    bool write;
    bool drain;
    uint64_t count;
    uint64_t depth;
    uint64_t buffer_bytes;
    uint64_t step_bytes;
    uint64_t offset;
    uint64_t pattern;
    uint64_t flush_interval;

    /* While it runs. */
    struct ash_queue *queue;
    uint64_t image_bytes;
    uint64_t next_offset;
    uint64_t to_send;
    uint64_t in_flight; /* requests, flushes not counted */
    uint64_t flushes;   /* in flight */
    bool flush_due;
    struct iovec vec;
    int error;
};

static void submit(struct bench *bench, const struct ash_req *requests, uint32_t count)
{
    int taken = ash_queue_submit(bench->queue, requests, count);
    if (taken != (int)count && bench->error == 0) {
        bench->error = -EAGAIN; /* the queue is as deep as what is sent: it takes all */
    }
}

static void submit_flush(struct bench *bench)
{
    struct ash_req request = {.op = ASH_FLUSH, .user_data = FLUSH_TAG};
    bench->flush_due = false;
    bench->flushes++;
    submit(bench, &request, 1);
}

static struct ash_req next_request(struct bench *bench)
{
    struct ash_req request = {
        .op = bench->write ? ASH_WRITE : ASH_READ,
        .offset = bench->next_offset,
        .bytes = bench->buffer_bytes,
        .iov = &bench->vec,
        .iov_count = 1,
    };
    bench->next_offset += bench->step_bytes;
    if (bench->image_bytes <= bench->buffer_bytes) {
        bench->next_offset = 0;
    } else {
        bench->next_offset %= bench->image_bytes - bench->buffer_bytes;
    }
    bench->to_send--;
    bench->in_flight++;
    if (bench->flush_interval != 0 && bench->to_send % bench->flush_interval == 0) {
        bench->flush_due = true;
    }
    return request;
}

/* Keeps the queue full. */
static void feed(struct bench *bench)
{
    while (bench->error == 0) {
        struct ash_req requests[BATCH];
        uint32_t count = 0;
        if (bench->flush_due && bench->drain) {
            if (bench->in_flight == 0 && bench->flushes == 0) {
                submit_flush(bench);
            }
            return;
        }
        if (bench->flush_due) {
            submit_flush(bench);
        }
        if (bench->flushes > 0 && bench->drain) {
            return;
        }
        while (count < BATCH && bench->to_send > 0 && bench->in_flight < bench->depth &&
               !bench->flush_due) {
            requests[count++] = next_request(bench);
        }
        if (count == 0) {
            return;
        }
        submit(bench, requests, count);
    }
}

static void completed(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct bench *bench = opaque;
    for (uint32_t i = 0; i < count; i++) {
        if (cqe[i].user_data == FLUSH_TAG) {
            bench->flushes--;
        } else {
            bench->in_flight--;
        }
        if (cqe[i].result < 0 && bench->error == 0) {
            bench->error = cqe[i].result;
            ash_tool_error("%s: Failed %s: %s", bench->image.filename,
                           cqe[i].user_data == FLUSH_TAG ? "flush" : "request",
                           strerror(-cqe[i].result));
        }
    }
    feed(bench);
}

/* Sends everything and waits for it. */
static int run_requests(struct bench *bench, struct ash_loop *loop)
{
    struct ash_error error = ASH_ERROR_INIT;
    uint32_t slots = (uint32_t)(2 * bench->depth + 1); /* room for a flush with each request */
    int ret = ash_queue_new(bench->disk, ASH_MIN(slots, DEPTH_MAX), &bench->queue, &error);
    if (ret < 0) {
        ash_tool_error("%s: %s", bench->image.filename, error.message);
        return ret;
    }
    ash_queue_on_complete(bench->queue, completed, bench);
    bench->image_bytes = ash_disk_bytes(bench->disk);
    bench->next_offset = bench->offset;
    bench->to_send = bench->count;
    uint64_t begin_ns = ash_loop_now(loop);
    feed(bench);
    while (bench->in_flight > 0 || bench->flushes > 0) {
        ret = ash_loop_run_once(loop, -1, 0);
        if (ret < 0) {
            bench->error = ret;
            break;
        }
        if (ash_tool_interrupted()) {
            bench->error = -EINTR;
        }
    }
    uint64_t end_ns = ash_loop_now(loop);
    ash_queue_free(bench->queue);
    if (bench->error == 0) {
        printf("Run completed in %3.3f seconds.\n", (double)(end_ns - begin_ns) / 1e9);
    }
    return bench->error;
}

ASH_CO_FN static int open_co(void *opaque)
{
    struct bench *bench = opaque;
    bench->disk = ash_tool_open(&bench->image);
    return bench->disk != NULL ? 0 : 1;
}

ASH_CO_FN static int close_co(void *opaque)
{
    struct bench *bench = opaque;
    return ash_tool_close(bench->disk, bench->image.filename) < 0 ? 1 : 0;
}

static void announce(const struct bench *bench)
{
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           bench->count, bench->write ? "write" : "read", bench->buffer_bytes, bench->depth,
           bench->offset, bench->step_bytes);
    if (bench->flush_interval != 0) {
        printf("Sending flush every %" PRIu64 " requests\n", bench->flush_interval);
    }
    fflush(stdout);
}

static int run_disk(struct bench *bench, struct ash_loop *loop)
{
    size_t bytes = ASH_MAX(bench->buffer_bytes, 1);
    void *buffer = ash_buffer_alloc(loop, bytes, 4096);
    if (buffer == NULL) {
        ash_tool_error("No memory for a buffer of %" PRIu64 " bytes", bench->buffer_bytes);
        return 1;
    }
    memset(buffer, bench->write ? (int)bench->pattern : 0, bytes);
    bench->vec = (struct iovec){buffer, bench->buffer_bytes};
    announce(bench);
    int ret = run_requests(bench, loop);
    ash_buffer_free(loop, buffer, bytes);
    return ret < 0 ? 1 : 0;
}

static int run_bench(struct bench *bench)
{
    struct ash_loop *loop = ash_tool_loop_new(bench->engine);
    if (loop == NULL) {
        return 1;
    }
    int status = ash_loop_run_sync(loop, open_co, bench);
    if (status == 0) {
        status = run_disk(bench, loop);
        int closed = ash_loop_run_sync(loop, close_co, bench);
        status = status != 0 ? status : closed;
    }
    ash_loop_free(loop);
    return status == 0 ? 0 : 1;
}

/* --- The command line. --- */

enum {
    OPTION_IMAGE_OPTS = 256,
    OPTION_FLUSH_INTERVAL,
    OPTION_PATTERN,
    OPTION_NO_DRAIN,
};

static int take_engine(struct bench *bench, const char *aio)
{
    bench->native = strcmp(aio, "native") == 0;
    if (bench->native) {
        bench->engine = "aio";
    } else if (strcmp(aio, "io_uring") == 0) {
        bench->engine = "uring";
    } else if (strcmp(aio, "threads") == 0) {
        bench->engine = "threads";
    } else {
        ash_tool_error("Invalid aio option: %s", aio);
        return 1;
    }
    return -1;
}

static int take_number(const char *text, const char *what, uint64_t max, uint64_t *number)
{
    if (!ash_tool_number(text, max, number)) {
        ash_tool_error("Invalid %s specified", what);
        return 1;
    }
    return -1;
}

/* Takes one option with a value. -1, or the exit status. */
static int take_value(struct bench *bench, int c, char **argv)
{
    switch (c) {
    case 'c':
        return take_number(optarg, "request count", INT32_MAX, &bench->count);
    case 'd':
        if (take_number(optarg, "queue depth", INT32_MAX, &bench->depth) > 0) {
            return 1;
        }
        if (bench->depth < 1 || bench->depth > DEPTH_MAX / 2) {
            ash_tool_error("Invalid queue depth specified. Must be between 1 and %u.",
                           DEPTH_MAX / 2);
            return 1;
        }
        return -1;
    case 'f':
        bench->image.format = optarg;
        return -1;
    case 'i':
        return take_engine(bench, optarg);
    case 'o':
        return ash_tool_size(optarg, "offset", 0, INT64_MAX, &bench->offset) ? -1 : 1;
    case 's':
        return ash_tool_size(optarg, "buffer size", 0, INT32_MAX, &bench->buffer_bytes) ? -1 : 1;
    case 'S':
        return ash_tool_size(optarg, "step_size", 0, INT32_MAX, &bench->step_bytes) ? -1 : 1;
    case 't':
        if (ash_cache_mode(optarg, &bench->image.flags, &bench->image.write_through) < 0) {
            ash_tool_error("Invalid cache mode");
            return 1;
        }
        return -1;
    case OPTION_PATTERN:
        return take_number(optarg, "pattern byte", 0xff, &bench->pattern);
    case OPTION_FLUSH_INTERVAL:
        return take_number(optarg, "flush interval", INT32_MAX, &bench->flush_interval);
    default:
        return ash_tool_bad_option(c, argv);
    }
}

/* Takes one option. -1, or the exit status. */
static int take_option(struct bench *bench, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("bench");
    case 'n':
        return take_engine(bench, "native");
    case 'q': /* accepted: what is printed is what the command is for */
        return -1;
    case 'w':
        bench->write = true;
        bench->image.flags |= ASH_NODE_WRITE;
        return -1;
    case 'U':
        bench->image.flags |= ASH_NODE_FORCE_SHARE;
        return -1;
    case OPTION_NO_DRAIN:
        bench->drain = false;
        return -1;
    case OPTION_IMAGE_OPTS:
        bench->image.image_opts = true;
        return -1;
    default:
        return take_value(bench, c, argv);
    }
}

/* What cannot go together: a sentence, or NULL. */
static const char *find_conflict(const struct bench *bench)
{
    if (bench->image.image_opts && bench->image.format != NULL) {
        return "--image-opts and --format are mutually exclusive";
    }
    if (!bench->write && bench->flush_interval != 0) {
        return "--flush-interval is only available in write tests";
    }
    if (bench->flush_interval != 0 && bench->flush_interval < bench->depth) {
        return "Flush interval can't be smaller than depth";
    }
    return NULL;
}

int ash_img_bench(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"flush-interval", required_argument, NULL, OPTION_FLUSH_INTERVAL},
        {"pattern", required_argument, NULL, OPTION_PATTERN},
        {"no-drain", no_argument, NULL, OPTION_NO_DRAIN},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {NULL, 0, NULL, 0},
    };
    struct bench bench = {.drain = true, .count = 75000, .depth = 64, .buffer_bytes = 4096};
    int c;
    while ((c = getopt_long(argc, argv, ":hc:d:f:ni:o:qs:S:t:wU", options, NULL)) != -1) {
        int status = take_option(&bench, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting one image file name");
    }
    bench.image.filename = argv[optind];
    const char *conflict = find_conflict(&bench);
    if (conflict != NULL) {
        ash_tool_error("%s", conflict);
        return 1;
    }
    if (bench.native && (bench.image.flags & ASH_NODE_DIRECT) == 0) {
        ash_tool_error("Could not open '%s': aio=native was specified, but it requires "
                       "cache.direct=on, which was not specified.",
                       bench.image.filename);
        return 1;
    }
    if (bench.step_bytes == 0) {
        bench.step_bytes = bench.buffer_bytes;
    }
    ash_tool_catch_signals();
    return run_bench(&bench);
}
