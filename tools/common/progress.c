/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A line that counts to 100 percent. */
#include <signal.h>
#include <stdio.h>
#include "tools/common/tool.h"

static volatile sig_atomic_t asked;

static void ask(int number)
{
    (void)number;
    asked = 1;
}

static void print(struct ash_progress *progress)
{
    printf("    (%3.2f/100%%)\r", progress->percent);
    fflush(stdout);
    progress->printed = progress->percent;
}

void ash_progress_begin(struct ash_progress *progress, bool on)
{
    *progress = (struct ash_progress){.on = on};
    if (on) {
        print(progress);
        return;
    }
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
}

void ash_progress_set(struct ash_progress *progress, double percent)
{
    progress->percent = percent < 100 ? percent : 100;
    if (progress->on) {
        if (progress->percent - progress->printed >= 1 || percent >= 100) {
            print(progress);
        }
    } else if (asked) {
        asked = 0;
        fprintf(stderr, "    (%3.2f/100%%)\n", progress->percent);
    }
}

void ash_progress_end(struct ash_progress *progress)
{
    if (progress->on) {
        printf("\n");
        fflush(stdout);
    }
}
