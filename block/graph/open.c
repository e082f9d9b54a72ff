/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening a graph from a description: one layer with what it stands on, then its backing file, and
 * so on down the chain in a loop.
 *
 * Invariants:
 *  1. What failed half-way is taken apart again: nothing stays open after an error.
 *  2. The depth of "file" under "file" is bounded by ASH_NESTING_MAX, that of a chain by
 *     ASH_CHAIN_DEPTH_MAX, and no file occurs twice in a chain.
 *  3. A format is guessed from the file's bytes only where nobody named it, and a raw image that
 * was guessed is marked. */
#include "block/graph/open.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/describe.h"
#include "block/graph/edge.h"
#include "block/graph/plan.h"
#include "block/map/map.h"
#include "util/assert.h"
#include "util/json.h"

#define PROBE_BYTES 2048

ASH_CO_FN static int open_layer(struct ash_loop *loop, const json_t *description, uint32_t flags,
                                unsigned nesting, struct ash_node **node, struct ash_error *error);

/* What a child gets where its description says nothing. */
static uint32_t flags_of_child(uint32_t flags, enum ash_role role)
{
    uint32_t inherited = ASH_NODE_DIRECT | ASH_NODE_NO_FLUSH | ASH_NODE_FORCE_SHARE |
                         ASH_NODE_NO_LOCK | ASH_NODE_HEADER_URLS | ASH_NODE_AUTO_READ_ONLY |
                         ASH_NODE_NO_BACKING | ASH_NODE_BACKING_TOLD;
    uint32_t child = (flags & inherited) | ASH_NODE_DISCARD;
    if (role == ASH_ROLE_BACKING) {
        return child | ASH_NODE_AUTO_READ_ONLY | ASH_NODE_BACKING_FILE;
    }
    return child | (flags & ASH_NODE_WRITE);
}

/* Reads the first bytes and names the driver. */
ASH_CO_FN static int probe(struct ash_node *file, const struct ash_driver **driver,
                           struct ash_error *error)
{
    uint8_t head[PROBE_BYTES] = {0};
    struct ash_edge *edge =
        ash_edge_new(NULL, file, "probe", ASH_ROLE_DISK, ASH_RIGHT_READ, ASH_RIGHT_ALL, NULL);
    ash_user_enter(&file->own); /* a node that others use too may be paused */
    size_t bytes = ASH_MIN(file->size_bytes, sizeof(head));
    int ret = ash_edge_read(edge, 0, head, bytes);
    ash_user_leave(&file->own);
    ash_edge_free(edge);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Could not read image for determining its format");
    }
    *driver = ash_driver_probe(head, bytes);
    return 0;
}

/* The node under "file", or what the driver calls another child: an object, or a node's name. */
ASH_CO_FN static int open_child(struct ash_loop *loop, json_t *description, const char *key,
                                uint32_t flags, unsigned nesting, struct ash_node **file,
                                struct ash_error *error)
{
    json_t *child = json_object_get(description, key);
    if (child == NULL) {
        return ash_error_set(error, -EINVAL, "A block device must be specified for \"%s\"", key);
    }
    if (json_is_string(child)) {
        *file = ash_node_find(loop, json_string_value(child));
        if (*file == NULL) {
            return ash_error_set(error, -ENODEV, "Cannot find device='%s' nor node-name='%s'",
                                 json_string_value(child), json_string_value(child));
        }
        ash_node_ref(*file);
        return 0;
    }
    if (!json_is_object(child)) {
        return ash_error_set(error, -EINVAL, "Parameter '%s' expects an object or a node name",
                             key);
    }
    json_t *copy = json_copy(child);
    if (json_object_get(copy, "driver") == NULL && json_object_get(copy, "file") == NULL) {
        json_object_set_new(copy, "driver", json_string("file"));
    }
    int ret =
        open_layer(loop, copy, flags_of_child(flags, ASH_ROLE_FILE), nesting + 1, file, error);
    json_decref(copy);
    return ret;
}

static int choose_driver(const struct ash_node_options *options, const struct ash_driver **driver,
                         struct ash_error *error)
{
    *driver = NULL;
    if (options->driver == NULL) {
        return 0;
    }
    *driver = ash_driver_find(options->driver);
    if (*driver == NULL) {
        return ash_error_set(error, -EINVAL, "Unknown driver '%s'", options->driver);
    }
    return 0;
}

