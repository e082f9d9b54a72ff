/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The version, as a number and as text. */
#include <ashlar/version.h>
#include "util/compiler.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

ASH_PUBLIC uint32_t ash_version(void)
{
    return ASH_VERSION_MAJOR << 16 | ASH_VERSION_MINOR << 8 | ASH_VERSION_PATCH;
}

ASH_PUBLIC const char *ash_version_string(void)
{
    return TEXT(ASH_VERSION_MAJOR) "." TEXT(ASH_VERSION_MINOR) "." TEXT(ASH_VERSION_PATCH);
}
