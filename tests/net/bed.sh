# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Two hosts, as far as the network goes: this namespace and another one, a cable between them.
#
#   here: via0 = 10.9.0.1, fd09::1   w0 ------ w1   via0 = 10.9.0.2, fd09::2 :there
#
# Runs in namespaces of its own, which end whatever is left. Programs are started by start, so that
# the process that is waited for, or killed, is the program itself.
# shellcheck disable=SC2317 # conditions are called by name
set -u
bin=$1
work=$(mktemp -d)
failed=0
port=9000
trap 'rm -rf "$work"' EXIT

in_there() { nsenter --target $other --net "$@"; }
has_own_network() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

# Until the condition, a command, holds; a minute at most.
await() {
    local end=$((SECONDS + 60))
    until "$@"; do
        ((SECONDS < end)) || return 1
        read -rt 0.01 <>"$work/nothing"
    done
    return 0
}
mkfifo "$work/nothing"

unshare --net tail -f /dev/null &
other=$!
await has_own_network $other
ip link add w0 type veth peer name w1 netns $other
ip addr add 10.9.0.1/24 dev w0
ip addr add fd09::1/64 dev w0 nodad
ip link set w0 up
in_there ip addr add 10.9.0.2/24 dev w1
in_there ip addr add fd09::2/64 dev w1 nodad
in_there ip link set lo up
in_there ip link set w1 up

# The kernels have found each other once TCP is refused: a neighbour that is asked for too early is
# asked for again a second later, and connections give up sooner than that.
answers() { (: <"/dev/tcp/$1/1") 2>&1 | grep -q "refused"; }
await answers 10.9.0.2
await answers fd09::2

mkdir -m 700 "$work/here" "$work/there"

# ---- programs ----

start() { # here|there OUTPUT PROGRAM...: in the background, as process $started
    local place=() addresses=10.9.0.1+fd09::1
    if [ "$1" = there ]; then
        place=(nsenter --target "$other" --net)
        addresses=10.9.0.2+fd09::2
    fi
    "${place[@]}" env VIADUCT_RUNTIME_DIR="$work/$1" VIADUCT_NICS=via0=$addresses \
        "$bin/viaduct" run -- "${@:3}" >"$work/$2" 2>&1 &
    started=$!
}

is_over() { ! kill -0 "$1" 2>/dev/null; }

# Its status in $status; one that does not end is killed.
end_of() { # PROCESS
    await is_over "$1" || kill -9 "$1"
    status=0
    wait "$1" || status=$?
}

say() { # NAME CONDITION...
    if "${@:2}"; then
        echo "ok   $1"
        return
    fi
    echo "FAIL $1"
    tail -n 6 "$work/client" "$work/server"
    failed=$((failed + 1))
}

both_fine() { [ "$1" = 0 ] && [ "$2" = 0 ]; }

# ---- when to begin ----

# Something listens on the TCP port there.
listens_tcp() { in_there ss -Htln "sport = :$1" | grep -q .; }

# Something listens on the port of rdma_cm: the table of ports has 16 entries of 32 bytes for each,
# the owner's name first, flags in byte 26 (endpoints/core/ports.c).
listens() { # HOST PORT
    od -An -v -tu1 -w32 -j $(($2 * 512)) -N 512 "$work/$1/ports" 2>/dev/null |
        awk '{ for (i = 1; i <= 8; i++) if ($i) owned = 1 }
             owned && int($27 / 2) % 2 { found = 1 } { owned = 0 } END { exit !found }'
}

or_over() { "${@:2}" || is_over "$1"; } # PROCESS CONDITION...

# ---- a server there, a client here ----

gid_option() {
    case $1 in ib_*) echo "-x ${gid:-0}" ;; *) echo "-g ${gid:-0}" ;; esac
}

# They talk over TCP first.
pair() { # PROGRAM OPTIONS...
    local server client options
    port=$((port + 1))
    read -ra options <<<"$(gid_option "$1") -p $port ${*:2}"
    start there server "$1" "${options[@]}"
    server=$started
    await or_over "$server" listens_tcp $port
    start here client "$1" "${options[@]}" 10.9.0.2
    end_of "$started"
    client=$status
    end_of "$server"
    say "$* ${VIADUCT_FAULTS:+($VIADUCT_FAULTS)}: client $client, server $status" \
        both_fine "$client" "$status"
}

cm_try() { # SERVER CLIENT LISTENS
    local server words
    read -ra words <<<"$1"
    start there server stdbuf -oL "${words[@]}"
    server=$started
    await or_over "$server" listens there "$3"
    read -ra words <<<"$2"
    start here client "${words[@]}"
    end_of "$started"
    client=$status
    [ "$client" = 0 ] || kill -9 "$server" 2>/dev/null
    end_of "$server"
}

# perftest's server listens twice, for the talk about the test and for the test itself; its client
# may call in between, and gives up if it is refused: both begin anew.
came_too_early() { grep -q "RDMA_CM_EVENT_REJECTED; error: 8" "$work/client"; }

# They talk over rdma_cm.
cm_pair() { # SERVER-COMMAND CLIENT-COMMAND [PORT]
    local client
    for _ in 1 2 3 4; do
        port=$((port + 1))
        cm_try "${1//PORT/$port}" "${2//PORT/$port}" "${3:-$port}"
        came_too_early || break
    done
    say "${2//PORT/$port} ${VIADUCT_FAULTS:+($VIADUCT_FAULTS)}: client $client, server $status" \
        both_fine "$client" "$status"
}

finish() {
    echo "$failed failed"
    [ $failed -eq 0 ]
    exit
}
