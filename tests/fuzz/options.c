/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* options: texts that people write: sizes, option lists, descriptions, names of files.
 *
 * The first byte of an input says what the rest is: a line for each of `kinds`.
 *
 *  1. What is refused is explained.
 *  2. A size that is shown in bytes is read as the same; a description written as text is read as
 *     the same.
 *  3. No file of the host is opened: the loop's engine is the simulator, and open() and fopen() are
 *     watched. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/image/image.h"
#include "tests/fuzz/fuzz.h"
#include "tools/common/tool.h"
#include "util/json.h"
#include "util/size.h"

#define CREATED_BYTES_MAX (64 * MiB)

/* The linker puts these in the place of the originals (--wrap), under the names that they have
 * where files may be large. */
int __wrap_open64(const char *path, int flags, ...);
int __real_open64(const char *path, int flags, ...);
FILE *__wrap_fopen64(const char *path, const char *mode);
FILE *__real_fopen64(const char *path, const char *mode);

int __wrap_open64(const char *path, int flags, ...)
{
    if (fuzz_running) {
        fuzz_fail("a file of the host is opened: %s", path);
    }
    return __real_open64(path, flags, 0644);
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
    if (fuzz_running) {
        fuzz_fail("a file of the host is opened: %s", path);
    }
    return __real_fopen64(path, mode);
}

static void expect_sentence(int ret, const struct ash_error *error, const char *text)
{
    if (ret < 0 && (error->message[0] == '\0' || error->code >= 0)) {
        fuzz_fail("refused with %d and nothing is said: %s", ret, text);
    }
}

/* --- kinds --- */

static void try_size(const char *text)
{
    static const uint64_t units[] = {1, 512, KiB, MiB};
    char shown[32], bytes_text[32];
    for (size_t i = 0; i < ASH_ARRAY_SIZE(units); i++) {
        uint64_t bytes, again;
        if (ash_size_parse(text, units[i], &bytes) < 0) {
            continue;
        }
        if (bytes > INT64_MAX) {
            fuzz_fail("a size beyond all sizes: %" PRIu64, bytes);
        }
        snprintf(bytes_text, sizeof(bytes_text), "%" PRIu64, bytes);
        ash_size_human(bytes, shown, sizeof(shown));
        if (shown[0] == '\0' || ash_size_parse(bytes_text, 1, &again) < 0 || again != bytes) {
            fuzz_fail("%" PRIu64 " bytes are not read as such", bytes);
        }
    }
}

static void try_text_form(const json_t *description)
{
    struct ash_error error = ASH_ERROR_INIT;
    char *text = ash_json_text(description);
    json_t *again = text != NULL ? ash_json_parse(text, &error) : NULL;
    /* Keys with a dot in them nest, so a description is only the same once they do. */
    if (text == NULL || (again != NULL && !json_equal(description, again))) {
        fuzz_fail("a description is read as another: %s", text);
    }
    json_decref(again);
    free(text);
}

struct opening {
    struct fuzz_machine machine;
    const json_t *description;
    uint32_t flags;
    const char *filename; /* of one to create */
    const char *format;
    const json_t *options;
    uint64_t bytes;
};

static int open_and_close(void *opaque)
{
    ash_co_assert_inside();
    struct opening *opening = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk;
    int ret = ash_co_disk_open(opening->machine.loop, opening->description, opening->flags, &disk,
                               &error);
    expect_sentence(ret, &error, "a description");
    if (ret == 0) {
        uint8_t sector[512];
        ash_disk_read(disk, 0, sector, MIN(ash_disk_bytes(disk), sizeof(sector)));
        json_decref(ash_image_info(ash_disk_node(disk)));
        ash_co_disk_close(disk, NULL);
    }
    return 0;
}

static void try_opening(const json_t *description)
{
    struct opening opening = {.description = description};
    uint8_t bytes[4096] = "some text";
    fuzz_machine_init(&opening.machine, 1);
    ash_sim_file_write(opening.machine.world, "image", 0, bytes, sizeof(bytes));
    fuzz_boot(&opening.machine, 0);
    fuzz_call(&opening.machine, open_and_close, &opening);
    opening.flags = ASH_NODE_WRITE | ASH_NODE_DISCARD;
    fuzz_call(&opening.machine, open_and_close, &opening);
    fuzz_halt(&opening.machine);
    fuzz_machine_free(&opening.machine);
}

