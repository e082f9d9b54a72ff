/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What crosses threads, and nothing else of order in between: descriptions of a disk, posts from
 * loop to loop. ThreadSanitizer says whether the order is real; here is checked what comes out. */
#include "tests/unit/unit.h"
#include <ashlar/ashlar.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "tests/unit/temp_dir.h"

#define UNIT_BYTES 4096

static struct ash_loop *new_loop(void)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct ash_loop *loop;
    config.flags = ASH_LOOP_OWN_THREAD;
    assert_int_equal(ash_loop_new(&config, &loop, NULL), 0);
    return loop;
}

static struct ash_disk *open_file(struct ash_loop *loop, const char *name)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = NULL;
    options.flags = ASH_DISK_WRITE;
    options.format = "raw";
    if (ash_disk_open_sync(loop, temp_file(name, UNIT_BYTES, 0), &options, &disk, &error) < 0) {
        fail_msg("%s", error.message);
    }
    return disk;
}

/* Descriptions. */

enum { READERS = 3, SIZES = 60 };

struct reader {
    pthread_t thread;
    struct ash_disk *disk;
    atomic_bool *over;
    unsigned wrong;
    unsigned looks;
};

static void *look_again_and_again(void *opaque)
{
    struct reader *reader = opaque;
    uint64_t last_bytes = 0;
    do {
        struct ash_disk_info info = {.size = sizeof(info)};
        struct ash_disk_stats stats = {.size = sizeof(stats)};
        reader->wrong += ash_disk_info(reader->disk, &info) != 0;
        reader->wrong += ash_disk_stats(reader->disk, &stats) != 0;
        /* It only grows, by whole units. */
        reader->wrong += info.bytes < last_bytes || info.bytes % UNIT_BYTES != 0;
        reader->wrong += info.bytes > SIZES * UNIT_BYTES || info.transfer_bytes_max == 0;
        reader->wrong += stats.op[ASH_READ].count != 0;
        last_bytes = info.bytes;
        reader->looks++;
    } while (!atomic_load_explicit(reader->over, memory_order_relaxed));
    return NULL;
}

static void others_read_whole_descriptions_of_a_disk_that_grows(void **state)
{
    struct ash_loop *loop = new_loop();
    struct ash_disk *disk = open_file(loop, "grows");
    struct reader readers[READERS];
    atomic_bool over = false;
    (void)state;
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.disk = disk, .over = &over};
        assert_int_equal(
            pthread_create(&readers[i].thread, NULL, look_again_and_again, &readers[i]), 0);
    }
    for (uint64_t i = 2; i <= SIZES; i++) {
        assert_int_equal(ash_disk_resize_sync(disk, i * UNIT_BYTES, 0, NULL), 0);
    }
    atomic_store_explicit(&over, true, memory_order_relaxed);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
        assert_int_equal(readers[i].wrong, 0);
        assert_true(readers[i].looks > 0);
    }
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    ash_loop_free(loop);
}

/* Loops side by side, each with a disk of its own. A token goes round: who has it writes it to his
 * disk, reads it back, and posts it on. It is plain memory. */

enum { LOOPS = 3, ROUNDS = 40 };

struct token {
    uint32_t number;
    uint32_t trace[LOOPS * ROUNDS]; /* whose turn it was */
    sem_t ended;
};

struct station {
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct ash_queue *queue;
    struct station *next;
    struct token *token;
    uint32_t index;
    uint8_t *block;
    struct iovec vec;
};

static void submit(struct station *station, uint8_t op)
{
    struct ash_req req = {
        .op = op, .bytes = UNIT_BYTES, .iov = &station->vec, .iov_count = 1, .user_data = op};
    assert_int_equal(ash_queue_submit(station->queue, &req, 1), 1);
}

static void arrive(void *opaque)
{
    struct station *station = opaque;
    memset(station->block, (int)station->token->number, UNIT_BYTES);
    submit(station, ASH_WRITE);
}

static void leave(struct station *station)
{
    struct token *token = station->token;
    token->trace[token->number++] = station->index;
    if (token->number == LOOPS * ROUNDS) {
        sem_post(&token->ended);
    } else {
        station->next->token = token;
        assert_int_equal(ash_loop_post(station->next->loop, arrive, station->next), 0);
    }
}

static void on_complete(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct station *station = opaque;
    assert_int_equal(count, 1);
    assert_int_equal(cqe->result, 0);
    if (cqe->user_data == ASH_WRITE) {
        memset(station->block, 0xff, UNIT_BYTES);
        submit(station, ASH_READ);
    } else {
        assert_int_equal(station->block[UNIT_BYTES - 1], station->token->number);
        leave(station);
    }
}

static void open_station(void *opaque)
{
    struct station *station = opaque;
    assert_int_equal(ash_queue_new(station->disk, 4, &station->queue, NULL), 0);
    ash_queue_on_complete(station->queue, on_complete, station);
    if (station->index == 0) {
        arrive(station);
    }
}

static void close_station(void *opaque)
{
    struct station *station = opaque;
    ash_queue_free(station->queue);
    sem_post(&station->token->ended);
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) < 0) {
        assert_int_equal(errno, EINTR);
    }
}

static void what_is_posted_on_is_seen_by_the_next_loop(void **state)
{
    struct station stations[LOOPS] = {0};
    struct token token = {0};
    (void)state;
    sem_init(&token.ended, 0, 0);
    for (uint32_t i = 0; i < LOOPS; i++) {
        struct station *station = &stations[i];
        char name[16];
        snprintf(name, sizeof(name), "station%u", i);
        *station =
            (struct station){.index = i, .token = &token, .next = &stations[(i + 1) % LOOPS]};
        station->loop = new_loop();
        station->disk = open_file(station->loop, name);
        station->block = aligned_alloc(UNIT_BYTES, UNIT_BYTES);
        station->vec = (struct iovec){station->block, UNIT_BYTES};
    }
    for (uint32_t i = LOOPS; i-- > 0;) {
        assert_int_equal(ash_loop_post(stations[i].loop, open_station, &stations[i]), 0);
    }
    wait_for(&token.ended);
    for (uint32_t i = 0; i < LOOPS * ROUNDS; i++) {
        assert_int_equal(token.trace[i], i % LOOPS);
    }
    for (uint32_t i = 0; i < LOOPS; i++) {
        assert_int_equal(ash_loop_post(stations[i].loop, close_station, &stations[i]), 0);
        wait_for(&token.ended);
        assert_int_equal(ash_disk_close_sync(stations[i].disk, NULL), 0);
        ash_loop_free(stations[i].loop);
        free(stations[i].block);
    }
    sem_destroy(&token.ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_read_whole_descriptions_of_a_disk_that_grows),
        cmocka_unit_test(what_is_posted_on_is_seen_by_the_next_loop),
    };
    return cmocka_run_group_tests(tests, temp_dir_set_up, temp_dir_tear_down);
}
