# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# In the guest: perftest over our NIC and over the kernel's, on cables of one kind, taking turns.
# Writes the table of docs/performance.md. Not a test: nothing is asserted.
#
#   tests/rxe/guest tests/rxe/speed.sh BUILD/bin [ROUNDS [MTU...]]
#
#   a0 10.9.0.1  rxea  client ------ b0 10.9.0.2  rxeb  server      initial namespace
#   a0 10.9.0.1  via0  client ------ b0 10.9.0.2  via0  server      namespace "via"
#
# Linux 6.1 has rxe in the initial namespace only, and there its module holds RoCE's port: so there
# are two cables, laid alike, each from a namespace to itself, and routes by policy send everything
# over it. Each side has a processor of its own. Figures of emulated processors: ratios, not speeds.
set -eu
bin=$1
rounds=${2:-3}
shift
[ $# -eq 0 ] || shift
mtus=("${@:-1500 4500}")
read -ra mtus <<<"${mtus[*]}"
export VIADUCT_RUNTIME_DIR=/run/viaduct
port=7100

lay_cable() { # in the namespace that it is called in
    ip link add a0 type veth peer name b0
    sysctl -qw net.ipv4.conf.all.rp_filter=0
    for end in a0 b0; do
        sysctl -qw net.ipv4.conf.$end.accept_local=1 net.ipv4.conf.$end.rp_filter=0 \
            net.ipv4.conf.$end.arp_ignore=1
    done
    ip addr add 10.9.0.1/32 dev a0
    ip addr add 10.9.0.2/32 dev b0
    ip link set lo up
    ip link set a0 up
    ip link set b0 up
    # What comes in by an end is for here; what goes out takes the cable.
    ip rule add pref 10 iif a0 lookup local
    ip rule add pref 11 iif b0 lookup local
    ip rule add pref 12 to 10.9.0.2 lookup 100
    ip rule add pref 13 to 10.9.0.1 lookup 101
    ip rule add pref 20 lookup local
    ip rule del pref 0
    ip route add 10.9.0.2 dev a0 src 10.9.0.1 table 100
    ip route add 10.9.0.1 dev b0 src 10.9.0.2 table 101
}

gid_of() { # DEVICE, last groups of its address: the index
    local i
    for _ in $(seq 100); do
        for i in 0 1 2 3 4; do
            if grep -qs "$2\$" "/sys/class/infiniband/$1/ports/1/gids/$i"; then
                echo $i
                return
            fi
        done
        sleep 0.1
    done
    echo "speed: $1 has no address" >&2
    exit 1
}

# The commands that differ: where a program runs, and what it is told.
rxe_server() { taskset -c 0 timeout 60 "$@" -d rxeb -x "$gid_b" -p $port; }
rxe_client() { taskset -c 1 timeout 60 "$@" -d rxea -x "$gid_a" -p $port 10.9.0.2; }
via() { # ADDRESS CPU PROGRAM...
    local nic=$1 cpu=$2
    shift 2
    VIADUCT_LINK=roce VIADUCT_NICS=via0=$nic ip netns exec via taskset -c "$cpu" timeout 60 \
        "$bin/viaduct" run -- "$@"
}
via_server() { via 10.9.0.2 0 "$@" -d via0 -x 0 -p $port; }
via_client() { via 10.9.0.1 1 "$@" -d via0 -x 0 -p $port 10.9.0.2; }

await() { # NIC
    local look=env
    [ "$1" = rxe ] || look="ip netns exec via"
    for _ in $(seq 400); do
        ! $look ss -ltn | grep -q ":$port " || return 0
        sleep 0.02
    done
}

# The last line of numbers: typical latency, or mean bandwidth; both are named in the heading.
value() { awk -v column="$1" '$1 ~ /^[0-9]+$/ && NF > 3 {v = $column} END {print v + 0}' "$2"; }

run_once() { # NIC COLUMN PROGRAM...: one figure
    local nic=$1 column=$2 status=0 pid
    shift 2
    port=$((port + 1))
    "${nic}_server" "$@" >/run/server.out 2>&1 &
    pid=$!
    await "$nic"
    "${nic}_client" "$@" >/run/client.out 2>&1 || status=$?
    if ! wait $pid || [ $status -ne 0 ]; then
        tail -n 3 /run/client.out /run/server.out >&2
    fi
    value "$column" /run/client.out >>"/run/figures.$nic"
}

median() { sort -g "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

both() { # COLUMN UNIT PROGRAM OPTIONS...
    local column=$1 unit=$2 i
    shift 2
    rm -f /run/figures.*
    for i in $(seq "$rounds"); do
        for nic in rxe via; do
            port=$((port + i))
            run_once $nic "$column" "$@" -F
        done
    done
    awk -v p="$*" -v mtu="$mtu" -v u="$unit" -v ours="$(median /run/figures.via)" \
        -v theirs="$(median /run/figures.rxe)" 'BEGIN {
            r = u == "us" ? (ours > 0 ? theirs / ours : 0) : (theirs > 0 ? ours / theirs : 0)
            printf "| `%s` | %d | %s | %s | %s | %.2f |\n", p, mtu, u, ours, theirs, r}'
}

mkdir -m 700 $VIADUCT_RUNTIME_DIR
ip netns add via
export -f lay_cable
ip netns exec via bash -ec lay_cable
lay_cable
rdma link add rxea type rxe netdev a0
rdma link add rxeb type rxe netdev b0
gid_a=$(gid_of rxea 0a09:0001)
gid_b=$(gid_of rxeb 0a09:0002)
echo "| program | MTU | unit | viaduct | rxe | times better |"
echo "|---|---|---|---|---|---|"
for mtu in "${mtus[@]}"; do
    for end in a0 b0; do
        ip link set $end mtu "$mtu"
        ip -n via link set $end mtu "$mtu"
    done
    for size in 8 1024 4096; do
        both 5 us ib_send_lat -n 1000 -s $size
        both 5 us ib_write_lat -n 1000 -s $size
    done
    for size in 4096 65536 1048576; do
        count=$((size < 65536 ? 1000 : 13107200 / size))
        both 4 MB/s ib_write_bw -n $count -s $size
        both 4 MB/s ib_send_bw -n $count -s $size
    done
done
