/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding nodes by what a job's description says. */
#include "job/chain.h"
#include <errno.h>
#include <string.h>
#include "block/graph/graft.h"

int ash_job_find_node(struct ash_loop *loop, const char *option, const char *name,
                      struct ash_node **node, struct ash_error *error)
{
    if (name == NULL) {
        return ash_error_set(error, -EINVAL, "Parameter '%s' is missing", option);
    }
    *node = ash_node_find(loop, name);
    if (*node == NULL) {
        return ash_error_set(error, -ENODEV, "Cannot find device='' nor node-name='%s'", name);
    }
    return 0;
}

int ash_job_find_image(struct ash_node *top, const char *option, const char *filename,
                       struct ash_node **result, struct ash_error *error)
{
    for (struct ash_node *node = ash_graft_mapped(top); node != NULL && node->backing != NULL;) {
        node = ash_graft_mapped(node->backing->child);
        if (node != NULL && strcmp(node->filename, filename) == 0) {
            *result = node;
            return 0;
        }
    }
    return ash_error_set(error, -ENOENT, "Parameter '%s': '%s' is not in the backing chain of '%s'",
                         option, filename, top->filename);
}

int ash_job_find_below(struct ash_node *from, const char *file_option, const char *file,
                       const char *node_option, const char *name, struct ash_node **node,
                       struct ash_error *error)
{
    if (file != NULL && name != NULL) {
        return ash_error_set(error, -EINVAL, "'%s' and '%s' exclude one another", file_option,
                             node_option);
    }
    if (file != NULL) {
        return ash_job_find_image(from, file_option, file, node, error);
    }
    int ret = ash_job_find_node(from->loop, node_option, name, node, error);
    if (ret == 0 && (*node == from || !ash_graft_in_chain(from, *node))) {
        ret = ash_error_set(error, -EINVAL, "Node '%s' is not below '%s' in its backing chain",
                            name, from->filename);
    }
    return ret;
}

int ash_job_check_alone(const struct ash_node *node, struct ash_error *error)
{
    unsigned users = 0;
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        users += edge->role != ASH_ROLE_JOB;
    }
    return users == 1 ? 0
                      : ash_error_set(error, -EBUSY, "'%s' is used by others than the chain",
                                      node->filename);
}
