/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The way into a target, and the limits on what an input may take. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"

bool fuzz_running;

static FILE *nowhere; /* where output goes while an input runs; NULL: as usual */

/* --- limits --- */

/* Of AddressSanitizer; there is nothing like it in a build without. */
__attribute__((weak)) int
__sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void *, size_t),
                                          void (*freed)(const volatile void *));
__attribute__((weak)) size_t __sanitizer_get_allocated_size(const volatile void *);

static int64_t bytes_live;

static void on_malloc(const volatile void *memory, size_t bytes)
{
    (void)memory;
    if (fuzz_running && __atomic_add_fetch(&bytes_live, (int64_t)bytes, __ATOMIC_RELAXED) >
                            (int64_t)FUZZ_BYTES_MAX) {
        fuzz_running = false;
        fuzz_fail("more than %u MiB of memory, the last %zu bytes of it at once",
                  (unsigned)(FUZZ_BYTES_MAX / MiB), bytes);
    }
}

static void on_free(const volatile void *memory)
{
    if (fuzz_running && memory != NULL) {
        __atomic_sub_fetch(&bytes_live, (int64_t)__sanitizer_get_allocated_size(memory),
                           __ATOMIC_RELAXED);
    }
}

static void on_time(int number)
{
    (void)number;
    static const char text[] = "\nFINDING: more processor time than an input may take\n";
    (void)!write(fuzz_errors_fd, text, sizeof(text) - 1);
    abort();
}

static void set_timer(time_t seconds)
{
    struct itimerval timer = {.it_value = {seconds, 0}};
    setitimer(ITIMER_PROF, &timer, NULL);
}

/* --- the way in --- */

static ssize_t drop(void *cookie, const char *bytes, size_t count)
{
    (void)cookie;
    (void)bytes;
    return (ssize_t)count;
}

void fuzz_be_quiet(void)
{
    if (nowhere == NULL) {
        nowhere = fopencookie(NULL, "w", (cookie_io_functions_t){.write = drop});
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_errors_fd = dup(2);
    struct sigaction action = {.sa_handler = on_time};
    sigemptyset(&action.sa_mask);
    sigaction(SIGPROF, &action, NULL);
    if (__sanitizer_install_malloc_and_free_hooks != NULL) {
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    FILE *output = stdout;
    FILE *errors = stderr;
    if (nowhere != NULL) {
        stdout = nowhere;
        stderr = nowhere;
    }
    bytes_live = 0;
    fuzz_running = true;
    set_timer(FUZZ_SECONDS_MAX);
    fuzz_one(data, bytes);
    set_timer(0);
    fuzz_running = false;
    stdout = output;
    stderr = errors;
    return 0;
}
