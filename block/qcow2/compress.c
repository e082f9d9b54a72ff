/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compressed clusters: raw deflate with a window of 4 KiB, and zstd.
 *
 * Runs on worker threads, several at once for one node. Of the node it reads nothing but its
 * coders, which do not change while it is open: the header does, on the owner's thread. Making a
 * context costs more than coding a cluster, so a few are kept in slots that a thread empties and
 * fills by atomic exchange.
 *
 * Invariants:
 *  1. Decoding fills exactly the cluster or fails with -EIO; it never reads beyond `in_bytes` (the
 * entry gives an upper bound in sectors, so bytes of a neighbour may follow the stream) and never
 * writes beyond `out_bytes`, whatever the stream says.
 *  2. A context is used by one thread at a time, and reset before each use. */
#include <errno.h>
#include <glib.h>
#include <stdatomic.h>
#include <zlib.h>
#include <zstd.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

#define SLOTS 8

/* The encoder must not look back further than other readers' windows. */
#define DEFLATE_WINDOW_BITS (-12)
/* A decoder may accept any window. */
#define INFLATE_WINDOW_BITS (-15)

struct ash_qcow2_coders {
    uint8_t compression; /* as in the header; constant */
    _Atomic(z_stream *) deflaters[SLOTS];
    _Atomic(z_stream *) inflaters[SLOTS];
    _Atomic(ZSTD_CCtx *) compressors[SLOTS];
    _Atomic(ZSTD_DCtx *) decompressors[SLOTS];
};

struct ash_qcow2_coders *ash_qcow2_coders_new(uint8_t compression)
{
    struct ash_qcow2_coders *coders = g_new0(struct ash_qcow2_coders, 1);
    coders->compression = compression;
    return coders;
}

static void deflater_free(z_stream *stream)
{
    deflateEnd(stream);
    g_free(stream);
}

static void inflater_free(z_stream *stream)
{
    inflateEnd(stream);
    g_free(stream);
}

void ash_qcow2_coders_free(struct ash_qcow2_coders *coders)
{
    if (coders == NULL) {
        return;
    }
    for (int i = 0; i < SLOTS; i++) {
        z_stream *stream = atomic_load(&coders->deflaters[i]);
        if (stream != NULL) {
            deflater_free(stream);
        }
        stream = atomic_load(&coders->inflaters[i]);
        if (stream != NULL) {
            inflater_free(stream);
        }
        ZSTD_freeCCtx(atomic_load(&coders->compressors[i])); /* both accept NULL */
        ZSTD_freeDCtx(atomic_load(&coders->decompressors[i]));
    }
    g_free(coders);
}

/* Takes a context out of any slot, or yields NULL; puts one back into an empty slot, or yields
 * false. */
#define TAKE(slots, context)                                                                       \
    for (int i_ = 0; i_ < SLOTS && (context) == NULL; i_++) {                                      \
        (context) = atomic_exchange(&(slots)[i_], NULL);                                           \
    }
#define PUT(slots, context, type, done)                                                            \
    for (int i_ = 0; i_ < SLOTS && !(done); i_++) {                                                \
        type *empty_ = NULL;                                                                       \
        (done) = atomic_compare_exchange_strong(&(slots)[i_], &empty_, (context));                 \
    }

