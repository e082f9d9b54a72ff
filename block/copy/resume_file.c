/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file of a resumable job; the invariants stand in the header. */
#include "block/copy/resume_file.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include <zlib.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "block/image/image.h"
#include "util/assert.h"
#include "util/engine/co_aio.h"
#include "util/iov.h"
#include "util/loop/loop.h"
#include "util/range.h"

#define MAGIC "ASHLARJ1"
#define SECTOR_BYTES 512u
#define ABOUT_AT SECTOR_BYTES
#define BITS_AT UINT64_C(4096)
#define PAGE_BYTES UINT64_C(4096)
#define PAGE_BITS (PAGE_BYTES * 8)
#define PART_BYTES_MIN 512u
#define PART_BYTES_MAX (UINT64_C(1) << 31)

/* On disk only the three in the middle. */
enum { PHASE_NONE, PHASE_RUNNING, PHASE_DONE, PHASE_BROKEN, PHASE_BEGINNING };

struct disk_header {
    char magic[8];
    uint32_t version;
    uint32_t kind;
    uint32_t phase;
    uint32_t checksum; /* crc32 of the struct with 0 here */
    uint64_t part_bytes;
    uint64_t size_bytes;
    uint8_t id[ASH_MARK_BYTES];
};
static_assert(sizeof(struct disk_header) == 56, "on-disk header");

/* What the job is about: all that lies between the header and the bits. */
struct disk_about {
    uint32_t bytes;    /* of the text; 0: there is none */
    uint32_t checksum; /* crc32 of the text */
    char text[BITS_AT - ABOUT_AT - 8];
};
static_assert(sizeof(struct disk_about) == BITS_AT - ABOUT_AT, "on-disk text");

static uint64_t bit_count(const struct ash_resume_file *file)
{
    return ash_div_round_up(file->size_bytes, file->part_bytes);
}

static uint64_t file_bytes(const struct ash_resume_file *file)
{
    return BITS_AT + ash_div_round_up(bit_count(file), PAGE_BITS) * PAGE_BYTES;
}

/* --- the header --- */

static uint32_t checksum_of(struct disk_header header)
{
    header.checksum = 0;
    return (uint32_t)crc32(0, (const Bytef *)&header, sizeof(header));
}

ASH_CO_FN static int file_write(struct ash_resume_file *file, uint64_t offset, const void *bytes,
                                uint64_t count)
{
    ash_user_begin(&file->user); /* guests wait for it: no gate holds it up */
    int ret = ash_edge_write(file->edge, offset, bytes, count, 0);
    file->answers++;
    ash_user_leave(&file->user);
    return ret;
}

ASH_CO_FN static int file_flush(struct ash_resume_file *file)
{
    ash_user_begin(&file->user);
    int ret = ash_edge_flush(file->edge);
    file->answers++;
    ash_user_leave(&file->user);
    return ret;
}

/* Stably. */
ASH_CO_FN static int write_header(struct ash_resume_file *file, uint32_t phase)
{
    uint8_t sector[SECTOR_BYTES] = {0};
    struct disk_header header = {
        .version = htole32(1),
        .kind = htole32(file->kind),
        .phase = htole32(phase),
        .part_bytes = htole64(file->part_bytes),
        .size_bytes = htole64(file->size_bytes),
    };
    memcpy(header.magic, MAGIC, sizeof(header.magic));
    memcpy(header.id, file->id, sizeof(header.id));
    header.checksum = htole32(checksum_of(header));
    memcpy(sector, &header, sizeof(header));
    int ret = file_flush(file);
    ret = ret < 0 ? ret : file_write(file, 0, sector, sizeof(sector));
    ret = ret < 0 ? ret : file_flush(file);
    file->phase = ret == 0 ? phase : file->phase;
    return ret;
}

