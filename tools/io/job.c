/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: starting, watching and steering them, between and beside requests; and the names of the
 * nodes that they are told of.
 *
 * The shell keeps a handle on each job that it started, until the job is gone and that was told. A
 * wait never lasts for ever by a mistake: it ends when the job itself waits for a verb. */
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ashlar/job.h>
#include "block/driver.h"
#include "job/job.h"
#include "tools/io/shell.h"
#include "util/json.h"

#define PROGRESS_NS INT64_C(100000000)

struct shell_job {
    struct ash_job *job; /* a reference */
    bool told_to_end;    /* by complete, finalize or cancel */
};

static void free_job(gpointer data)
{
    struct shell_job *entry = data;
    ash_job_unref(entry->job);
    g_free(entry);
}

static struct ash_job_info info_of(const struct shell_job *entry)
{
    struct ash_job_info info = {.size = sizeof(info)};
    (void)!ash_job_info(entry->job, &info); /* the size is right */
    return info;
}

static struct shell_job *job_at(const struct ash_shell *shell, guint index)
{
    return g_ptr_array_index(shell->jobs, index);
}

static guint job_count(const struct ash_shell *shell)
{
    return shell->jobs != NULL ? shell->jobs->len : 0;
}

/* The youngest of that name: an older one is gone, or it could not have been given again. */
static struct shell_job *find_job(const struct ash_shell *shell, const char *id)
{
    for (guint i = job_count(shell); i-- > 0;) {
        if (strcmp(info_of(job_at(shell, i)).id, id) == 0) {
            return job_at(shell, i);
        }
    }
    ash_tool_error("There is no job '%s'", id);
    return NULL;
}

bool ash_shell_has_jobs(const struct ash_shell *shell)
{
    return job_count(shell) > 0;
}

/* --- start --- */

/* The words as one description. Without a device it is the disk that is open. */
static json_t *describe(const struct ash_shell *shell, int argc, char **argv)
{
    struct ash_error error = ASH_ERROR_INIT;
    bool json = argv[0][0] == '{' || argv[0][0] == '[';
    argv[argc] = NULL;
    char *text = g_strjoinv(json ? " " : ",", argv);
    json_error_t where;
    json_t *description = json ? json_loads(text, JSON_REJECT_DUPLICATES, &where)
                               : ash_json_from_keyval(text, NULL, &error);
    g_free(text);
    if (description == NULL) {
        ash_tool_error("The job cannot be understood: %s", json ? where.text : error.message);
        return NULL;
    }
    size_t count = json_is_array(description) ? json_array_size(description) : 1;
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_is_array(description) ? json_array_get(description, i) : description;
        if (shell->disk != NULL && json_is_object(one) && json_object_get(one, "device") == NULL) {
            json_object_set_new(one, "device", json_string(ash_disk_node(shell->disk)->name));
        }
    }
    return description;
}

void ash_shell_add_job(struct ash_shell *shell, struct ash_job *job)
{
    struct shell_job *entry = g_new0(struct shell_job, 1);
    entry->job = job;
    if (shell->jobs == NULL) {
        shell->jobs = g_ptr_array_new_with_free_func(free_job);
    }
    g_ptr_array_add(shell->jobs, entry);
    printf("started %s\n", info_of(entry).id);
}

static bool start(struct ash_shell *shell, const json_t *description)
{
    struct ash_error error = ASH_ERROR_INIT;
    uint32_t count = json_is_array(description) ? (uint32_t)json_array_size(description) : 1;
    struct ash_job **jobs = g_new0(struct ash_job *, ASH_MAX(count, 1));
    char *text = json_dumps(description, 0);
    int ret = json_is_array(description)
                  ? ash_job_start_all_sync(shell->loop, text, NULL, NULL, jobs, count, &error)
                  : ash_job_start_sync(shell->loop, text, NULL, NULL, jobs, &error);
    free(text);
    if (ret < 0) {
        ash_tool_error("The job cannot be started: %s",
                       error.message[0] != '\0' ? error.message : strerror(-ret));
    }
    for (uint32_t i = 0; i < count && ret == 0; i++) {
        ash_shell_add_job(shell, jobs[i]);
    }
    g_free(jobs);
    return ret == 0;
}

static bool job_start(struct ash_shell *shell, int argc, char **argv)
{
    if (argc < 2) {
        return ash_command_usage("job");
    }
    json_t *description = describe(shell, argc - 1, argv + 1);
    bool started = description != NULL && start(shell, description);
    json_decref(description);
    return started;
}

/* --- list and wait --- */

