/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* seeds --decode|--header|--image DIRECTORY: writes the seeds of that target: clusters that our own
 * coders made, the beginnings of valid images, and these images, each under a head that makes the
 * target do everything with it. The same files in every run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "tests/fuzz/made.h"

enum { HEAD_BYTES = 64, HEADER_BYTES_MAX = 4096, FILE_BYTES_MAX = 128 * 1024 };

/* Requests of every kind over the places that the images were written to. */
static const uint8_t requests[][4] = {
    {1, 2, 9, 1},    {0, 0, 4, 0},       {3, 3, 8, 2},    {4, 1, 8, 2},     {5, 5, 8, 0},
    {1, 0x45, 3, 0}, {7, 0, 40, 0},      {1, 0xc1, 2, 4}, {6, 0, 0, 0},     {4, 0x84, 9, 0},
    {2, 0x90, 5, 3}, {0, 0xc0, 1, 0x80}, {7, 0, 90, 1},   {5, 0x80, 10, 0}, {0, 0x81, 6, 0},
};

static void put(const char *directory, const char *name, const uint8_t *bytes, size_t count)
{
    char *path = g_build_filename(directory, name, NULL);
    GError *error = NULL;
    if (!g_file_set_contents(path, (const char *)bytes, (gssize)count, &error)) {
        fprintf(stderr, "%s\n", error->message);
        exit(1);
    }
    g_free(path);
}

static void put_image(const char *directory, unsigned index, bool header)
{
    struct fuzz_machine machine;
    fuzz_machine_init(&machine, 1);
    made_build(&machine, &made_images[index]);
    size_t count = (size_t)ash_sim_file_bytes(machine.world, "image");
    uint8_t *bytes = g_malloc0(HEAD_BYTES + count);
    bytes[1] = 0x03 | (uint8_t)(index % 4 * 4);
    bytes[2] = sizeof(requests) / sizeof(requests[0]);
    memcpy(bytes + 4, requests, sizeof(requests));
    ash_sim_file_read(machine.world, "image", 0, bytes + HEAD_BYTES, count);
    if (header) {
        put(directory, made_images[index].name, bytes + HEAD_BYTES, MIN(count, HEADER_BYTES_MAX));
    } else if (count <= FILE_BYTES_MAX) {
        put(directory, made_images[index].name, bytes, HEAD_BYTES + count);
    }
    g_free(bytes);
    fuzz_machine_free(&machine);
}

/* One cluster under the head of target `decode`. */
static void put_coded(const char *directory, unsigned kind, unsigned content)
{
    struct ash_qcow2_state *state = g_new0(struct ash_qcow2_state, 1);
    struct ash_node node = {.state = state};
    uint8_t plain[4096], coded[1 + sizeof(plain)];
    for (size_t i = 0; i < sizeof(plain); i++) {
        plain[i] = (uint8_t)(content == 0   ? 0
                             : content == 1 ? i * i / 64
                             : content == 2 ? i % 7 * 30
                                            : i * 2654435761u >> (i % 16 < 4 ? 8 : 29));
    }
    state->coders = ash_qcow2_coders_new(kind == 0 ? QCOW2_COMPRESSION_ZLIB : QCOW2_COMPRESSION_ZSTD);
    coded[0] = (uint8_t)(kind | 3 << 1);
    int bytes = ash_qcow2_encode(&node, plain, sizeof(plain), coded + 1, sizeof(plain));
    if (bytes > 0) {
        char *name = g_strdup_printf("%s-%u", kind == 0 ? "zlib" : "zstd", content);
        put(directory, name, coded, (size_t)bytes + 1);
        g_free(name);
    }
    ash_qcow2_coders_free(state->coders);
    g_free(state);
}

int main(int argc, char **argv)
{
    bool decode = argc == 3 && strcmp(argv[1], "--decode") == 0;
    bool header = argc == 3 && strcmp(argv[1], "--header") == 0;
    bool image = argc == 3 && strcmp(argv[1], "--image") == 0;
    if ((!decode && !header && !image) || g_mkdir_with_parents(argv[2], 0755) < 0) {
        fprintf(stderr, "usage: %s --decode|--header|--image DIRECTORY\n", argv[0]);
        return 2;
    }
    for (unsigned i = 0; decode && i < 8; i++) {
        put_coded(argv[2], i % 2, i / 2);
    }
    for (unsigned i = 0; !decode && i < made_image_count; i++) {
        put_image(argv[2], i, header);
    }
    return 0;
}
