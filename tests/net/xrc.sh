# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# XRC between two hosts: stock programs, packets that are lost among them too, and what Wireshark
# makes of the frames.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

both() {
    pair ibv_xsrq_pingpong -n 200 -s 20000
    for what in write read atomic; do
        pair ib_${what}_lat -F -n 200 -c XRC
        pair ib_${what}_bw -F -n 100 -c XRC
    done
    pair ib_send_lat -F -n 200 -c XRC --use-srq
    pair ib_send_bw -F -n 100 -s 65536 -c XRC --use-srq -q 4
    cm_pair "rdma_xserver -p PORT -c x" "rdma_xclient -s 10.9.0.2 -p PORT -c x"
}

both
gid=2 pair ibv_xsrq_pingpong -n 100
VIADUCT_FAULTS=loss=2%,dup=1%,reorder=1%,seed=7 both

dissect() {
    tshark -r "$work/capture" --disable-protocol rpcordma "$@" 2>/dev/null
}
capture() { # NAME OPCODE...
    local name=$1
    shift
    if dissect -Y "_ws.malformed || !infiniband" | grep .; then
        echo "FAIL malformed packets of $name"
        failed=$((failed + 1))
    fi
    for opcode in "$@"; do
        if dissect -Y "infiniband.bth.opcode == $opcode" | grep -q .; then
            echo "ok   $name has opcode $opcode"
        else
            echo "FAIL $name lacks opcode $opcode"
            failed=$((failed + 1))
        fi
    done
    rm -f "$work/capture"
}

export VIADUCT_PCAP=$work/capture
pair ibv_xsrq_pingpong -n 10 -s 10000
capture ibv_xsrq_pingpong 0xa0 0xa1 0xa2 0xb1
pair ib_write_bw -F -n 5 -s 10000 -c XRC
capture ib_write_bw 0xa6 0xa7 0xa8 0xb1
pair ib_read_bw -F -n 5 -s 10000 -c XRC
capture ib_read_bw 0xac 0xad 0xae 0xaf
pair ib_atomic_bw -F -n 5 -c XRC -A FETCH_AND_ADD
capture ib_atomic_bw 0xb4 0xb2
finish
