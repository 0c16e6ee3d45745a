# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# The same with packets lost, doubled, late, out of order and with flipped bits: it takes longer,
# and every byte arrives as it was sent.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

for faults in loss=2% dup=2% reorder=2% corrupt=2% delay=100us \
    loss=1%,dup=1%,reorder=1%,corrupt=1%,delay=50us; do
    export VIADUCT_FAULTS=$faults,seed=7
    pair ibv_rc_pingpong -n 200 -s 20000 -c
    pair ib_read_bw -F -n 100 -s 65536
    pair ib_atomic_bw -F -n 200
    cm_pair "rping -s -a 10.9.0.2 -p PORT -S 20000" \
        "rping -c -a 10.9.0.2 -p PORT -C 20 -V -S 20000"
done
finish
