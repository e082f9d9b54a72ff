/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of drivers of the tests of the core, linked in place of block/drivers.c; and a filter
 * that does nothing but be there. */
#include "block/driver.h"

extern const struct ash_driver ash_driver_copy_before_write;
extern const struct ash_driver ash_driver_copy_on_read;
extern const struct ash_driver ash_driver_fault;
extern const struct ash_driver ash_driver_file;
extern const struct ash_driver ash_driver_log_writes;
extern const struct ash_driver ash_driver_mirror_top;
extern const struct ash_driver ash_driver_null_co;
extern const struct ash_driver ash_driver_qcow2;
extern const struct ash_driver ash_driver_raw;
extern const struct ash_driver ash_driver_snapshot_access;
extern const struct ash_driver ash_driver_test_map;
extern const struct ash_driver ash_driver_test_mem;
extern const struct ash_driver ash_driver_throttle;

static int filter_open(struct ash_node *node, struct ash_error *error)
{
    (void)error;
    node->size_bytes = node->file->child->size_bytes;
    return 0;
}

static const struct ash_driver driver_test_filter = {
    .name = "test-filter",
    .kind = ASH_DRIVER_FILTER,
    .open = filter_open,
};

const struct ash_driver *const ash_drivers[] = {
    &ash_driver_copy_before_write,
    &ash_driver_copy_on_read,
    &ash_driver_fault,
    &ash_driver_file,
    &ash_driver_log_writes,
    &ash_driver_mirror_top,
    &ash_driver_null_co,
    &ash_driver_qcow2,
    &ash_driver_raw,
    &ash_driver_snapshot_access,
    &driver_test_filter,
    &ash_driver_test_map,
    &ash_driver_test_mem,
    &ash_driver_throttle,
    NULL,
};
