/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated world: files by name, and direct access to them for tests.
 *
 * Invariants:
 *  1. An inode lives while it has a name or is open; its number is never used again.
 *  2. The table of names is only looked up in; whatever goes over all files follows world->inodes,
 *     the order of creation. */

#include <errno.h>
#include <string.h>
#include "util/assert.h"
#include "util/engine/sim/internal.h"
#include "util/range.h"

#define NOW_FIRST UINT64_C(1000000000)

static void config_set(struct ash_sim_world *world, const struct ash_sim_config *config)
{
    world->config = *config;
    if (!world->config.direct_alignment) {
        world->config.direct_alignment = 512;
    }
    ash_assert(ash_is_power_of_2(world->config.direct_alignment));
    ash_assert(config->latency_ns_min <= config->latency_ns_max);
}

struct ash_sim_world *ash_sim_world_new(const struct ash_sim_config *config)
{
    struct ash_sim_world *world = g_new0(struct ash_sim_world, 1);
    uint32_t sector_bytes = config->sector_bytes ? config->sector_bytes : 512;

    ash_assert(sector_bytes == 512 || sector_bytes == 4096);
    world->sector_bits = ash_log2(sector_bytes);
    config_set(world, config);
    ash_prng_seed(&world->prng, config->seed);
    world->now_ns = NOW_FIRST;
    world->names = g_hash_table_new(g_str_hash, g_str_equal);
    ash_list_init(&world->inodes);
    ash_list_init(&world->open_files);
    ash_list_init(&world->holds);
    ash_list_init(&world->held);
    return world;
}

void ash_sim_world_configure(struct ash_sim_world *world, const struct ash_sim_config *config)
{
    config_set(world, config);
}

static void inode_free(struct sim_inode *inode)
{
    ash_assert(ash_list_empty(&inode->locks));
    ash_sim_inode_free_pages(inode);
    ash_list_remove(&inode->link);
    g_array_free(inode->lengths, TRUE);
    g_free(inode->path);
    g_free(inode);
}

void ash_sim_world_free(struct ash_sim_world *world)
{
    ash_assert(!world->engine);
    ash_sim_release_all(world);
    g_hash_table_destroy(world->names);
    ash_list_for_each_safe (inode, &world->inodes, struct sim_inode, link) {
        inode_free(inode);
    }
    ash_assert(world->allocated_pages == 0);
    ash_sim_pools_free(world);
    g_free(world->aim_path);
    g_free(world);
}

struct sim_inode *ash_sim_find(struct ash_sim_world *world, const char *path)
{
    return g_hash_table_lookup(world->names, path);
}

struct sim_inode *ash_sim_create(struct ash_sim_world *world, const char *path)
{
    struct sim_inode *inode = g_new0(struct sim_inode, 1);

    inode->world = world;
    inode->number = ++world->inode_last;
    inode->path = g_strdup(path);
    inode->modified_ns = world->now_ns;
    inode->short_offset = UINT64_MAX;
    inode->lengths = g_array_new(FALSE, FALSE, sizeof(struct sim_length));
    ash_list_init(&inode->unsynced);
    ash_list_init(&inode->locks);
    ash_list_push_back(&world->inodes, &inode->link);
    g_hash_table_insert(world->names, inode->path, inode);
    return inode;
}

int ash_sim_unlink(struct ash_sim_world *world, const char *path)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    if (!inode) {
        return -ENOENT;
    }
    g_hash_table_remove(world->names, path);
    g_free(inode->path);
    inode->path = NULL;
    if (inode->opens == 0) {
        inode_free(inode);
    }
    return 0;
}

int ash_sim_rename(struct ash_sim_world *world, const char *path, const char *path2)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    if (!inode) {
        return -ENOENT;
    }
    if (strcmp(path, path2) != 0) {
        ash_sim_unlink(world, path2);
        g_hash_table_remove(world->names, path);
        g_free(inode->path);
        inode->path = g_strdup(path2);
        g_hash_table_insert(world->names, inode->path, inode);
    }
    return 0;
}

