/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A real eventfd, for hosts that poll. */
#ifndef ASH_UTIL_ENGINE_EVENTFD_H
#define ASH_UTIL_ENGINE_EVENTFD_H

/* Non-blocking, close-on-exec; a descriptor or a negative errno. */
int ash_eventfd_new(void);

/* Adds one; a counter that is full stays full. Any thread. */
void ash_eventfd_raise(int fd);

void ash_eventfd_close(int fd);

#endif
