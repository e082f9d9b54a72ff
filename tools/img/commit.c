/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* commit: what an image holds goes into its backing file, or into one further down the chain. It is
 * the job of that name, cancelled once it is ready: then base holds everything, and the image still
 * stands on it. Without -d and -b the image is emptied, as it reads the same without what it holds.
 */
#include <getopt.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/image/image.h"
#include "job/job.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

#define LOOK_NS UINT64_C(1000000) /* between two looks at the job */

struct commit {
    struct ash_tool_image image;
    const char *base; /* NULL: what the image stands on */
    const char *cache;
    uint64_t rate;
    bool keep; /* what the image holds */
    bool quiet;
    bool show_progress;
    struct ash_progress progress;
};

/* The image below `top` that its chain calls by this name. */
static struct ash_node *find_base(struct ash_node *top, const char *name)
{
    struct ash_node *node = top;
    while (node != NULL && node->backing != NULL) {
        struct ash_node *below = ash_graft_mapped(node->backing->child);
        bool named = node->backing_file != NULL && strcmp(node->backing_file, name) == 0;
        if (named || (below != NULL && strcmp(below->filename, name) == 0)) {
            return below;
        }
        node = below;
    }
    return NULL;
}

/* The node that is committed to. NULL after saying why there is none. */
static struct ash_node *choose_base(const struct commit *commit, struct ash_node *top)
{
    if (top == NULL || top->backing == NULL) {
        ash_tool_error("Image does not have a backing file");
        return NULL;
    }
    if (commit->base == NULL) {
        return top->backing->child;
    }
    struct ash_node *base = find_base(top, commit->base);
    if (base == NULL) {
        ash_tool_error("Did not find '%s' in the backing chain of '%s'", commit->base,
                       commit->image.filename);
    }
    return base;
}

static void show(struct commit *commit, struct ash_job *job)
{
    uint64_t total = atomic_load(&job->total_bytes);
    uint64_t done = ASH_MIN(atomic_load(&job->done_bytes), total);
    ash_progress_set(&commit->progress, total > 0 ? 99.9 * (double)done / (double)total : 0);
}

/* Until base holds everything, or the job has failed; then its end. 0 or its result. */
ASH_CO_FN static int watch(struct commit *commit, struct ash_job *job)
{
    bool told = false;
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        bool ready = ash_job_state(job) == ASH_JOB_READY;
        bool stop = ash_tool_interrupted();
        if (!told && (ready || stop)) {
            told = ash_co_job_control(job, ready ? ASH_JOB_CANCEL : ASH_JOB_FORCE_CANCEL, 0,
                                      NULL) == 0;
        }
        show(commit, job);
        ash_co_sleep(LOOK_NS);
    }
    return job->ret;
}

ASH_CO_FN static int run_job(struct commit *commit, struct ash_node *top, struct ash_node *base)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    json_t *description = json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "type", "commit", "job-id",
                                    "commit", "device", top->name, "base-node", base->name, "speed",
                                    (json_int_t)commit->rate, "auto-dismiss", 0);
    int ret = ash_co_job_start(ash_co_loop(), description, NULL, NULL, &job, &error);
    json_decref(description);
    if (ret < 0) {
        ash_tool_error("%s", error.message[0] != '\0' ? error.message : strerror(-ret));
        return ret;
    }
    ret = watch(commit, job);
    if (ret < 0 && !ash_tool_interrupted()) {
        const char *why = job->error.message[0] != '\0' ? job->error.message : strerror(-ret);
        ash_tool_error("error during commit: %s", why);
    }
    (void)!ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL);
    ash_job_unref(job);
    return ret;
}

ASH_CO_FN static int run(struct commit *commit, struct ash_disk *disk)
{
    struct ash_node *top = ash_graft_mapped(ash_disk_node(disk));
    struct ash_node *base = choose_base(commit, top);
    if (base == NULL || run_job(commit, top, base) < 0) {
        return 1;
    }
    struct ash_error error = ASH_ERROR_INIT;
    if (!commit->keep && ash_image_empty(disk, &error) < 0) {
        ash_tool_error("%s", error.message);
        return 1;
    }
    ash_progress_set(&commit->progress, 100);
    return 0;
}

ASH_CO_FN static int commit_co(void *opaque)
{
    struct commit *commit = opaque;
    struct ash_disk *disk = ash_tool_open(&commit->image);
    if (disk == NULL) {
        return 1;
    }
    ash_progress_begin(&commit->progress, commit->show_progress);
    int status = run(commit, disk);
    ash_progress_end(&commit->progress);
    if (ash_tool_close(disk, commit->image.filename) < 0) {
        status = 1;
    }
    if (status == 0 && !commit->quiet) {
        printf("Image committed.\n");
    }
    return status;
}

enum { OPTION_OBJECT = 256, OPTION_IMAGE_OPTS };

/* Takes one option. -1, or the exit status. */
static int take_option(struct commit *commit, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("commit");
    case 'f':
        commit->image.format = optarg;
        return -1;
    case 't':
        commit->cache = optarg;
        return -1;
    case 'b':
        commit->base = optarg;
        commit->keep = true;
        return -1;
    case 'd':
        commit->keep = true;
        return -1;
    case 'p':
        commit->show_progress = true;
        return -1;
    case 'q':
        commit->quiet = true;
        return -1;
    case 'r':
        return ash_tool_size(optarg, "rate limit", 0, INT64_MAX, &commit->rate) ? -1 : 1;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_IMAGE_OPTS:
        commit->image.image_opts = true;
        return -1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

int ash_img_commit(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {NULL, 0, NULL, 0},
    };
    struct commit commit = {.image.flags = ASH_NODE_WRITE | ASH_NODE_DISCARD};
    int c;
    while ((c = getopt_long(argc, argv, ":f:ht:b:dpqr:", options, NULL)) != -1) {
        int status = take_option(&commit, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting one image file name");
    }
    commit.image.filename = argv[optind];
    if (commit.image.image_opts && commit.image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return 1;
    }
    if (commit.cache != NULL &&
        ash_cache_mode(commit.cache, &commit.image.flags, &commit.image.write_through) < 0) {
        ash_tool_error("Invalid cache option: %s", commit.cache);
        return 1;
    }
    commit.show_progress &= !commit.quiet;
    ash_tool_catch_signals();
    return ash_tool_run(commit_co, &commit, 1);
}
