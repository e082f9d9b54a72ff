/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A protocol node without a graph, for tests of drivers: requests go straight to the driver, which
 * so gets what the request path would give it and nothing is done in its place. */
#ifndef ASH_TESTS_BARE_NODE_H
#define ASH_TESTS_BARE_NODE_H

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "tests/unit/co_test.h"
#include "util/loop/loop.h"
#include "util/options.h"

struct bare {
    struct ash_node node;
    struct ash_error error; /* of the last call */
};

/* Opens; takes `options` over. On failure nothing is left to be closed. */
ASH_CO_FN static inline int bare_open(struct bare *bare, struct ash_loop *loop, const char *driver,
                                      json_t *options, uint32_t flags)
{
    struct ash_node *node = &bare->node;
    memset(bare, 0, sizeof(*bare));
    bare->error = (struct ash_error)ASH_ERROR_INIT;
    node->loop = loop;
    node->driver = ash_driver_find(driver);
    assert_non_null(node->driver);
    node->state = g_malloc0(node->driver->state_size);
    node->filename = g_strdup("");
    node->options = options;
    node->flags = flags;
    ash_list_init(&node->parents);
    ash_list_init(&node->children);
    json_t *left = json_copy(options);
    ash_options_init(node->driver->options, node->state);
    int ret = ash_options_take(node->driver->options, left, node->state, &bare->error);
    if (ret == 0) {
        ret = ash_options_refuse_rest(left, driver, &bare->error);
    }
    json_decref(left);
    if (ret == 0) {
        ret = node->driver->open(node, &bare->error);
    }
    if (ret < 0) {
        ash_options_clear(node->driver->options, node->state);
        json_decref(node->options);
        g_free(node->filename);
        g_free(node->state);
        return ret;
    }
    node->driver->limits(node, &node->limits);
    return 0;
}

ASH_CO_FN static inline int bare_close(struct bare *bare)
{
    struct ash_node *node = &bare->node;
    int ret = node->driver->close != NULL ? node->driver->close(node) : 0;
    ash_options_clear(node->driver->options, node->state);
    json_decref(node->options);
    g_free(node->filename);
    g_free(node->state);
    return ret;
}

ASH_CO_FN static inline int bare_io(struct bare *bare, enum ash_op op, uint64_t offset,
                                    void *buffer, uint64_t bytes, uint32_t flags)
{
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {
        .op = (uint8_t)op,
        .flags = flags,
        .offset = offset,
        .bytes = bytes,
        .iov = ash_iov_of(&vec, 1),
    };
    return bare->node.driver->io[op](&bare->node, &io);
}

ASH_CO_FN static inline struct ash_status bare_status(struct bare *bare, uint64_t offset,
                                                      uint64_t bytes, uint32_t flags)
{
    struct ash_status status = {0};
    struct ash_io io = {
        .op = ASH_STATUS,
        .flags = flags,
        .offset = offset,
        .bytes = bytes,
        .status = &status,
    };
    assert_int_equal(bare->node.driver->io[ASH_STATUS](&bare->node, &io), 0);
    assert_ptr_equal(status.node, &bare->node);
    assert_ptr_equal(status.host, &bare->node);
    assert_int_equal(status.host_offset, offset);
    return status;
}

/* A test whose body is a coroutine of `loop`, a variable of the file. */
#define CO_TEST(name) CO_TEST_ON(loop, name)

#endif
