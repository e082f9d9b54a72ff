/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/unit.h"
#include <stdio.h>
#include <ashlar/ashlar.h>

static void version_number_and_text_agree(void **state)
{
    (void)state;
    char text[32];
    uint32_t version = ash_version();
    snprintf(text, sizeof(text), "%u.%u.%u", version >> 16, version >> 8 & 0xff, version & 0xff);
    assert_string_equal(text, ash_version_string());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_number_and_text_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
