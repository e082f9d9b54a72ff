/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fuzz_errors_fd = 2;

void fuzz_fail(const char *format, ...)
{
    char message[600];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    dprintf(fuzz_errors_fd, "\nFINDING: %s\n", message);
    abort();
}

/* --- bytes of an input --- */

uint8_t fuzz_u8(struct fuzz_input *input)
{
    if (input->bytes == 0) {
        return 0;
    }
    input->bytes--;
    return *input->data++;
}

uint16_t fuzz_u16(struct fuzz_input *input)
{
    uint16_t low = fuzz_u8(input);
    return (uint16_t)(low | fuzz_u8(input) << 8);
}

char *fuzz_text(struct fuzz_input *input)
{
    char *text = g_strndup((const char *)input->data, input->bytes);
    input->bytes = 0;
    return text;
}

char *fuzz_part(struct fuzz_input *input)
{
    if (input->bytes == 0) {
        return NULL;
    }
    const uint8_t *end = memchr(input->data, ';', input->bytes);
    size_t length = end != NULL ? (size_t)(end - input->data) : input->bytes;
    char *part = g_strndup((const char *)input->data, length);
    length += end != NULL;
    input->data += length;
    input->bytes -= length;
    return part;
}

/* --- the machine --- */

static void on_log(void *opaque, enum ash_log_level level, const char *message)
{
    struct fuzz_machine *machine = opaque;
    machine->errors_logged += level == ASH_LOG_ERROR;
    if (message[0] == '\0') {
        fuzz_fail("an empty message was logged");
    }
}

/* Memory for large buffers is not to be had. */
static void *on_alloc(void *opaque, size_t bytes, size_t alignment)
{
    (void)opaque;
    void *memory;
    if (bytes > FUZZ_BUFFER_BYTES_MAX) {
        return NULL;
    }
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

static void on_free(void *opaque, void *memory, size_t bytes)
{
    (void)opaque;
    (void)bytes;
    free(memory);
}

static void on_fatal(void *opaque, const char *message)
{
    (void)opaque;
    fuzz_fail("%s", message);
}

static void observe(void *opaque, const struct ash_sim_event *event)
{
    struct fuzz_machine *machine = opaque;
    if (event->phase != ASH_SIM_SUBMITTED) {
        return;
    }
    switch (event->aio->op) {
    case ASH_AIO_WRITE:
    case ASH_AIO_ALLOCATE:
    case ASH_AIO_TRUNCATE:
    case ASH_AIO_COPY:
    case ASH_AIO_RENAME:
    case ASH_AIO_UNLINK:
        machine->changes++;
        machine->changed = event->path;
        if (machine->only != NULL &&
            (event->path == NULL || strcmp(event->path, machine->only) != 0)) {
            fuzz_fail("'%s' is changed (%s), only '%s' may be", event->path,
                      ash_sim_op_name(event->aio->op), machine->only);
        }
        break;
    default:
        break;
    }
}

void fuzz_machine_init(struct fuzz_machine *machine, uint64_t seed)
{
    struct ash_sim_config config = {.seed = seed,
                                    .latency_ns_min = 1000,
                                    .latency_ns_max = 100000,
                                    .capacity_bytes = FUZZ_DISK_BYTES_MAX};
    *machine = (struct fuzz_machine){.world = ash_sim_world_new(&config)};
    ash_sim_observe(machine->world, observe, machine);
}

void fuzz_machine_free(struct fuzz_machine *machine)
{
    ash_sim_world_free(machine->world);
}

void fuzz_boot(struct fuzz_machine *machine, uint64_t metadata_bytes_max)
{
    struct ash_engine_config config = {.depth = 64};
    struct ash_hooks hooks = {.size = sizeof(hooks),
                              .opaque = machine,
                              .log = on_log,
                              .fatal = on_fatal,
                              .alloc = on_alloc,
                              .free = on_free};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    struct ash_engine *engine;
    loop_config.metadata_bytes_max = metadata_bytes_max;
    loop_config.hooks = &hooks;
    if (ash_engine_sim_new(machine->world, &config, &engine, NULL) < 0 ||
        ash_loop_new_with_engine(engine, &loop_config, &machine->loop, NULL) < 0 ||
        ash_loop_bind(machine->loop) < 0) {
        fuzz_fail("there is no loop");
    }
}

void fuzz_halt(struct fuzz_machine *machine)
{
    ash_loop_free(machine->loop);
    machine->loop = NULL;
    if (ash_sim_leaked_files(machine->world) > 0) {
        fuzz_fail("%u files were left open", ash_sim_leaked_files(machine->world));
    }
}

int fuzz_call(struct fuzz_machine *machine, int (*fn)(void *opaque), void *opaque)
{
    int ret = ash_loop_run_sync(machine->loop, fn, opaque);
    if (ret == -EDEADLK) {
        fuzz_fail("a request waits for ever");
    }
    return ret;
}

int fuzz_open(struct fuzz_machine *machine, const char *format, uint32_t flags,
              struct ash_disk **disk)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description =
        json_pack("{s:{s:s, s:s}}", "file", "driver", "file", "filename", "image");
    if (format != NULL) {
        json_object_set_new(description, "driver", json_string(format));
    }
    int ret = ash_co_disk_open(machine->loop, description, flags, disk, &error);
    json_decref(description);
    if (ret < 0 && (error.message[0] == '\0' || error.code != ret)) {
        fuzz_fail("opening failed with %d and says '%s' (%d)", ret, error.message, error.code);
    }
    return ret;
}
