# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# A cable that is pulled and plugged again within the time that retries last costs time only; one
# that stays out ends the connection with an error. The same for an address that goes, and for an
# interface that carries less than the connection was made for.
# shellcheck disable=SC2317 # conditions and mishaps are called by name
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

# ---- the cable, and what can be wrong with it ----

pull() { ip link set w0 down; }
plug() { # what IPv6 has forgotten
    ip link set w0 up
    ip addr replace fd09::1/64 dev w0 nodad
}
take_address() { ip addr del 10.9.0.1/24 dev w0; }
give_address() { ip addr add 10.9.0.1/24 dev w0; }
narrow() { ip link set w0 mtu 700; }
widen() { ip link set w0 mtu 1500; }

# Packets that w0 has received.
carried() { awk '$1 == "w0:" { print $3 }' /proc/net/dev; }
has_carried() { [ "$(carried)" -ge "$1" ]; }
await_traffic() { await has_carried $(($(carried) + 300)); }

# ---- within and beyond the budget ----

# How long it lasts is the case itself: rdma_cm's connections try for 1.9 seconds at least.
within() { # NAME BEGIN END
    local server client
    port=$((port + 1))
    start there server rping -s -a 10.9.0.2 -p $port -S 3000
    server=$started
    await or_over "$server" listens there $port
    start here client rping -c -a 10.9.0.2 -p $port -C 2000 -V -S 3000
    client=$started
    await_traffic
    "$2"
    is_over "$client" && echo "(too late)" >>"$work/client"
    sleep 0.4
    "$3"
    end_of "$client"
    client=$status
    [ "$client" = 0 ] || kill -9 "$server"
    end_of "$server"
    say "$1, within the budget: client $client, server $status" both_fine "$client" "$status"
}

gave_up() { grep -q "transport retry counter exceeded" "$work/client" "$work/server"; }

# Who has sent hears of it; whoever waits for the other has nothing to hear of.
beyond() { # NAME BEGIN END
    local server client
    port=$((port + 1))
    start there server ibv_rc_pingpong -g 0 -p $port -n 100000000 -s 3000
    server=$started
    await or_over "$server" listens_tcp $port
    start here client ibv_rc_pingpong -g 0 -p $port -n 100000000 -s 3000 10.9.0.2
    client=$started
    await_traffic
    "$2"
    await either_over "$client" "$server"
    say "$1, for good: an error ends it" gave_up
    kill -9 "$client" "$server" 2>/dev/null
    end_of "$client"
    end_of "$server"
    "$3"
    await answers 10.9.0.2
}
either_over() { is_over "$1" || is_over "$2"; }

# ---- the cable is out when a connection is asked for ----

# A capture has a request once it is longer than its head.
has_sent() { [ "$(stat -c %s "$work/capture" 2>/dev/null || echo 0)" -gt 500 ]; }

asked_in_vain() {
    local server client
    port=$((port + 1))
    start there server rping -s -a 10.9.0.2 -p $port
    server=$started
    await or_over "$server" listens there $port
    in_there ip link set w1 down
    VIADUCT_PCAP=$work/capture start here client rping -c -a 10.9.0.2 -p $port -C 10 -V
    client=$started
    await has_sent
    in_there ip link set w1 up
    end_of "$client"
    client=$status
    [ "$client" = 0 ] || kill -9 "$server"
    end_of "$server"
    say "the cable is plugged while a connection is asked for: client $client, server $status" \
        both_fine "$client" "$status"
}

within "the cable is pulled" pull plug
within "the address goes" take_address give_address
within "the interface carries less" narrow widen
asked_in_vain
beyond "the cable is pulled" pull plug
beyond "the address goes" take_address give_address
beyond "the interface carries less" narrow widen
narrow
cm_pair "rping -s -a 10.9.0.2 -p PORT -S 3000" "rping -c -a 10.9.0.2 -p PORT -C 20 -V -S 3000"
finish