/* The caller's reference to the child passes to the edge, or is dropped. */
ASH_CO_FN static int attach_child(struct ash_node *node, struct ash_node *child, const char *name,
                                  enum ash_role role, struct ash_error *error)
{
    struct ash_edge *edge;
    struct ash_plan *plan = ash_plan_new(node->loop);
    ash_plan_attach(plan, node, child, name, role, 0, ASH_RIGHT_ALL, NULL, &edge);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    if (ret == 0 && role == ASH_ROLE_FILE) {
        g_free(node->filename);
        node->filename = g_strdup(child->filename);
    }
    ash_node_unref(child);
    return ret;
}

/* The other child of a driver that has one. */
ASH_CO_FN static int open_data_child(struct ash_node *node, json_t *description, unsigned nesting,
                                     struct ash_error *error)
{
    struct ash_node *data;
    const char *name = node->driver->data_child;
    int ret = open_child(node->loop, description, name, node->flags, nesting, &data, error);
    return ret < 0 ? ret : attach_child(node, data, name, ASH_ROLE_DATA, error);
}

/* Parses the driver's own options; `description` has lost the general ones. */
static int take_driver_options(struct ash_node *node, json_t *description, struct ash_error *error)
{
    const struct ash_driver *driver = node->driver;
    if (driver->options != NULL) {
        ash_options_init(driver->options, node->state);
        int ret = ash_options_take(driver->options, description, node->state, error);
        if (ret < 0) {
            return ret;
        }
    }
    const char *kind = driver->kind == ASH_DRIVER_PROTOCOL ? "Block protocol" : "Block format";
    char *what = g_strdup_printf("%s '%s'", kind, driver->name);
    int ret = ash_options_refuse_rest(description, what, error);
    g_free(what);
    return ret;
}

/* The limits, and the map of a driver that has one. */
static void settle(struct ash_node *node)
{
    if (node->driver->limits != NULL) {
        node->driver->limits(node, &node->limits);
    }
    ash_assert(node->limits.request_alignment >= 1);
    ash_assert(node->limits.memory_alignment >= 1);
    if (node->driver->map != NULL) {
        node->map = ash_map_new(node);
    }
}

/* Lets the node and what was opened with it be found by their names: not before the whole chain is
 * there, as whoever found a part of it would read zeroes where the rest is missing. Tells them so.
 */
static int show(struct ash_node *top, struct ash_error *error)
{
    GPtrArray *nodes = g_ptr_array_new();
    int ret = 0;
    g_ptr_array_add(nodes, top);
    top->open = true;
    for (guint i = 0; i < nodes->len && ret == 0; i++) {
        struct ash_node *node = nodes->pdata[i];
        ash_list_for_each (edge, &node->children, struct ash_edge, parent_link) {
            if (!edge->child->open) { /* else it was there before, and all below it */
                edge->child->open = true;
                g_ptr_array_add(nodes, edge->child);
            }
        }
        ret = node->driver->chained != NULL ? node->driver->chained(node, error) : 0;
    }
    for (guint i = 0; i < nodes->len && ret < 0; i++) {
        ((struct ash_node *)nodes->pdata[i])->open = false;
    }
    g_ptr_array_free(nodes, TRUE);
    return ret;
}

static int check_name(struct ash_loop *loop, const struct ash_node_options *options,
                      struct ash_error *error)
{
    if (options->name != NULL && ash_node_name_taken(loop, options->name)) {
        return ash_error_set(error, -EEXIST, "Duplicate nodes with node-name='%s'", options->name);
    }
    return 0;
}

/* Out of the driver's own options, unless nothing below is to be opened, or asked for, and so
 * nothing may be named. */
static void take_backing(struct ash_loop *loop, const struct ash_driver *driver, uint32_t flags,
                         json_t *own)
{
    json_t *backing = json_object_get(own, "backing");
    if (!driver->backing || backing == NULL) {
        return;
    }
    bool none =
        json_is_null(backing) || (json_is_string(backing) && json_string_length(backing) == 0);
    if (none && !json_is_null(backing)) {
        ash_log(loop, ASH_LOG_WARNING,
                "Use of \"backing\": \"\" is deprecated; use \"backing\": null instead");
    }
    uint32_t closed = flags & (ASH_NODE_NO_BACKING | ASH_NODE_BACKING_TOLD);
    if (none || closed != ASH_NODE_NO_BACKING) {
        json_object_del(own, "backing");
    }
}