/* Takes over what the header says. 1: there is none, the file is new. */
static int take_header(struct ash_resume_file *file, const uint8_t *sector, struct ash_error *error)
{
    struct disk_header header;
    memcpy(&header, sector, sizeof(header));
    if (ash_buffer_is_zero(sector, SECTOR_BYTES)) {
        return 1;
    }
    if (memcmp(header.magic, MAGIC, sizeof(header.magic)) != 0) {
        return ash_error_set(error, -EINVAL, "'%s' is not the state file of a job", file->name);
    }
    uint64_t part = le64toh(header.part_bytes);
    uint64_t size = le64toh(header.size_bytes);
    if (le32toh(header.checksum) != checksum_of(header) || le32toh(header.version) != 1 ||
        part < PART_BYTES_MIN || part > PART_BYTES_MAX || (part & (part - 1)) != 0 ||
        size > INT64_MAX) {
        return ash_error_set(error, -EINVAL, "'%s': the header is damaged, or of a later version",
                             file->name);
    }
    if (le32toh(header.kind) != file->kind) {
        return ash_error_set(error, -EINVAL, "'%s' is the state file of another kind of job",
                             file->name);
    }
    file->phase = le32toh(header.phase);
    if (file->phase == PHASE_DONE) {
        return ash_error_set(error, -EEXIST,
                             "'%s' is the state file of a job that has ended; remove it to start "
                             "another one",
                             file->name);
    }
    if (file->phase != PHASE_RUNNING) {
        return ash_error_set(error, -EUCLEAN,
                             "'%s': its job cannot be resumed, as what it was to copy is lost; "
                             "remove it to start over",
                             file->name);
    }
    file->part_bytes = part;
    file->size_bytes = size;
    memcpy(file->id, header.id, sizeof(header.id));
    return 0;
}

/* --- what the job is about --- */

int ash_resume_set_about(struct ash_resume_file *file, const char *about, struct ash_error *error)
{
    if (strlen(about) > sizeof(((struct disk_about *)0)->text)) {
        return ash_error_set(error, -ENAMETOOLONG, "'%s' has no room for the names of the job",
                             file->name);
    }
    g_free(file->about);
    file->about = g_strdup(about);
    return 0;
}

ASH_CO_FN static int write_about(struct ash_resume_file *file)
{
    struct disk_about *about = g_new0(struct disk_about, 1);
    size_t bytes = file->about != NULL ? strlen(file->about) : 0;
    if (bytes > 0) {
        memcpy(about->text, file->about, bytes);
    }
    about->bytes = htole32((uint32_t)bytes);
    about->checksum = htole32((uint32_t)crc32(0, (const Bytef *)about->text, (uInt)bytes));
    int ret = file_write(file, ABOUT_AT, about, sizeof(*about));
    g_free(about);
    return ret;
}

ASH_CO_FN static int read_about(struct ash_resume_file *file, struct ash_error *error)
{
    struct disk_about *about = g_new0(struct disk_about, 1);
    ash_user_enter(&file->user);
    int ret = ash_edge_read(file->edge, ABOUT_AT, about, sizeof(*about));
    ash_user_leave(&file->user);
    uint32_t bytes = le32toh(about->bytes);
    if (ret < 0) {
        ash_error_errno(error, ret, "Reading '%s' failed", file->name);
    } else if (bytes > sizeof(about->text) ||
               le32toh(about->checksum) != crc32(0, (const Bytef *)about->text, bytes)) {
        ret = ash_error_set(error, -EINVAL, "'%s': what it says of its job is damaged", file->name);
    } else if (bytes > 0) {
        file->about = g_strndup(about->text, bytes);
    }
    g_free(about);
    return ret;
}

/* --- bits --- */

