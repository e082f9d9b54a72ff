/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* io_commands: command lines of ashlar-io, on a simulated machine.
 *
 * The first byte of an input says which disk is open when the first line is run; what stands
 * between the semicolons of the rest are lines. When all is closed nothing may be left behind.
 *
 * What would end or leave the machine is caught outside of the tool: abort is not run, raise()
 * raises nothing, fopen() finds a few bytes under each name. Time is simulated, and so are the
 * files that `open` can reach. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/made.h"
#include "tools/io/shell.h"
#include "util/size.h"

enum { LINES_MAX = 12, LINE_BYTES_MAX = 300 };

/* What the numbers of a line add up to at most, but for those that are beyond everything. */
#define BYTES_MAX (640 * KiB)
#define BYTES_HUGE (1 * TiB)

/* The linker puts these in the place of the originals (--wrap), under the names that they have
 * where files may be large. */
int __wrap_raise(int number);
int __real_raise(int number);
FILE *__wrap_fopen64(const char *path, const char *mode);
FILE *__real_fopen64(const char *path, const char *mode);

int __wrap_raise(int number)
{
    return fuzz_running ? 0 : __real_raise(number);
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
    static char bytes[] = "what a file holds";
    return fuzz_running ? fmemopen(bytes, strlen(path) % 2 ? sizeof(bytes) : 1, "r")
                        : __real_fopen64(path, mode);
}

/* Whether a word speaks of no more bytes than can be dealt with, or of so many that it is refused
 * anyway. Options may have their value right behind them. */
static bool word_is_small(const char *word, uint64_t *sum)
{
    uint64_t bytes;
    if (word[0] == '-' && word[1] != '\0') {
        word += 2;
    }
    if (ash_size_parse(word, 1, &bytes) == 0 && bytes < BYTES_HUGE) {
        *sum += bytes;
    }
    return *sum <= BYTES_MAX;
}

static bool may_run(const char *line)
{
    char **words = g_strsplit(line, " ", -1);
    const char *name = "";
    bool may = strlen(line) <= LINE_BYTES_MAX;
    uint64_t sum = 0;
    for (char **word = words; may && *word != NULL; word++) {
        may = word_is_small(*word, &sum);
        name = name[0] == '\0' ? *word : name;
    }
    const struct ash_command *command = ash_command_find(name);
    may = may && (command == NULL || command->run != ash_shell_abort);
    g_strfreev(words);
    return may;
}

/* --- the machine --- */

static void open_first(struct ash_shell *shell, uint8_t which)
{
    static const char *const names[] = {"image", "base", "null-co://", "null-aio://"};
    struct ash_shell_open open = {.flags = ASH_SHELL_OPEN_FLAGS};
    if (which < ASH_ARRAY_SIZE(names)) {
        open.filename = names[which];
        open.format = which == 1 ? "raw" : NULL;
        ash_shell_open(shell, &open);
    }
}

/* The image is made once. */
static void make_files(struct fuzz_machine *machine)
{
    static uint8_t *image, base[MADE_BASE_BYTES];
    static size_t bytes;
    if (image == NULL) {
        struct fuzz_machine maker;
        fuzz_running = false; /* it outlives the input */
        fuzz_machine_init(&maker, 1);
        made_build(&maker, &made_images[8]);
        bytes = (size_t)ash_sim_file_bytes(maker.world, "image");
        image = g_malloc(bytes);
        ash_sim_file_read(maker.world, "image", 0, image, bytes);
        ash_sim_file_read(maker.world, "base", 0, base, sizeof(base));
        fuzz_machine_free(&maker);
        fuzz_running = true;
    }
    ash_sim_file_write(machine->world, "base", 0, base, sizeof(base));
    ash_sim_file_write(machine->world, "image", 0, image, bytes);
}

void fuzz_one(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input = {data, bytes};
    struct fuzz_machine machine;
    struct ash_shell shell = {0};
    uint8_t which = fuzz_u8(&input);
    fuzz_be_quiet();
    fuzz_machine_init(&machine, 1);
    make_files(&machine);
    fuzz_boot(&machine, 0);
    shell.loop = machine.loop;
    shell.misalign = which & 16;
    ash_co_queue_init(&shell.idle);
    open_first(&shell, which & 7);
    char *line;
    for (int i = 0; i < LINES_MAX && !shell.quit && (line = fuzz_part(&input)) != NULL; i++) {
        if (may_run(line)) {
            ash_shell_line(&shell, line);
        }
        g_free(line);
    }
    ash_shell_close(&shell);
    if (shell.in_flight > 0) {
        fuzz_fail("%u requests go on when all is closed", shell.in_flight);
    }
    fuzz_halt(&machine);
    fuzz_machine_free(&machine);
}