/* Makes and opens the node. The reference to `file` passes to the node's edge, or is dropped. */
ASH_CO_FN static int open_node(struct ash_loop *loop, const struct ash_driver *driver,
                               const struct ash_node_options *options, json_t *rest,
                               unsigned nesting, struct ash_node *file, struct ash_node **result,
                               struct ash_error *error)
{
    int ret = check_name(loop, options, error); /* again: "file" took time to open */
    if (ret < 0) {
        if (file != NULL) {
            ash_node_unref(file);
        }
        return ret;
    }
    struct ash_node *node = ash_node_new(loop, driver, options->name, options->flags);
    json_t *own = json_copy(rest);
    json_object_del(own, "file");
    take_backing(loop, driver, options->flags, own);
    if (driver->data_child != NULL) {
        json_object_del(own, driver->data_child);
    }
    ret = take_driver_options(node, own, error);
    json_decref(own);
    if (ret == 0 && file != NULL) {
        ret = attach_child(node, file, "file", ASH_ROLE_FILE, error);
    } else if (file != NULL) {
        ash_node_unref(file);
    }
    if (ret == 0 && driver->data_child != NULL) {
        ret = open_data_child(node, rest, nesting, error);
    }
    if (ret == 0) {
        ash_user_enter(&node->own); /* what it stands on may be paused */
        ret = driver->open(node, error);
        ash_user_leave(&node->own);
    }
    if (ret < 0) {
        ash_node_discard(node);
        return ret;
    }
    settle(node);
    *result = node;
    return 0;
}

