/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All drivers, in one visible table: constructors would be lost in a static archive. */
#include "block/driver.h"

extern const struct ash_driver ash_driver_copy_before_write;
extern const struct ash_driver ash_driver_copy_on_read;
extern const struct ash_driver ash_driver_fault;
extern const struct ash_driver ash_driver_file;
extern const struct ash_driver ash_driver_host_device;
extern const struct ash_driver ash_driver_log_writes;
extern const struct ash_driver ash_driver_mirror_top;
extern const struct ash_driver ash_driver_null_aio;
extern const struct ash_driver ash_driver_null_co;

extern const struct ash_driver ash_driver_qcow2;
extern const struct ash_driver ash_driver_raw;
extern const struct ash_driver ash_driver_snapshot_access;
extern const struct ash_driver ash_driver_throttle;

const struct ash_driver *const ash_drivers[] = {
    &ash_driver_copy_before_write,
    &ash_driver_copy_on_read,
    &ash_driver_fault,
    &ash_driver_file,
    &ash_driver_host_device,
    &ash_driver_log_writes,
    &ash_driver_mirror_top,
    &ash_driver_null_aio,
    &ash_driver_null_co,
    &ash_driver_qcow2,
    &ash_driver_raw,
    &ash_driver_snapshot_access,
    &ash_driver_throttle,
    NULL,
};
