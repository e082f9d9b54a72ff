/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 on a protocol that is neither a file nor remembers its failures. */
#include "tests/unit/unit.h"
#include "block/image/options.h"
#include "block/qcow2/qcow2.h"
#include "tests/unit/core_rig.h"

#define CLUSTER 4096

/* A new image in memory, open for writing; *mem is what it stands on. */
ASH_CO_FN static struct ash_disk *open_image(struct core *core, struct ash_node **mem)
{
    struct ash_edge *edge =
        core_mem(core, json_pack("{s:s, s:i}", "node-name", "mem", "size", 64 * CLUSTER));
    const struct ash_driver *qcow2 = ash_driver_find("qcow2");
    json_t *wanted = json_pack("{s:i}", "cluster_size", CLUSTER);
    void *options = ash_create_options_take(qcow2, wanted, NULL);
    assert_non_null(options);
    assert_int_equal(qcow2->create(edge, 16 * CLUSTER, options, NULL), 0);
    ash_create_options_free(qcow2, options);
    json_decref(wanted);
    *mem = edge->child;
    ash_node_ref(*mem);
    core_let_go(core, edge);
    struct ash_disk *disk;
    json_t *description = json_pack("{s:s, s:s}", "driver", "qcow2", "file", "mem");
    assert_int_equal(ash_co_disk_open(core->loop, description, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(description);
    return disk;
}

/* What a failed flush has lost nobody knows; a protocol may have forgotten it by the next one. */
CORE_TEST(a_failed_flush_is_remembered_though_the_protocol_forgets_it)
{
    (void)opaque;
    struct ash_node *mem;
    struct ash_disk *disk = open_image(core, &mem);
    assert_int_equal(ash_disk_write(disk, 0, "new", 3, 0), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    assert_int_equal(ash_disk_write(disk, 0, "old", 3, 0), 0);
    mem_protocol_of(mem)->fail = -EIO; /* nothing but the flush is to be done */
    assert_int_equal(ash_disk_flush(disk), -EIO);
    assert_int_equal(mem_protocol_of(mem)->fail, 0);
    assert_int_equal(ash_disk_flush(disk), -EIO);
    assert_int_equal(ash_disk_write(disk, 8 * CLUSTER, "more", 4, 0), 0);
    assert_int_equal(ash_disk_flush(disk), -EIO);
    assert_int_equal(ash_co_disk_close(disk, NULL), -EIO);
    assert_int_equal(ash_node_unref(mem), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_flush_is_remembered_though_the_protocol_forgets_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
