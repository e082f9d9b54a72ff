/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening, closing and reopening the one disk of the shell, and what it is. */
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "block/driver.h"
#include "block/graph/describe.h"
#include "block/graph/open.h"
#include "block/image/image.h"
#include "job/job.h"
#include "tools/io/shell.h"
#include "util/json.h"
#include "util/range.h"

static bool take_discard(const char *value, uint32_t *flags)
{
    if (strcmp(value, "unmap") == 0 || strcmp(value, "on") == 0) {
        *flags |= ASH_NODE_DISCARD;
    } else if (strcmp(value, "ignore") == 0 || strcmp(value, "off") == 0) {
        *flags &= ~ASH_NODE_DISCARD;
    } else {
        ash_tool_error("Invalid discard option: %s", value);
        return false;
    }
    return true;
}

static bool take_cache(const char *value, uint32_t *flags, bool *write_through)
{
    if (ash_cache_mode(value, flags, write_through) < 0) {
        ash_tool_error("Invalid cache option: %s", value);
        return false;
    }
    return true;
}

bool ash_shell_open_option(struct ash_shell_open *request, int option, const char *value)
{
    switch (option) {
    case 'C':
        request->copy_on_read = true;
        return true;
    case 'd':
        return take_discard(value, &request->flags);
    case 'i':
        if (strcmp(value, "threads") != 0 && strcmp(value, "native") != 0 &&
            strcmp(value, "io_uring") != 0) {
            ash_tool_error("Invalid aio option: %s", value);
            return false;
        }
        request->aio = value;
        return true;
    case 'k':
        request->aio = "native";
        return true;
    case 'n':
        return take_cache("none", &request->flags, &request->write_through);
    case 'r':
        request->flags &= ~ASH_NODE_WRITE;
        return true;
    case 's':
        request->snapshot = true;
        return true;
    case 't':
        return take_cache(value, &request->flags, &request->write_through);
    default:
        request->flags |= ASH_NODE_FORCE_SHARE;
        return true;
    }
}

/* The description of the file name with the -o options laid over it. */
static json_t *describe(const struct ash_shell_open *request, struct ash_error *error)
{
    if (request->filename == NULL) {
        return json_deep_copy(request->options);
    }
    const char *format = request->format;
    const json_t *driver = json_object_get(request->options, "driver");
    if (driver != NULL) {
        format = json_string_value(driver);
    }
    struct ash_tool_image image = {
        .filename = request->filename, .format = format, .image_opts = request->image_opts};
    json_t *description = ash_tool_describe(&image, error);
    if (description != NULL && request->options != NULL) {
        json_t *options = json_deep_copy(request->options);
        json_object_del(options, "driver");
        json_object_update(description, options);
        json_decref(options);
    }
    return description;
}

/* What -i says, where the file's own description does not. */
static void describe_aio(json_t *description, const char *aio)
{
    json_t *file = json_object_get(description, "file");
    const char *driver = json_string_value(json_object_get(description, "driver"));
    if (!json_is_object(file) && driver != NULL && strcmp(driver, "file") == 0) {
        file = description;
    }
    driver = json_string_value(json_object_get(file, "driver"));
    if (json_is_object(file) && json_object_get(file, "aio") == NULL &&
        (driver == NULL || strcmp(driver, "file") == 0)) {
        json_object_set_new(file, "aio", json_string(aio));
    }
}

/* A file for an overlay, in the directory for such files. */
static char *new_temporary(struct ash_error *error)
{
    GError *gerror = NULL;
    char *path = NULL;
    int fd = g_file_open_tmp("ashlar-io-XXXXXX", &path, &gerror);
    if (fd < 0) {
        ash_error_set(error, -EIO, "Could not get temporary filename: %s", gerror->message);
        g_error_free(gerror);
        return NULL;
    }
    close(fd);
    return path;
}

/* Opens an overlay over what is described, which stays as it is. Its file has no name any more when
 * it is open, so it is gone when it is closed, however that comes about. */
ASH_CO_FN static int open_snapshot(struct ash_shell *shell, json_t *below, uint32_t flags,
                                   struct ash_disk **disk, struct ash_error *error)
{
    struct ash_disk *base;
    if ((flags & ASH_NODE_WRITE) == 0) {
        return ash_error_set(error, -EACCES, "Block node is read-only");
    }
    if ((flags & ASH_NODE_FORCE_SHARE) != 0) {
        json_object_set_new(below, "force-share", json_true());
    }
    int ret = ash_co_disk_open(shell->loop, below, flags & ~ASH_NODE_WRITE, &base, error);
    if (ret < 0) {
        return ret;
    }
    uint64_t bytes = ash_disk_bytes(base);
    ret = ash_co_disk_close(base, error);
    char *path = ret == 0 ? new_temporary(error) : NULL;
    if (path == NULL) {
        return ret < 0 ? ret : error->code;
    }
    ret = ash_image_create(shell->loop, path, "qcow2", bytes, NULL, error);
    if (ret == 0) {
        json_object_set_new(below, "read-only", json_true());
        json_t *overlay = json_pack("{s:s, s:{s:s, s:s}, s:O}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", path, "backing", below);
        ret = ash_co_disk_open(shell->loop, overlay,
                               (flags | ASH_NODE_NO_FLUSH) & ~ASH_NODE_FORCE_SHARE, disk, error);
        json_decref(overlay);
    }
    ash_tool_remove_made(path);
    g_free(path);
    return ret;
}

