/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The smallest program that links the library: it includes every public header, and touches a symbol. */
#include <stdio.h>
#include <ashlar/ashlar.h>

int main(void)
{
    uint32_t built_with = ASH_VERSION_MAJOR << 16 | ASH_VERSION_MINOR << 8 | ASH_VERSION_PATCH;

    if (ash_version() != built_with) {
        fprintf(stderr, "headers of %#x, library of %#x\n", built_with, ash_version());
        return 1;
    }
    puts(ash_version_string());
    return 0;
}
