/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of commands. */
#include <string.h>
#include "tools/io/shell.h"

const struct ash_command ash_commands[] = {
    {"abort", NULL, ASH_COMMAND_NO_FILE, 0, 0, "", "ends the program as a crash would, by abort(3)",
     NULL, ash_shell_abort},
    {"aio_flush", NULL, 0, 0, 0, "", "waits until all asynchronous requests are done", NULL,
     ash_shell_aio_flush},
    {"aio_read", NULL, 0, 2, -1, "[-Ciqv] [-P pattern] off len [len..]",
     "begins a read and goes on",
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -i, -- only counts as an invalid request\n"
     " -P, -- compares what was read with a byte\n"
     " -q, -- says nothing on success\n"
     " -v, -- dumps what was read\n\n"
     " The result is told when it is there; a failure does not count as one of this command.\n"
     " aio_flush waits for it.\n",
     ash_shell_aio_read},
    {"aio_write", NULL, ASH_COMMAND_WRITES, 2, -1, "[-Cfiquz] [-P pattern] off len [len..]",
     "begins a write and goes on",
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -f, -- stable when done (FUA)\n"
     " -i, -- only counts as an invalid request\n"
     " -P, -- fills with this byte, not with 0xcd\n"
     " -q, -- says nothing on success\n"
     " -u, -- with -z: may give space back\n"
     " -z, -- writes zeroes\n\n"
     " The result is told when it is there; a failure does not count as one of this command.\n"
     " aio_flush waits for it.\n",
     ash_shell_aio_write},
    {"alloc", "a", 0, 1, 2, "offset [count]",
     "counts the bytes that the image itself holds in a range", NULL, ash_shell_alloc},
    {"close", "c", 0, 0, 0, "", "closes the file", NULL, ash_shell_close_command},
    {"discard", "d", ASH_COMMAND_WRITES, 2, -1, "[-Cq] off len", "gives up the contents of a range",
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -q, -- says nothing on success\n",
     ash_shell_discard},
    {"flush", "f", 0, 0, 0, "", "makes stable what was written", NULL, ash_shell_flush},
    {"help", "?", ASH_COMMAND_NO_FILE, 0, 1, "[command]", "explains one command, or lists all",
     NULL, ash_shell_help},
    {"info", "i", 0, 0, 0, "", "tells the format of the file", NULL, ash_shell_info},
    {"job", NULL, ASH_COMMAND_NO_FILE, 1, -1, "start|list|wait|VERB ..",
     "starts a job, and watches and steers those that were started",
     " start description       starts one; requests can be made while it runs. The description is\n"
     "                         JSON, an array for jobs that end together, or key=value words:\n"
     "                         job start type=stream job-id=j0 base=b.qcow2\n"
     "                         Without device= it works on the open file\n"
     " list                    name, type, state, bytes done of all, and the result of each\n"
     " wait [-p] id [state]    waits until it is in that state (concluded); fails if it comes to\n"
     "                         its end otherwise, or waits for a verb. -p shows progress\n"
     " pause|resume|cancel|force-cancel|complete|finalize|dismiss id\n"
     " speed id bytes          bytes a second; 0: without a limit\n\n"
     " Jobs that still run when the file is closed are cancelled, which counts as a failure.\n",
     ash_shell_job},
    {"length", "l", 0, 0, 0, "", "tells the length of the disk", NULL, ash_shell_length},
    {"map", NULL, 0, 0, 0, "", "tells which ranges the image itself holds", NULL, ash_shell_map},
    {"nodes", NULL, 0, 0, 0, "",
     "lists the nodes of the open file: role, name, driver, rw or ro, file", NULL, ash_shell_nodes},
    {"open", "o", ASH_COMMAND_NO_FILE, 1, -1,
     "[-rnkU] [-t cache] [-d discard] [-i aio] [-j job] [-o options] [path]", "opens a file",
     " -d, -- what discards do: ignore (off), unmap (on, default)\n"
     " -i, -- threads, native, io_uring: accepted; the engine is chosen when the program starts\n"
     " -j, -- a job, as 'job start' takes it, that is in its place before the first request: one "
     "with\n"
     "        a state file goes on from that. When it is refused, the file is not opened\n"
     " -k, -- the same as -i native\n"
     " -n, -- past the host's cache, the same as -t none\n"
     " -o, -- options of the driver: driver=qcow2,file.filename=...\n"
     " -r, -- read-only\n"
     " -t, -- cache mode: none, writeback, unsafe, directsync, writethrough\n"
     " -U, -- without locks; needs -r\n",
     ash_shell_open_command},
    {"quit", "q", ASH_COMMAND_NO_FILE, 0, -1, "", "ends the program", NULL, ash_shell_quit},
    {"read", "r", 0, 2, -1, "[-bCqv] [-P pattern [-s off] [-l len]] off len", "reads a range",
     " -b, -- the state of the machine, not the disk\n"
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -l, -- with -P: compares only this many bytes\n"
     " -p, -- nothing; older scripts have it\n"
     " -P, -- compares what was read with a byte\n"
     " -q, -- says nothing on success\n"
     " -s, -- with -P: compares from here on, counted from off\n"
     " -v, -- dumps what was read\n",
     ash_shell_read},
    {"readv", NULL, 0, 2, -1, "[-Cqv] [-P pattern] off len [len..]",
     "reads a range into several buffers by one request",
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -P, -- compares what was read with a byte\n"
     " -q, -- says nothing on success\n"
     " -v, -- dumps what was read\n",
     ash_shell_readv},
    {"reopen", NULL, 0, 0, -1, "[(-r|-w)] [-c cache] [-o options]", "changes how the file is open",
     " -c, -- cache mode: none, writeback, unsafe, directsync, writethrough\n"
     " -o, -- read-only, cache.direct, cache.no-flush, discard\n"
     " -r, -- read-only\n"
     " -w, -- for reading and writing\n",
     ash_shell_reopen},
    {"sigraise", NULL, ASH_COMMAND_NO_FILE, 1, 1, "signal", "raises the signal of that number",
     NULL, ash_shell_sigraise},
    {"sleep", NULL, ASH_COMMAND_NO_FILE, 1, 1, "milliseconds", "waits; asynchronous requests go on",
     NULL, ash_shell_sleep},
    {"truncate", "t", ASH_COMMAND_WRITES, 1, 3, "[-m preallocation] off",
     "sets the length of the disk", " -m, -- off, metadata, falloc, full\n", ash_shell_truncate},
    {"write", "w", ASH_COMMAND_WRITES, 2, -1, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes a range",
     " -b, -- the state of the machine, not the disk\n"
     " -c, -- compressed\n"
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -f, -- stable when done (FUA)\n"
     " -n, -- with -z: fails where zeroes would have to be written one by one\n"
     " -p, -- nothing; older scripts have it\n"
     " -P, -- fills with this byte, not with 0xcd\n"
     " -q, -- says nothing on success\n"
     " -s, -- fills with what a file holds, again and again\n"
     " -u, -- with -z: may give space back\n"
     " -z, -- writes zeroes\n",
     ash_shell_write},
    {"writev", NULL, ASH_COMMAND_WRITES, 2, -1, "[-Cfq] [-P pattern] off len [len..]",
     "writes a range from several buffers by one request",
     " -C, -- statistics for machines: bytes,requests,time,bytes a second,requests a second\n"
     " -f, -- stable when done (FUA)\n"
     " -P, -- fills with this byte, not with 0xcd\n"
     " -q, -- says nothing on success\n",
     ash_shell_writev},
    {.name = NULL},
};

const struct ash_command *ash_command_find(const char *name)
{
    for (const struct ash_command *command = ash_commands; command->name != NULL; command++) {
        if (strcmp(command->name, name) == 0 ||
            (command->alias != NULL && strcmp(command->alias, name) == 0)) {
            return command;
        }
    }
    return NULL;
}
