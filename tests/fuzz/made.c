/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/made.h"
#include <string.h>
#include "block/image/image.h"

const struct made_image made_images[] = {
    {"v3-512", "cluster_size=512", 100 * 1024, 512, false},
    {"v3-4k", "cluster_size=4k", 1000 * 1024, 4096, false},
    {"v3-64k", "cluster_size=64k", 3 * MiB, 65536, false},
    {"v2-512", "compat=0.10,cluster_size=512", 70 * 1024, 512, false},
    {"v3-512-1bit", "cluster_size=512,refcount_bits=1", 100 * 1024, 512, false},
    {"v3-512-64bit", "cluster_size=512,refcount_bits=64", 100 * 1024, 512, false},
    {"v3-512-lazy", "cluster_size=512,lazy_refcounts=on", 100 * 1024, 512, false},
    {"v3-512-zstd", "cluster_size=512,compression_type=zstd", 100 * 1024, 512, false},
    {"v3-512-base", "cluster_size=512,backing_file=base,backing_fmt=raw", 100 * 1024, 512, false},
    {"v3-4k-base", "cluster_size=4k,backing_file=base,backing_fmt=raw,compression_type=zstd",
     500 * 1024, 4096, false},
    {"v3-512-full", "cluster_size=512,preallocation=metadata", 40 * 1024, 512, false},
    {"v3-512-unclean", "cluster_size=512,lazy_refcounts=on", 100 * 1024, 512, true},
    {"v2-4k-base", "compat=0.10,cluster_size=4k,backing_file=base,backing_fmt=raw", 300 * 1024,
     4096, false},
};
const unsigned made_image_count = ASH_ARRAY_SIZE(made_images);

uint8_t made_base_byte(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + 1);
}

uint8_t made_guest_byte(uint64_t cluster)
{
    return (uint8_t)(0x80 | (cluster * 5 + 3));
}

struct making {
    struct fuzz_machine *machine;
    const struct made_image *made;
    struct ash_disk *disk;
};

static json_t *options_of(const char *text)
{
    json_t *object = json_object();
    char **pairs = g_strsplit(text, ",", 0);
    for (char **pair = pairs; *pair; pair++) {
        char **two = g_strsplit(*pair, "=", 2);
        json_object_set_new(object, two[0], json_string(two[1]));
        g_strfreev(two);
    }
    g_strfreev(pairs);
    return object;
}

ASH_CO_FN static int create_and_open(struct making *making)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *options = options_of(making->made->options);
    int ret = ash_image_create(making->machine->loop, "image", "qcow2", making->made->bytes,
                               options, &error);
    json_decref(options);
    if (ret < 0) {
        fuzz_fail("cannot make %s: %s", making->made->name, error.message);
    }
    return fuzz_open(making->machine, "qcow2", ASH_NODE_WRITE | ASH_NODE_DISCARD, &making->disk);
}

/* Clusters at the beginning, in the second L2 table and at the end. */
ASH_CO_FN static int write_clusters(struct making *making)
{
    uint32_t unit = making->made->unit;
    uint64_t clusters = making->made->bytes / unit;
    uint8_t *buffer = g_malloc(unit);
    int ret = 0;
    for (uint64_t i = 0; i < clusters && ret == 0; i++) {
        if (i >= 14 && !(i >= 66 && i < 72) && i + 2 < clusters) {
            continue;
        }
        memset(buffer, made_guest_byte(i), unit);
        struct iovec vec = {buffer, unit};
        struct ash_io io = {.op = ASH_WRITE,
                            .flags = i % 7 >= 5 ? ASH_IO_COMPRESS : 0,
                            .offset = i * unit,
                            .bytes = unit,
                            .iov = ash_iov_of(&vec, 1)};
        if (i % 7 == 3) {
            ret = ash_disk_zero(making->disk, i * unit, unit, i & 1 ? ASH_REQ_UNMAP : 0);
        } else if (i % 7 != 4) {
            ret = ash_disk_io(making->disk, &io);
        }
    }
    if (ret == 0) {
        ret = ash_disk_zero(making->disk, 2 * (uint64_t)unit, unit, 0); /* with its place kept */
    }
    if (ret == 0) {
        ret = ash_disk_discard(making->disk, 9 * (uint64_t)unit, unit);
    }
    g_free(buffer);
    return ret == 0 ? ash_disk_flush(making->disk) : ret;
}

/* What the file holds now, without the room that was made ahead. */
static void keep_as_it_is(struct ash_sim_world *world, uint8_t **bytes, size_t *count)
{
    *count = (size_t)ash_sim_file_bytes(world, "image");
    *bytes = g_malloc(*count);
    ash_sim_file_read(world, "image", 0, *bytes, *count);
    while (*count > 0 && (*bytes)[*count - 1] == 0) {
        (*count)--;
    }
}

static int make(void *opaque)
{
    ash_co_assert_inside();
    struct making *making = opaque;
    uint8_t *bytes = NULL;
    size_t count = 0;
    int ret = create_and_open(making);
    if (ret < 0 || write_clusters(making) < 0) {
        fuzz_fail("cannot fill %s", making->made->name);
    }
    if (making->made->unclean) {
        keep_as_it_is(making->machine->world, &bytes, &count);
    }
    ret = ash_co_disk_close(making->disk, NULL);
    if (bytes != NULL) {
        ash_sim_file_write(making->machine->world, "image", 0, bytes, count);
        g_free(bytes);
    }
    return ret;
}

void made_build(struct fuzz_machine *machine, const struct made_image *made)
{
    struct making making = {.machine = machine, .made = made};
    uint8_t base[MADE_BASE_BYTES];
    for (uint32_t i = 0; i < sizeof(base); i++) {
        base[i] = made_base_byte(i);
    }
    ash_sim_file_write(machine->world, "base", 0, base, sizeof(base));
    fuzz_boot(machine, 0);
    if (fuzz_call(machine, make, &making) < 0) {
        fuzz_fail("cannot close %s", made->name);
    }
    fuzz_halt(machine);
}
