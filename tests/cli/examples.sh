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

# The same for VIPL.
example via_pingpong '^10000 round trips, every answer checked$'
example via_rdma '^client: read beyond the region: refused, and the connection is gone$'
says '^server: told of line 3, and found on the board:$'
example via_cq_server '^server: 8000 requests over 16 VIs, 500 each, from one queue$'
says '^client: 8000 answers, each checked$'
example via_peer '^left: hello from the right$'
says '^right: hello from the left$'
example via_credit '^server: 20000 messages into 9 receives, none lost, [1-9][0-9]* updates sent$'
says '^client: 20000 messages sent, [1-9][0-9]* times out of credit$'
example via_unreliable '^client: 300 messages sent, and every send completed well$'
says '^server: 252 lost, because there were 16 receives for 100 messages$'
example via_file '^server: a file of 5000000 bytes, the same .*; copied by this program: 0$'
says '^client: 5000000 bytes in 77 RDMA writes; copied by this program: 0$'

# Without a device: one line each side, and a failure.
export VIADUCT_NICS=nonsense
expect 1 run -- "$VIADUCT_BIN/pingpong"
grep -q 'opening an RDMA device' <<<"$err" || wrong 'the cause is not named'
unset VIADUCT_NICS
expect 2 run -- "$VIADUCT_BIN/pingpong" nonsense
grep -q '^usage: ' <<<"$err" || wrong 'no usage'

finish
