/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest that locks itself down: before a phase it installs a filter of system calls that lets
 * through what it was given, and ends with what else was tried.
 *
 *     guest PHASE IMAGE RAW NUMBER... : PHASE is set-up, bind, control or run; from then on to the
 * end of the process only the system calls NUMBER are allowed
 *
 * Status 0: all went well. 99: another system call was tried; its number is printed. */
#include <ashlar/ashlar.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS_MAX 200
#define BLOCK 65536u

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE 0
#endif

static unsigned calls[CALLS_MAX];
static unsigned call_count;
static char buffer[16][BLOCK] __attribute__((aligned(4096)));

/* On the thread that tried. Writing is allowed to the filter by itself, so that this can tell. */
static void tried(int number, siginfo_t *info, void *context)
{
    char text[32];
    int bytes = snprintf(text, sizeof(text), "%d\n", info->si_syscall);
    (void)number;
    (void)context;
    (void)!write(STDOUT_FILENO, text, (size_t)bytes);
    _exit(99);
}

/* In the place of the C library's: the library's threads block all signals, and a blocked SIGSYS kills
 * without a word. */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    sigset_t own;
    if (set != NULL) {
        own = *set;
        if (how != SIG_UNBLOCK) {
            sigdelset(&own, SIGSYS);
        }
    }
    return sigprocmask(how, set != NULL ? &own : NULL, old) < 0 ? errno : 0;
}

static void allow(struct sock_filter *filter, unsigned *count, unsigned call)
{
    filter[(*count)++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
    filter[(*count)++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

static void lock_down(void)
{
    struct sock_filter filter[2 * CALLS_MAX + 16];
    unsigned count = 0;
    struct sigaction action = {.sa_sigaction = tried, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    filter[count++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[count++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < call_count; i++) {
        allow(filter, &count, calls[i]);
    }
    allow(filter, &count, __NR_exit_group);
    /* The report, and what must() prints: a write to descriptor 1 or 2. */
    filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_write, 0, 4);
    filter[count++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args));
    filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 3, 2, 0);
    filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
    filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = (unsigned short)count, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        perror("seccomp");
        exit(77);
    }
}

static void before(const char *phase, const char *wanted)
{
    if (strcmp(phase, wanted) == 0) {
        lock_down();
    }
}

static void must(int ret, const char *what, const struct ash_error *error)
{
    if (ret < 0) {
        fprintf(stderr, "%s: %s (%d)\n", what, error->message, ret);
        exit(1);
    }
}

static struct ash_disk *open_disk(struct ash_loop *loop, const char *name, const char *format,
                                  const char *cache)
{
    struct ash_disk *disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = ASH_DISK_WRITE;
    options.format = format;
    options.cache = cache;
    must(ash_disk_open_sync(loop, name, &options, &disk, &error), name, &error);
    return disk;
}

static void finish(struct ash_loop *loop, struct ash_queue *queue)
{
    struct ash_cqe cqe;
    while (ash_queue_in_flight(queue) > 0) {
        if (ash_queue_reap(queue, &cqe, 1) == 0) {
            (void)ash_loop_run_once(loop, -1, 0);
        } else if (cqe.result < 0) {
            fprintf(stderr, "request %u: %d\n", (unsigned)cqe.user_data, cqe.result);
            exit(1);
        }
    }
}

static void submit(struct ash_queue *queue, uint8_t op, uint32_t flags, uint64_t offset,
                   unsigned slot, uint64_t bytes)
{
    struct iovec vec = {buffer[slot], bytes};
    struct ash_req req = {.op = op,
                          .flags = flags,
                          .offset = offset,
                          .bytes = bytes,
                          .iov = &vec,
                          .iov_count = 1,
                          .user_data = op};
    (void)ash_queue_submit(queue, &req, 1);
}

/* All kinds of requests, alone and many at once, aligned and not. */
static void use(struct ash_loop *loop, struct ash_queue *queue)
{
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 16; i++) {
            submit(queue, ASH_WRITE, i == 3 ? ASH_REQ_FUA : 0, i * UINT64_C(131072), i, BLOCK);
        }
        finish(loop, queue);
        for (unsigned i = 0; i < 16; i++) {
            submit(queue, ASH_READ, 0, i * UINT64_C(131072) + 100, i, BLOCK - 4000);
        }
        finish(loop, queue);
        submit(queue, ASH_FLUSH, 0, 0, 0, 0);
        submit(queue, ASH_STATUS, 0, 0, 0, 1 << 20);
        finish(loop, queue);
        submit(queue, ASH_ZERO, ASH_REQ_UNMAP, 131072, 0, 131072);
        submit(queue, ASH_ZERO, 0, 524288 + 77, 0, 100000);
        submit(queue, ASH_DISCARD, 0, 1 << 20, 0, 1 << 20);
        finish(loop, queue);
        submit(queue, ASH_FLUSH, 0, 0, 0, 0);
        finish(loop, queue);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        return 2;
    }
    for (int i = 4; i < argc && call_count < CALLS_MAX; i++) {
        calls[call_count++] = (unsigned)atoi(argv[i]);
    }
    const char *phase = argv[1];
    struct ash_loop *loop;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disks[2];
    struct ash_queue *queues[2];
    before(phase, "set-up");
    must(ash_loop_new(NULL, &loop, &error), "loop", &error);
    before(phase, "bind");
    must(ash_loop_bind(loop), "bind", &error);
    before(phase, "control");
    disks[0] = open_disk(loop, argv[2], "qcow2", "writeback");
    disks[1] = open_disk(loop, argv[3], "raw", "none");
    for (unsigned i = 0; i < 2; i++) {
        must(ash_queue_new(disks[i], 64, &queues[i], &error), "queue", &error);
    }
    before(phase, "run");
    for (unsigned i = 0; i < 2; i++) {
        use(loop, queues[i]);
    }
    if (strcmp(phase, "run") != 0) {
        uint32_t id;
        must(ash_memory_add(loop, buffer, sizeof(buffer), 0, &id), "memory", &error);
        use(loop, queues[1]);
        must(ash_memory_remove(loop, id), "memory", &error);
        must(ash_disk_resize_sync(disks[0], 8 << 20, 0, &error), "resize", &error);
        must(ash_disk_resize_sync(disks[1], 8 << 20, 0, &error), "resize", &error);
        for (unsigned i = 0; i < 2; i++) {
            ash_queue_free(queues[i]);
            must(ash_disk_close_sync(disks[i], &error), "close", &error);
        }
        ash_loop_free(loop);
    }
    _exit(0);
}
