/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/replay/starter.h"

#define PROGRAM "qemu-img"

/* As fork_server.c has it. */
struct answer {
    int64_t pid;
    int64_t status;
    int64_t cpu_us;
    int64_t memory_kib;
};

/* In a child. Meson has malloc() fill memory, which shows nothing of QEMU and takes time. */
static void become(const struct starter *starter, char *const *words)
{
    int nothing = open("/dev/null", O_RDONLY);
    unsetenv("MALLOC_PERTURB_");
    if (nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 &&
        dup2(starter->output, STDOUT_FILENO) >= 0 && dup2(starter->output, STDERR_FILENO) >= 0) {
        execvp(words[0], words);
    }
    _exit(127);
}

static int wait_for(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_plainly(const struct starter *starter, const char *directory, GPtrArray *words)
{
    pid_t child = fork();
    if (child == 0) {
        if (chdir(directory) == 0) {
            become(starter, (char *const *)words->pdata);
        }
        _exit(127);
    }
    return child < 0 ? -1 : wait_for(child);
}

static void begin_server(struct starter *starter, const char *preload)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0) {
        return;
    }
    starter->server = fork();
    if (starter->server == 0) {
        char number[20];
        snprintf(number, sizeof(number), "%d", ends[1]);
        close(ends[0]);
        setenv("LD_PRELOAD", preload, 1);
        setenv("LD_BIND_NOW", "1", 1);
        setenv("ASHLAR_FORK_PINNED", "1", 1);
        setenv("ASHLAR_FORK_SERVER", number, 1);
        become(starter, (char *[]){(char *)PROGRAM, NULL});
    }
    close(ends[1]);
    starter->socket = ends[0];
}

bool starter_begin(struct starter *starter)
{
    const char *preload = getenv("FORK_SERVER");
    *starter = (struct starter){.socket = -1, .output = memfd_create("output", MFD_CLOEXEC)};
    if (starter->output < 0) {
        return false;
    }
    if (preload != NULL && access(preload, R_OK) == 0) {
        begin_server(starter, preload);
    }
    if (starter_run(starter, "/", (const char *const[]){"--version", NULL}) == 0) {
        return true;
    }
    starter_end(starter);
    return false;
}

void starter_end(struct starter *starter)
{
    if (starter->socket >= 0) {
        close(starter->socket);
        wait_for((pid_t)starter->server);
    }
    close(starter->output);
}

static bool take_answer(const struct starter *starter, struct answer *answer)
{
    ssize_t got;
    do {
        got = recv(starter->socket, answer, sizeof(*answer), 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof(*answer);
}

/* The words of the command, each with its NUL; the empty one ends the environment. */
static int run_by_server(const struct starter *starter, const char *directory, GPtrArray *words)
{
    GString *command = g_string_new(NULL);
    struct answer answer;
    g_string_append_len(command, directory, (gssize)strlen(directory) + 1);
    g_string_append_len(command, "/dev/null", sizeof("/dev/null"));
    g_string_append_len(command, "", 1);
    for (guint i = 0; words->pdata[i] != NULL; i++) {
        const char *word = words->pdata[i];
        g_string_append_len(command, word, (gssize)strlen(word) + 1);
    }
    bool good = send(starter->socket, command->str, command->len, MSG_NOSIGNAL) >= 0;
    g_string_free(command, TRUE);
    /* Who runs, and how it ended. */
    good = good && take_answer(starter, &answer) && take_answer(starter, &answer);
    int status = (int)answer.status;
    return good && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int starter_run(struct starter *starter, const char *directory, const char *const *arguments)
{
    GPtrArray *words = g_ptr_array_new();
    g_ptr_array_add(words, (char *)PROGRAM);
    for (; *arguments != NULL; arguments++) {
        g_ptr_array_add(words, (char *)*arguments);
    }
    g_ptr_array_add(words, NULL);
    int status = -1;
    if (ftruncate(starter->output, 0) == 0 && lseek(starter->output, 0, SEEK_SET) == 0) {
        status = starter->socket >= 0 ? run_by_server(starter, directory, words)
                                      : run_plainly(starter, directory, words);
    }
    g_ptr_array_unref(words);
    return status;
}

void starter_output(const struct starter *starter, char *into, size_t size)
{
    ssize_t got = pread(starter->output, into, size - 1, 0);
    into[got > 0 ? got : 0] = '\0';
}
