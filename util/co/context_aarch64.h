/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The switch for 64-bit Arm, AAPCS64. Contract: util/co/context.h.
 *
 * The stack pointer, the frame pointer x29 and x19, which compilers reserve in some functions, are
 * saved by hand; the other registers that a callee preserves are named as clobbers. The control
 * register of floating point is loaded only when it differs.
 *
 * The branch goes through x16, which the landing pads of both a function and a jump admit where
 * branch targets are guarded. */
#ifndef ASH_UTIL_CO_CONTEXT_AARCH64_H
#define ASH_UTIL_CO_CONTEXT_AARCH64_H

#include <stddef.h>
#include <stdint.h>

struct ash_co_context {
    uint64_t sp;
    uint64_t fp;
    uint64_t x19;
    uint64_t pc;
    uint64_t fpcr;
};

_Static_assert(offsetof(struct ash_co_context, sp) == 0, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, fp) == 8, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, x19) == 16, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, pc) == 24, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, fpcr) == 32, "used in assembly");

static inline void ash_co_context_make(struct ash_co_context *context, void *stack,
                                       size_t stack_bytes, void (*entry)(void))
{
    context->sp = ((uintptr_t)stack + stack_bytes) & ~(uintptr_t)15;
    context->fp = 0;
    context->x19 = 0;
    context->pc = (uintptr_t)entry;
    __asm__ volatile("mrs %0, fpcr" : "=r"(context->fpcr));
}

#if defined(__ARM_FEATURE_SVE)
#define ASH_CO_SVE_CLOBBERS                                                                        \
    , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13",      \
        "p14", "p15"
#else
#define ASH_CO_SVE_CLOBBERS
#endif

static inline __attribute__((always_inline)) void
ash_co_context_switch(struct ash_co_context *from, const struct ash_co_context *to)
{
    register struct ash_co_context *from_x0 __asm__("x0") = from;
    register const struct ash_co_context *to_x1 __asm__("x1") = to;

    __asm__ volatile("adr x9, 1f\n\t"
                     "mov x10, sp\n\t"
                     "mrs x11, fpcr\n\t"
                     "stp x10, x29, [x0]\n\t"
                     "stp x19, x9, [x0, #16]\n\t"
                     "str x11, [x0, #32]\n\t"
                     "ldr x12, [x1, #32]\n\t"
                     "cmp x11, x12\n\t"
                     "b.eq 2f\n\t"
                     "msr fpcr, x12\n"
                     "2:\n\t"
                     "ldp x10, x29, [x1]\n\t"
                     "ldp x19, x16, [x1, #16]\n\t"
                     "mov sp, x10\n\t"
                     "mov x30, xzr\n\t" /* entry() has no caller: unwinders stop */
                     "br x16\n"
                     "1:\n\t"
                     "hint #38" /* bti jc */
                     : "+r"(from_x0), "+r"(to_x1)
                     :
                     : "memory", "cc", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11",
                       "x12", "x13", "x14", "x15", "x16", "x17", "x18", "x20", "x21", "x22", "x23",
                       "x24", "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5",
                       "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",
                       "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",
                       "v28", "v29", "v30", "v31" ASH_CO_SVE_CLOBBERS);
}

#undef ASH_CO_SVE_CLOBBERS

#endif