static void try_json(const char *text)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = ash_json_parse(text, &error);
    expect_sentence(description == NULL ? -1 : 0, &error, text);
    if (description != NULL) {
        try_text_form(description);
        try_opening(description);
        json_decref(description);
    }
}

static void try_keyval(const char *text)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_decref(ash_json_from_keyval(text, NULL, NULL));
    json_t *description = ash_json_from_keyval(text, "file", &error);
    expect_sentence(description == NULL ? -1 : 0, &error, text);
    if (description != NULL) {
        try_text_form(description);
        try_opening(description);
        json_decref(description);
    }
}

/* "name", or "format name". */
static void try_filename(const char *text)
{
    struct ash_error error = ASH_ERROR_INIT;
    const char *space = strchr(text, ' ');
    char *format = space != NULL ? g_strndup(text, (gsize)(space - text)) : NULL;
    const char *filename = space != NULL ? space + 1 : text;
    json_t *description = ash_describe(filename, format, &error);
    expect_sentence(description == NULL ? -1 : 0, &error, text);
    if (description != NULL) {
        try_opening(description);
        json_decref(description);
    }
    g_free(ash_path_beside(filename, text));
    g_free(ash_path_beside(text, filename));
    g_free(ash_tool_host_path(text));
    g_free(format);
}

static int create(void *opaque)
{
    ash_co_assert_inside();
    struct opening *opening = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_image_create(opening->machine.loop, opening->filename, opening->format,
                               opening->bytes, opening->options, &error);
    expect_sentence(ret, &error, "create options");
    struct ash_measure measure;
    error = (struct ash_error)ASH_ERROR_INIT;
    ret = ash_image_measure(opening->machine.loop, opening->format, opening->options,
                            opening->bytes, NULL, &measure, &error);
    expect_sentence(ret, &error, "create options to measure");
    return 0;
}

static void try_creating(const struct ash_tool_options *options, const char *format)
{
    struct opening opening = {.filename = "new", .format = format, .bytes = 1 * MiB};
    const char *size = ash_tool_options_get(options, "size");
    json_t *rest = json_deep_copy(options->list);
    if (size != NULL) {
        ash_size_parse(size, 1, &opening.bytes);
        json_object_del(rest, "size");
    }
    opening.options = rest;
    if (opening.bytes <= CREATED_BYTES_MAX) {
        fuzz_machine_init(&opening.machine, 1);
        opening.machine.only = "new";
        fuzz_boot(&opening.machine, 0);
        fuzz_call(&opening.machine, create, &opening);
        fuzz_halt(&opening.machine);
        fuzz_machine_free(&opening.machine);
    }
    json_decref(rest);
}

static void try_optlist(const char *text)
{
    for (const struct ash_driver *const *driver = ash_drivers; *driver != NULL; driver++) {
        struct ash_tool_options options = {NULL, false};
        struct ash_error error = ASH_ERROR_INIT;
        if ((*driver)->create != NULL && ash_tool_options_add(&options, text)) {
            int ret = ash_tool_options_check(&options, *driver, "new", &error);
            expect_sentence(ret, &error, text);
            if (ret == 0) {
                try_creating(&options, (*driver)->name);
            }
        }
        ash_tool_options_clear(&options);
    }
}

static void (*const kinds[])(const char *text) = {
    try_size,     /* '0' */
    try_json,     /* '1' */
    try_keyval,   /* '2' */
    try_filename, /* '3' */
    try_optlist,  /* '4' */
};

void fuzz_one(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input = {data, bytes};
    fuzz_be_quiet();
    uint8_t kind = fuzz_u8(&input) - '0';
    char *text = fuzz_text(&input);
    if (kind < ASH_ARRAY_SIZE(kinds)) {
        kinds[kind](text);
    }
    g_free(text);
}
