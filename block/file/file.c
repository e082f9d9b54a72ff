/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file, host_device: a regular file or a block device of the host.
 *
 * The pieces: open.c (the one descriptor), align.c (what O_DIRECT demands), io.c (requests),
 * status.c (data and holes), length.c (creating, resizing), lock.c (other programs).
 *
 * "file" takes block devices too, as plain file names on a command line always did; "host_device"
 * takes nothing else. */
#include <errno.h>
#include "block/file/file.h"
#include "util/range.h"

/* Bounded so that one request does not hold up the queue for seconds; a multiple of any alignment.
 */
#define TRANSFER_BYTES_MAX (1u << 30)
#define PIECES_MAX 1024

static const char *const locking_names[] = {"auto", "on", "off", NULL};
static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};

static const struct ash_option file_options[] = {
    ASH_OPTION_STRING("filename", struct ash_file_node, filename, .help = "path of the file"),
    ASH_OPTION_UINT("fd", struct ash_file_node, adopt_fd, .def = ASH_FILE_NO_FD,
                    .help = "an open descriptor to take over, instead of a path"),
    ASH_OPTION_ENUM("locking", struct ash_file_node, locking, locking_names,
                    .help =
                        "lock the file against other programs: auto (where the host can), on, off"),
    ASH_OPTION_ENUM("aio", struct ash_file_node, aio, aio_names,
                    .help =
                        "accepted for scripts; the engine of the loop decides. native is refused "
                        "without cache.direct"),
    ASH_OPTION_UINT("aio-max-batch", struct ash_file_node, aio_max_batch, .max = UINT64_MAX,
                    .help = "accepted for scripts; the engine submits what a turn brings at once"),
    ASH_OPTION_BOOL("drop-cache", struct ash_file_node, drop_cache, .def = 1,
                    .help = "accepted for scripts; it is for migration, which there is none of"),
    ASH_OPTION_BOOL("x-check-cache-dropped", struct ash_file_node, check_cache_dropped,
                    .help = "likewise"),
    ASH_OPTION_END,
};

static void file_limits(const struct ash_node *node, struct ash_limits *limits)
{
    const struct ash_file_node *state = ash_file_node(node);
    *limits = (struct ash_limits){
        .request_alignment = state->request_alignment,
        .memory_alignment = state->memory_alignment,
        .iov_max = PIECES_MAX,
        .transfer_max = TRANSFER_BYTES_MAX,
    };
    if (state->about.block_device) {
        uint32_t block =
            ash_is_power_of_2(state->about.block_bytes) ? state->about.block_bytes : 512;
        uint32_t unit = state->about.discard_granularity;
        limits->zero_alignment = ASH_MAX(block, limits->request_alignment);
        limits->discard_alignment =
            ASH_MAX(ash_is_power_of_2(unit) ? unit : 0, limits->zero_alignment);
        limits->optimal = state->about.physical_block_bytes;
    }
}

ASH_CO_FN static int64_t file_allocated_bytes(struct ash_node *node)
{
    struct ash_file_status status;
    int ret = ash_co_status(ash_file_node(node)->file, &status);
    return ret < 0 ? ret : (int64_t)status.allocated_bytes;
}

ASH_CO_FN static int host_device_open(struct ash_node *node, struct ash_error *error)
{
    int ret = ash_file_node_open(node, error);
    if (ret == 0 && !ash_file_node(node)->about.block_device) {
        ash_file_node_close(node);
        ret =
            ash_error_set(error, -EINVAL, "'host_device' driver requires '%s' to be a block device",
                          node->filename);
    }
    return ret;
}

/* Direct I/O goes past the page cache, through which the kernel copies. */
static struct ash_file *host_file(const struct ash_node *node)
{
    struct ash_file *file = ash_file_node(node)->file;
    return (file->flags & ASH_FILE_DIRECT) == 0 ? file : NULL;
}

static const struct ash_option create_options[] = {
    ASH_OPTION_SIZE("extent_size_hint", struct ash_file_create_options, extent_size_hint,
                    .help = "Extent size hint for the image file, 0 to disable"),
    ASH_OPTION_BOOL("nocow", struct ash_file_create_options, nocow,
                    .help = "Turn off copy-on-write (valid only on btrfs)"),
    ASH_OPTION_END,
};

#define FILE_CALLBACKS                                                                             \
    .kind = ASH_DRIVER_PROTOCOL, .state_size = sizeof(struct ash_file_node),                       \
    .options = file_options, .close = ash_file_node_close, .create_file = ash_file_create,         \
    .resize = ash_file_resize, .allocated_bytes = file_allocated_bytes, .limits = file_limits,     \
    .lock = ash_file_lock, .host_file = host_file, .reopen_prepare = ash_file_node_reopen_prepare, \
    .reopen_commit = ash_file_node_reopen_commit, .reopen_abort = ash_file_node_reopen_abort,      \
    .io = {                                                                                        \
        [ASH_READ] = ash_file_read,   [ASH_WRITE] = ash_file_write,                                \
        [ASH_FLUSH] = ash_file_flush, [ASH_DISCARD] = ash_file_discard,                            \
        [ASH_ZERO] = ash_file_zero,   [ASH_STATUS] = ash_file_status,                              \
    }

extern const struct ash_driver ash_driver_file;
const struct ash_driver ash_driver_file = {
    .name = "file",
    .prefix = "file:",
    .create_options = create_options,
    .create_size = sizeof(struct ash_file_create_options),
    .open = ash_file_node_open,
    FILE_CALLBACKS,
};

extern const struct ash_driver ash_driver_host_device;
const struct ash_driver ash_driver_host_device = {
    .name = "host_device",
    .prefix = "host_device:",
    .open = host_device_open,
    FILE_CALLBACKS,
};
