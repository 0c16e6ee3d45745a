#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: remove takes the NIC from a running program, which hears of it and ends, and from all that
# start; add gives it back; and both say what is wrong.
cd "$(dirname "$0")" || exit 1
. ./lib.sh
export VIADUCT_RUNTIME_DIR=$scratch/runtime

for command in remove add; do
    expect 2 $command
    complains "^viaduct $command: which NIC\?$"
    expect 2 $command via0 extra
    complains "'extra'"
    expect 1 $command nothing0
    complains "^viaduct $command: nothing0: there is no such NIC$"
done
expect 1 add via0
complains 'it is there already'

# A program with nothing open is none that could be told.
expect 0 remove via0
quiet
says '^via0 is removed; 0 processes were told$'
expect 1 remove via0
complains 'there is no such NIC'
expect 77 devices
expect 0 add via0
says '^via0 is added; 0 processes were told$'
expect 0 devices
says '^via0 '

# A server that waits for its client, and then a client: both end, and neither waits for ever.
play
expect 0 remove via0
says '^via0 is removed; [12] process'
wait "$client" && wrong 'the client has not noticed'
grep -q . "$scratch/client" || wrong 'the client has said nothing'
wait "$server"

# Nothing is there until it is added; then all is as before.
expect 77 pingpong --iters 10
expect 0 add via0
expect 0 pingpong --iters 1000 --check 10 --op send --sizes 8

finish
