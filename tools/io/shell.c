/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines, and the running of what they say.
 *
 *  1. Words are separated by spaces and by nothing else; there are no quotes.
 *  2. A command is run only with a number of arguments, and on a disk, that its table entry allows.
 *  3. Between two lines, and while standard input has none, the loop runs: what was begun goes on.
 */
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tools/io/shell.h"

static void print_usage(const struct ash_command *command, const char *name)
{
    printf("%s %s -- %s\n", name, command->syntax, command->help);
}

bool ash_command_usage(const char *name)
{
    const struct ash_command *command = ash_command_find(name);
    print_usage(command, command->name);
    return false;
}

bool ash_shell_help(struct ash_shell *shell, int argc, char **argv)
{
    (void)shell;
    if (argc == 1) {
        for (const struct ash_command *command = ash_commands; command->name != NULL; command++) {
            print_usage(command, command->name);
        }
        printf("\nUse 'help commandname' for extended help.\n");
        return true;
    }
    const struct ash_command *command = ash_command_find(argv[1]);
    if (command == NULL) {
        printf("command %s not found\n", argv[1]);
        return false;
    }
    print_usage(command, argv[1]);
    if (command->more != NULL) {
        printf("\n%s\n", command->more);
    }
    return true;
}

bool ash_shell_quit(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    shell->quit = true;
    return true;
}

static bool check_count(const struct ash_command *command, const char *name, int count)
{
    int min = command->arguments_min;
    int max = command->arguments_max;
    if (count >= min && (max < 0 || count <= max)) {
        return true;
    }
    fprintf(stderr, "bad argument count %d to %s, expected ", count, name);
    if (max < 0) {
        fprintf(stderr, "at least %d arguments\n", min);
    } else if (min == max) {
        fprintf(stderr, "%d arguments\n", min);
    } else {
        fprintf(stderr, "between %d and %d arguments\n", min, max);
    }
    return false;
}

static bool run_command(struct ash_shell *shell, int argc, char **argv)
{
    const struct ash_command *command = ash_command_find(argv[0]);
    if (command == NULL) {
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return false;
    }
    if ((command->flags & ASH_COMMAND_NO_FILE) == 0 && shell->disk == NULL) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return false;
    }
    if (!check_count(command, argv[0], argc - 1)) {
        return false;
    }
    if ((command->flags & ASH_COMMAND_WRITES) != 0 &&
        !ash_node_writable(ash_disk_node(shell->disk))) {
        ash_tool_error("'%s' is open read-only: Block node is read-only", shell->filename);
        return false;
    }
    optind = 0; /* glibc: begin anew, and read the option string again */
    opterr = 1;
    return command->run(shell, argc, argv);
}

bool ash_shell_line(struct ash_shell *shell, const char *line)
{
    char *copy = g_strdup(line);
    GPtrArray *words = g_ptr_array_new();
    char *state;
    for (char *word = strtok_r(copy, " ", &state); word != NULL;
         word = strtok_r(NULL, " ", &state)) {
        g_ptr_array_add(words, word);
    }
    bool done = true;
    if (words->len > G_MAXUINT16) {
        fprintf(stderr, "too many arguments: %u\n", words->len);
        done = false;
    } else if (words->len > 0) {
        int argc = (int)words->len;
        g_ptr_array_add(words, NULL);
        done = run_command(shell, argc, (char **)words->pdata);
    }
    g_ptr_array_free(words, TRUE);
    g_free(copy);
    fflush(stdout);
    ash_shell_turn(shell);
    shell->failed |= !done;
    return done;
}

void ash_shell_turn(struct ash_shell *shell)
{
    if (shell->in_flight > 0 || ash_shell_has_jobs(shell)) {
        ash_loop_run_once(shell->loop, 0, 0);
        fflush(stdout);
    }
}

ASH_CO_FN static int wait_co(void *opaque)
{
    struct ash_shell *shell = opaque;
    while (shell->in_flight > 0) {
        ash_co_queue_wait(&shell->idle);
    }
    return 0;
}

void ash_shell_wait(struct ash_shell *shell)
{
    if (shell->in_flight > 0) {
        int ret = ash_loop_run_sync(shell->loop, wait_co, shell);
        /* No coroutine can be had: turns alone do as well. */
        while (ret < 0 && shell->in_flight > 0) {
            ash_loop_run_once(shell->loop, -1, 0);
        }
    }
    fflush(stdout);
}

/* Waits until there is input, and runs the loop meanwhile. */
static void wait_for_input(struct ash_shell *shell)
{
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                           {.fd = ash_loop_fd(shell->loop), .events = POLLIN}};
    while (poll(fds, ASH_ARRAY_SIZE(fds), -1) >= 0 || errno == EINTR) {
        if (fds[0].revents != 0) {
            return;
        }
        if (fds[1].revents != 0) {
            ash_loop_run_once(shell->loop, 0, 0);
            fflush(stdout);
        }
    }
}

/* Adds what standard input has to `pending`; false at its end. */
static bool read_input(struct ash_shell *shell, GString *pending)
{
    char buffer[4096];
    ssize_t got;
    do {
        wait_for_input(shell);
        got = read(STDIN_FILENO, buffer, sizeof(buffer));
    } while (got < 0 && (errno == EINTR || errno == EAGAIN));
    if (got > 0) {
        g_string_append_len(pending, buffer, got);
    }
    return got > 0;
}

/* The longest line that is taken as one; a longer one is a mistake, and would fill the memory. */
#define LINE_BYTES_MAX (1u << 20)

void ash_shell_interactive(struct ash_shell *shell)
{
    GString *pending = g_string_new(NULL);
    bool more = true;
    while (!shell->quit) {
        printf("%s> ", ash_tool_name());
        fflush(stdout);
        char *end = memchr(pending->str, '\n', pending->len);
        while (end == NULL && more && pending->len <= LINE_BYTES_MAX) {
            more = read_input(shell, pending);
            end = memchr(pending->str, '\n', pending->len);
        }
        if (end == NULL && pending->len > LINE_BYTES_MAX) {
            ash_tool_error("A line of more than %u bytes", LINE_BYTES_MAX);
            shell->failed = true;
            break;
        }
        size_t length = end != NULL ? (size_t)(end - pending->str) : pending->len;
        if (length == 0 && end == NULL) {
            break;
        }
        char *line = g_strndup(pending->str, length);
        g_string_erase(pending, 0, (gssize)(length + (end != NULL)));
        ash_shell_line(shell, line);
        g_free(line);
    }
    g_string_free(pending, TRUE);
}
