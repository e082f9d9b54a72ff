#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Locks against QEMU, in both directions: who holds an image open, and who may open it beside that.
#
#   locks.sh LOCK_HOLDER
set -uo pipefail

holder=$1
command -v qemu-io >/dev/null && command -v qemu-img >/dev/null || exit 77

dir=$(mktemp -d ./locks-XXXXXX)
image=$dir/image
json='json:{"driver":"raw","file":{"driver":"file","filename":"'$image'"}}'
held_pid='' failures=0

cleanup()
{
    [ -z "$held_pid" ] || kill "$held_pid" 2>/dev/null
    exec 7>&- 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT

fail()
{
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# Bytes of the image that are locked, as "100-101 201 ...".
locked()
{
    local inode
    inode=$(stat -c %i "$image")
    awk -v inode=":$inode" 'index($6, inode) == length($6) - length(inode) + 1 {
            for (i = $7; i <= $8; i++) print i }' /proc/locks | sort -un | tr '\n' ' '
}

# wait_for COMMAND...: until it succeeds.
wait_for()
{
    local i
    for i in $(seq 200); do
        "$@" && return 0
        sleep 0.05
    done
    fail "$held: in vain waited for: $*; bytes '$(locked)' are locked"
}

are_locked()
{
    [ "$(locked)" = "${1:+$1 }" ]
}

# hold_qemu BYTES ARGUMENT...: a qemu-io that keeps the image open, and the bytes that it locks.
hold_qemu()
{
    local bytes=$1
    shift
    qemu-io "$@" -c 'sleep 60000' "$image" >/dev/null 2>&1 &
    held_pid=$!
    wait_for are_locked "$bytes"
}

# hold_ours MODE
hold_ours()
{
    rm -f "$dir/fifo" && mkfifo "$dir/fifo"
    "$holder" "$1" "$json" <"$dir/fifo" >"$dir/held" &
    held_pid=$!
    exec 7>"$dir/fifo"
    wait_for grep -q open "$dir/held"
}

release()
{
    exec 7>&-
    kill "$held_pid" 2>/dev/null
    wait "$held_pid" 2>/dev/null
    held_pid=''
    wait_for are_locked ''
}

# ours MODE yes|TEXT: opens beside what is held: it works, or fails with this text.
ours()
{
    local out
    out=$("$holder" "$1" "$json" </dev/null 2>&1)
    if [ "$2" = yes ]; then
        [ "$out" = open ] || fail "$held: ours $1 should open, but: $out"
    elif ! grep -Fq -- "$2" <<<"$out" || ! grep -Fq -- "$image" <<<"$out"; then
        fail "$held: ours $1 should say '$2' and the name, but: $out"
    fi
}

# theirs yes|TEXT ARGUMENT...: the same with qemu-io.
theirs()
{
    local out expected=$1
    shift
    out=$(qemu-io "$@" -c 'length' "$image" 2>&1)
    if [ "$expected" = yes ]; then
        grep -q '^1 MiB$' <<<"$out" || fail "$held: qemu-io $* should open, but: $out"
    elif ! grep -Fq -- "$expected" <<<"$out"; then
        fail "$held: qemu-io $* should say '$expected', but: $out"
    fi
}

expect_locked()
{
    are_locked "$1" || fail "$held: bytes '$(locked)' are locked, not '$1'"
}

write='Failed to get "write" lock'
shared='Failed to get shared "write" lock'

qemu-img create -q -f raw "$image" 1M

held='ours rw'
hold_ours rw
expect_locked '100 101 103 201 203'
theirs "$write" -f raw
theirs yes -f raw -r
theirs yes -f raw -r -U
qemu-img create -q -f raw "$image" 2M 2>/dev/null && fail "$held: qemu-img create should fail"
ours rw "$write"
ours ro "$shared"
ours share yes
release

held='ours ro'
hold_ours ro
expect_locked '100 201 203'
theirs "$write" -f raw
theirs yes -f raw -r
ours rw "$write"
ours ro yes
release

held='ours share'
hold_ours share
expect_locked '100'
theirs yes -f raw
ours rw yes
release

held='qemu-io rw'
hold_qemu '100 101' -f raw
ours rw "$shared"
ours ro "$shared"
ours share yes
release

held='qemu-io ro'
hold_qemu '100' -f raw -r
ours rw yes
ours ro yes
release

# The bytes themselves are the same for the same rights: a format that writes, and one that reads.
qemu-img create -q -f qcow2 "$image" 1M
held='qemu-io qcow2 rw'
hold_qemu '100 101 103 201 203' -f qcow2
ours ro "$shared"
ours rw "$write"
ours share yes
release

held='qemu-io qcow2 ro'
hold_qemu '100 201 203' -f qcow2 -r
ours ro yes
ours rw "$write"
release

held='ours rw, of a qcow2 image'
hold_ours rw
theirs "$write" -f qcow2
theirs "$shared" -f qcow2 -r
theirs yes -f qcow2 -r -U
qemu-img info "$image" >"$dir/out" 2>&1 && fail "$held: qemu-img info should fail"
grep -Fq "$shared" "$dir/out" || fail "$held: qemu-img info says: $(cat "$dir/out")"
qemu-img info -U "$image" >/dev/null || fail "$held: qemu-img info -U should work"
release

[ "$failures" = 0 ] && echo "locks exclude and are excluded as they should be"
exit $((failures > 0))
