/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starts a program many times for the price of one: preloaded into it, this stops the program
 * before anything of its own has run, and then forks for each command that it is told over a
 * socket. The child goes on as if it had just been started with those arguments, and none of the
 * libraries needs to be loaded again, which is nine tenths of what a run of qemu-img takes on a
 * small image.
 *
 * The socket (SOCK_SEQPACKET) is the descriptor that ASHLAR_FORK_SERVER names. A command is a
 * sequence of strings, each with its NUL: the working directory; a file to be standard input;
 * "NAME=value" for the environment, up to an empty string; the arguments. The answers are two
 * `struct answer`s: who runs, and how it ended. Standard output and error are the server's, so
 * whoever made them reads them. The end of the socket ends the server. With
 * ASHLAR_FORK_PINNED in the environment each command stays on the processor that it begins on. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMAND_BYTES_MAX (1 << 17)
#define ARGUMENTS_MAX 8192

struct answer {
    int64_t pid;
    int64_t status; /* as waitpid() tells it */
    int64_t cpu_us;
    int64_t memory_kib;
};

typedef int main_fn(int, char **, char **);
typedef int start_fn(main_fn *, int, char **, void (*)(void), void (*)(void), void (*)(void),
                     void *);

static char command[COMMAND_BYTES_MAX];
static char *arguments[ARGUMENTS_MAX + 1];

static void die(const char *what)
{
    fprintf(stderr, "fork server: %s: %s\n", what, strerror(errno));
    _exit(126);
}

/* Wherever the child is now, there it stays: each page that it writes for the first time must go
 * from the memory of every processor that its threads were on, and those have to be told. */
static void stay_here(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();
    if (cpu >= 0 && cpu < CPU_SETSIZE) {
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
}

/* Sets up what a command says and returns the number of its arguments. */
static int obey(const char *end)
{
    const char *at = command;
    int count = 0;
    if (chdir(at) < 0) {
        die(at);
    }
    at += strlen(at) + 1;
    int input = open(at, O_RDONLY);
    if (input < 0 || dup2(input, STDIN_FILENO) < 0) {
        die(at);
    }
    close(input);
    for (at += strlen(at) + 1; at < end && *at; at += strlen(at) + 1) {
        if (putenv((char *)at) != 0) {
            die(at);
        }
    }
    for (at++; at < end; at += strlen(at) + 1) {
        if (count == ARGUMENTS_MAX) {
            errno = E2BIG;
            die("arguments");
        }
        arguments[count++] = (char *)at;
    }
    return count;
}

static int64_t microseconds(struct timeval time)
{
    return time.tv_sec * INT64_C(1000000) + time.tv_usec;
}

static void tell(int socket, const struct answer *answer)
{
    if (send(socket, answer, sizeof(*answer), MSG_NOSIGNAL) != (ssize_t)sizeof(*answer)) {
        _exit(0); /* nobody listens any more */
    }
}

/* Returns in a child, with the number of its arguments. */
static int serve(int socket, bool pinned)
{
    for (;;) {
        ssize_t bytes = recv(socket, command, sizeof(command) - 1, 0);
        if (bytes <= 0) {
            _exit(0);
        }
        struct answer answer = {.pid = fork()};
        if (answer.pid < 0) {
            die("fork");
        }
        if (answer.pid == 0) {
            if (pinned) {
                stay_here();
            }
            close(socket);
            command[bytes] = '\0';
            return obey(command + bytes);
        }
        tell(socket, &answer);
        struct rusage used;
        int status;
        if (wait4((pid_t)answer.pid, &status, 0, &used) < 0) {
            die("wait4");
        }
        answer.status = status;
        answer.cpu_us = microseconds(used.ru_utime) + microseconds(used.ru_stime);
        answer.memory_kib = used.ru_maxrss;
        tell(socket, &answer);
    }
}

/* What a program's first instructions call, with its main(). */
__attribute__((visibility("default"))) start_fn __libc_start_main;

int __libc_start_main(main_fn *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    start_fn *start = (start_fn *)dlsym(RTLD_NEXT, "__libc_start_main");
    const char *socket = getenv("ASHLAR_FORK_SERVER");
    if (socket != NULL) {
        int fd = atoi(socket);
        unsetenv("ASHLAR_FORK_SERVER");
        unsetenv("LD_PRELOAD");
        unsetenv("LD_BIND_NOW");
        bool pinned = getenv("ASHLAR_FORK_PINNED") != NULL;
        unsetenv("ASHLAR_FORK_PINNED");
        argc = serve(fd, pinned);
        argv = arguments;
    }
    return start(main, argc, argv, init, fini, rtld_fini, stack_end);
}
