/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An eventfd: its counter is a wake-up that cannot be lost. */
#include "util/engine/eventfd.h"
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int ash_eventfd_new(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void ash_eventfd_raise(int fd)
{
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    /* EAGAIN: the counter is at its maximum, so whoever polls it wakes anyway. */
}

void ash_eventfd_close(int fd)
{
    close(fd);
}
