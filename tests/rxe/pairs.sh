# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# In the guest: stock programs on both NICs, each as server and as client.
# shellcheck source=tests/rxe/bed.sh
. "$(dirname "$0")/bed.sh"

for transport in rc uc ud; do
    pair ibv_${transport}_pingpong -n 100 -s 1000
done
family=v6 pair ibv_rc_pingpong -n 50
family=v6 pair ibv_ud_pingpong -n 50 -s 1000
for mtu in 256 512 1024; do
    pair ibv_rc_pingpong -n 20 -s 30000 -m $mtu
done
pair ibv_rc_pingpong -n 50 -e
pair ibv_srq_pingpong -n 100 -q 4
for size in 8 65536; do
    for what in send write read; do
        pair ib_${what}_bw -F -n 50 -s $size
    done
done
pair ib_send_lat -F -n 100 -s 8
pair ib_write_lat -F -n 100 -s 8
pair ib_read_lat -F -n 100 -s 4096
pair ib_atomic_lat -F -n 100
pair ib_atomic_bw -F -n 50 -A CMP_AND_SWAP
pair ib_write_bw -F -n 50 -s 4096 -q 4
pair ib_send_bw -F -n 50 -s 1000 -c UD
pair ib_write_bw -F -n 50 -s 4096 -c UC
finish