ASH_CO_FN static int read_bits(struct ash_resume_file *file, struct ash_error *error)
{
    uint8_t *page = g_malloc(PAGE_BYTES);
    uint64_t bits = bit_count(file);
    int ret = 0;
    for (uint64_t first = 0; first < bits && ret == 0; first += PAGE_BITS) {
        ash_user_enter(&file->user);
        ret = ash_edge_read(file->edge, BITS_AT + first / 8, page, PAGE_BYTES);
        ash_user_leave(&file->user);
        for (uint64_t i = 0; i < PAGE_BITS && first + i < bits && ret == 0; i++) {
            if ((page[i / 8] & (1u << (i % 8))) != 0) {
                ash_hbitmap_set(&file->now, first + i, 1);
            }
        }
    }
    g_free(page);
    return ret < 0 ? ash_error_errno(error, ret, "Reading '%s' failed", file->name) : 0;
}

static int make_maps(struct ash_resume_file *file)
{
    uint64_t bits = bit_count(file);
    struct ash_hbitmap *maps[] = {&file->now, &file->writing, &file->stable, &file->idle};
    int ret = ash_hbitmap_init(&file->pages, ash_div_round_up(bits, PAGE_BITS));
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]) && ret == 0; i++) {
        ret = ash_hbitmap_init(maps[i], bits);
    }
    return ret;
}

/* The bits that a range touches; none beyond what the file covers. */
static void bits_of(const struct ash_resume_file *file, uint64_t offset, uint64_t bytes,
                    uint64_t *first, uint64_t *count)
{
    uint64_t end = offset < file->size_bytes ? ASH_MIN(bytes, file->size_bytes - offset) : 0;
    *first = offset / file->part_bytes;
    *count = end == 0 ? 0 : ash_div_round_up(offset + end, file->part_bytes) - *first;
}

static bool map_is(const struct ash_hbitmap *map, uint64_t first, uint64_t count, bool value)
{
    uint64_t other = value ? ash_hbitmap_next_clear(map, first, first + count)
                           : ash_hbitmap_next_set(map, first, first + count);
    return other == ASH_HBITMAP_NONE;
}

static void map_put(struct ash_hbitmap *map, uint64_t first, uint64_t count, bool value)
{
    if (value) {
        ash_hbitmap_set(map, first, count);
    } else {
        ash_hbitmap_reset(map, first, count);
    }
}

void ash_resume_put(struct ash_resume_file *file, uint64_t offset, uint64_t bytes, bool value)
{
    uint64_t first;
    uint64_t count;
    bits_of(file, offset, bytes, &first, &count);
    if (count == 0 ||
        (map_is(&file->now, first, count, value) && map_is(&file->writing, first, count, value))) {
        return;
    }
    map_put(&file->now, first, count, value);
    uint64_t page = first / PAGE_BITS;
    ash_hbitmap_set(&file->pages, page, (first + count - 1) / PAGE_BITS - page + 1);
    file->changes++;
}

bool ash_resume_is(const struct ash_resume_file *file, uint64_t offset, uint64_t bytes, bool value)
{
    uint64_t first;
    uint64_t count;
    bits_of(file, offset, bytes, &first, &count);
    return count == 0 || (map_is(&file->now, first, count, value) &&
                          map_is(&file->writing, first, count, value) &&
                          map_is(&file->stable, first, count, value));
}

/* One page of `from`, as it is on disk. */
static void page_of(const struct ash_hbitmap *from, uint64_t page, uint8_t *bytes)
{
    uint64_t end = ASH_MIN((page + 1) * PAGE_BITS, from->bits);
    memset(bytes, 0, PAGE_BYTES);
    for (uint64_t i = page * PAGE_BITS;
         (i = ash_hbitmap_next_set(from, i, end)) != ASH_HBITMAP_NONE; i++) {
        bytes[i % PAGE_BITS / 8] |= (uint8_t)(1u << (i % 8));
    }
}

/* Makes a page of `to` what it is in `from`. */
static void copy_page(struct ash_hbitmap *to, const struct ash_hbitmap *from, uint64_t page)
{
    uint64_t first = page * PAGE_BITS;
    uint64_t end = ASH_MIN(first + PAGE_BITS, from->bits);
    ash_hbitmap_reset(to, first, end - first);
    while ((first = ash_hbitmap_next_set(from, first, end)) != ASH_HBITMAP_NONE) {
        uint64_t next = ash_hbitmap_next_clear(from, first, end);
        next = next == ASH_HBITMAP_NONE ? end : next;
        ash_hbitmap_set(to, first, next - first);
        first = next;
    }
}

