/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The version of the library a program was compiled against, and of the one it runs with. */
#ifndef ASHLAR_VERSION_H
#define ASHLAR_VERSION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASH_VERSION_MAJOR 0
#define ASH_VERSION_MINOR 1
#define ASH_VERSION_PATCH 0

/* The running library's version as (major << 16) | (minor << 8) | patch. Any thread. */
uint32_t ash_version(void);

/* The same as "major.minor.patch". Static storage, any thread. */
const char *ash_version_string(void);

#ifdef __cplusplus
}
#endif
#endif