static void print_result(const struct ash_job_info *info)
{
    if (info->state >= ASH_JOB_CONCLUDED) {
        const char *why = info->message[0] != '\0' ? info->message : strerror(-info->result);
        printf(" %s", info->result == 0 ? "ok" : why);
    } else if (info->io_error != 0) {
        printf(" %s", strerror(-info->io_error));
    }
    printf("\n");
}

static bool job_list(struct ash_shell *shell, int argc, char **argv)
{
    (void)argv;
    if (argc != 1) {
        return ash_command_usage("job");
    }
    for (guint i = 0; i < job_count(shell); i++) {
        struct ash_job_info info = info_of(job_at(shell, i));
        printf("%s %s %s %" PRIu64 "/%" PRIu64, info.id, info.type,
               ash_job_state_name((enum ash_job_state)info.state), info.done_bytes,
               info.total_bytes);
        print_result(&info);
    }
    return true;
}

/* The state of that name, or -1. */
static int find_state(const char *name)
{
    for (int state = ASH_JOB_CREATED; state <= ASH_JOB_NULL; state++) {
        if (strcmp(ash_job_state_name((enum ash_job_state)state), name) == 0) {
            return state;
        }
    }
    ash_tool_error("There is no state '%s'", name);
    return -1;
}

static bool is_over(const struct ash_job_info *info)
{
    return info->state == ASH_JOB_CONCLUDED || info->state == ASH_JOB_NULL;
}

/* Whether it goes on only when it is told to. */
static bool is_stuck(const struct shell_job *entry, const struct ash_job_info *info)
{
    const struct ash_job *job = entry->job;
    switch (info->state) {
    case ASH_JOB_PAUSED:
    case ASH_JOB_STANDBY:
        return job->user_paused;
    case ASH_JOB_READY:
        return !entry->told_to_end;
    case ASH_JOB_PENDING:
        return !entry->told_to_end && !job->auto_finalize;
    default:
        return false;
    }
}

static double percent(const struct ash_job_info *info)
{
    double whole = info->total_bytes > 0 ? (double)info->total_bytes : 1;
    return 100.0 * (double)info->done_bytes / whole;
}

/* Runs the loop until the job is in the state, is over, or is stuck. */
static struct ash_job_info wait_for(struct ash_shell *shell, const struct shell_job *entry,
                                    int state, struct ash_progress *progress)
{
    for (;;) {
        struct ash_job_info info = info_of(entry);
        ash_progress_set(progress, ASH_MIN(percent(&info), 99.9));
        if ((int)info.state == state || is_over(&info) || is_stuck(entry, &info) ||
            ash_loop_run_once(shell->loop, progress->on ? PROGRESS_NS : -1, 0) < 0) {
            return info;
        }
    }
}

/* Says how it is. A job that was dismissed, and of which that was told, is forgotten. */
static bool tell(struct ash_shell *shell, struct shell_job *entry, const struct ash_job_info *info,
                 int state)
{
    const char *name =
        ash_job_state_name((enum ash_job_state)(is_over(info) ? ASH_JOB_CONCLUDED : info->state));
    bool over = is_over(info);
    bool right = over ? info->result == 0 && state >= ASH_JOB_CONCLUDED : (int)info->state == state;
    printf("%s: %s", info->id, name);
    print_result(info);
    if (!right && !(over && info->result != 0)) {
        ash_tool_error("Job '%s' is %s, not %s", info->id, name,
                       ash_job_state_name((enum ash_job_state)state));
    } else if (!right) {
        ash_tool_error("Job '%s' failed: %s", info->id,
                       info->message[0] != '\0' ? info->message : strerror(-info->result));
    }
    if (info->state == ASH_JOB_NULL) {
        g_ptr_array_remove(shell->jobs, entry);
    }
    return right;
}

static bool job_wait(struct ash_shell *shell, int argc, char **argv)
{
    struct ash_progress progress;
    bool show = false;
    int c;
    while ((c = getopt(argc, argv, "+p")) != -1) {
        if (c != 'p') {
            return ash_command_usage("job");
        }
        show = true;
    }
    if (argc - optind < 1 || argc - optind > 2) {
        return ash_command_usage("job");
    }
    int state = argc - optind == 2 ? find_state(argv[optind + 1]) : ASH_JOB_CONCLUDED;
    struct shell_job *entry = state >= 0 ? find_job(shell, argv[optind]) : NULL;
    if (entry == NULL) {
        return false;
    }
    ash_progress_begin(&progress, show);
    struct ash_job_info info = wait_for(shell, entry, state, &progress);
    if ((int)info.state == state || (is_over(&info) && info.result == 0)) {
        ash_progress_set(&progress, 100);
    }
    ash_progress_end(&progress);
    return tell(shell, entry, &info, state);
}

