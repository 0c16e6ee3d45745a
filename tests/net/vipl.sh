# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# VIPL between two hosts: the examples, a side on each, and what they say in the end.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

# shellcheck disable=SC2317 # called by name
judge() { # STATUS STATUS SERVER-SAYS CLIENT-SAYS
    both_fine "$1" "$2" && grep -Eqx "$3" "$work/server" && grep -Eqx "$4" "$work/client"
}

# Who asks before the other one waits asks again, so neither has to be first.
vipl_pair() { # SERVER-COMMAND CLIENT-COMMAND SERVER-SAYS CLIENT-SAYS
    local server client words
    read -ra words <<<"$bin/$1"
    start there server "${words[@]}"
    server=$started
    read -ra words <<<"$bin/$2"
    start here client "${words[@]}"
    end_of "$started"
    client=$status
    [ "$client" = 0 ] || kill -9 "$server" 2>/dev/null
    end_of "$server"
    say "$2 ${VIADUCT_FAULTS:+($VIADUCT_FAULTS)}: client $client, server $status" \
        judge "$client" "$status" "$3" "$4"
}

example() { # NAME SERVER-SAYS CLIENT-SAYS
    vipl_pair "$1 server" "$1 client 10.9.0.2" "server: $2" "client: $3"
}

all() {
    example via_cq_server "8000 requests over 16 VIs, 500 each, from one queue" \
        "8000 answers, each checked"
    example via_rdma "  .+" "read beyond the region: refused, and the connection is gone"
    example via_credit "20000 messages into 9 receives, none lost, [0-9]+ updates sent" \
        "20000 messages sent, [0-9]+ times out of credit"
    example via_file \
        "a file of 5000000 bytes, the same to the byte; copied by this program: 0" \
        "5000000 bytes in [0-9]+ RDMA writes; copied by this program: 0"
    example via_unreliable "[0-9]+ lost, because there were 16 receives for 100 messages" \
        "300 messages sent, and every send completed well"
    vipl_pair "via_peer right 10.9.0.1" "via_peer left 10.9.0.2" "right: .+" "left: .+"
}

all
VIADUCT_FAULTS=loss=1%,dup=1%,reorder=1%,seed=7 all
finish
