/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ashlar: an in-process block layer. Everything a program needs is included here. */
#ifndef ASHLAR_ASHLAR_H
#define ASHLAR_ASHLAR_H

#include <ashlar/version.h>
#include <ashlar/error.h>
#include <ashlar/job.h>
#include <ashlar/loop.h>
#include <ashlar/memory.h>
#include <ashlar/disk.h>
#include <ashlar/queue.h>
#include <ashlar/bitmap.h>

#endif