int ash_node_make(struct ash_loop *loop, const struct ash_driver *driver, const char *name,
                  const void *state, struct ash_node **result, struct ash_error *error)
{
    struct ash_node_options options = {.name = (char *)name};
    int ret = check_name(loop, &options, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_node *node = ash_node_new(loop, driver, name, 0);
    memcpy(node->state, state, driver->state_size);
    json_object_set_new(node->options, "driver", json_string(driver->name));
    ret = driver->open(node, error);
    if (ret < 0) {
        ash_node_discard(node);
        return ret;
    }
    settle(node);
    node->open = true;
    *result = node;
    return 0;
}

ASH_CO_FN static int open_driver(struct ash_loop *loop, struct ash_node_options *options,
                                 json_t *rest, unsigned nesting, struct ash_node **node,
                                 struct ash_error *error)
{
    const struct ash_driver *driver;
    int ret = choose_driver(options, &driver, error);
    if (ret < 0) {
        return ret;
    }
    ret = check_name(loop, options, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_node *file = NULL;
    if (driver == NULL || driver->kind != ASH_DRIVER_PROTOCOL) {
        ret = open_child(loop, rest, "file", options->flags, nesting, &file, error);
        if (ret < 0) {
            return ret;
        }
    }
    if (driver == NULL) {
        ret = probe(file, &driver, error);
        if (ret < 0) {
            ash_node_unref(file);
            return ret;
        }
        if (driver == ash_driver_find("raw")) {
            options->flags |= ASH_NODE_PROBED;
            if ((options->flags & ASH_NODE_WRITE) != 0) {
                ash_log(loop, ASH_LOG_WARNING,
                        "Image format was not specified for '%s' and probing guessed raw. "
                        "Automatically detecting the format is dangerous for raw images, write "
                        "operations on block 0 will be restricted. Specify the 'raw' format "
                        "explicitly to remove the restrictions.",
                        file->filename);
            }
        }
    }
    return open_node(loop, driver, options, rest, nesting, file, node, error);
}

/* The filter on top of a node that was opened just now; it is opened as the node is. */
ASH_CO_FN static int put_copy_on_read(struct ash_loop *loop, struct ash_node **node,
                                      struct ash_error *error)
{
    uint32_t own =
        ASH_NODE_PROBED | ASH_NODE_DETECT_ZEROES | ASH_NODE_DETECT_UNMAP | ASH_NODE_GROWS;
    struct ash_node_options options = {.flags = (*node)->flags & ~own};
    json_t *none = json_object();
    int ret =
        open_node(loop, ash_driver_find("copy-on-read"), &options, none, 0, *node, node, error);
    json_decref(none);
    return ret;
}

static int open_layer(struct ash_loop *loop, const json_t *description, uint32_t flags,
                      unsigned nesting, struct ash_node **node, struct ash_error *error)
{
    if (nesting > ASH_NESTING_MAX) {
        return ash_error_set(error, -E2BIG, "More than %d nodes above one another through \"file\"",
                             ASH_NESTING_MAX);
    }
    json_t *rest = json_deep_copy(description);
    struct ash_node_options options = {.flags = 0};
    int ret = ash_json_expand(rest, error);
    if (ret == 0) {
        ret = ash_node_options_take(rest, flags, &options, error);
    }
    if (ret == 0) {
        ret = open_driver(loop, &options, rest, nesting, node, error);
    }
    if (ret == 0) {
        json_decref((*node)->options);
        (*node)->options = json_deep_copy(description);
        ash_json_expand((*node)->options, NULL);
    }
    if (ret == 0 && options.copy_on_read) {
        ret = put_copy_on_read(loop, node, error);
    }
    ash_node_options_clear(&options);
    json_decref(rest);
    return ret;
}

/* Whether a description says itself what lies below it. If not, it adds options to what an image's
 * header names: {"file": {"locking": "off"}}, {"driver": "raw"}. */
static bool names_what_is_below(const json_t *description)
{
    static const char *const names[] = {"filename", "fd", "file"};
    const char *driver_name = json_string_value(json_object_get(description, "driver"));
    const struct ash_driver *driver = driver_name != NULL ? ash_driver_find(driver_name) : NULL;
    const json_t *file = json_object_get(description, "file");
    if (driver != NULL && driver->kind == ASH_DRIVER_PROTOCOL) {
        return true;
    }
    if (file == NULL) {
        return false;
    }
    for (size_t i = 0; i < ASH_ARRAY_SIZE(names); i++) {
        if (json_object_get(file, names[i]) != NULL) {
            return true;
        }
    }
    driver_name = json_string_value(json_object_get(file, "driver"));
    driver = driver_name != NULL ? ash_driver_find(driver_name) : NULL;
    return !json_is_object(file) || (driver != NULL && !ash_driver_takes_filename(driver));
}

/* What the header names, with the options of the description laid over it. */
static json_t *backing_with_options(const struct ash_node *node, const json_t *options,
                                    struct ash_error *error)
{
    json_t *description = ash_describe_backing(node, error);
    json_t *file = json_object_get(description, "file");
    json_t *own_file = json_object_get(options, "file");
    if (description == NULL || options == NULL) {
        return description;
    }
    if (json_is_object(file)) {
        json_incref(file);
        json_object_update(file, own_file);
        json_object_update(description, (json_t *)options);
        json_object_set_new(description, "file", file);
    } else {
        json_object_update(description, (json_t *)options);
    }
    return description;
}

/* An image below whose format is not said has the one that the header says, whatever its name. */
static json_t *backing_of_its_own(const struct ash_node *node, const json_t *options)
{
    json_t *description = json_deep_copy(options);
    if (node->backing_format != NULL && json_object_get(description, "driver") == NULL) {
        json_object_set_new(description, "driver", json_string(node->backing_format));
    }
    return description;
}

int ash_node_backing(struct ash_node *node, json_t **description, struct ash_node **existing,
                     struct ash_error *error)
{
    *description = NULL;
    *existing = NULL;
    if (!node->driver->backing) {
        return 0;
    }
    json_t *backing = json_object_get(node->options, "backing");
    if (json_is_null(backing)) {
        return 0;
    }
    if (json_is_string(backing) && json_string_length(backing) == 0) {
        return 0;
    }
    if (json_is_string(backing)) {
        *existing = ash_node_find(node->loop, json_string_value(backing));
        if (*existing == NULL) {
            return ash_error_set(error, -ENODEV, "Cannot find device='%s' nor node-name='%s'",
                                 json_string_value(backing), json_string_value(backing));
        }
        ash_node_ref(*existing);
        return 1;
    }
    if (json_is_object(backing) && (node->backing_file == NULL || names_what_is_below(backing))) {
        *description = backing_of_its_own(node, backing);
        return 1;
    }
    if (backing != NULL && !json_is_object(backing)) {
        return ash_error_set(error, -EINVAL,
                             "Parameter 'backing' expects an object or a node name");
    }
    if (node->backing_file == NULL) {
        return 0;
    }
    struct ash_error own = ASH_ERROR_INIT;
    error = error != NULL ? error : &own;
    *description = backing_with_options(node, backing, error);
    return *description != NULL ? 1 : error->code;
}

static int refuse_repeated(const char *filename, struct ash_error *error)
{
    return ash_error_set(error, -ELOOP, "Backing file '%s' creates an infinite loop.", filename);
}

/* Whether the file was met before in this chain. */
static int check_repeated(GHashTable *seen, const struct ash_node *node, struct ash_error *error)
{
    if (node->filename[0] == '\0' ||
        g_hash_table_add(seen, g_canonicalize_filename(node->filename, NULL))) {
        return 0;
    }
    return refuse_repeated(node->filename, error);
}

/* The same before the file is opened, where its lock would be the first to fail. */
static int check_description(GHashTable *seen, const json_t *description, struct ash_error *error)
{
    const json_t *file = json_object_get(description, "file");
    const char *filename = json_string_value(json_object_get(file, "filename"));
    if (filename == NULL) {
        return 0;
    }
    char *path = g_canonicalize_filename(filename, NULL);
    bool repeated = g_hash_table_contains(seen, path);
    g_free(path);
    return repeated ? refuse_repeated(filename, error) : 0;
}

ASH_CO_FN static int attach_backing(struct ash_node *node, struct ash_node *backing,
                                    struct ash_error *error)
{
    struct ash_edge *edge;
    struct ash_plan *plan = ash_plan_new(node->loop);
    ash_plan_attach(plan, node, backing, "backing", ASH_ROLE_BACKING, 0, ASH_RIGHT_ALL, NULL,
                    &edge);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    ash_node_unref(backing); /* the edge holds it now, or nobody does */
    return ret;
}

/* Opens what is below `node`, one layer; *next is NULL at the end of the chain. */
ASH_CO_FN static int open_below(struct ash_node *node, struct ash_node **next, GHashTable *seen,
                                struct ash_error *error)
{
    json_t *description;
    struct ash_node *backing;
    *next = NULL;
    if ((node->flags & ASH_NODE_NO_BACKING) != 0) {
        return 0;
    }
    int ret = ash_node_backing(node, &description, &backing, error);
    if (ret <= 0) {
        return ret;
    }
    if (backing == NULL) {
        ret = check_description(seen, description, error);
        if (ret == 0) {
            ret = open_layer(node->loop, description, flags_of_child(node->flags, ASH_ROLE_BACKING),
                             0, &backing, error);
        }
        json_decref(description);
        if (ret < 0) {
            ash_error_prefix(error, "Could not open backing file: ");
            return ret;
        }
        ret = check_repeated(seen, backing, error);
        *next = backing;
    } else {
        ret = 0; /* an existing node has its chain already */
    }
    if (ret < 0) {
        ash_node_unref(backing);
        return ret;
    }
    return attach_backing(node, backing, error);
}

/* Collects what may have a chain below it: of a layer that was opened just now, the top or what the
 * top stands on through "file", as below a filter, and other children with what they stand on. */
static void collect(GPtrArray *overlays, struct ash_node *layer)
{
    for (struct ash_node *node = layer; node != NULL && !node->open;
         node = node->file != NULL ? node->file->child : NULL) {
        if (node->driver->backing) {
            g_ptr_array_add(overlays, node);
        }
        if (node->data != NULL) {
            collect(overlays, node->data->child);
        }
    }
}

/* Opens what is below the top and the layers found on the way. */
ASH_CO_FN static int open_chain(struct ash_node *top, struct ash_error *error)
{
    GHashTable *seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    GPtrArray *overlays = g_ptr_array_new();
    int ret = check_repeated(seen, top, error);
    collect(overlays, top);
    for (unsigned depth = 0; ret == 0 && overlays->len > 0; depth++) {
        if (depth >= ASH_CHAIN_DEPTH_MAX) {
            ret = ash_error_set(error, -ELOOP, "The backing chain of '%s' is longer than %d",
                                top->filename, ASH_CHAIN_DEPTH_MAX);
            break;
        }
        struct ash_node *below;
        struct ash_node *node = g_ptr_array_remove_index(overlays, overlays->len - 1);
        ret = open_below(node, &below, seen, error);
        if (ret == 0 && below != NULL) {
            collect(overlays, below);
        }
    }
    g_ptr_array_free(overlays, TRUE);
    g_hash_table_destroy(seen);
    return ret;
}

int ash_node_open(struct ash_loop *loop, const json_t *description, uint32_t flags,
                  struct ash_node **result, struct ash_error *error)
{
    ash_loop_assert_owner(loop);
    struct ash_node *top;
    int ret = open_layer(loop, description, flags, 0, &top, error);
    if (ret < 0) {
        return ret;
    }
    ret = open_chain(top, error);
    if (ret == 0) {
        ret = show(top, error);
    }
    if (ret < 0) {
        ash_node_unref(top);
        return ret;
    }
    *result = top;
    return 0;
}
