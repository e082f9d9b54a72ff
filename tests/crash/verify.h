/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What has to hold of the image between two sessions. The machine is halted. */
#ifndef ASH_TESTS_CRASH_VERIFY_H
#define ASH_TESTS_CRASH_VERIFY_H

#include "tests/crash/run.h"

/* After a cut: the tables are consistent but for leaks (refcounts do not count while the dirty bit
 * is set); it opens for reading, our check finds leaks at worst, and each sector holds what the
 * model allows. What is there then is what the model begins with from now on. `peer`: qemu-img
 * check has to agree. */
void verify_after_cut(struct run *run, bool peer);

/* After a session that ended well: neither corruptions nor, once leaks were repaired, leaks. */
void verify_repaired(struct run *run, bool peer);

/* False: there is no qemu-img. */
bool verify_has_peer(void);
/* Removes the files that were made for it. */
void verify_end(void);
extern uint32_t verify_peer_runs;

#endif
