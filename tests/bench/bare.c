/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The limit of every copying: reads and writes of 1 MiB, 16 in flight, without any format.
 *
 *     bare [-n] SOURCE TARGET BYTES
 *
 * -n: O_DIRECT on both. TARGET is made anew. What is timed ends with fdatasync(), as a job does.
 * Prints the seconds. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define DEPTH 16

struct slot {
    void *memory;
    uint64_t offset;
    bool writes;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void submit(struct io_uring *ring, const int *fds, struct slot *slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (slot->writes) {
        io_uring_prep_write(sqe, fds[1], slot->memory, PIECE, slot->offset);
    } else {
        io_uring_prep_read(sqe, fds[0], slot->memory, PIECE, slot->offset);
    }
    io_uring_sqe_set_data(sqe, slot);
}

static int copy(struct io_uring *ring, const int *fds, uint64_t bytes)
{
    struct slot slots[DEPTH];
    uint64_t next = 0;
    unsigned in_flight = 0;
    for (unsigned i = 0; i < DEPTH && next < bytes; i++, next += PIECE) {
        slots[i] = (struct slot){.offset = next};
        if (posix_memalign(&slots[i].memory, 4096, PIECE) != 0) {
            return -ENOMEM;
        }
        memset(slots[i].memory, 0, PIECE);
        submit(ring, fds, &slots[i]);
        in_flight++;
    }
    while (in_flight > 0) {
        struct io_uring_cqe *cqe;
        int ret = io_uring_submit_and_wait(ring, 1);
        while (ret >= 0 && io_uring_peek_cqe(ring, &cqe) == 0) {
            struct slot *slot = io_uring_cqe_get_data(cqe);
            if (cqe->res != (int)PIECE) {
                return cqe->res < 0 ? cqe->res : -EIO;
            }
            io_uring_cqe_seen(ring, cqe);
            slot->writes = !slot->writes;
            if (!slot->writes) {
                slot->offset = next;
                next += PIECE;
            }
            if (slot->writes || slot->offset < bytes) {
                submit(ring, fds, slot);
            } else {
                in_flight--;
            }
        }
        if (ret < 0) {
            return ret;
        }
    }
    return fdatasync(fds[1]) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
    bool direct = argc > 1 && strcmp(argv[1], "-n") == 0;
    argv += direct;
    argc -= direct;
    if (argc != 4) {
        fprintf(stderr, "usage: bare [-n] SOURCE TARGET BYTES\n");
        return 2;
    }
    int flags = direct ? O_DIRECT : 0;
    int fds[2] = {open(argv[1], O_RDONLY | flags),
                  open(argv[2], O_RDWR | O_CREAT | O_TRUNC | flags, 0644)};
    struct io_uring ring;
    if (fds[0] < 0 || fds[1] < 0) {
        perror("bare");
        return 1;
    }
    int ret = io_uring_queue_init(DEPTH, &ring, 0);
    double begin = now();
    ret = ret < 0 ? ret : copy(&ring, fds, strtoull(argv[3], NULL, 0));
    if (ret < 0) {
        fprintf(stderr, "bare: %s\n", strerror(-ret));
        return 1;
    }
    printf("%.4f\n", now() - begin);
    return 0;
}
