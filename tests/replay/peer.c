/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What QEMU thinks of the images on a shelf: on real files, in memory where there is some. */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/replay/shelf.h"

enum { BATCH = 400 };

static char sentence[1200];

static bool make_directory(struct shelf *shelf)
{
    const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(shelf->directory, sizeof(shelf->directory), "%s/ashlar-replay-XXXXXX", root);
    return mkdtemp(shelf->directory) != NULL;
}

static bool put_file(const char *directory, uint32_t index, const void *data, size_t bytes,
                     uint64_t length)
{
    char path[320];
    snprintf(path, sizeof(path), "%s/f%u", directory, index);
    FILE *file = fopen(path, "wb");
    bool good = file && fwrite(data, 1, bytes, file) == bytes;
    good = file && fclose(file) == 0 && good;
    return good && truncate(path, (off_t)length) == 0;
}

/* The image and its chain in a directory of their own. */
static bool put_image(const char *directory, const struct shelf_image *image)
{
    bool good = g_mkdir_with_parents(directory, 0700) == 0;
    for (uint32_t i = 0; i < image->file_count && good; i++) {
        gsize bytes;
        const void *data = g_bytes_get_data(image->file[i], &bytes);
        good = put_file(directory, i, data, bytes, image->length[i]);
    }
    return good;
}

static void drop_image(const char *directory)
{
    char path[300];
    for (uint32_t i = 0; i < LOG_FILES; i++) {
        snprintf(path, sizeof(path), "%s/f%u", directory, i);
        unlink(path);
    }
    rmdir(directory);
}

/* --- check --- */

static uint64_t be64_at(const uint8_t *data, size_t size, uint64_t at)
{
    uint64_t value = 0;
    if (at + 8 <= size) {
        memcpy(&value, data + at, 8);
    }
    return be64toh(value);
}

static uint32_t be32_at(const uint8_t *data, size_t size, uint64_t at)
{
    return (uint32_t)(be64_at(data, size, at) >> 32);
}

static void keep(uint8_t *into, const uint8_t *data, size_t size, uint64_t at, uint64_t bytes)
{
    if (at < size) {
        memcpy(into + at, data + at, MIN(bytes, size - at));
    }
}

/* Keeps the tables that the entries of this one name. */
static void keep_named(uint8_t *into, const uint8_t *data, size_t size, uint64_t table,
                       uint64_t entries, uint64_t cluster)
{
    keep(into, data, size, table, entries * 8);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t place = be64_at(data, size, table + i * 8) & UINT64_C(0x00fffffffffffe00);
        if (place) {
            keep(into, data, size, place, cluster);
        }
    }
}

/* The image without its data. */
static uint8_t *tables_of(const struct shelf_image *image, gsize *size)
{
    const uint8_t *data = g_bytes_get_data(image->file[image->file_count - 1], size);
    uint8_t *into = g_malloc0(*size + 1);
    uint64_t cluster = UINT64_C(1) << (be32_at(data, *size, 20) & 31);
    keep(into, data, *size, 0, cluster);
    keep_named(into, data, *size, be64_at(data, *size, 40), be32_at(data, *size, 36), cluster);
    keep_named(into, data, *size, be64_at(data, *size, 48),
               be32_at(data, *size, 56) * (cluster / 8), cluster);
    return into;
}

static int run_check(struct shelf *shelf, const struct shelf_image *image, bool repair)
{
    char top[8];
    snprintf(top, sizeof(top), "f%u", image->file_count - 1);
    const char *check[] = {"check", "-f", "qcow2", top, NULL};
    const char *repairs[] = {"check", "-f", "qcow2", "-r", "all", top, NULL};
    return starter_run(&shelf->starter, shelf->directory, repair ? repairs : check);
}

/* A dirty image has to be one that can be repaired; else leaks, which we have found too, are the
 * worst. */
static const char *check_one(struct shelf *shelf, const struct shelf_image *image)
{
    char output[800];
    gsize size;
    uint8_t *tables = tables_of(image, &size);
    uint64_t hash = shelf_hash(tables, size, image->length[image->file_count - 1]);
    if (g_hash_table_contains(shelf->tables, &hash)) {
        g_free(tables);
        return NULL;
    }
    g_hash_table_add(shelf->tables, g_memdup2(&hash, sizeof(hash)));
    bool good = put_image(shelf->directory, image) &&
                put_file(shelf->directory, image->file_count - 1, tables, size,
                         image->length[image->file_count - 1]);
    g_free(tables);
    if (!good) {
        return "its files cannot be written";
    }
    shelf->checks++;
    int status = image->dirty ? run_check(shelf, image, true) : 0;
    if (status == 0) {
        status = run_check(shelf, image, false);
    }
    if (status == 0 || (status == 3 && image->leaks && !image->dirty)) {
        return NULL;
    }
    starter_output(&shelf->starter, output, sizeof(output));
    snprintf(sentence, sizeof(sentence), "qemu-img check ends with %d%s: %s", status,
             image->leaks ? "" : " (and we have found no leaks)", output);
    return sentence;
}

