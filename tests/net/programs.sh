# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Stock programs between two hosts that share nothing but IP.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

for transport in rc uc ud; do
    pair ibv_${transport}_pingpong -n 500 -s 1000
done
pair ibv_rc_pingpong -n 200 -s 100000 -c
pair ibv_rc_pingpong -n 200 -e
pair ibv_srq_pingpong -n 500
gid=2 pair ibv_rc_pingpong -n 200
gid=2 pair ibv_ud_pingpong -n 200 -s 1000
for what in send write read; do
    pair ib_${what}_bw -F -n 200 -s 65536
    pair ib_${what}_lat -F -n 500 -s 8
done
pair ib_atomic_bw -F -n 500
pair ib_write_bw -F -n 200 -s 4096 -q 16
cm_pair "rping -s -a 10.9.0.2 -p PORT -S 5000" \
    "rping -c -a 10.9.0.2 -p PORT -C 50 -V -S 5000"
cm_pair "rping -s -a fd09::2 -p PORT" "rping -c -a fd09::2 -p PORT -C 10 -V"
cm_pair "rdma_server -p PORT" "rdma_client -s 10.9.0.2 -p PORT"
cm_pair "ucmatose -p PORT -c 10" "ucmatose -s 10.9.0.2 -p PORT -c 10"
cm_pair "udaddy" "udaddy -s 10.9.0.2" 7174
cm_pair "ib_send_lat -F -R -p PORT -n 200" \
    "ib_send_lat -F -R -p PORT -n 200 10.9.0.2"
finish
