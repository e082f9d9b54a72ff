/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every request that an engine knows, on the engine that ASHLAR_ENGINE names. */
#include "tests/unit/unit.h"
#include <limits.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <ashlar/loop.h>
#include "tests/unit/engine_fixture.h"

static void engine_has_the_name_it_was_asked_for(void **state)
{
    struct fixture *fixture = *state;
    const char *name = getenv("ASHLAR_ENGINE");

    if (name) {
        assert_string_equal(fixture->engine->ops->name, name);
    }
}

static void unknown_engine_is_refused_by_name(void **state)
{
    struct ash_engine_config config = {.depth = 1, .workers = 1};
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_engine *engine = NULL;

    (void)state;
    assert_int_equal(ash_engine_new("steam", &config, &engine, &error), -EINVAL);
    assert_non_null(strstr(error.message, "steam"));
    assert_null(engine);
}

static void read_returns_what_was_written(void **state)
{
    struct ash_file *file = open_scratch(*state, 0);
    char out[] = "ashlar", in[sizeof(out)] = "";

    assert_int_equal(transfer(file, ASH_AIO_WRITE, out, sizeof(out), 12345), sizeof(out));
    assert_int_equal(transfer(file, ASH_AIO_READ, in, sizeof(in), 12345), sizeof(in));
    assert_string_equal(in, out);
    close_file(file);
}

static void read_is_short_at_the_end_of_the_file(void **state)
{
    struct ash_file *file = open_scratch(*state, 0);
    char buffer[100] = "";

    assert_int_equal(transfer(file, ASH_AIO_WRITE, buffer, 60, 0), 60);
    assert_int_equal(transfer(file, ASH_AIO_READ, buffer, 100, 10), 50);
    assert_int_equal(transfer(file, ASH_AIO_READ, buffer, 100, 60), 0);
    assert_int_equal(transfer(file, ASH_AIO_READ, buffer, 0, 0), 0);
    assert_int_equal(transfer(file, ASH_AIO_WRITE, buffer, 0, 0), 0);
    close_file(file);
}

static void direct_file_reads_what_was_written(void **state)
{
    struct ash_file *file = open_scratch(*state, ASH_FILE_DIRECT);
    uint8_t *memory = aligned_alloc(4096, 16384);

    memset(memory, 0x5a, 8192);
    memset(memory + 8192, 0, 8192);
    assert_int_equal(transfer(file, ASH_AIO_WRITE, memory, 8192, 4096), 8192);
    assert_int_equal(transfer(file, ASH_AIO_READ, memory + 8192, 4096, 8192), 4096);
    assert_memory_equal(memory, memory + 8192, 4096);
    assert_int_equal(transfer(file, ASH_AIO_READ, memory, 16384, 8192), 4096);
    free(memory);
    close_file(file);
}

static void unaligned_direct_write_is_refused_or_whole(void **state)
{
    struct ash_file *file = open_scratch(*state, ASH_FILE_DIRECT);
    char buffer[100] = "";
    int64_t ret = transfer(file, ASH_AIO_WRITE, buffer, sizeof(buffer), 1);

    assert_true(ret == -EINVAL || ret == sizeof(buffer));
    close_file(file);
}

/* Transfers `count` pieces of memory, going on after short transfers; the first must move
 * IOV_MAX pieces, or all. */
static void transfer_pieces(struct ash_file *file, enum ash_aio_op op, uint8_t *memory,
                            uint32_t count, size_t piece)
{
    struct iovec *vec = calloc(count, sizeof(*vec));
    uint64_t bytes = count * piece, moved = 0;

    for (uint32_t i = 0; i < count; i++) {
        vec[i] = (struct iovec){memory + i * piece, piece};
    }
    while (moved < bytes) {
        int64_t ret = run(file->engine,
                          (struct ash_aio){.op = (uint8_t)op,
                                           .file = file,
                                           .iov = ash_iov_advance(ash_iov_of(vec, count), moved),
                                           .bytes = bytes - moved,
                                           .offset = moved});
        assert_int_equal(ret, ASH_MIN(bytes - moved, IOV_MAX * piece));
        moved += (uint64_t)ret;
    }
    free(vec);
}