/* What `now` is at this moment is on its way to disk. */
static int take_pages(struct ash_resume_file *file, struct ash_hbitmap *taken)
{
    int ret = ash_hbitmap_copy(taken, &file->pages);
    for (uint64_t page = 0;
         ret == 0 && (page = ash_hbitmap_next_set(taken, page, taken->bits)) != ASH_HBITMAP_NONE;
         page++) {
        copy_page(&file->writing, &file->now, page);
    }
    if (ret == 0) {
        ash_hbitmap_reset_all(&file->pages);
    }
    return ret;
}

/* Settles, writes what was taken, and flushes. */
ASH_CO_FN static int write_pages(struct ash_resume_file *file, const struct ash_hbitmap *taken)
{
    uint8_t *bytes = g_malloc(PAGE_BYTES);
    uint64_t page = 0;
    int ret = file->settle != NULL ? file->settle(file->opaque) : 0;
    for (; ret == 0 && (page = ash_hbitmap_next_set(taken, page, taken->bits)) != ASH_HBITMAP_NONE;
         page++) {
        page_of(&file->writing, page, bytes);
        ret = file_write(file, BITS_AT + page * PAGE_BYTES, bytes, PAGE_BYTES);
    }
    g_free(bytes);
    return ret < 0 ? ret : file_flush(file);
}

ASH_CO_FN static int commit_once(struct ash_resume_file *file)
{
    struct ash_hbitmap taken;
    uint64_t covered = file->changes;
    int ret = take_pages(file, &taken);
    if (ret < 0) {
        return ret;
    }
    ret = write_pages(file, &taken);
    for (uint64_t page = 0;
         ret == 0 && (page = ash_hbitmap_next_set(&taken, page, taken.bits)) != ASH_HBITMAP_NONE;
         page++) {
        copy_page(&file->stable, &file->writing, page);
    }
    if (ret == 0) {
        file->changes_stable = covered;
    }
    ash_hbitmap_destroy(&taken);
    return ret;
}

/* For all that wait. It may never end. */
static void commit_main(void *opaque)
{
    struct ash_resume_file *file = opaque;
    ASH_CO_PTR void (*drop)(void *opaque) = file->drop;
    void *held = file->opaque;
    ash_co_assert_inside();
    int ret = commit_once(file);
    file->committing = false;
    file->error = file->error == 0 ? ret : file->error;
    ash_co_queue_wake_all(&file->waiting);
    if (drop != NULL) {
        drop(held);
    }
    ash_resume_unref(file);
}

ASH_CO_FN static void begin_commit(struct ash_resume_file *file)
{
    file->committing = true;
    ash_resume_ref(file);
    if (file->hold != NULL) {
        file->hold(file->opaque);
    }
    if (ash_co_spawn(&file->loop->sched, commit_main, file) < 0) {
        commit_main(file); /* no coroutine can be had: then it cannot be given up */
    }
}

int ash_resume_commit(struct ash_resume_file *file)
{
    uint64_t wanted = file->changes;
    ash_resume_ref(file);
    while (file->error == 0 && file->changes_stable < wanted) {
        if (file->committing) {
            ash_co_queue_wait(&file->waiting);
        } else {
            begin_commit(file);
        }
    }
    int ret = file->error;
    ash_resume_unref(file);
    return ret;
}

/* --- life --- */

