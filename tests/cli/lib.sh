# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the tests of the command share. Each script sources this, and ends with `finish`.
#
#   expect STATUS ARGS...   run viaduct with ARGS; its output is then in $out and $err
#   says PATTERN            stdout has a line that matches
#   complains PATTERN       stderr is exactly one line, and matches
#   quiet                   stderr is empty
set -u
viaduct=$VIADUCT_BIN/viaduct
failures=0
what=
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

wrong() {
    failures=$((failures + 1))
    printf 'FAIL: viaduct %s: %s\n' "$what" "$1"
    printf '  stdout: %s\n  stderr: %s\n' "$out" "$err"
}

expect() {
    local wanted=$1 status=0
    shift
    what=$*
    "$viaduct" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
    out=$(cat "$scratch/out")
    err=$(cat "$scratch/err")
    [ "$status" -eq "$wanted" ] || wrong "status $status instead of $wanted"
}

says() {
    grep -qE -- "$1" <<<"$out" || wrong "stdout has no line like '$1'"
}

quiet() {
    [ -z "$err" ] || wrong 'stderr is not empty'
}

complains() {
    [ "$(wc -l <"$scratch/err")" -eq 1 ] || wrong 'stderr is not one line'
    grep -qE -- "$1" <<<"$err" || wrong "stderr is not like '$1'"
}

same() {
    diff -u "$1" "$2" || wrong "differs from $1"
}

# Two sides of a ping-pong without an end, as processes $server and $client, that are at it: both
# are seen by top, connected to each other, and have sent something.
play() {
    local port
    "$viaduct" pingpong server --port 0 --once 2>"$scratch/server" >"$scratch/ignored" &
    server=$!
    port=$(timeout 20 tail -n +1 -F "$scratch/server" 2>/dev/null |
        sed -nE '/TCP port ([0-9]+)$/{s/.* //;p;q}')
    "$viaduct" pingpong --op send --sizes 64 --iters 1000000000 --port "$port" client 127.0.0.1 \
        >"$scratch/ignored" 2>"$scratch/client" &
    client=$!
    for _ in {1..500}; do
        expect 0 top --json
        python3 top_check.py "$client" "$server" <"$scratch/out" 2>"$scratch/why" && break
    done
    [ ! -s "$scratch/why" ] || wrong "$(tail -1 "$scratch/why")"
}

finish() {
    [ "$failures" -eq 0 ] && echo 'all right' && exit 0
    echo "$failures failed"
    exit 1
}