/* --- verbs --- */

static bool control(struct shell_job *entry, enum ash_job_verb verb, uint64_t value)
{
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_job_control_sync(entry->job, verb, value, &error);
    if (ret < 0) {
        ash_tool_error("%s", error.message[0] != '\0' ? error.message : strerror(-ret));
        return false;
    }
    entry->told_to_end |= verb == ASH_JOB_COMPLETE || verb == ASH_JOB_FINALIZE ||
                          verb == ASH_JOB_CANCEL || verb == ASH_JOB_FORCE_CANCEL;
    return true;
}

static const struct {
    const char *name;
    enum ash_job_verb verb;
} verbs[] = {
    {"pause", ASH_JOB_PAUSE},       {"resume", ASH_JOB_RESUME},
    {"cancel", ASH_JOB_CANCEL},     {"force-cancel", ASH_JOB_FORCE_CANCEL},
    {"complete", ASH_JOB_COMPLETE}, {"finalize", ASH_JOB_FINALIZE},
    {"dismiss", ASH_JOB_DISMISS},   {"speed", ASH_JOB_SET_SPEED},
};

static bool job_verb(struct ash_shell *shell, enum ash_job_verb verb, int argc, char **argv)
{
    uint64_t value = 0;
    if (argc != (verb == ASH_JOB_SET_SPEED ? 3 : 2)) {
        return ash_command_usage("job");
    }
    if (verb == ASH_JOB_SET_SPEED && !ash_shell_size(argv[2], &value)) {
        return false;
    }
    struct shell_job *entry = find_job(shell, argv[1]);
    if (entry == NULL || !control(entry, verb, value)) {
        return false;
    }
    if (verb == ASH_JOB_DISMISS) {
        g_ptr_array_remove(shell->jobs, entry);
    }
    return true;
}

bool ash_shell_job(struct ash_shell *shell, int argc, char **argv)
{
    argc--;
    argv++;
    if (strcmp(argv[0], "start") == 0) {
        return job_start(shell, argc, argv);
    }
    if (strcmp(argv[0], "list") == 0) {
        return job_list(shell, argc, argv);
    }
    if (strcmp(argv[0], "wait") == 0) {
        return job_wait(shell, argc, argv);
    }
    for (size_t i = 0; i < ASH_ARRAY_SIZE(verbs); i++) {
        if (strcmp(argv[0], verbs[i].name) == 0) {
            return job_verb(shell, verbs[i].verb, argc, argv);
        }
    }
    return ash_command_usage("job");
}

bool ash_shell_end_jobs(struct ash_shell *shell)
{
    bool right = true;
    for (guint i = 0; i < job_count(shell); i++) {
        struct shell_job *entry = job_at(shell, i);
        struct ash_job_info info = info_of(entry);
        if (!is_over(&info)) {
            ash_tool_error("Job '%s' is cancelled, as its file is closed", info.id);
            right = false;
            (void)!ash_job_control_sync(entry->job, ASH_JOB_FORCE_CANCEL, 0, NULL);
            entry->told_to_end = true;
        }
        while (!is_over(&info) && ash_loop_run_once(shell->loop, -1, 0) >= 0) {
            info = info_of(entry);
        }
        if (info.state == ASH_JOB_CONCLUDED) {
            (void)!ash_job_control_sync(entry->job, ASH_JOB_DISMISS, 0, NULL);
        }
    }
    if (shell->jobs != NULL) {
        g_ptr_array_free(shell->jobs, TRUE);
        shell->jobs = NULL;
    }
    return right;
}

/* --- nodes --- */

static void print_node(const struct ash_node *node, const char *role)
{
    printf("%s %s %s %s %s\n", role, node->name, node->driver->name,
           ash_node_writable(node) ? "rw" : "ro", node->filename);
}

bool ash_shell_nodes(struct ash_shell *shell, int argc, char **argv)
{
    const struct ash_node *node = ash_disk_node(shell->disk);
    const char *role = "root";
    (void)argc;
    (void)argv;
    while (node != NULL) {
        print_node(node, role);
        bool filter = node->driver->kind == ASH_DRIVER_FILTER;
        for (const struct ash_node *file = node; !filter && file->file != NULL;) {
            file = file->file->child;
            print_node(file, "file");
        }
        const struct ash_edge *next = filter ? node->file : node->backing;
        role = filter ? "file" : "backing";
        node = next != NULL ? next->child : NULL;
    }
    return true;
}
