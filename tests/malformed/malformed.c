/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every header field and table entry of a qcow2 image, at values that hurt: alone, and in pairs.
 *
 *     malformed BASE                       every value of every field, and every pair of fields,
 * each at a value of its own, drawn by --seed malformed BASE --alone N --pairs N   every Nth of the
 * values, of the pairs; 0: none malformed BASE --only FIELD=HEXh[,FIELD=HEXh]...   one image again
 *     malformed BASE --list                the fields
 *
 * The first failure ends the program, which prints the command that repeats it. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "tests/malformed/session.h"
#include "util/prng.h"

/* Not a measure of speed: what runs for this long runs for ever. */
#define HANG_SECONDS 5

enum { CHANGES_MAX = 8 };

struct change {
    const struct field *field;
    GBytes *value;
};

struct run {
    const char *program;
    struct base *base;
    uint8_t *bytes; /* of the base, and then those of a case */
    unsigned alone;
    unsigned pairs;
    uint64_t seed;
    struct totals totals;
};

static char running[4096] = "nothing yet";
static char repeat[4096];

/* --- telling --- */

static void say(const char *text)
{
    (void)!write(2, text, strlen(text));
}

static void say_which(int number)
{
    say("\nFAILED ");
    say(running);
    say(", step ");
    say(session_step);
    say(number == SIGPROF ? ": it does not end\nto repeat: " : "\nto repeat: ");
    say(repeat);
    say("\n");
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void tell_failures(void)
{
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF};
    static uint8_t stack[64 * 1024];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = say_which, .sa_flags = SA_ONSTACK};
    sigaltstack(&alternative, NULL);
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(numbers); i++) {
        struct sigaction old;
        sigaction(numbers[i], NULL, &old);
        if (old.sa_handler == SIG_DFL) { /* else a sanitizer tells more, and aborts */
            sigaction(numbers[i], &action, NULL);
        }
    }
}

/* --- cases --- */

static void append_hex(GString *text, GBytes *value)
{
    gsize count;
    const uint8_t *bytes = g_bytes_get_data(value, &count);
    for (gsize i = 0; i < count; i++) {
        g_string_append_printf(text, "%02x", bytes[i]);
    }
    g_string_append_c(text, 'h');
}

static void name_case(const struct run *run, const struct change *changes, unsigned count)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < count; i++) {
        g_string_append_printf(text, "%s%s=", i > 0 ? "," : "", changes[i].field->name);
        append_hex(text, changes[i].value);
    }
    snprintf(running, sizeof(running), "%s %s", run->base->made->name, text->str);
    snprintf(repeat, sizeof(repeat), "%s %s --only '%s'", run->program, run->base->made->name,
             text->str);
    g_string_free(text, TRUE);
}

static void run_case(struct run *run, const struct change *changes, unsigned count)
{
    const struct itimerval hang = {.it_value = {HANG_SECONDS, 0}};
    struct base *base = run->base;
    memcpy(run->bytes, base->bytes, base->count);
    for (unsigned i = 0; i < count; i++) {
        gsize length;
        uint64_t offset = changes[i].field->offset;
        const void *value = g_bytes_get_data(changes[i].value, &length);
        if (offset < base->count) {
            memcpy(run->bytes + offset, value, ASH_MIN(length, base->count - offset));
        }
    }
    name_case(run, changes, count);
    setitimer(ITIMER_PROF, &hang, NULL);
    session_run(base, run->bytes, base->count, &run->totals);
}

static void run_alone(struct run *run)
{
    unsigned n = 0;
    for (unsigned i = 0; i < run->base->fields->len; i++) {
        const struct field *field = g_ptr_array_index(run->base->fields, i);
        for (unsigned k = 0; k < field->values->len; k++, n++) {
            if (n % run->alone == run->seed % run->alone) {
                struct change change = {field, g_ptr_array_index(field->values, k)};
                run_case(run, &change, 1);
            }
        }
    }
}

static struct change draw(const struct field *field, struct ash_prng *prng)
{
    uint64_t index = ash_prng_below(prng, field->values->len);
    return (struct change){field, g_ptr_array_index(field->values, index)};
}

static void run_pairs(struct run *run)
{
    const GPtrArray *fields = run->base->fields;
    unsigned n = 0;
    for (unsigned i = 0; i < fields->len; i++) {
        for (unsigned k = i + 1; k < fields->len; k++, n++) {
            struct ash_prng prng;
            ash_prng_seed(&prng, run->seed << 32 | n);
            struct change changes[2] = {draw(g_ptr_array_index(fields, i), &prng),
                                        draw(g_ptr_array_index(fields, k), &prng)};
            if (n % run->pairs == run->seed % run->pairs) {
                run_case(run, changes, 2);
            }
        }
    }
}

/* --- the whole --- */

