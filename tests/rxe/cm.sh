# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# In the guest: the connection manager, between ours and the kernel's.
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
finish
