# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What we capture, Wireshark reads: no malformed packet, both directions, the opcodes that were
# sent.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

# The heuristic that takes any small SEND for RPC would call it malformed.
dissect() {
    tshark -r "$work/capture" --disable-protocol rpcordma "$@" 2>/dev/null
}

expect() { # OPCODE NAME
    if dissect -Y "infiniband.bth.opcode == $1" | grep -q .; then
        echo "ok   $2"
    else
        echo "FAIL no $2 in the capture"
        failed=$((failed + 1))
    fi
}

capture() { # PROGRAM OPTIONS...
    rm -f "$work/capture"
    VIADUCT_PCAP=$work/capture pair "$@"
    if dissect -Y "_ws.malformed || !infiniband" | grep .; then
        echo "FAIL malformed packets of $*"
        failed=$((failed + 1))
    fi
    for direction in sent received; do
        if ! dissect -Y "frame.interface_name == \"viaduct-$direction\"" | grep -q .; then
            echo "FAIL nothing $direction by $*"
            failed=$((failed + 1))
        fi
    done
}

capture ibv_rc_pingpong -n 20 -s 3000 -m 1024
expect 0x00 "RC SEND First"
expect 0x01 "RC SEND Middle"
expect 0x02 "RC SEND Last"
expect 0x11 "RC Acknowledge"
capture ibv_uc_pingpong -n 20 -s 100
expect 0x24 "UC SEND Only"
capture ibv_ud_pingpong -n 20 -s 100
expect 0x64 "UD SEND Only"
gid=2 capture ibv_rc_pingpong -n 5
capture ib_write_bw -F -n 5 -s 3000
expect 0x06 "RDMA WRITE First"
expect 0x08 "RDMA WRITE Last"
capture ib_read_bw -F -n 5 -s 3000
expect 0x0c "RDMA READ Request"
expect 0x0d "RDMA READ Response First"
expect 0x0f "RDMA READ Response Last"
capture ib_atomic_bw -F -n 5 -A FETCH_AND_ADD
expect 0x14 "FetchAdd"
expect 0x12 "ATOMIC Acknowledge"
finish
