#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: every example runs on via0 by itself, both sides end well, and it shows what it is for.
cd "$(dirname "$0")" || exit 1
. ./lib.sh
export LD_PRELOAD=${CLI_PRELOAD-}
[ -n "$LD_PRELOAD" ] || unset LD_PRELOAD

example() {
    expect 0 run -- "$VIADUCT_BIN/$1"
    quiet
    says "$2"
}

example pingpong '^10000 round trips of 64 bytes, every one checked$'
example write_imm '^server: line 3 was written, 64 bytes: and no one'
example rdma_read '^client: read 8 bytes too far: remote access error$'
example counter '^the word holds 40000; 40000 tickets were drawn, each once$'
example kv '^server: stored 1000 puts, saw no get$'
says '^client: put 1000 keys, got all of them back'

# Without a device: one line each side, and a failure.
export VIADUCT_NICS=nonsense
expect 1 run -- "$VIADUCT_BIN/pingpong"
grep -q 'opening an RDMA device' <<<"$err" || wrong 'the cause is not named'
unset VIADUCT_NICS
expect 2 run -- "$VIADUCT_BIN/pingpong" nonsense
grep -q '^usage: ' <<<"$err" || wrong 'no usage'

finish
