/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several copies of the library in one process: twice LIBASHLAR.SO COPY.SO. This program has one of
 * its own, linked statically and shown to all who are loaded (-rdynamic); two shared ones are
 * loaded beside it. Each gets a loop, a disk and a queue, and they take turns: what one keeps, no
 * other may see or change. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ashlar/ashlar.h>

#define COPIES 3
#define ROUNDS 100

struct library {
    const char *name;
    const char *(*version_string)(void);
    int (*loop_new)(const struct ash_loop_config *, struct ash_loop **, struct ash_error *);
    int (*loop_bind)(struct ash_loop *);
    int (*loop_run_once)(struct ash_loop *, int64_t, uint32_t);
    void (*loop_free)(struct ash_loop *);
    int (*disk_open)(struct ash_loop *, const char *, const struct ash_disk_options *,
                     struct ash_disk **, struct ash_error *);
    int (*disk_close)(struct ash_disk *, struct ash_error *);
    int (*queue_new)(struct ash_disk *, uint32_t, struct ash_queue **, struct ash_error *);
    int (*queue_submit)(struct ash_queue *, const struct ash_req *, uint32_t);
    int (*queue_reap)(struct ash_queue *, struct ash_cqe *, uint32_t);
    void (*queue_free)(struct ash_queue *);
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct ash_queue *queue;
};

static void check(int condition, const char *who, const char *what)
{
    if (!condition) {
        fprintf(stderr, "twice: %s: %s\n", who, what);
        exit(1);
    }
}

/* The address of a function; through memory, as ISO C knows no cast from an object's. */
static void find(void *handle, const char *symbol, void *function)
{
    void *found = dlsym(handle, symbol);
    check(found != NULL, symbol, "is not exported");
    memcpy(function, &found, sizeof(found));
}

static void load(struct library *library, const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    library->name = path;
    check(handle != NULL, path, "cannot be loaded");
    find(handle, "ash_version_string", &library->version_string);
    find(handle, "ash_loop_new", &library->loop_new);
    find(handle, "ash_loop_bind", &library->loop_bind);
    find(handle, "ash_loop_run_once", &library->loop_run_once);
    find(handle, "ash_loop_free", &library->loop_free);
    find(handle, "ash_disk_open_sync", &library->disk_open);
    find(handle, "ash_disk_close_sync", &library->disk_close);
    find(handle, "ash_queue_new", &library->queue_new);
    find(handle, "ash_queue_submit", &library->queue_submit);
    find(handle, "ash_queue_reap", &library->queue_reap);
    find(handle, "ash_queue_free", &library->queue_free);
}

static void own(struct library *library)
{
    *library = (struct library){"the program's own",
                                ash_version_string,
                                ash_loop_new,
                                ash_loop_bind,
                                ash_loop_run_once,
                                ash_loop_free,
                                ash_disk_open_sync,
                                ash_disk_close_sync,
                                ash_queue_new,
                                ash_queue_submit,
                                ash_queue_reap,
                                ash_queue_free,
                                NULL,
                                NULL,
                                NULL};
}

static void start(struct library *library)
{
    struct ash_error error = ASH_ERROR_INIT;
    const char *description =
        "json:{\"driver\": \"null-co\", \"read-zeroes\": true, \"size\": 65536}";
    check(library->loop_new(NULL, &library->loop, &error) == 0, library->name, error.message);
    check(library->loop_bind(library->loop) == 0, library->name, "cannot bind its loop");
    check(library->disk_open(library->loop, description, NULL, &library->disk, &error) == 0,
          library->name, error.message);
    check(library->queue_new(library->disk, 4, &library->queue, &error) == 0, library->name,
          error.message);
}

/* One read in each, all at once: its end must come from the queue that it was put into. */
static void round_of_reads(struct library *libraries, uint64_t round)
{
    char sectors[COPIES][512];
    struct iovec vecs[COPIES];
    for (int i = 0; i < COPIES; i++) {
        memset(sectors[i], 'x', sizeof(sectors[i]));
        vecs[i] = (struct iovec){sectors[i], sizeof(sectors[i])};
        struct ash_req read = {0};
        read.op = ASH_READ;
        read.bytes = sizeof(sectors[i]);
        read.iov = &vecs[i];
        read.iov_count = 1;
        read.user_data = round * COPIES + (uint64_t)i;
        check(libraries[i].queue_submit(libraries[i].queue, &read, 1) == 1, libraries[i].name,
              "takes no read");
    }
    for (int i = COPIES - 1; i >= 0; i--) {
        struct ash_cqe done = {0};
        while (libraries[i].queue_reap(libraries[i].queue, &done, 1) == 0) {
            libraries[i].loop_run_once(libraries[i].loop, -1, 0);
        }
        check(done.result == 0 && done.user_data == round * COPIES + (uint64_t)i, libraries[i].name,
              "ends another's read");
        check(sectors[i][0] == 0 && sectors[i][511] == 0, libraries[i].name, "did not read");
    }
}

int main(int argc, char **argv)
{
    static struct library libraries[COPIES];
    check(argc == COPIES, argv[0], "usage: twice LIBASHLAR.SO COPY.SO");
    own(&libraries[0]);
    load(&libraries[1], argv[1]);
    load(&libraries[2], argv[2]);
    for (int i = 0; i < COPIES; i++) {
        const struct library *next = &libraries[(i + 1) % COPIES];
        check(libraries[i].version_string() != next->version_string(), next->name,
              "is not a copy of its own");
        start(&libraries[i]);
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        round_of_reads(libraries, round);
    }
    /* One ends; the others go on. */
    for (int i = 0; i < COPIES; i++) {
        libraries[i].queue_free(libraries[i].queue);
        check(libraries[i].disk_close(libraries[i].disk, NULL) == 0, libraries[i].name,
              "cannot close");
        libraries[i].loop_free(libraries[i].loop);
        if (i + 1 < COPIES) {
            check(libraries[i + 1].queue_submit(libraries[i + 1].queue,
                                                &(struct ash_req){.op = ASH_FLUSH}, 1) == 1,
                  libraries[i + 1].name, "takes no flush");
            struct ash_cqe done = {0};
            while (libraries[i + 1].queue_reap(libraries[i + 1].queue, &done, 1) == 0) {
                libraries[i + 1].loop_run_once(libraries[i + 1].loop, -1, 0);
            }
            check(done.result == 0, libraries[i + 1].name, "fails when another ended");
        }
    }
    puts("three copies");
    return 0;
}