int ash_sim_open(struct ash_sim_world *world, const char *path, uint32_t flags,
                 struct ash_file **file)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    if (!inode) {
        if (!(flags & ASH_FILE_CREATE)) {
            return -ENOENT;
        }
        inode = ash_sim_create(world, path);
    } else if ((flags & ASH_FILE_CREATE) && (flags & ASH_FILE_EXCLUSIVE)) {
        return -EEXIST;
    } else if ((flags & ASH_FILE_WRITE) && inode->read_only) {
        return -EACCES;
    } else if ((flags & ASH_FILE_TRUNCATE) && (flags & ASH_FILE_WRITE)) {
        ash_sim_content_truncate(inode, 0, ++world->seq);
        inode->modified_ns = world->now_ns;
    }
    struct sim_file *open = g_new0(struct sim_file, 1);
    open->file = (struct ash_file){.engine = &world->engine->engine, .fd = -1, .flags = flags};
    open->inode = inode;
    inode->opens++;
    world->open_count++;
    ash_list_push_back(&world->open_files, &open->link);
    *file = &open->file;
    return 0;
}

void ash_sim_close(struct sim_file *file)
{
    struct sim_inode *inode = file->inode;

    ash_sim_unlock_all(file);
    ash_list_remove(&file->link);
    inode->world->open_count--;
    inode->opens--;
    if (inode->opens == 0 && !inode->path) {
        inode_free(inode);
    }
    g_free(file);
}

uint32_t ash_sim_open_files(const struct ash_sim_world *world)
{
    return world->open_count;
}

uint32_t ash_sim_leaked_files(const struct ash_sim_world *world)
{
    return world->leaked_files;
}

uint64_t ash_sim_now(const struct ash_sim_world *world)
{
    return world->now_ns;
}

uint64_t ash_sim_mutations(const struct ash_sim_world *world)
{
    return world->mutations;
}

int ash_sim_file_read(struct ash_sim_world *world, const char *path, uint64_t offset, void *buffer,
                      size_t bytes)
{
    struct sim_inode *inode = ash_sim_find(world, path);
    struct iovec vec = {buffer, bytes};

    if (!inode) {
        return -ENOENT;
    }
    if (!ash_range_inside(offset, bytes, 0, inode->length)) {
        return -EINVAL;
    }
    ash_sim_content_read(inode, offset, bytes, ash_iov_of(&vec, 1));
    return 0;
}

int ash_sim_file_write(struct ash_sim_world *world, const char *path, uint64_t offset,
                       const void *buffer, size_t bytes)
{
    struct sim_inode *inode = ash_sim_find(world, path);
    struct iovec vec = {(void *)(uintptr_t)buffer, bytes};

    if (!ash_range_inside(offset, bytes, 0, SIM_FILE_BYTES_MAX)) {
        return -EINVAL;
    }
    if (!inode) {
        inode = ash_sim_create(world, path);
    }
    world->seq++;
    ash_sim_content_write(inode, offset, bytes, ash_iov_of(&vec, 1), world->seq, UINT64_MAX);
    ash_sim_content_harden(inode, offset, bytes, world->seq);
    ash_sim_content_lengths_durable(inode, world->seq);
    inode->modified_ns = world->now_ns;
    return 0;
}

int64_t ash_sim_file_bytes(struct ash_sim_world *world, const char *path)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    return inode ? (int64_t)inode->length : -ENOENT;
}

int64_t ash_sim_file_allocated_bytes(struct ash_sim_world *world, const char *path)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    return inode ? (int64_t)(inode->allocated_pages << SIM_PAGE_BITS) : -ENOENT;
}

int ash_sim_file_set_read_only(struct ash_sim_world *world, const char *path, bool read_only)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    if (!inode) {
        return -ENOENT;
    }
    inode->read_only = read_only;
    return 0;
}