static void check_pieces(struct fixture *fixture, uint32_t count, uint32_t flags)
{
    struct ash_file *file = open_scratch(fixture, flags | ASH_FILE_TRUNCATE);
    size_t piece = flags & ASH_FILE_DIRECT ? 4096 : 3;
    size_t bytes = count * piece;
    uint8_t *out = aligned_alloc(4096, bytes + 4096 - bytes % 4096);
    uint8_t *in = aligned_alloc(4096, bytes + 4096 - bytes % 4096);

    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(i * 7 + i / 251);
        in[i] = (uint8_t)~out[i];
    }
    transfer_pieces(file, ASH_AIO_WRITE, out, count, piece);
    assert_int_equal(transfer(file, ASH_AIO_READ, in, bytes, 0), bytes);
    assert_memory_equal(in, out, bytes);
    memset(in, 0xff, bytes);
    transfer_pieces(file, ASH_AIO_READ, in, count, piece);
    assert_memory_equal(in, out, bytes);
    free(in);
    free(out);
    close_file(file);
}

static void four_pieces_go_in_one_transfer(void **state)
{
    check_pieces(*state, 4, 0);
    check_pieces(*state, 4, ASH_FILE_DIRECT);
}

static void hundred_pieces_go_in_one_transfer(void **state)
{
    check_pieces(*state, 100, 0);
    check_pieces(*state, 100, ASH_FILE_DIRECT);
}

static void more_than_iov_max_pieces_are_a_short_transfer(void **state)
{
    check_pieces(*state, IOV_MAX + 10, 0);
    check_pieces(*state, IOV_MAX + 10, ASH_FILE_DIRECT);
}

static void cursor_inside_a_vector_is_honoured(void **state)
{
    struct ash_file *file = open_scratch(*state, 0);
    char text[] = "0123456789", in[11] = "";
    struct iovec vec[] = {{text, 5}, {NULL, 0}, {text + 5, 5}};
    struct ash_iov iov = ash_iov_advance(ash_iov_of(vec, 3), 2);

    assert_int_equal(
        run(file->engine,
            (struct ash_aio){.op = ASH_AIO_WRITE, .file = file, .iov = iov, .bytes = 6}),
        6);
    assert_int_equal(transfer(file, ASH_AIO_READ, in, 10, 0), 6);
    assert_string_equal(in, "234567");
    close_file(file);
}

static void more_requests_than_the_depth_all_complete_once(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t flags = 0; flags <= ASH_FILE_DIRECT; flags += ASH_FILE_DIRECT) {
        enum { COUNT = 40 * DEPTH };
        struct ash_file *file = open_scratch(fixture, flags);
        struct call *calls = calloc(COUNT, sizeof(*calls));
        struct iovec *vec = calloc(COUNT, sizeof(*vec));
        uint8_t *memory = aligned_alloc(4096, COUNT * 4096);

        for (uint32_t i = 0; i < COUNT; i++) {
            memset(memory + 4096 * i, (int)(i * 37 + 1), 4096);
        }
        for (int op = ASH_AIO_WRITE; op >= ASH_AIO_READ; op--) {
            for (uint32_t i = 0; i < COUNT; i++) {
                vec[i] = (struct iovec){memory + 4096 * i, 4096};
                calls[i].aio = (struct ash_aio){.op = (uint8_t)op,
                                                .file = file,
                                                .iov = ash_iov_of(&vec[i], 1),
                                                .bytes = 4096,
                                                .offset = 4096 * i};
                call_submit(fixture->engine, &calls[i]);
            }
            assert_int_equal(fixture->engine->in_flight, COUNT);
            while (fixture->engine->in_flight) {
                assert_true(fixture->engine->ops->wait(fixture->engine, UINT64_MAX) >= 0);
            }
            for (uint32_t i = 0; i < COUNT; i++) {
                assert_int_equal(calls[i].completions, 1);
                assert_int_equal(calls[i].aio.result, 4096);
                assert_int_equal(memory[4096 * i + 4095], (uint8_t)(i * 37 + 1));
            }
            memset(memory, op == ASH_AIO_WRITE ? 0 : 1, COUNT * 4096);
        }
        free(calls);
        free(vec);
        free(memory);
        close_file(file);
    }
}

/* Each completion submits the next request, from inside wait(). */
struct chain {
    struct ash_aio aio;
    uint32_t left;
    struct ash_file_status status;
};