/* --- reads --- */

static bool write_commands(const struct shelf *shelf, uint32_t first, uint32_t count)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/commands", shelf->directory);
    FILE *file = fopen(path, "wb");
    for (uint32_t i = first; file && i < first + count; i++) {
        const struct shelf_image *image = shelf->fresh->pdata[i];
        snprintf(path, sizeof(path), "%s/%u", shelf->directory, i - first);
        if (!put_image(path, image)) {
            break;
        }
        fprintf(file, "open -r -o driver=qcow2 %u/f%u\nlength\nread -v 0 %" PRIu64 "\nclose\n",
                i - first, image->file_count - 1, image->bytes);
    }
    return file && fclose(file) == 0;
}

/* Takes a line of a dump: an offset, a colon, bytes in hexadecimal. False: it is none. */
static bool take_line(char *line, uint8_t *into, uint64_t size)
{
    while (!strncmp(line, "qemu-io> ", 9)) {
        line += 9;
    }
    char *at;
    uint64_t offset = strtoull(line, &at, 16);
    if (at == line || strncmp(at, ":  ", 3) != 0) {
        return false;
    }
    at += 3;
    for (uint32_t i = 0; i < 16 && offset + i < size; i++, at += 3) {
        into[offset + i] = (uint8_t)strtoul(at, NULL, 16);
    }
    return true;
}

static const char *read_lines(FILE *output, const struct shelf *shelf, uint32_t first,
                              uint32_t count, uint32_t *bad)
{
    char line[200];
    for (*bad = first; *bad < first + count; ++*bad) {
        const struct shelf_image *image = shelf->fresh->pdata[*bad];
        uint8_t *found = g_malloc0(image->bytes + 1);
        bool whole = false;
        while (!whole && fgets(line, sizeof(line), output)) {
            whole =
                !take_line(line, found, image->bytes) && strstr(line, "bytes at offset 0") != NULL;
        }
        bool same = memcmp(found, image->content, image->bytes) == 0;
        g_free(found);
        if (!whole || !same) {
            return whole ? "qemu-io reads other bytes than we do" : "qemu-io cannot read it";
        }
    }
    return NULL;
}

static const char *read_batch(struct shelf *shelf, uint32_t first, uint32_t count, uint32_t *bad)
{
    char command[200];
    if (!write_commands(shelf, first, count)) {
        return "its files cannot be written";
    }
    snprintf(command, sizeof(command), "cd %s && qemu-io <commands 2>/dev/null", shelf->directory);
    FILE *output = popen(command, "r");
    const char *wrong = output ? read_lines(output, shelf, first, count, bad) : "no qemu-io";
    while (output && fgets(command, sizeof(command), output)) {
    }
    if (output) {
        pclose(output);
    }
    for (uint32_t i = 0; i < count; i++) {
        snprintf(command, sizeof(command), "%s/%u", shelf->directory, i);
        drop_image(command);
    }
    shelf->read += count;
    return wrong;
}

/* What is fresh and has a length. */
const char *shelf_show(struct shelf *shelf, struct shelf_image **which)
{
    uint32_t bad = 0;
    if (!starter_begin(&shelf->starter)) {
        return NULL;
    }
    const char *wrong = make_directory(shelf) ? NULL : "no directory for QEMU";
    for (uint32_t i = 0; i < shelf->fresh->len && !wrong; i++) {
        bad = i;
        wrong = check_one(shelf, shelf->fresh->pdata[i]);
    }
    for (uint32_t i = 0; i < shelf->fresh->len && !wrong; i += BATCH) {
        wrong = read_batch(shelf, i, MIN(BATCH, shelf->fresh->len - i), &bad);
    }
    *which = wrong && bad < shelf->fresh->len ? shelf->fresh->pdata[bad] : NULL;
    g_ptr_array_set_size(shelf->fresh, 0);
    char path[300];
    snprintf(path, sizeof(path), "%s/commands", shelf->directory);
    unlink(path);
    drop_image(shelf->directory);
    starter_end(&shelf->starter);
    return wrong;
}
