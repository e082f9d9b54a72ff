/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leaves out decisions, many at a time, then fewer, as long as what is left fails in the same way.
 *
 * Each try is a process of its own, because a run that fails ends it. Leaving a step out changes
 * when everything after it happens, so a try is repeated with some other salts before it counts as
 * good. */
#include "tests/sim/shrink.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SALTS = 6 };

struct shrinker {
    uint64_t seed;
    uint64_t salt;
    GHashTable *left_out;
    char kind[40]; /* of failure: the checker's word */
    uint32_t tries;
};

/* Runs it; what a failing run says on standard error is the result, NULL if it is good. `asked`
 * gets the names of the decisions. */
static char *try_once(struct shrinker *s, uint64_t salt, struct sim_names *asked)
{
    int pipes[2];
    if (pipe(pipes) < 0) {
        return NULL;
    }
    s->tries++;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        uint64_t hash;
        struct sim_config config = {.salt = salt, .left_out = s->left_out, .asked = asked};
        dup2(pipes[1], 2);
        close(pipes[0]);
        alarm(60);
        sim_run_seed(s->seed, &config, &hash);
        _exit(0);
    }
    close(pipes[1]);
    GString *text = g_string_new("");
    char buffer[4096];
    ssize_t count;
    while ((count = read(pipes[0], buffer, sizeof(buffer))) > 0) {
        g_string_append_len(text, buffer, count);
    }
    close(pipes[0]);
    int status;
    waitpid(child, &status, 0);
    bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    return g_string_free(text, !failed);
}

static void kind_of(const char *text, char *kind, size_t bytes)
{
    const char *open = strstr(text, "fails: [");
    kind[0] = '\0';
    if (open) {
        g_strlcpy(kind, open + 8, bytes);
        *strchrnul(kind, ']') = '\0';
    }
}

/* With the names left out besides, does it fail as before? */
static bool fails(struct shrinker *s, char **names, uint32_t count)
{
    bool same = false;
    for (uint32_t i = 0; i < count; i++) {
        g_hash_table_add(s->left_out, g_strdup(names[i]));
    }
    for (uint64_t n = 0; n < SALTS && !same; n++) {
        char kind[sizeof(s->kind)];
        uint64_t salt = n == 0 ? s->salt : n - 1;
        char *text = try_once(s, salt, NULL);
        if (text) {
            kind_of(text, kind, sizeof(kind));
            same = strcmp(kind, s->kind) == 0;
            s->salt = same ? salt : s->salt;
        }
        g_free(text);
    }
    for (uint32_t i = 0; i < count && !same; i++) {
        g_hash_table_remove(s->left_out, names[i]);
    }
    return same;
}

static char *command(const struct shrinker *s, const char *program)
{
    GString *text = g_string_new("");
    GHashTableIter iter;
    gpointer name;
    g_string_append_printf(text, "%s seed %" PRIu64 " --salt %" PRIu64, program, s->seed, s->salt);
    const char *before = " --without ";
    g_hash_table_iter_init(&iter, s->left_out);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        g_string_append_printf(text, "%s%s", before, (const char *)name);
        before = ",";
    }
    return g_string_free(text, FALSE);
}

/* The decisions of the run as it is now. */
static char **collect(struct shrinker *s, struct sim_names *names)
{
    names->bytes = 0;
    g_free(try_once(s, s->salt, names));
    char *text = g_strndup(names->text, names->bytes > 0 ? names->bytes - 1 : 0);
    char **list = g_strsplit(text, "\n", 0);
    g_free(text);
    return list;
}

/* One pass with chunks of a size. Whether anything could be left out. */
static bool pass(struct shrinker *s, struct sim_names *names, uint32_t chunk)
{
    bool better = false;
    char **list = collect(s, names);
    uint32_t count = g_strv_length(list);
    for (uint32_t at = 0; at < count;) {
        if (fails(s, list + at, MIN(chunk, count - at))) {
            better = true;
            g_strfreev(list);
            list = collect(s, names);
            count = g_strv_length(list);
        } else {
            at += chunk;
        }
    }
    g_strfreev(list);
    return better;
}

int shrink(const char *program, uint64_t seed, const struct sim_config *config)
{
    struct shrinker s = {.seed = seed, .salt = config->salt, .left_out = config->left_out};
    struct sim_names *names =
        mmap(NULL, sizeof(*names), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!s.left_out) {
        s.left_out = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    char *text = try_once(&s, s.salt, NULL);
    if (!text || names == MAP_FAILED) {
        printf("seed %" PRIu64 " does not fail\n", seed);
        return 1;
    }
    kind_of(text, s.kind, sizeof(s.kind));
    g_free(text);
    char **list = collect(&s, names);
    uint32_t before = g_strv_length(list);
    g_strfreev(list);
    for (uint32_t chunk = before; chunk > 1; chunk /= 2) {
        pass(&s, names, chunk);
    }
    while (pass(&s, names, 1)) {
    }
    list = collect(&s, names);
    text = command(&s, program);
    printf("[%s] %u of %u decisions are left after %u tries:\n  %s\n", s.kind, g_strv_length(list),
           before, s.tries, text);
    g_free(text);
    g_strfreev(list);
    text = try_once(&s, s.salt, NULL);
    printf("%s", text ? text : "and it does not fail any more\n");
    return 0;
}
