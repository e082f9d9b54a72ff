# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What tests/run and the programs tests/NAME/run share, to be sourced at the top of the tree: builds in
# directories of their own, runs of meson's tests in them, and the sums of all runs.

passed=0 failed=0 skipped=0

# Address-space randomisation of more bits than the sanitizers of clang 14 expect makes them fail by
# chance, so it is off where that is allowed.
unrandomised=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
    unrandomised=(setarch "$(uname -m)" -R)
fi

say()
{
    printf '\n== %s\n' "$*"
}

# configure DIRECTORY COMPILER [OPTION...]: once. Ninja itself configures again when meson.build changes.
configure()
{
    local dir=$1 compiler=$2
    shift 2
    [ ! -f "$dir/build.ninja" ] || return 0
    mkdir -p "$dir"
    CC=$compiler meson setup "$dir" "$@" >"$dir/build.log" 2>&1 </dev/null || {
        cat "$dir/build.log"
        echo "tests/run: cannot configure $dir"
        exit 1
    }
}

# build DIRECTORY [TARGET...]: these targets, or everything.
build()
{
    local dir=$1
    shift
    ninja -C "$dir" --quiet "$@" >"$dir/build.log" 2>&1 </dev/null || {
        cat "$dir/build.log"
        echo "tests/run: $dir does not build"
        exit 1
    }
}

# test_programs DIRECTORY SUITE: the programs of a suite, as targets of ninja.
test_programs()
{
    build "$1" build.ninja
    meson introspect "$1" --tests | python3 -c '
import json, os, sys
top, suite = os.path.abspath(sys.argv[1]), sys.argv[2]
print(*sorted({os.path.relpath(t["cmd"][0], top) for t in json.load(sys.stdin)
               if suite in [s.split(":")[-1] for s in t["suite"]]}))' "$1" "$2"
}

# count DIRECTORY RESULT...: how many tests of the last run ended so. Its log is named after the wrapper, too.
count()
{
    local dir=$1 pattern
    shift
    pattern=$(printf '|%s' "$@")
    cat "$dir"/meson-logs/testlog*.json | grep -Ec "\"result\": \"(${pattern#|})\"" || true
}

# run_tests DIRECTORY [MESON-TEST-OPTION...]: runs them and adds to the counts. Two more at a time than there
# are processors, as many wait for the kernel: to end a program's contexts of Linux AIO takes it tens of
# milliseconds.
run_tests()
{
    local dir=$1 status=0 bad
    shift
    rm -f "$dir"/meson-logs/testlog*.json
    "${unrandomised[@]}" meson test -C "$dir" --no-rebuild --print-errorlogs \
        --num-processes "${ASHLAR_TEST_JOBS:-$(($(nproc) + 2))}" "$@" </dev/null || status=$?
    if ! compgen -G "$dir/meson-logs/testlog*.json" >/dev/null; then
        echo "tests/run: meson test ran nothing in $dir"
        failed=$((failed + 1))
        return
    fi
    bad=$(count "$dir" FAIL TIMEOUT ERROR INTERRUPT UNEXPECTEDPASS)
    # A run that fails without naming a test is a failure all the same.
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
        bad=1
    fi
    passed=$((passed + $(count "$dir" OK EXPECTEDFAIL)))
    skipped=$((skipped + $(count "$dir" SKIP)))
    failed=$((failed + bad))
}

finish()
{
    printf '\n%s seconds\n%s passed, %s failed, %s skipped\n' "$SECONDS" "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}