static void chain_next(struct ash_aio *aio)
{
    struct chain *chain = ash_container_of(aio, struct chain, aio);

    if (--chain->left) {
        ash_engine_submit(aio->file->engine, aio);
    }
}

static void completion_may_submit_again(void **state)
{
    struct ash_file *file = open_scratch(*state, 0);
    struct chain chains[2 * DEPTH];
    char memory[64];
    struct iovec vec = {memory, 64};

    for (uint32_t i = 0; i < 2 * DEPTH; i++) {
        chains[i] = (struct chain){.aio = {.op = i % 3 ? ASH_AIO_READ : ASH_AIO_STATUS,
                                           .file = file,
                                           .iov = ash_iov_of(&vec, 1),
                                           .bytes = 64,
                                           .status = &chains[i].status,
                                           .done = chain_next},
                                   .left = 50};
        ash_engine_submit(file->engine, &chains[i].aio);
    }
    while (file->engine->in_flight) {
        assert_true(file->engine->ops->wait(file->engine, UINT64_MAX) >= 0);
    }
    for (uint32_t i = 0; i < 2 * DEPTH; i++) {
        assert_int_equal(chains[i].left, 0);
    }
    close_file(file);
}

static void flush_and_synchronous_write_succeed(void **state)
{
    for (uint32_t flags = 0; flags <= ASH_FILE_DIRECT; flags += ASH_FILE_DIRECT) {
        struct ash_file *file = open_scratch(*state, flags);
        void *memory = aligned_alloc(4096, 4096);
        struct iovec vec = {memset(memory, 1, 4096), 4096};

        assert_int_equal(run(file->engine, (struct ash_aio){.op = ASH_AIO_WRITE,
                                                            .flags = ASH_AIO_DSYNC,
                                                            .file = file,
                                                            .iov = ash_iov_of(&vec, 1),
                                                            .bytes = 4096}),
                         4096);
        assert_int_equal(run(file->engine, (struct ash_aio){.op = ASH_AIO_FLUSH, .file = file}), 0);
        free(memory);
        close_file(file);
    }
}

static int64_t allocate(struct ash_file *file, int mode, uint64_t offset, uint64_t bytes)
{
    return run(
        file->engine,
        (struct ash_aio){
            .op = ASH_AIO_ALLOCATE, .file = file, .mode = mode, .offset = offset, .bytes = bytes});
}

static struct ash_file_status status_of(struct ash_file *file)
{
    struct ash_file_status status;

    assert_int_equal(
        run(file->engine, (struct ash_aio){.op = ASH_AIO_STATUS, .file = file, .status = &status}),
        0);
    return status;
}