struct open_call {
    struct ash_shell *shell;
    const struct ash_shell_open *request;
    struct ash_job *job;
    struct ash_error error;
};

ASH_CO_FN static int open_co(void *opaque)
{
    struct open_call *call = opaque;
    struct ash_shell *shell = call->shell;
    json_t *description = describe(call->request, &call->error);
    if (description == NULL) {
        return call->error.code < 0 ? call->error.code : -EINVAL;
    }
    if (call->request->copy_on_read) {
        json_object_set_new(description, "copy-on-read", json_true());
    }
    if (call->request->aio != NULL) {
        describe_aio(description, call->request->aio);
    }
    struct ash_disk *disk;
    uint32_t flags = call->request->flags;
    int ret = call->request->snapshot
                  ? open_snapshot(shell, description, flags, &disk, &call->error)
                  : ash_co_disk_open(shell->loop, description, flags, &disk, &call->error);
    json_decref(description);
    if (ret == 0 && call->request->job != NULL) {
        ret = ash_co_job_start_at_open(disk, call->request->job, NULL, NULL, &call->job,
                                       &call->error);
    }
    shell->disk = ret == 0 ? disk : NULL;
    return ret;
}

bool ash_shell_open(struct ash_shell *shell, const struct ash_shell_open *request)
{
    struct open_call call = {.shell = shell, .request = request, .error = ASH_ERROR_INIT};
    int ret = ash_loop_run_sync(shell->loop, open_co, &call);
    if (ret < 0) {
        const char *why = call.error.message[0] != '\0' ? call.error.message : strerror(-ret);
        if (request->filename != NULL && !request->image_opts) {
            ash_tool_error("can't open device %s: %s", request->filename, why);
        } else {
            ash_tool_error("can't open: %s", why);
        }
        return false;
    }
    shell->disk->write_through |= request->write_through;
    shell->filename = g_strdup(ash_disk_node(shell->disk)->filename);
    if (call.job != NULL) {
        ash_shell_add_job(shell, call.job);
    }
    return true;
}

/* Adds the options of one -o. */
static bool take_options(json_t **options, const char *text)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *more = ash_json_from_keyval(text, NULL, &error);
    if (more == NULL) {
        ash_tool_error("%s", error.message);
        return false;
    }
    if (*options != NULL) {
        json_object_update(*options, more);
        json_decref(more);
    } else {
        *options = more;
    }
    return true;
}

static bool open_with(struct ash_shell *shell, struct ash_shell_open *request, int argc,
                      char **argv)
{
    int c;
    while ((c = getopt(argc, argv, "Cd:i:j:kno:rst:U")) != -1) {
        bool right = c == '?'   ? ash_command_usage("open")
                     : c == 'j' ? take_options(&request->job, optarg)
                     : c == 'o' ? take_options(&request->options, optarg)
                                : ash_shell_open_option(request, c, optarg);
        if (!right) {
            return false;
        }
    }
    if (argc - optind > 1 || (argc == optind && request->options == NULL)) {
        return ash_command_usage("open");
    }
    if (shell->disk != NULL) {
        ash_tool_error("file open already, try 'help close'");
        return false;
    }
    request->filename = argv[optind];
    return ash_shell_open(shell, request);
}

bool ash_shell_open_command(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_shell_open request = {.flags = ASH_SHELL_OPEN_FLAGS};
    bool right = open_with(shell, &request, argc, argv);
    json_decref(request.options);
    json_decref(request.job);
    return right;
}

ASH_CO_FN static int close_co(void *opaque)
{
    struct ash_shell *shell = opaque;
    return ash_tool_close(shell->disk, shell->filename);
}

bool ash_shell_close(struct ash_shell *shell)
{
    ash_shell_wait(shell);
    bool right = ash_shell_end_jobs(shell);
    if (shell->disk == NULL) {
        return right;
    }
    int ret = ash_loop_run_sync(shell->loop, close_co, shell);
    shell->disk = NULL;
    g_free(shell->filename);
    shell->filename = NULL;
    return right && ret == 0;
}

bool ash_shell_close_command(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return ash_shell_close(shell);
}

struct reopen {
    struct ash_shell *shell;
    json_t *options;
    int mode; /* 'r', 'w', or 0 */
    bool cache;
    uint32_t flags;
    bool write_through;
    struct ash_error error;
};

