/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a target over inputs that are there, in place of libFuzzer: each file that is named, and
 * each file in a directory that is. "--lines FILE": each line of the file is an input of its own.
 * "--maybe DIRECTORY": that may be missing.
 *
 * The file that is being run is named when the program dies. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"

static char running[4200] = "nothing";
static unsigned count;

static void say_which(int number)
{
    static const char text[] = "while running ";
    (void)!write(2, text, sizeof(text) - 1);
    (void)!write(2, running, strlen(running));
    (void)!write(2, "\n", 1);
    signal(number, SIG_DFL);
    raise(number);
}

/* The input is copied to memory of its own length, so that a read beyond it is seen. */
static void run_bytes(const char *bytes, size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    memcpy(copy, bytes, length);
    LLVMFuzzerTestOneInput(copy, length);
    free(copy);
    count++;
}

static void run_file(const char *path, bool lines)
{
    char *bytes;
    gsize length;
    GError *error = NULL;
    if (!g_file_get_contents(path, &bytes, &length, &error)) {
        fprintf(stderr, "%s\n", error->message);
        exit(1);
    }
    snprintf(running, sizeof(running), "%s", path);
    if (!lines) {
        run_bytes(bytes, length);
    }
    unsigned number = 0;
    for (char *at = bytes; lines && at < bytes + length;) {
        char *end = memchr(at, '\n', (size_t)(bytes + length - at));
        end = end != NULL ? end : bytes + length;
        snprintf(running, sizeof(running), "%s, line %u", path, ++number);
        run_bytes(at, (size_t)(end - at));
        at = end + 1;
    }
    g_free(bytes);
}

static void run_directory(const char *path)
{
    struct dirent **names;
    int found = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < found; i++) {
        if (names[i]->d_name[0] != '.') {
            char *file = g_build_filename(path, names[i]->d_name, NULL);
            run_file(file, false);
            g_free(file);
        }
        free(names[i]);
    }
    if (found < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    free(names);
}

int main(int argc, char **argv)
{
    LLVMFuzzerInitialize(&argc, &argv);
    signal(SIGABRT, say_which);
    run_bytes("", 0);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--lines") == 0 && i + 1 < argc) {
            run_file(argv[++i], true);
        } else if (strcmp(argv[i], "--maybe") == 0 && i + 1 < argc) {
            if (g_file_test(argv[++i], G_FILE_TEST_EXISTS)) {
                run_directory(argv[i]);
            }
        } else if (g_file_test(argv[i], G_FILE_TEST_IS_DIR)) {
            run_directory(argv[i]);
        } else {
            run_file(argv[i], false);
        }
    }
    printf("%u inputs\n", count);
    return 0;
}