static z_stream *deflater_take(struct ash_qcow2_coders *coders)
{
    z_stream *stream = NULL;
    TAKE(coders->deflaters, stream);
    if (stream != NULL) {
        return deflateReset(stream) == Z_OK ? stream : (deflater_free(stream), NULL);
    }
    stream = g_new0(z_stream, 1);
    if (deflateInit2(stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW_BITS, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        g_free(stream);
        return NULL;
    }
    return stream;
}

static z_stream *inflater_take(struct ash_qcow2_coders *coders)
{
    z_stream *stream = NULL;
    TAKE(coders->inflaters, stream);
    if (stream != NULL) {
        return inflateReset(stream) == Z_OK ? stream : (inflater_free(stream), NULL);
    }
    stream = g_new0(z_stream, 1);
    if (inflateInit2(stream, INFLATE_WINDOW_BITS) != Z_OK) {
        g_free(stream);
        return NULL;
    }
    return stream;
}

static int deflate_cluster(struct ash_qcow2_coders *coders, const void *in, size_t in_bytes,
                           void *out, size_t out_bytes)
{
    z_stream *stream = deflater_take(coders);
    if (stream == NULL) {
        return -ENOMEM;
    }
    stream->next_in = (Bytef *)in;
    stream->avail_in = (uInt)in_bytes;
    stream->next_out = out;
    stream->avail_out = (uInt)out_bytes;
    int ret = deflate(stream, Z_FINISH);
    size_t coded = out_bytes - stream->avail_out;
    bool kept = false;
    PUT(coders->deflaters, stream, z_stream, kept);
    if (!kept) {
        deflater_free(stream);
    }
    if (ret == Z_STREAM_END && coded < out_bytes) {
        return (int)coded;
    }
    return ret == Z_STREAM_END || ret == Z_OK || ret == Z_BUF_ERROR ? -E2BIG : -EIO;
}

static int inflate_cluster(struct ash_qcow2_coders *coders, const void *in, size_t in_bytes,
                           void *out, size_t out_bytes)
{
    z_stream *stream = inflater_take(coders);
    if (stream == NULL) {
        return -ENOMEM;
    }
    stream->next_in = (Bytef *)in;
    stream->avail_in = (uInt)in_bytes;
    stream->next_out = out;
    stream->avail_out = (uInt)out_bytes;
    int ret = inflate(stream, Z_FINISH);
    /* A stream that goes on after a full cluster is as good as one that ends there. */
    bool good =
        (ret == Z_STREAM_END || ret == Z_BUF_ERROR || ret == Z_OK) && stream->avail_out == 0;
    bool kept = false;
    PUT(coders->inflaters, stream, z_stream, kept);
    if (!kept) {
        inflater_free(stream);
    }
    return good ? 0 : -EIO;
}

static int zstd_compress_cluster(struct ash_qcow2_coders *coders, const void *in, size_t in_bytes,
                                 void *out, size_t out_bytes)
{
    ZSTD_CCtx *context = NULL;
    TAKE(coders->compressors, context);
    if (context == NULL) {
        context = ZSTD_createCCtx();
    }
    if (context == NULL) {
        return -ENOMEM;
    }
    size_t coded = ZSTD_compressCCtx(context, out, out_bytes, in, in_bytes, ZSTD_CLEVEL_DEFAULT);
    bool kept = false;
    PUT(coders->compressors, context, ZSTD_CCtx, kept);
    if (!kept) {
        ZSTD_freeCCtx(context);
    }
    /* What does not shrink does not fit the buffer either: the only way this can fail on sane
     * input. */
    return ZSTD_isError(coded) || coded >= out_bytes ? -E2BIG : (int)coded;
}

static int zstd_decompress_cluster(struct ash_qcow2_coders *coders, const void *in, size_t in_bytes,
                                   void *out, size_t out_bytes)
{
    ZSTD_DCtx *context = NULL;
    TAKE(coders->decompressors, context);
    if (context == NULL) {
        context = ZSTD_createDCtx();
        if (context != NULL) {
            /* A frame must not make the decoder allocate more than four times the largest cluster.
             */
            ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, QCOW2_CLUSTER_BITS_MAX + 2);
        }
    }
    if (context == NULL) {
        return -ENOMEM;
    }
    ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
    ZSTD_inBuffer input = {in, in_bytes, 0};
    ZSTD_outBuffer output = {out, out_bytes, 0};
    bool good = true;
    while (good && output.pos < output.size) {
        size_t input_before = input.pos;
        size_t output_before = output.pos;
        size_t ret = ZSTD_decompressStream(context, &output, &input);
        bool moved = input.pos > input_before || output.pos > output_before;
        good = !ZSTD_isError(ret) && (moved || output.pos == output.size);
    }
    bool kept = false;
    PUT(coders->decompressors, context, ZSTD_DCtx, kept);
    if (!kept) {
        ZSTD_freeDCtx(context);
    }
    return good ? 0 : -EIO;
}

int ash_qcow2_encode(const struct ash_node *node, const void *in, size_t in_bytes, void *out,
                     size_t out_bytes)
{
    struct ash_qcow2_coders *coders = qcow2_state(node)->coders;
    if (coders->compression == QCOW2_COMPRESSION_ZSTD) {
        return zstd_compress_cluster(coders, in, in_bytes, out, out_bytes);
    }
    return deflate_cluster(coders, in, in_bytes, out, out_bytes);
}

int ash_qcow2_decode(const struct ash_node *node, const struct ash_extent *extent, const void *in,
                     size_t in_bytes, void *out, size_t out_bytes)
{
    struct ash_qcow2_coders *coders = qcow2_state(node)->coders;
    (void)extent;
    if (coders->compression == QCOW2_COMPRESSION_ZSTD) {
        return zstd_decompress_cluster(coders, in, in_bytes, out, out_bytes);
    }
    return inflate_cluster(coders, in, in_bytes, out, out_bytes);
}
