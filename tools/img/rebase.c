/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rebase: another backing file for an image. In safe mode what would read otherwise is copied into
 * the image first; with -u only the header changes. */
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/open.h"
#include "block/image/rebase.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct rebase {
    struct ash_rebase engine;
    struct ash_tool_image image;
    const char *backing; /* NULL: not given; "": none */
    const char *backing_format;
    const char *cache;
    const char *source_cache;
    uint32_t source_flags;
    bool unsafe;
    bool quiet;
    bool show_progress;
    struct ash_progress progress;
};

static bool has_backing(const struct rebase *rebase)
{
    return rebase->backing != NULL && rebase->backing[0] != '\0';
}

static const char *why(const struct ash_error *error, int ret)
{
    return error->message[0] != '\0' ? error->message : strerror(-ret);
}

static bool progress(struct ash_rebase *engine, uint64_t done_bytes, uint64_t total_bytes)
{
    struct rebase *rebase = ash_container_of(engine, struct rebase, engine);
    ash_progress_set(&rebase->progress, 100.0 * (double)done_bytes / (double)total_bytes);
    return !ash_tool_interrupted();
}

/* A name from the command line counts from where the image is, as it will in its header. */
ASH_CO_FN static int open_backing(struct rebase *rebase)
{
    struct ash_error error = ASH_ERROR_INIT;
    const char *backing = rebase->backing;
    bool path = strncmp(backing, "json:", 5) != 0 && strstr(backing, "://") == NULL;
    const char *image = ash_disk_node(rebase->engine.overlay)->filename;
    char *real = path ? ash_path_beside(image, backing) : g_strdup(backing);
    json_t *description = ash_describe(real, rebase->backing_format, &error);
    int ret = description != NULL ? 0 : -EINVAL;
    if (ret == 0) {
        ret = ash_co_disk_open(ash_co_loop(), description, rebase->source_flags,
                               &rebase->engine.backing, &error);
        json_decref(description);
    }
    if (ret < 0) {
        const char *sentence = why(&error, ret);
        bool says_so = strncmp(sentence, "Could not open", 14) == 0;
        ash_tool_error("Could not open new backing file '%s': %s%s%s%s", backing,
                       says_so ? "" : "Could not open '", says_so ? "" : real,
                       says_so ? "" : "': ", sentence);
    }
    g_free(real);
    return ret;
}

ASH_CO_FN static int copy(struct rebase *rebase)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (has_backing(rebase) && open_backing(rebase) < 0) {
        return 1;
    }
    rebase->engine.progress = progress;
    int ret = ash_image_rebase(&rebase->engine, &error);
    if (ret < 0 && ret != -EINTR && ret != -ENOTSUP) {
        ash_tool_error("%s", why(&error, ret));
    }
    return ret == -ENOTSUP ? 0 : ret < 0; /* what is not supported fails next, in those words */
}

ASH_CO_FN static int change_header(struct rebase *rebase)
{
    struct ash_error error = ASH_ERROR_INIT;
    const char *file = has_backing(rebase) ? rebase->backing : NULL;
    int ret = ash_image_set_backing(rebase->engine.overlay, file,
                                    file != NULL ? rebase->backing_format : NULL, &error);
    if (ret == -ENOSPC) {
        ash_tool_error(
            "Could not change the backing file to '%s': No space left in the file header", file);
    } else if (ret < 0) {
        ash_tool_error("Could not change the backing file to '%s': %s", file != NULL ? file : "",
                       why(&error, ret));
    }
    return ret < 0;
}

ASH_CO_FN static int run(struct rebase *rebase)
{
    if (rebase->backing_format != NULL && ash_driver_find(rebase->backing_format) == NULL) {
        ash_tool_error("Invalid format name: '%s'", rebase->backing_format);
        return 1;
    }
    int status = rebase->unsafe ? 0 : copy(rebase);
    return status != 0 ? status : change_header(rebase);
}

ASH_CO_FN static int rebase_co(void *opaque)
{
    struct rebase *rebase = opaque;
    ash_progress_begin(&rebase->progress, rebase->show_progress);
    rebase->engine.overlay = ash_tool_open(&rebase->image);
    int status = rebase->engine.overlay != NULL ? run(rebase) : 1;
    if (ash_tool_close(rebase->engine.backing, rebase->backing) < 0) {
        status = 1;
    }
    if (ash_tool_close(rebase->engine.overlay, rebase->image.filename) < 0) {
        status = 1;
    }
    if (status == 0) {
        ash_progress_set(&rebase->progress, 100);
    }
    ash_progress_end(&rebase->progress);
    return status;
}

static bool take_caches(struct rebase *rebase)
{
    bool write_through;
    if (rebase->cache != NULL &&
        ash_cache_mode(rebase->cache, &rebase->image.flags, &rebase->image.write_through) < 0) {
        ash_tool_error("Invalid cache option: %s", rebase->cache);
        return false;
    }
    if (rebase->source_cache != NULL &&
        ash_cache_mode(rebase->source_cache, &rebase->source_flags, &write_through) < 0) {
        ash_tool_error("Invalid source cache option: %s", rebase->source_cache);
        return false;
    }
    return true;
}

enum { OPTION_OBJECT = 256, OPTION_IMAGE_OPTS };

/* Takes one option. -1, or the exit status. */
static int take_option(struct rebase *rebase, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("rebase");
    case 'f':
        rebase->image.format = optarg;
        return -1;
    case 'F':
        rebase->backing_format = optarg;
        return -1;
    case 'b':
        rebase->backing = optarg;
        return -1;
    case 'u':
        rebase->unsafe = true;
        return -1;
    case 'p':
        rebase->show_progress = true;
        return -1;
    case 't':
        rebase->cache = optarg;
        return -1;
    case 'T':
        rebase->source_cache = optarg;
        return -1;
    case 'q':
        rebase->quiet = true;
        return -1;
    case 'U': /* the image itself is written to */
        rebase->source_flags |= ASH_NODE_FORCE_SHARE;
        return -1;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_IMAGE_OPTS:
        rebase->image.image_opts = true;
        return -1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

int ash_img_rebase(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"force-share", no_argument, NULL, 'U'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {NULL, 0, NULL, 0},
    };
    struct rebase rebase = {.image.flags = ASH_NODE_WRITE};
    int c;
    while ((c = getopt_long(argc, argv, ":hf:F:b:upt:T:qU", options, NULL)) != -1) {
        int status = take_option(&rebase, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting one image file name");
    }
    if (!rebase.unsafe && rebase.backing == NULL) {
        return ash_tool_usage("Must specify backing file (-b) or use unsafe mode (-u)");
    }
    rebase.image.filename = argv[optind];
    if (rebase.image.image_opts && rebase.image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return 1;
    }
    if (!take_caches(&rebase)) {
        return 1;
    }
    rebase.show_progress &= !rebase.quiet;
    rebase.image.flags |= rebase.unsafe ? ASH_NODE_NO_BACKING : 0;
    ash_tool_catch_signals();
    return ash_tool_run(rebase_co, &rebase, 1);
}
