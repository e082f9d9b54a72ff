/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What depends on the host: block devices, and kernels or sandboxes that refuse an engine. What the
 * machine does not allow is skipped. */
#include "tests/unit/unit.h"
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "tests/unit/engine_fixture.h"

#define DEVICE_BYTES (8 << 20)

/* Makes a loop device of the scratch file; -1 where that is not allowed. */
static int make_device(struct fixture *fixture, char *path, size_t path_bytes)
{
    int backing = open(fixture->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int device = -1;

    assert_int_equal(ftruncate(backing, DEVICE_BYTES), 0);
    for (int attempt = 0; control >= 0 && attempt < 20; attempt++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        snprintf(path, path_bytes, "/dev/loop%d", number);
        device = number < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (device < 0 && number >= 0 && errno == ENXIO) {
            continue; /* somebody else had taken it and is just giving it back */
        }
        if (device < 0) {
            break;
        }
        if (ioctl(device, LOOP_SET_FD, backing) == 0) {
            struct loop_info64 info = {.lo_flags = LO_FLAGS_AUTOCLEAR};
            ioctl(device, LOOP_SET_STATUS64, &info); /* gone with its last user, come what may */
            break;
        }
        close(device); /* somebody else took it */
        device = -1;
    }
    if (control >= 0) {
        close(control);
    }
    close(backing);
    return device;
}

static int64_t allocate(struct ash_file *file, int mode, uint64_t offset, uint64_t bytes)
{
    return run(
        file->engine,
        (struct ash_aio){
            .op = ASH_AIO_ALLOCATE, .file = file, .mode = mode, .offset = offset, .bytes = bytes});
}

static void use_device(struct fixture *fixture, const char *path)
{
    struct ash_file *file = open_at(fixture->engine, path, ASH_FILE_WRITE | ASH_FILE_DIRECT);
    uint8_t *memory = aligned_alloc(4096, 12288);
    struct ash_file_status by_file, by_path;

    assert_int_equal(run(fixture->engine,
                         (struct ash_aio){.op = ASH_AIO_STATUS, .file = file, .status = &by_file}),
                     0);
    assert_int_equal(run(fixture->engine,
                         (struct ash_aio){.op = ASH_AIO_STATUS, .path = path, .status = &by_path}),
                     0);
    assert_true(by_file.block_device && !by_file.regular && !by_file.read_only_device);
    assert_int_equal(by_file.bytes, DEVICE_BYTES);
    assert_int_equal(by_file.block_bytes, 512);
    assert_true(by_file.physical_block_bytes >= 512);
    assert_int_equal(by_path.bytes, by_file.bytes);
    assert_int_equal(by_path.discard_granularity, by_file.discard_granularity);

    memset(memory, 0x77, 12288);
    assert_int_equal(transfer(file, ASH_AIO_WRITE, memory, 12288, 4096), 12288);
    assert_int_equal(allocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
    int64_t ret = allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096);
    assert_true(ret == 0 || ret == -EOPNOTSUPP);
    assert_int_equal(transfer(file, ASH_AIO_READ, memory, 12288, 4096), 12288);
    assert_int_equal(memory[0] | memory[4095], 0);
    assert_int_equal(memory[4096], ret == 0 ? 0 : 0x77);
    assert_int_equal(memory[8192], 0x77);
    ret = allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE | FALLOC_FL_NO_HIDE_STALE,
                   65536, 65536);
    assert_true(ret == 0 || ret == -EOPNOTSUPP);
    assert_int_equal(run(fixture->engine, (struct ash_aio){.op = ASH_AIO_FLUSH, .file = file}), 0);
    assert_int_equal(transfer(file, ASH_AIO_READ, memory, 4096, DEVICE_BYTES), 0);
    free(memory);
    close_file(file);
}

static void block_device_is_measured_written_zeroed_and_discarded(void **state)
{
    struct fixture *fixture = *state;
    char path[64];
    int device = make_device(fixture, path, sizeof(path));

    if (device < 0) {
        skip();
    }
    use_device(fixture, path);
    close(device);
}

