#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: top sees two processes that talk to each other, each with the other as its peer, and
# messages that grow; counters in sysfs grow with them, and stay when the processes are gone.
cd "$(dirname "$0")" || exit 1
. ./lib.sh
export VIADUCT_RUNTIME_DIR=$scratch/runtime
counters=/sys/class/infiniband/via0/ports/1

# Nobody there.
expect 0 top
quiet
says '^# nobody has the NIC open$'
expect 0 top --json
python3 json_check.py viaduct.top/1 <"$scratch/out" || wrong 'no good document'

# The value of a counter, read by a program that knows nothing of us. (A sanitizer's runtime must
# come first in LD_PRELOAD.)
counter() {
    LD_PRELOAD=${CLI_PRELOAD-} "$viaduct" run -- cat "$counters/$1"
}

before=$(counter hw_counters/sent_pkts)
play
python3 json_check.py viaduct.top/1 <"$scratch/out" || wrong 'no good document'
expect 0 top --once
quiet
says "^\| +$client \| viaduct "
says "^\| +$client \| viaduct .* RC .* RTS .* of $server "

during=$(counter hw_counters/sent_pkts)
[ "$during" -gt "$before" ] || wrong "sent_pkts went from $before to $during"
again=$(counter hw_counters/sent_pkts)
[ "$again" -gt "$during" ] || wrong "sent_pkts went from $during to $again"
[ "$(counter counters/port_xmit_data)" -gt 0 ] || wrong 'port_xmit_data is 0'

# A stopped process is named, and nobody waits for it.
kill -STOP "$server"
for _ in {1..500}; do
    grep -L '^State:.T' /proc/"$server"/task/*/status | grep -q . || break
done
expect 0 top --once
says "^\| +$server \| does not answer "
kill -CONT "$server"
kill -KILL "$client" "$server"
wait "$client" "$server" 2>/dev/null
expect 0 top --once
says '^# nobody has the NIC open$'

# What ends in good order leaves its counts.
before=$(counter hw_counters/rdma_sends)
expect 0 pingpong --iters 1000 --check 10 --op send --sizes 8
after=$(counter hw_counters/rdma_sends)
[ "$after" -ge $((before + 2000)) ] || wrong "rdma_sends went from $before to $after"

finish
