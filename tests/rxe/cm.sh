# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# In the guest: the connection manager, between ours and the kernel's; and VIPL, which is made of
# it, with one end on each.
# shellcheck source=tests/rxe/bed.sh
. "$(dirname "$0")/bed.sh"

cm_pair() { # SERVER-SIDE CLIENT-SIDE "SERVER COMMAND" "CLIENT COMMAND": @ is the server's address
    local server=$1 client=$2 status=0
    local -A enter=([via]=via [rxe]=env) host=([via]=10.8.0.2 [rxe]=10.8.0.1)
    port=$((port + 1))
    local serve=${3//@/${host[$server]}} call=${4//@/${host[$server]}}
    # shellcheck disable=SC2086
    ${enter[$server]} taskset -c 0 timeout 60 ${serve//PORT/$port} >/run/server.out 2>&1 &
    local pid=$!
    await_nic "$server"
    for _ in 1 2 3 4 5; do # the server may not listen yet: it is refused then, and calls again
        status=0
        # shellcheck disable=SC2086
        ${enter[$client]} taskset -c 1 timeout 60 ${call//PORT/$port} >/run/client.out 2>&1 ||
            status=$?
        if [ $status -eq 0 ] || ! kill -0 $pid 2>/dev/null; then break; fi
        sleep 0.5
    done
    kill $pid 2>/dev/null
    wait $pid
    note "${call//PORT/$port} $client->$server" $status 0
}

both() {
    cm_pair rxe via "$@"
    cm_pair via rxe "$@"
}

both "rping -s -a @ -p PORT" "rping -c -a @ -p PORT -C 10 -V"
both "rping -s -a @ -p PORT -S 20000" "rping -c -a @ -p PORT -C 5 -V -S 20000"
both "rdma_server -p PORT" "rdma_client -s @ -p PORT"
both "ucmatose -p PORT -c 4 -C 4" "ucmatose -s @ -p PORT -c 4 -C 4"
both "udaddy" "udaddy -s @"

# VIPL programs: what both say in the end shows that they have compared what they got. Who asks
# before the other one waits asks again.
vipl_pair() { # SERVER-SIDE CLIENT-SIDE "SERVER COMMAND" "CLIENT COMMAND" SERVER-SAYS CLIENT-SAYS
    local server=$1 client=$2 status=0 server_status=0
    local -A enter=([via]=via [rxe]=env) host=([via]=10.8.0.2 [rxe]=10.8.0.1)
    local serve=${3//@/${host[$client]}} call=${4//@/${host[$server]}}
    # shellcheck disable=SC2086
    ${enter[$server]} taskset -c 0 timeout 60 $bin/$serve >/run/server.out 2>&1 &
    local pid=$!
    await_nic "$server"
    # shellcheck disable=SC2086
    ${enter[$client]} taskset -c 1 timeout 60 $bin/$call >/run/client.out 2>&1 || status=$?
    [ $status -eq 0 ] || kill $pid 2>/dev/null
    wait $pid || server_status=$?
    grep -Eqx "$5" /run/server.out || server_status="$server_status, and it says too little"
    grep -Eqx "$6" /run/client.out || status="$status, and it says too little"
    note "$call $client->$server" "$status" "$server_status"
}

both_ways() {
    vipl_pair rxe via "$@"
    vipl_pair via rxe "$@"
}

vipl() { # NAME SERVER-SAYS CLIENT-SAYS
    both_ways "$1 server" "$1 client @" "server: $2" "client: $3"
}

vipl tests/rxe_cq_server "480 requests over 16 VIs, 30 each, from one queue" \
    "480 answers, each checked"
vipl tests/rxe_credit "1000 messages into 9 receives, none lost, [0-9]+ updates sent" \
    "1000 messages sent, [0-9]+ times out of credit"
vipl via_rdma "  line 2, written from afar" "read back: line 2, written from afar"
vipl via_unreliable "[0-9]+ lost, because there were 16 receives for 100 messages" \
    "300 messages sent, and every send completed well"
both_ways "via_peer right @" "via_peer left @" "right: .+" "left: .+"
finish
