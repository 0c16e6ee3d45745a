# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Two hosts, as far as the network goes: this namespace and another one, a cable between them.
#
#   here: via0 = 10.9.0.1, fd09::1   w0 ------ w1   via0 = 10.9.0.2, fd09::2 :there
#
# Started by alone. here PROGRAM ..., there PROGRAM ... run a program on the NIC of one of them.
set -u
bin=$1
work=$(mktemp -d)
failed=0
port=9000

unshare --net sleep 1000 &
other=$!
trap 'kill $other 2>/dev/null; rm -rf "$work"' EXIT
# It has its own namespace once its link is another file than ours.
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
in_there() { nsenter --target $other --net "$@"; }

ip link add w0 type veth peer name w1 netns $other
ip addr add 10.9.0.1/24 dev w0
ip addr add fd09::1/64 dev w0 nodad
ip link set w0 up
in_there ip addr add 10.9.0.2/24 dev w1
in_there ip addr add fd09::2/64 dev w1 nodad
in_there ip link set lo up
in_there ip link set w1 up
mkdir -m 700 "$work/here" "$work/there"

here() {
    VIADUCT_RUNTIME_DIR=$work/here VIADUCT_NICS=via0=10.9.0.1+fd09::1 "$bin/viaduct" run -- "$@"
}
there() {
    VIADUCT_RUNTIME_DIR=$work/there VIADUCT_NICS=via0=10.9.0.2+fd09::2 in_there \
        "$bin/viaduct" run -- "$@"
}

note() { # NAME CLIENT SERVER: exit statuses
    if [ "$2" = 0 ] && [ "$3" = 0 ]; then
        echo "ok   $1"
        return
    fi
    echo "FAIL $1: client $2, server $3"
    tail -n 6 "$work/client" "$work/server"
    failed=$((failed + 1))
}

await() { # until something listens on the TCP port there
    for _ in $(seq 400); do
        ! in_there ss -ltn | grep -q ":$port " || return 0
        sleep 0.02
    done
}

gid_option() {
    case $1 in ib_*) echo "-x ${gid:-0}" ;; *) echo "-g ${gid:-0}" ;; esac
}

pair() { # PROGRAM OPTIONS...: the server there, the client here
    local status=0 server=0 program=$1
    shift
    port=$((port + 1))
    # shellcheck disable=SC2046 # two words
    there timeout 50 "$program" $(gid_option "$program") -p $port "$@" >"$work/server" 2>&1 &
    local pid=$!
    await
    # shellcheck disable=SC2046
    here timeout 50 "$program" $(gid_option "$program") -p $port "$@" 10.9.0.2 \
        >"$work/client" 2>&1 || status=$?
    wait $pid || server=$?
    note "$program $* ${VIADUCT_FAULTS:+($VIADUCT_FAULTS)}" $status $server
}

# perftest crashes when it is refused; its server says when it listens.
await_perftest() { # SERVER-COMMAND PID
    case $1 in ib_*) ;; *) return ;; esac
    until grep -qs Waiting "$work/server" || ! kill -0 "$2" 2>/dev/null; do sleep 0.02; done
}

# rdma_cm: the server's port can't be looked up, so who is refused calls again.
cm_pair() { # SERVER-COMMAND CLIENT-COMMAND
    local status=0
    port=$((port + 1))
    # shellcheck disable=SC2086
    there timeout 50 stdbuf -oL ${1//PORT/$port} >"$work/server" 2>&1 &
    local pid=$!
    await_perftest "$1" $pid
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        status=0
        # shellcheck disable=SC2086
        here timeout 50 ${2//PORT/$port} >"$work/client" 2>&1 || status=$?
        if [ $status -eq 0 ] || ! kill -0 $pid 2>/dev/null; then break; fi
        sleep 0.1
    done
    kill $pid 2>/dev/null
    wait $pid
    note "${2//PORT/$port} ${VIADUCT_FAULTS:+($VIADUCT_FAULTS)}" $status 0
}

finish() {
    echo "$failed failed"
    [ $failed -eq 0 ]
    exit
}