/* Refuses up to two system calls with `error` from now on. */
static bool refuse(const int *calls, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[0], 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[1], 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {ASH_ARRAY_SIZE(filter), filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum { AS_EXPECTED, NOT_AS_EXPECTED, NO_SECCOMP };

/* In a child: which engine comes when these calls are refused. */
static int child(const int *calls, int error, const char *name, const char *expected)
{
    struct ash_engine_config config = {.depth = 4, .workers = 1};
    struct ash_error why = ASH_ERROR_INIT;
    struct ash_engine *engine = NULL;

    unsetenv("ASHLAR_ENGINE");
    if (!refuse(calls, error)) {
        return NO_SECCOMP;
    }
    if (ash_engine_new(name, &config, &engine, &why) < 0) {
        return !expected && strstr(why.message, name) ? AS_EXPECTED : NOT_AS_EXPECTED;
    }
    return expected && !strcmp(engine->ops->name, expected) ? AS_EXPECTED : NOT_AS_EXPECTED;
}

static void check_refused(int call, int other_call, int error, const char *name,
                          const char *expected)
{
    const int calls[] = {call, other_call};
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(child(calls, error, name, expected));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NO_SECCOMP) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), AS_EXPECTED);
}

static void refused_engine_is_replaced_by_the_next(void **state)
{
    static const int errors[] = {ENOSYS, EPERM, ENOMEM};

    (void)state;
    if (under_valgrind()) {
        skip(); /* it makes system calls of its own, which are refused too */
    }
    for (size_t i = 0; i < ASH_ARRAY_SIZE(errors); i++) {
        check_refused(SYS_io_uring_setup, SYS_io_uring_setup, errors[i], NULL, "aio");
        check_refused(SYS_io_uring_setup, SYS_io_setup, errors[i], NULL, "threads");
    }
    /* Sandboxes that allow a ring to be made, and not what it is for. */
    check_refused(SYS_io_uring_enter, SYS_io_uring_enter, EPERM, NULL, "aio");
    check_refused(SYS_io_uring_register, SYS_io_uring_register, ENOSYS, NULL, "aio");
}

static void engine_asked_for_by_name_is_not_replaced(void **state)
{
    (void)state;
    check_refused(SYS_io_uring_setup, SYS_io_uring_setup, EPERM, "uring", NULL);
    check_refused(SYS_io_setup, SYS_io_setup, ENOSYS, "aio", NULL);
}

/* An old kernel, or a sandbox that does not know the call. */
static int sleep_without_epoll_pwait2(void)
{
    static const int calls[] = {SYS_epoll_pwait2, SYS_epoll_pwait2};
    struct ash_engine *engine;

    if (!refuse(calls, ENOSYS)) {
        return NO_SECCOMP;
    }
    engine = make_engine(0);
    for (int i = 0; i < 3; i++) {
        uint64_t deadline_ns = engine->ops->now(engine) + 2000000;
        while (engine->ops->now(engine) < deadline_ns) {
            if (engine->ops->wait(engine, deadline_ns) < 0) {
                return NOT_AS_EXPECTED;
            }
        }
    }
    engine->ops->destroy(engine);
    return AS_EXPECTED;
}

static void check_in_child(int (*fn)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(fn());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NO_SECCOMP) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), AS_EXPECTED);
}

static void sleeping_needs_no_recent_epoll(void **state)
{
    (void)state;
    check_in_child(sleep_without_epoll_pwait2);
}

static int add_one(void *opaque)
{
    return ++*(int *)opaque;
}

/* A limit of processes, or of a container's tasks, is reached. */
static int work_without_a_thread(void)
{
    static const int calls[] = {SYS_clone, SYS_clone3};
    struct ash_engine *engine;
    int sum = 0;

    if (!refuse(calls, EAGAIN)) {
        return NO_SECCOMP;
    }
    engine = make_engine(0);
    for (int i = 1; i <= 100; i++) {
        struct call call = {
            .aio = {.op = ASH_AIO_WORK, .work = add_one, .work_opaque = &sum, .done = call_done}};
        ash_engine_submit(engine, &call.aio);
        if (call.completions != 0) {
            return NOT_AS_EXPECTED;
        }
        while (call.completions == 0) {
            if (engine->ops->wait(engine, UINT64_MAX) < 0) {
                return NOT_AS_EXPECTED;
            }
        }
        if (call.completions != 1 || call.aio.result != i) {
            return NOT_AS_EXPECTED;
        }
    }
    engine->ops->destroy(engine);
    return AS_EXPECTED;
}

static void requests_are_carried_out_without_a_thread(void **state)
{
    (void)state;
    check_in_child(work_without_a_thread);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(block_device_is_measured_written_zeroed_and_discarded),
        cmocka_unit_test(refused_engine_is_replaced_by_the_next),
        cmocka_unit_test(engine_asked_for_by_name_is_not_replaced),
        cmocka_unit_test(sleeping_needs_no_recent_epoll),
        cmocka_unit_test(requests_are_carried_out_without_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