/* The file, which is made if there is none. */
ASH_CO_FN static int open_node(struct ash_resume_file *file, struct ash_error *error)
{
    struct ash_file_status status;
    int ret = ash_co_path_status(file->loop->engine, file->name, &status);
    if (ret == -ENOENT) {
        ret = ash_image_create(file->loop, file->name, "raw", BITS_AT, NULL, error);
        if (ret < 0) {
            return ret;
        }
    }
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver",
                                    "file", "filename", file->name);
    ret = ash_node_open(file->loop, description, ASH_NODE_WRITE, &file->node, error);
    json_decref(description);
    if (ret == 0) {
        ret = ash_graft_attach(file->node, ASH_RIGHT_READ | ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE,
                               ASH_RIGHT_READ, &file->user, &file->edge, error);
    }
    return ret;
}

ASH_CO_FN static int read_header(struct ash_resume_file *file, struct ash_error *error)
{
    uint8_t sector[SECTOR_BYTES] = {0};
    ash_user_enter(&file->user);
    int ret = ash_edge_read(file->edge, 0, sector, ASH_MIN(file->node->size_bytes, sizeof(sector)));
    ash_user_leave(&file->user);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Reading '%s' failed", file->name);
    }
    ret = take_header(file, sector, error);
    if (ret == 0 && file->node->size_bytes < file_bytes(file)) {
        return ash_error_set(error, -EINVAL, "'%s' is shorter than its header says", file->name);
    }
    file->resumed = ret == 0;
    return ret < 0 ? ret : 0;
}

int ash_resume_open(struct ash_loop *loop, const char *name, enum ash_resume_kind kind,
                    uint64_t part_bytes, uint64_t size_bytes, struct ash_resume_file **result,
                    struct ash_error *error)
{
    struct ash_resume_file *file = g_new0(struct ash_resume_file, 1);
    file->loop = loop;
    file->refs = 1;
    file->name = g_strdup(name);
    file->kind = (uint32_t)kind;
    file->part_bytes = ASH_MAX(part_bytes, PART_BYTES_MIN);
    file->size_bytes = size_bytes;
    ash_list_init(&file->intents);
    ash_co_queue_init(&file->waiting);
    ash_user_init(&file->user, loop);
    int ret = open_node(file, error);
    ret = ret < 0 ? ret : read_header(file, error);
    if (ret == 0) {
        ret = make_maps(file);
        if (ret < 0) {
            ash_error_errno(error, ret, "'%s' cannot be kept in memory", name);
        }
    }
    if (ret == 0 && file->resumed) {
        ret = read_about(file, error);
        ret = ret < 0 ? ret : read_bits(file, error);
    }
    if (ret == 0 && file->resumed) {
        for (uint64_t page = 0; page < file->pages.bits; page++) {
            copy_page(&file->writing, &file->now, page);
            copy_page(&file->stable, &file->now, page);
        }
    }
    if (ret < 0) {
        ash_resume_unref(file);
        return ret;
    }
    *result = file;
    return 0;
}

void ash_resume_ref(struct ash_resume_file *file)
{
    ash_loop_assert_owner(file->loop);
    file->refs++;
}

void ash_resume_unref(struct ash_resume_file *file)
{
    struct ash_hbitmap *maps[] = {&file->now, &file->writing, &file->stable, &file->idle,
                                  &file->pages};
    ash_loop_assert_owner(file->loop);
    if (--file->refs > 0) {
        return;
    }
    ash_resume_release(file);
    if (file->edge != NULL) {
        ash_graft_detach(file->edge);
    }
    ash_user_destroy(&file->user);
    if (file->node != NULL) {
        ash_node_unref(file->node);
    }
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        ash_hbitmap_destroy(maps[i]);
    }
    g_free(file->about);
    g_free(file->name);
    g_free(file);
}

/* --- the images --- */

/* Each image has a mark of its own: source and target cannot be taken for one another. */
static void mark_of(const struct ash_resume_file *file, unsigned image, uint8_t *id)
{
    memcpy(id, file->id, ASH_MARK_BYTES);
    id[ASH_MARK_BYTES - 1] ^= (uint8_t)image;
}

