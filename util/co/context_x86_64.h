/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The switch for x86-64, System V ABI. Contract: util/co/context.h.
 *
 * The stack pointer, rbp and rbx are saved by hand, because compilers reserve the latter two in
 * some functions and then refuse them as clobbers. The other registers that a callee preserves are
 * named as clobbers: the compiler saves those that it uses. Of mxcsr and the x87 control word the
 * control bits are preserved; loading them is slow, so they are loaded only when they differ.
 *
 * Both places where a switch arrives carry an endbr64, for indirect branch tracking. A shadow stack
 * would have to be switched too; the library is therefore built with -fcf-protection=branch and
 * does not claim to support one. */
#ifndef ASH_UTIL_CO_CONTEXT_X86_64_H
#define ASH_UTIL_CO_CONTEXT_X86_64_H

#include <stddef.h>
#include <stdint.h>

struct ash_co_context {
    uint64_t sp;
    uint64_t bp;
    uint64_t bx;
    uint64_t pc;
    uint32_t mxcsr;
    uint16_t x87_control;
};

_Static_assert(offsetof(struct ash_co_context, sp) == 0, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, bp) == 8, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, bx) == 16, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, pc) == 24, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, mxcsr) == 32, "used in assembly");
_Static_assert(offsetof(struct ash_co_context, x87_control) == 36, "used in assembly");

static inline void ash_co_context_make(struct ash_co_context *context, void *stack,
                                       size_t stack_bytes, void (*entry)(void))
{
    uint64_t *top = (uint64_t *)(((uintptr_t)stack + stack_bytes) & ~(uintptr_t)15);

    /* entry() finds the stack as after a call, with a return address of 0, where unwinders stop. */
    top[-1] = 0;
    context->sp = (uintptr_t)&top[-1];
    context->bp = 0;
    context->bx = 0;
    context->pc = (uintptr_t)entry;
    __asm__ volatile("stmxcsr %0\n\t"
                     "fnstcw %1"
                     : "=m"(context->mxcsr), "=m"(context->x87_control));
}

#if defined(__AVX512F__)
#define ASH_CO_AVX512_CLOBBERS                                                                     \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",    \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6",  \
        "k7"
#else
#define ASH_CO_AVX512_CLOBBERS
#endif

static inline __attribute__((always_inline)) void
ash_co_context_switch(struct ash_co_context *from, const struct ash_co_context *to)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "movq %%rsp, 0(%%rdi)\n\t"
                     "movq %%rbp, 8(%%rdi)\n\t"
                     "movq %%rbx, 16(%%rdi)\n\t"
                     "movq %%rax, 24(%%rdi)\n\t"
                     "stmxcsr 32(%%rdi)\n\t"
                     "fnstcw 36(%%rdi)\n\t"
                     "ldmxcsr 32(%%rsi)\n\t"
                     "fldcw 36(%%rsi)\n\t"
                     "movq 0(%%rsi), %%rsp\n\t"
                     "movq 8(%%rsi), %%rbp\n\t"
                     "movq 16(%%rsi), %%rbx\n\t"
                     "jmpq *24(%%rsi)\n"
                     "1:\n\t"
                     "endbr64"
                     : "+D"(from), "+S"(to)
                     :
                     : "memory", "cc", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13",
                       "r14", "r15", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
                       "st(7)", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15" ASH_CO_AVX512_CLOBBERS);
}

#undef ASH_CO_AVX512_CLOBBERS

#endif
