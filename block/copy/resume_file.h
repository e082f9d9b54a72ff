/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file that makes a job resumable: which parts of its source the target may lack, as a bitmap
 * on disk. A job that was killed, or whose machine lost power, goes on from it.
 *
 * A set bit says that the part is still to be copied. Three kinds of work write it:
 *
 *   mirror   a guest's write sets the bits of what it touches, and waits until they are stable,
 *            before the source changes: the intent. The job clears bits later, when both images
 *            have been flushed and nobody has meant to write there since.
 *   backup   a copy clears the bits of what it copied. A guest's write waits until they are stably
 *            clear, which includes that the target is, before the source changes.
 *   stream   source and target are one image, the overlay. Bits are cleared as a mirror's are; what
 *            a guest writes needs none, as the overlay lacks less then. Only where the image grows
 *            it may come to lack something: that is intended first.
 *
 * All images of the job carry the file's id as their mark (block/io/mark.h) while the job runs, so that a
 * change that the file knows nothing of is noticed.
 *
 * Invariants:
 *  1. The header, which is one sector, is written last when the file is made, after the bits and
 *     what the job is about: before that there is nothing to be resumed, and the job starts over.
 *  2. A bit counts as stable when it is so in memory, on disk, and in what is on its way to disk.
 *  3. What is to be stable before bits are, is: settle() runs before they are written.
 *  4. When the file cannot be written any more, or does not answer and is given up, the marks of the
 *     images go before guests go on.
 *  5. Nobody's own coroutine does I/O that a guest waits for, but one that can be given up.
 *
 * On disk, little endian: the header in the first sector, then what the job is about, bits from
 * BITS_AT on. All calls are the owner thread's. */
#ifndef ASH_BLOCK_COPY_RESUME_FILE_H
#define ASH_BLOCK_COPY_RESUME_FILE_H

#include "block/graph/node.h"
#include "block/io/mark.h"
#include "util/hbitmap.h"

enum ash_resume_kind { ASH_RESUME_MIRROR = 1, ASH_RESUME_BACKUP, ASH_RESUME_STREAM };

/* A guest's change that is under way, on its stack. */
struct ash_resume_intent {
    struct ash_list link;
    uint64_t offset;
    uint64_t bytes;
};

struct ash_resume_file {
    struct ash_loop *loop;
    uint32_t refs;
    struct ash_node *node;
    struct ash_edge *edge;
    struct ash_user user;
    char *name;

    uint32_t kind; /* enum ash_resume_kind */
    uint32_t phase;
    uint64_t part_bytes; /* that a bit stands for; a power of two */
    uint64_t size_bytes; /* of the source when the job began */
    uint8_t id[ASH_MARK_BYTES];
    bool resumed; /* it was there: the job goes on */
    char *about;  /* what else the job has to know when it goes on; NULL: nothing */
    struct ash_node *images[2];

    struct ash_hbitmap now;
    struct ash_hbitmap writing; /* as on disk, or on its way there */
    struct ash_hbitmap stable;
    struct ash_hbitmap pages; /* that differ from the disk */
    struct ash_hbitmap idle;  /* mirror: parts that may be cleared once the target is flushed */
    struct ash_list intents;
    uint64_t changes;        /* of `now`, ever */
    uint64_t changes_stable; /* of them, stable */
    bool committing;
    uint64_t answers; /* requests to the file that have ended */
    bool given_up; /* nobody waits for it any more, and the images are let go */
    bool had_mark; /* then: the source has a mark, which goes with the next change of it */
    int error; /* the first of writing: nothing can be recorded any more */
    struct ash_co_queue waiting;
    ASH_CO_PTR int (*settle)(void *opaque);            /* may be NULL; then so are the next two */
    void (*hold)(void *opaque);                        /* what settle() uses is needed */
    ASH_CO_PTR void (*drop)(void *opaque);             /* and is not any more */
    void *opaque;
};

/* Opens the file, or makes it. A file that is there must be the one of such a job: then `resumed`
 * is set, and `now` holds its bits. Otherwise nothing is written to it before
 * ash_resume_begin(). -EINVAL: another kind of file, or of job; -EEXIST: its job has ended;
 * -EUCLEAN: its job can never be resumed; -EAGAIN: in use. */
ASH_CO_FN int ash_resume_open(struct ash_loop *loop, const char *name, enum ash_resume_kind kind,
                              uint64_t part_bytes, uint64_t size_bytes,
                              struct ash_resume_file **file, struct ash_error *error);
void ash_resume_ref(struct ash_resume_file *file);
ASH_CO_FN void ash_resume_unref(struct ash_resume_file *file);

/* What ash_resume_begin() is to write of the job: a short text. -ENAMETOOLONG: there is no room. */
int ash_resume_set_about(struct ash_resume_file *file, const char *about, struct ash_error *error);

/* The images of the job, the source first (target NULL: there is one image): they are marked, or, of
 * a job that is resumed, still have the mark. `unmarked`: the user vouches for those that cannot have
 * one. -ESTALE: one may have been changed meanwhile. */
ASH_CO_FN int ash_resume_images(struct ash_resume_file *file, struct ash_node *source,
                                struct ash_node *target, bool unmarked, struct ash_error *error);

/* From here on the job can be resumed: writes `now`, and then the header. */
ASH_CO_FN int ash_resume_begin(struct ash_resume_file *file, struct ash_error *error);

/* It has ended well; a later job with this file is refused. */
ASH_CO_FN int ash_resume_done(struct ash_resume_file *file);
/* It cannot be resumed ever: what it would go on from does not hold any more. 0 when that is
 * stable, by the file or by the mark of the source. */
ASH_CO_FN int ash_resume_break(struct ash_resume_file *file);
/* Nobody waits for the file any more, which does not answer: who does goes on, or, if the source has no
 * mark that would go with the change, fails. The images are let go. Again: nothing. */
ASH_CO_FN void ash_resume_give_up(struct ash_resume_file *file);
/* The job lets the images go. */
ASH_CO_FN void ash_resume_release(struct ash_resume_file *file);

/* Sets or clears the bits that the range touches. */
void ash_resume_put(struct ash_resume_file *file, uint64_t offset, uint64_t bytes, bool value);
/* Whether the range, as far as the file covers it, is stably `value`. */
bool ash_resume_is(const struct ash_resume_file *file, uint64_t offset, uint64_t bytes, bool value);
/* Until all that was put before the call is stable. */
ASH_CO_FN int ash_resume_commit(struct ash_resume_file *file);

/* Mirror, stream: around a guest's change. An error: it cannot be recorded, and must not be made. */
ASH_CO_FN int ash_resume_intend(struct ash_resume_file *file, struct ash_resume_intent *intent,
                                uint64_t offset, uint64_t bytes);
void ash_resume_intended(struct ash_resume_intent *intent);

/* Mirror, stream: clears the bits of what was copied, in two steps. The first notes the parts that `clean`
 * says are copied and nobody means to write; false: there are none. Then the caller flushes the
 * source and the target, and the second clears those of them that nobody has meant to write since. */
bool ash_resume_tidy_begin(struct ash_resume_file *file,
                           bool (*clean)(void *opaque, uint64_t offset, uint64_t bytes),
                           void *opaque);
ASH_CO_FN void ash_resume_tidy_end(struct ash_resume_file *file);

#endif
