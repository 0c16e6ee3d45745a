# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# For scripts that run in the guest: our NIC in one network namespace, the kernel's in the initial
# one (up to Linux 6.12 it works in no other), a cable between them.
#
#   netns via:  viaduct, via0  10.8.0.2  fd08::2  v1 ------ v0  10.8.0.1  fd08::1  rxe0  (initial)
#
# pair PROGRAM OPTIONS... runs it with the server on rxe and the client on via, and the other way.
bin=$1
export VIADUCT_RUNTIME_DIR=/run/viaduct VIADUCT_NICS=via0=10.8.0.2+fd08::2
failed=0
port=7000

mkdir -m 700 $VIADUCT_RUNTIME_DIR
ip netns add via
ip link add v0 type veth peer name v1 netns via
ip addr add 10.8.0.1/24 dev v0
ip addr add fd08::1/64 dev v0 nodad
ip link set v0 up
ip -n via addr add 10.8.0.2/24 dev v1
ip -n via addr add fd08::2/64 dev v1 nodad
ip -n via link set lo up
ip -n via link set v1 up
rdma link add rxe0 type rxe netdev v0

gid_of() { # the last two groups of an address, as sysfs writes it: the index at rxe0
    local i
    for _ in $(seq 100); do
        for i in 0 1 2 3 4; do
            if grep -qs "$1\$" /sys/class/infiniband/rxe0/ports/1/gids/$i; then
                echo $i
                return
            fi
        done
        sleep 0.1
    done
    echo "bed: rxe0 has no address $1" >&2
    exit 1
}
rxe_v4=$(gid_of 0a08:0001)
rxe_v6=$(gid_of 0000:0001)

via() { ip netns exec via "$bin/viaduct" run -- "$@"; }

# A connection manager's port can't be looked up; a TCP one can.
await() { # NETNS-COMMAND...
    for _ in $(seq 200); do
        ! "$@" ss -ltn 2>/dev/null | grep -q ":$port " || return 0
        sleep 0.05
    done
}

# Our NIC answers, if only to refuse. Before that a request is lost, and comes again after seconds.
await_nic() { # SIDE
    for _ in $(seq 200); do
        [ "$1" = via ] || return 0
        ! ip netns exec via ss -lun | grep -q ":4791 " || return 0
        sleep 0.05
    done
}

note() { # NAME CLIENT SERVER: exit statuses
    if [ "$2" = 0 ] && [ "$3" = 0 ]; then
        echo "ok   $1"
        return
    fi
    echo "FAIL $1: client $2, server $3"
    tail -n 6 /run/client.out /run/server.out
    failed=$((failed + 1))
}

# Sides: what a program is told to be on a device. Pingpong and perftest name the GID differently.
side() { # via|rxe PROGRAM
    local option=-g via_gid=0 rxe_gid=$rxe_v4
    [[ $2 != ib_* ]] || option=-x
    if [ "${family:-v4}" = v6 ]; then
        via_gid=2
        rxe_gid=$rxe_v6
    fi
    case $1 in
    via) echo "-d via0 $option $via_gid" ;;
    *) echo "-d rxe0 $option $rxe_gid" ;;
    esac
}

run_pair() { # SERVER-SIDE CLIENT-SIDE PROGRAM OPTIONS...
    local server=$1 client=$2 program=$3 status=0 server_status=0
    local -A enter=([via]=via [rxe]=env) host=([via]=10.8.0.2 [rxe]=10.8.0.1)
    local -A look=([via]="ip netns exec via" [rxe]=env)
    shift 3
    port=$((port + 1))
    # shellcheck disable=SC2046,SC2086 # words are meant to be split
    ${enter[$server]} taskset -c 0 timeout 60 "$program" $(side "$server" "$program") -p $port \
        "$@" >/run/server.out 2>&1 &
    local pid=$!
    # shellcheck disable=SC2086
    await ${look[$server]}
    # shellcheck disable=SC2046
    ${enter[$client]} taskset -c 1 timeout 60 "$program" $(side "$client" "$program") -p $port \
        "$@" "${host[$server]}" >/run/client.out 2>&1 || status=$?
    wait $pid || server_status=$?
    note "$program $* ${family:-v4} $client->$server" $status $server_status
}

pair() {
    run_pair rxe via "$@"
    run_pair via rxe "$@"
}

finish() {
    echo "$failed failed"
    exit $((failed > 0))
}