/* The image as it is opens, is sound, and takes all that is done with it. */
static void run_untouched(struct run *run)
{
    run_case(run, NULL, 0);
    const struct totals *totals = &run->totals;
    for (unsigned step = 0; step < STEP_COUNT; step++) {
        if (totals->refused[step] > 0) {
            fuzz_fail("a good image is refused");
        }
    }
    if (totals->damaged + totals->writes_failed > 0) {
        fuzz_fail("a good image is damaged, or writes to it fail");
    }
}

/* A test in which all are refused, or none, has not done what it is for. */
static void tell(const struct run *run)
{
    const struct totals *totals = &run->totals;
    printf("%s: %u images; %u read and %u refused, %u written to and %u refused, %u of %u found "
           "damaged, %u repaired; a step takes at most %.3f s of the disk and %.1f MiB\n",
           run->base->made->name, totals->cases, totals->opened[STEP_READ],
           totals->refused[STEP_READ], totals->opened[STEP_WRITE], totals->refused[STEP_WRITE],
           totals->damaged, totals->opened[STEP_CHECK], totals->repaired,
           (double)totals->ns_max / 1e9, (double)totals->bytes_max / MiB);
    bool many = run->alone >= 1 && run->alone <= 3;
    if (many && (totals->opened[STEP_WRITE] * 10 < totals->cases ||
                 totals->refused[STEP_WRITE] * 10 < totals->cases || totals->repaired == 0)) {
        fuzz_fail("nearly all images are refused, or none is");
    }
}

static bool parse_change(const struct run *run, const char *text, struct change *change)
{
    char **two = g_strsplit(text, "=", 2);
    change->field = two[0] != NULL && two[1] != NULL ? base_field(run->base, two[0]) : NULL;
    size_t digits = change->field != NULL ? strspn(two[1], "0123456789abcdef") : 0;
    bool good = change->field != NULL && digits % 2 == 0 && strcmp(two[1] + digits, "h") == 0;
    if (good) {
        uint8_t *bytes = g_malloc(digits / 2 + 1);
        for (size_t i = 0; i < digits / 2; i++) {
            bytes[i] = (uint8_t)(g_ascii_xdigit_value(two[1][2 * i]) << 4 |
                                 g_ascii_xdigit_value(two[1][2 * i + 1]));
        }
        change->value = g_bytes_new_take(bytes, digits / 2);
    }
    g_strfreev(two);
    return good;
}

static int run_only(struct run *run, const char *text)
{
    char **parts = g_strsplit(text, ",", CHANGES_MAX);
    struct change changes[CHANGES_MAX] = {0};
    unsigned count = 0;
    bool good = true;
    for (; good && parts[count] != NULL; count++) {
        good = parse_change(run, parts[count], &changes[count]);
        if (!good) {
            fprintf(stderr, "'%s' is not FIELD=HEXh\n", parts[count]);
            break;
        }
    }
    if (good) {
        run_untouched(run); /* the first has to fill what stays */
        run_case(run, changes, count);
    }
    for (unsigned i = 0; i < count; i++) {
        g_bytes_unref(changes[i].value);
    }
    g_strfreev(parts);
    return good ? 0 : 2;
}

static void list_fields(const struct run *run)
{
    for (unsigned i = 0; i < run->base->fields->len; i++) {
        const struct field *field = g_ptr_array_index(run->base->fields, i);
        printf("%s: %u bytes at %" PRIu64 ", %u values\n", field->name, field->bytes, field->offset,
               field->values->len);
    }
}

static int usage(void)
{
    fprintf(stderr, "malformed BASE [--alone N] [--pairs N] [--seed N] [--only CHANGES] [--list]\n"
                    "bases:");
    for (unsigned i = 0; base_names[i] != NULL; i++) {
        fprintf(stderr, " %s", base_names[i]);
    }
    fprintf(stderr, "\n");
    return 2;
}

static int act(struct run *run, const char *only, bool list)
{
    if (list) {
        list_fields(run);
        return 0;
    }
    if (only != NULL) {
        return run_only(run, only);
    }
    run_untouched(run);
    if (run->alone > 0) {
        run_alone(run);
    }
    if (run->pairs > 0) {
        run_pairs(run);
    }
    tell(run);
    return 0;
}

int main(int argc, char **argv)
{
    struct run run = {.program = argv[0], .alone = 1, .pairs = 1, .seed = 1};
    const char *only = NULL;
    bool list = false;
    for (int i = 2; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--list") == 0) {
            list = true;
        } else if (strcmp(argv[i], "--only") == 0 && more) {
            only = argv[++i];
        } else if (strcmp(argv[i], "--alone") == 0 && more) {
            run.alone = (unsigned)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--pairs") == 0 && more) {
            run.pairs = (unsigned)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && more) {
            run.seed = strtoull(argv[++i], NULL, 10);
        } else {
            return usage();
        }
    }
    tell_failures();
    run.base = argc > 1 ? base_new(argv[1]) : NULL;
    if (run.base == NULL) {
        return usage();
    }
    run.bytes = g_malloc(run.base->count);
    int status = act(&run, only, list);
    g_free(run.bytes);
    base_free(run.base);
    return status;
}