static void allocation_grows_the_file_and_holes_read_as_zeroes(void **state)
{
    struct ash_file *file = open_scratch(*state, 0);
    uint8_t memory[8192];

    assert_int_equal(allocate(file, 0, 0, 1 << 20), 0);
    assert_int_equal(status_of(file).bytes, 1 << 20);
    memset(memory, 7, sizeof(memory));
    assert_int_equal(transfer(file, ASH_AIO_WRITE, memory, 8192, 0), 8192);
    assert_int_equal(allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    assert_int_equal(allocate(file,
                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE | FALLOC_FL_NO_HIDE_STALE,
                              65536, 4096),
                     0);
    assert_int_equal(transfer(file, ASH_AIO_READ, memory, 8192, 0), 8192);
    assert_int_equal(memory[0] | memory[4095], 0);
    assert_int_equal(memory[4096], 7);
    close_file(file);
}

static void allocation_of_nonsense_is_refused(void **state)
{
    struct ash_file *file = open_scratch(*state, 0);

    assert_int_equal(allocate(file, 0, 0, 0), -EINVAL);
    assert_int_equal(allocate(file, 0, UINT64_MAX - 10, 5), -EINVAL);
    close_file(file);
}

static void truncate_sets_the_length_and_seek_finds_data(void **state)
{
    struct fixture *fixture = *state;
    struct ash_file *file = open_scratch(fixture, 0);
    struct ash_aio seek = {.op = ASH_AIO_SEEK, .file = file, .mode = SEEK_DATA};
    char byte = 1;

    assert_int_equal(run(fixture->engine,
                         (struct ash_aio){.op = ASH_AIO_TRUNCATE, .file = file, .bytes = 16 << 20}),
                     0);
    assert_int_equal(status_of(file).bytes, 16 << 20);
    assert_int_equal(run(fixture->engine, seek), -ENXIO);
    assert_int_equal(transfer(file, ASH_AIO_WRITE, &byte, 1, 8 << 20), 1);
    assert_int_equal(run(fixture->engine, seek), 8 << 20);
    seek.mode = SEEK_HOLE;
    assert_int_equal(run(fixture->engine, seek), 0);
    close_file(file);
}

static void status_of_path_and_file_agree_with_stat(void **state)
{
    struct fixture *fixture = *state;
    struct ash_file *file = open_scratch(fixture, 0);
    struct ash_file_status status = status_of(file), by_path;
    struct stat expected;
    struct ash_aio aio = {.op = ASH_AIO_STATUS, .path = fixture->path, .status = &by_path};

    assert_int_equal(stat(fixture->path, &expected), 0);
    assert_int_equal(run(fixture->engine, aio), 0);
    assert_int_equal(status.inode, expected.st_ino);
    assert_int_equal(status.device, expected.st_dev);
    assert_int_equal(status.modified_ns, (uint64_t)expected.st_mtim.tv_sec * 1000000000 +
                                             (uint64_t)expected.st_mtim.tv_nsec);
    assert_true(status.regular && !status.block_device && !status.read_only_device);
    assert_int_equal(by_path.inode, status.inode);
    assert_int_equal(by_path.device, status.device);
    close_file(file);
    aio.path = "/nonexistent/file";
    assert_int_equal(run(fixture->engine, aio), -ENOENT);
}

static int64_t lock_ranges(struct ash_file *file, int type, uint32_t flags,
                           const struct ash_byte_range *ranges, uint32_t count)
{
    return run(file->engine, (struct ash_aio){.op = ASH_AIO_LOCK,
                                              .file = file,
                                              .mode = type,
                                              .flags = flags,
                                              .ranges = ranges,
                                              .range_count = count});
}

static int64_t lock(struct ash_file *file, int type, uint32_t flags)
{
    return lock_ranges(file, type, flags, &(struct ash_byte_range){100, 1}, 1);
}

static int64_t lock_byte(struct ash_file *file, int type, uint32_t flags, uint64_t byte)
{
    return lock_ranges(file, type, flags, &(struct ash_byte_range){byte, 1}, 1);
}

static void locks_exclude_another_open_of_the_same_process(void **state)
{
    struct ash_file *one = open_scratch(*state, 0);
    struct ash_file *two = open_scratch(*state, 0);

    assert_int_equal(lock(one, F_RDLCK, 0), 0);
    assert_int_equal(lock(two, F_RDLCK, 0), 0);
    assert_int_equal(lock(two, F_WRLCK, 0), -EAGAIN);
    assert_int_equal(lock(two, F_WRLCK, ASH_AIO_TEST), 1);
    assert_int_equal(lock(two, F_RDLCK, ASH_AIO_TEST), 0);
    assert_int_equal(lock(one, F_UNLCK, 0), 0);
    assert_int_equal(lock(two, F_WRLCK, ASH_AIO_TEST), 0);
    assert_int_equal(lock(two, F_WRLCK, 0), 0);
    assert_int_equal(lock(one, F_RDLCK, 0), -EAGAIN);
    close_file(two);
    assert_int_equal(lock(one, F_WRLCK, 0), 0);
    close_file(one);
}

static void several_ranges_are_locked_up_to_the_first_that_fails(void **state)
{
    const struct ash_byte_range ranges[] = {{100, 2}, {110, 1}, {120, 3}};
    struct ash_file *one = open_scratch(*state, 0);
    struct ash_file *two = open_scratch(*state, 0);

    assert_int_equal(lock_ranges(one, F_WRLCK, 0, ranges, 3), 0);
    assert_int_equal(lock_byte(two, F_RDLCK, ASH_AIO_TEST, 101), 1);
    assert_int_equal(lock_byte(two, F_RDLCK, ASH_AIO_TEST, 102), 0);
    assert_int_equal(lock_byte(two, F_RDLCK, ASH_AIO_TEST, 110), 1);
    assert_int_equal(lock_byte(two, F_RDLCK, ASH_AIO_TEST, 122), 1);
    /* The index of the first that conflicts. */
    assert_int_equal(lock_ranges(two, F_RDLCK, ASH_AIO_TEST, ranges, 3), 1);
    assert_int_equal(lock_ranges(one, F_UNLCK, 0, ranges, 2), 0);
    assert_int_equal(lock_ranges(two, F_RDLCK, ASH_AIO_TEST, ranges, 3), 3);
    assert_int_equal(lock_ranges(two, F_RDLCK, ASH_AIO_TEST, ranges, 2), 0);
    /* What came before the one that cannot be had stays locked. */
    assert_int_equal(lock_ranges(two, F_WRLCK, 0, ranges, 3), -EAGAIN);
    assert_int_equal(lock_ranges(one, F_RDLCK, ASH_AIO_TEST, ranges + 1, 2), 1);
    close_file(two);
    assert_int_equal(lock_ranges(one, F_WRLCK, 0, ranges, 3), 0);
    close_file(one);
}

static void names_are_renamed_linked_and_unlinked(void **state)
{
    struct fixture *fixture = *state;
    struct ash_engine *engine = fixture->engine;
    char other[128], target[32] = "";
    struct iovec vec = {target, sizeof(target)};

    close_file(open_scratch(fixture, 0));
    snprintf(other, sizeof(other), "%s/other", fixture->directory);
    assert_int_equal(
        run(engine, (struct ash_aio){.op = ASH_AIO_RENAME, .path = fixture->path, .path2 = other}),
        0);
    assert_int_equal(access(fixture->path, F_OK), -1);
    assert_int_equal(
        run(engine, (struct ash_aio){.op = ASH_AIO_SYNC_DIR, .path = fixture->directory}), 0);
    assert_int_equal(run(engine, (struct ash_aio){.op = ASH_AIO_SYNC_DIR, .path = other}),
                     -ENOTDIR);
    assert_int_equal(symlink("elsewhere", fixture->path), 0);
    assert_int_equal(run(engine, (struct ash_aio){.op = ASH_AIO_READLINK,
                                                  .path = fixture->path,
                                                  .iov = ash_iov_of(&vec, 1),
                                                  .bytes = sizeof(target)}),
                     9);
    assert_string_equal(target, "elsewhere");
    assert_int_equal(run(engine, (struct ash_aio){.op = ASH_AIO_UNLINK, .path = other}), 0);
    assert_int_equal(run(engine, (struct ash_aio){.op = ASH_AIO_UNLINK, .path = other}), -ENOENT);
}

static void copy_moves_a_range_between_files(void **state)
{
    struct fixture *fixture = *state;
    struct ash_file *from = open_scratch(fixture, 0);
    char other[128], text[] = "copied", in[7] = "";
    struct ash_file *to;
    int64_t ret;

    snprintf(other, sizeof(other), "%s/other", fixture->directory);
    to = open_at(fixture->engine, other, ASH_FILE_WRITE | ASH_FILE_CREATE);
    assert_int_equal(transfer(from, ASH_AIO_WRITE, text, 6, 10), 6);
    ret = run(
        fixture->engine,
        (struct ash_aio){
            .op = ASH_AIO_COPY, .file = from, .file2 = to, .offset = 10, .offset2 = 3, .bytes = 6});
    if (ret != -EXDEV && ret != -EOPNOTSUPP) {
        assert_int_equal(ret, 6);
        assert_int_equal(transfer(to, ASH_AIO_READ, in, 6, 3), 6);
        assert_string_equal(in, text);
    }
    close_file(from);
    close_file(to);
    unlink(other);
}

static int64_t try_open(struct fixture *fixture, const char *path, uint32_t flags, int adopt_fd)
{
    struct call call = {
        .aio = {.op = ASH_AIO_OPEN, .path = path, .file_flags = flags, .adopt_fd = adopt_fd}};

    call_submit(fixture->engine, &call);
    if (call_wait(fixture->engine, &call) == 0) {
        assert_true(fcntl(call.aio.file->fd, F_GETFD) & FD_CLOEXEC);
        close_file(call.aio.file);
    }
    return call.aio.result;
}

static void open_honours_its_flags(void **state)
{
    struct fixture *fixture = *state;
    uint32_t create = ASH_FILE_WRITE | ASH_FILE_CREATE;

    assert_int_equal(try_open(fixture, fixture->path, 0, -1), -ENOENT);
    assert_int_equal(try_open(fixture, fixture->path, create | ASH_FILE_EXCLUSIVE, -1), 0);
    assert_int_equal(try_open(fixture, fixture->path, create | ASH_FILE_EXCLUSIVE, -1), -EEXIST);
    assert_int_equal(truncate(fixture->path, 100), 0);
    assert_int_equal(try_open(fixture, fixture->path, create | ASH_FILE_TRUNCATE, -1), 0);
    struct ash_file *file = open_at(fixture->engine, fixture->path, 0);
    assert_int_equal(status_of(file).bytes, 0);
    assert_int_equal(transfer(file, ASH_AIO_WRITE, fixture->path, 1, 0), -EBADF);
    close_file(file);
}

static void fifo_is_refused_instead_of_waited_for(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(mkfifo(fixture->path, 0600), 0);
    assert_int_equal(try_open(fixture, fixture->path, 0, -1), -EINVAL);
}

static void descriptor_is_adopted_if_it_may_do_what_is_asked(void **state)
{
    struct fixture *fixture = *state;
    int fd = open(fixture->path, O_RDWR | O_CREAT, 0600);
    int read_only = open(fixture->path, O_RDONLY);

    assert_int_equal(try_open(fixture, NULL, ASH_FILE_WRITE, read_only), -EACCES);
    assert_int_not_equal(fcntl(read_only, F_GETFD), -1); /* still the caller's */
    assert_int_equal(try_open(fixture, NULL, 0, read_only), 0);
    assert_int_equal(fcntl(read_only, F_GETFD), -1);
    assert_int_equal(try_open(fixture, NULL, ASH_FILE_WRITE | ASH_FILE_DIRECT, fd), 0);
    assert_int_equal(try_open(fixture, NULL, 0, 9999), -EBADF);
}

static int open_hook(void *opaque, const char *path, int flags, uint32_t mode)
{
    (void)opaque;
    return strcmp(path, "in the jail") ? -EPERM : open("/dev/zero", flags & ~O_CREAT, mode);
}

static void files_are_opened_by_the_hook_of_the_host(void **state)
{
    struct ash_hooks hooks = {.size = sizeof(hooks), .open_file = open_hook};
    struct ash_engine_config config = {.depth = 4, .workers = 1, .hooks = &hooks};
    struct ash_engine *engine;

    (void)state;
    assert_int_equal(ash_engine_new(NULL, &config, &engine, NULL), 0);
    close_file(open_at(engine, "in the jail", 0));
    assert_int_equal(
        run(engine, (struct ash_aio){.op = ASH_AIO_OPEN, .path = "/etc/passwd", .adopt_fd = -1}),
        -EPERM);
    engine->ops->destroy(engine);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(engine_has_the_name_it_was_asked_for),
        T(unknown_engine_is_refused_by_name),
        T(read_returns_what_was_written),
        T(read_is_short_at_the_end_of_the_file),
        T(direct_file_reads_what_was_written),
        T(unaligned_direct_write_is_refused_or_whole),
        T(four_pieces_go_in_one_transfer),
        T(hundred_pieces_go_in_one_transfer),
        T(more_than_iov_max_pieces_are_a_short_transfer),
        T(cursor_inside_a_vector_is_honoured),
        T(more_requests_than_the_depth_all_complete_once),
        T(completion_may_submit_again),
        T(flush_and_synchronous_write_succeed),
        T(allocation_grows_the_file_and_holes_read_as_zeroes),
        T(allocation_of_nonsense_is_refused),
        T(truncate_sets_the_length_and_seek_finds_data),
        T(status_of_path_and_file_agree_with_stat),
        T(locks_exclude_another_open_of_the_same_process),
        T(several_ranges_are_locked_up_to_the_first_that_fails),
        T(names_are_renamed_linked_and_unlinked),
        T(copy_moves_a_range_between_files),
        T(open_honours_its_flags),
        T(fifo_is_refused_instead_of_waited_for),
        T(descriptor_is_adopted_if_it_may_do_what_is_asked),
        T(files_are_opened_by_the_hook_of_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