/* What can be changed with -o, laid over the flags; what is left is for the driver. */
static int take_changes(struct reopen *reopen)
{
    struct ash_error *error = &reopen->error;
    json_t *cache = json_object_get(reopen->options, "cache");
    json_t *value;
    const char *key;
    static const char *const fixed[] = {"driver", "node-name", "copy-on-read", "force-share", NULL};
    json_object_foreach(reopen->options, key, value)
    {
        const char *driver = ash_disk_node(reopen->shell->disk)->driver->name;
        bool same = strcmp(key, "driver") == 0 && json_is_string(value) &&
                    strcmp(json_string_value(value), driver) == 0;
        if (!same && g_strv_contains(fixed, key)) {
            return ash_error_set(error, -EINVAL, "Cannot change the option '%s'", key);
        }
    }
    if (json_object_get(cache, "writeback") != NULL) {
        return ash_error_set(error, -EINVAL, "Cannot change the option 'cache.writeback'");
    }
    if (cache != NULL && reopen->cache) {
        return ash_error_set(error, -EINVAL, "Cannot set both -c and the cache options");
    }
    if (json_object_get(reopen->options, "read-only") != NULL) {
        if (reopen->mode != 0) {
            return ash_error_set(error, -EINVAL, "Cannot set both -r/-w and 'read-only'");
        }
        reopen->flags |= ASH_NODE_WRITE; /* unless the option says on */
    }
    struct ash_node_options options = {.flags = 0};
    int ret = ash_node_options_take(reopen->options, reopen->flags, &options, error);
    if (ret == 0) {
        reopen->flags = options.flags;
    }
    ash_node_options_clear(&options);
    return ret;
}

ASH_CO_FN static int reopen_co(void *opaque)
{
    struct reopen *reopen = opaque;
    return ash_disk_reopen_with(reopen->shell->disk, reopen->flags, reopen->write_through,
                                reopen->options, &reopen->error);
}

static bool take_reopen_option(struct reopen *reopen, int c)
{
    switch (c) {
    case 'r':
    case 'w':
        if (reopen->mode != 0) {
            ash_tool_error("Only one -r/-w option may be given");
            return false;
        }
        reopen->mode = c;
        reopen->flags = c == 'w' ? reopen->flags | ASH_NODE_WRITE : reopen->flags & ~ASH_NODE_WRITE;
        return true;
    case 'c':
        reopen->cache = true;
        return take_cache(optarg, &reopen->flags, &reopen->write_through);
    case 'o':
        return take_options(&reopen->options, optarg);
    default:
        return ash_command_usage("reopen");
    }
}

bool ash_shell_reopen(struct ash_shell *shell, int argc, char **argv)
{
    struct reopen reopen = {.shell = shell,
                            .flags = ash_disk_node(shell->disk)->flags,
                            .write_through = shell->disk->write_through,
                            .error = ASH_ERROR_INIT};
    bool right = true;
    int c;
    while (right && (c = getopt(argc, argv, "c:o:rw")) != -1) {
        right = take_reopen_option(&reopen, c);
    }
    if (right && optind != argc) {
        right = ash_command_usage("reopen");
    }
    if (right) {
        int ret = reopen.options != NULL ? take_changes(&reopen) : 0;
        uint32_t unlocked_write = ASH_NODE_FORCE_SHARE | ASH_NODE_WRITE;
        if (ret == 0 && (reopen.flags & unlocked_write) == unlocked_write) {
            ret = ash_error_set(&reopen.error, -EINVAL,
                                "force-share=on can only be used with read-only images");
        }
        if (ret == 0) {
            ret = ash_loop_run_sync(shell->loop, reopen_co, &reopen);
        }
        if (ret < 0) {
            ash_tool_error("Could not reopen '%s': %s", shell->filename,
                           reopen.error.message[0] != '\0' ? reopen.error.message : strerror(-ret));
        }
        right = ret == 0;
    }
    json_decref(reopen.options);
    return right;
}

/* Where the state of a machine begins that qcow2 can hold: behind what the first-level table needs
 * for the disk. Other formats have no room for it. */
static uint64_t vm_state_offset(const struct ash_node *node, const json_t *specific)
{
    uint64_t cluster = node->limits.cluster;
    if (strcmp(node->driver->name, "qcow2") != 0 || cluster == 0) {
        return 0;
    }
    bool extended = json_is_true(json_object_get(specific, "extended-l2"));
    return ash_align_up(node->size_bytes, cluster * (cluster / (extended ? 16 : 8)));
}

ASH_CO_FN static int info_co(void *opaque)
{
    struct ash_node *node = opaque;
    json_t *specific = node->driver->info != NULL ? node->driver->info(node) : NULL;
    const json_t *data = json_object_get(specific, "data");
    data = data != NULL ? data : specific;
    char text[64];
    printf("format name: %s\n", node->driver->name);
    printf("cluster size: %s\n", ash_shell_bytes(node->limits.cluster, text));
    printf("vm state offset: %s\n", ash_shell_bytes((double)vm_state_offset(node, data), text));
    if (json_object_size(data) > 0) {
        printf("Format specific information:\n");
        ash_tool_print_specific(data, 4);
    }
    json_decref(specific);
    return 0;
}

bool ash_shell_info(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return ash_loop_run_sync(shell->loop, info_co, ash_disk_node(shell->disk)) == 0;
}