ASH_CO_FN static int take_image(struct ash_resume_file *file, unsigned image, struct ash_node *node,
                                bool unmarked, struct ash_error *error)
{
    uint8_t id[ASH_MARK_BYTES];
    struct ash_node *mapped = ash_graft_mapped(node);
    mark_of(file, image, id);
    if (mapped == NULL || !ash_mark_possible(mapped)) {
        if (unmarked) {
            return 0;
        }
        return ash_error_set(error, -ENOTSUP,
                             "'%s' cannot tell whether somebody else has changed it before the job "
                             "is resumed; with 'state-unmarked' you vouch for that",
                             node->filename);
    }
    int ret = file->resumed ? ash_mark_hold(mapped, id) : ash_mark_set(mapped, id, error);
    if (ret == -ESTALE) {
        return ash_error_set(error, ret,
                             "'%s' may have been changed since the job of '%s' was interrupted",
                             node->filename, file->name);
    }
    if (ret == 0) {
        file->images[image] = mapped;
        ash_node_ref(mapped);
    }
    return ret;
}

int ash_resume_images(struct ash_resume_file *file, struct ash_node *source,
                      struct ash_node *target, bool unmarked, struct ash_error *error)
{
    if (!file->resumed) {
        ash_engine_random(file->loop->engine, file->id, sizeof(file->id));
    }
    int ret = take_image(file, 0, source, unmarked, error);
    ret = ret < 0 || target == NULL ? ret : take_image(file, 1, target, unmarked, error);
    if (ret < 0) {
        ash_resume_release(file);
    }
    return ret;
}

void ash_resume_release(struct ash_resume_file *file)
{
    for (unsigned i = 0; i < 2; i++) {
        if (file->images[i] != NULL) {
            ash_mark_release(file->images[i]);
            ash_node_unref(file->images[i]);
            file->images[i] = NULL;
        }
    }
}

int ash_resume_begin(struct ash_resume_file *file, struct ash_error *error)
{
    ash_user_begin(&file->user);
    int ret =
        ash_edge_resize(file->edge, file_bytes(file), ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, error);
    file->answers++;
    ash_user_leave(&file->user);
    if (ret < 0) {
        return ret;
    }
    file->phase = PHASE_BEGINNING; /* what is put from here on has to be waited for */
    ash_hbitmap_set(&file->pages, 0, file->pages.bits);
    file->changes++;
    ret = write_about(file);
    ret = ret < 0 ? ret : ash_resume_commit(file);
    ret = ret < 0 ? ret : write_header(file, PHASE_RUNNING);
    return ret < 0 ? ash_error_errno(error, ret, "Writing '%s' failed", file->name) : 0;
}

int ash_resume_done(struct ash_resume_file *file)
{
    return write_header(file, PHASE_DONE);
}

/* The header is being written; freed by whoever is last. */
struct breaking {
    struct ash_resume_file *file;
    uint32_t refs;
    bool done;
    int ret;
};

ASH_CO_FN static void breaking_unref(struct breaking *breaking)
{
    if (--breaking->refs == 0) {
        ash_resume_unref(breaking->file);
        g_free(breaking);
    }
}

static void break_main(void *opaque)
{
    struct breaking *breaking = opaque;
    ash_co_assert_inside();
    breaking->ret = write_header(breaking->file, PHASE_BROKEN);
    breaking->done = true;
    ash_co_queue_wake_all(&breaking->file->waiting);
    breaking_unref(breaking);
}

/* Has the header say so. -ECANCELED: it was given up. */
ASH_CO_FN static int break_header(struct ash_resume_file *file)
{
    struct breaking *breaking = g_new0(struct breaking, 1);
    *breaking = (struct breaking){.file = file, .refs = 2};
    ash_resume_ref(file);
    if (ash_co_spawn(&file->loop->sched, break_main, breaking) < 0) {
        break_main(breaking);
    }
    while (!breaking->done && !file->given_up) {
        ash_co_queue_wait(&file->waiting);
    }
    int ret = breaking->done ? breaking->ret : -ECANCELED;
    breaking_unref(breaking);
    return ret;
}

