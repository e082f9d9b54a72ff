/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* measure: how large an image would become. Metadata is counted for the whole disk, as if all of it
 * were allocated, so that the answer stays an upper bound while data comes in. */
#include <errno.h>
#include "block/qcow2/create.h"
#include "util/range.h"

int ash_qcow2_measure(uint64_t bytes, const void *create_options,
                      uint64_t (*allocated)(void *opaque, uint64_t unit_bytes), void *opaque,
                      struct ash_measure *measure, struct ash_error *error)
{
    const struct ash_qcow2_create_options *options = create_options;
    struct qcow2_layout layout;
    int ret = ash_qcow2_check_create_options(options, error);
    if (ret < 0) {
        return ret;
    }
    uint32_t cluster_bits = ash_log2(options->cluster_bytes);
    uint32_t refcount_order = ash_log2(options->refcount_bits);
    uint64_t unit = UINT64_C(1) << cluster_bits;
    uint64_t clusters = ash_div_round_up(bytes, unit);
    ret = ash_qcow2_layout(cluster_bits, refcount_order, options->extended_l2 ? 16 : 8, bytes,
                           clusters, true, &layout);
    if (ret < 0) {
        return ash_error_set(error, ret,
                             "The image size is too large (try using a larger cluster size)");
    }
    bool all = options->preallocation == ASH_PREALLOC_FULL ||
               options->preallocation == ASH_PREALLOC_FALLOC;
    uint64_t data = all ? clusters << cluster_bits : ash_align_up(allocated(opaque, unit), unit);
    if (options->backing_file != NULL && data > 0) {
        data = clusters << cluster_bits; /* zeroes may have to hide what is below */
    }
    measure->fully_allocated_bytes = layout.total_clusters << cluster_bits;
    measure->required_bytes = measure->fully_allocated_bytes - (clusters << cluster_bits) + data;
    return 0;
}