/* The source's mark goes with the change that comes: see ash_mark_release(). */
static int pass_given_up(const struct ash_resume_file *file)
{
    return file->had_mark ? 0 : -EIO;
}

int ash_resume_break(struct ash_resume_file *file)
{
    if (file->given_up) {
        return pass_given_up(file);
    }
    if (file->phase != PHASE_RUNNING) {
        return 0;
    }
    ash_resume_ref(file);
    int ret = break_header(file);
    struct ash_node *source = file->images[0];
    if (ret < 0 && file->given_up) {
        ret = pass_given_up(file);
    } else if (ret < 0 && source != NULL) {
        ash_mark_release(source);
        ret = ash_mark_drop(source);
    }
    file->phase = ret == 0 ? PHASE_BROKEN : file->phase;
    ash_resume_unref(file);
    return ret;
}

void ash_resume_give_up(struct ash_resume_file *file)
{
    if (file->given_up) {
        return;
    }
    file->given_up = true;
    file->had_mark = file->images[0] != NULL;
    file->error = file->error == 0 ? -ECANCELED : file->error;
    ash_resume_release(file);
    ash_co_queue_wake_all(&file->waiting);
}

/* --- mirror --- */

int ash_resume_intend(struct ash_resume_file *file, struct ash_resume_intent *intent,
                      uint64_t offset, uint64_t bytes)
{
    uint64_t first;
    uint64_t count;
    *intent = (struct ash_resume_intent){.offset = offset, .bytes = bytes};
    ash_list_init(&intent->link);
    ash_list_push_back(&file->intents, &intent->link);
    bits_of(file, offset, bytes, &first, &count);
    if (count > 0) {
        ash_hbitmap_reset(&file->idle, first, count);
    }
    int ret = 0;
    bool recorded = file->phase == PHASE_RUNNING || file->phase == PHASE_BEGINNING;
    if (!ash_resume_is(file, offset, bytes, true)) {
        ash_resume_put(file, offset, bytes, true);
        ret = recorded ? ash_resume_commit(file) : 0;
        ret = ret < 0 ? ash_resume_break(file) : 0;
    }
    if (ret < 0) {
        ash_resume_intended(intent);
    }
    return ret;
}

void ash_resume_intended(struct ash_resume_intent *intent)
{
    ash_list_remove(&intent->link);
}

bool ash_resume_tidy_begin(struct ash_resume_file *file,
                           bool (*clean)(void *opaque, uint64_t offset, uint64_t bytes),
                           void *opaque)
{
    bool any = false;
    if (file->phase != PHASE_RUNNING || file->error < 0) {
        return false;
    }
    ash_hbitmap_reset_all(&file->idle);
    for (uint64_t i = 0;
         (i = ash_hbitmap_next_set(&file->now, i, file->now.bits)) != ASH_HBITMAP_NONE; i++) {
        if (clean(opaque, i * file->part_bytes, file->part_bytes)) {
            ash_hbitmap_set(&file->idle, i, 1);
            any = true;
        }
    }
    ash_list_for_each (intent, &file->intents, struct ash_resume_intent, link) {
        uint64_t first;
        uint64_t count;
        bits_of(file, intent->offset, intent->bytes, &first, &count);
        if (count > 0) {
            ash_hbitmap_reset(&file->idle, first, count);
        }
    }
    return any;
}

void ash_resume_tidy_end(struct ash_resume_file *file)
{
    for (uint64_t i = 0;
         (i = ash_hbitmap_next_set(&file->idle, i, file->idle.bits)) != ASH_HBITMAP_NONE; i++) {
        ash_resume_put(file, i * file->part_bytes, file->part_bytes, false);
    }
    ash_hbitmap_reset_all(&file->idle);
    (void)!ash_resume_commit(file); /* what is not cleared is copied once more */
}
