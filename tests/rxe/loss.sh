# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# In the guest: the same over a cable that loses, doubles and reorders packets, both ways.
# shellcheck source=tests/rxe/bed.sh
. "$(dirname "$0")/bed.sh"

bad() { # netem's options
    tc qdisc replace dev v0 root netem "$@"
    ip netns exec via tc qdisc replace dev v1 root netem "$@"
}

bad loss 1%
pair ib_send_bw -F -n 100 -s 4096
pair ib_write_bw -F -n 50 -s 16384
pair ib_read_bw -F -n 50 -s 16384
pair ib_atomic_bw -F -n 50
bad duplicate 2%
pair ib_send_bw -F -n 100 -s 4096
pair ib_read_bw -F -n 50 -s 16384
pair ib_atomic_bw -F -n 50
bad delay 200us reorder 90% 50%
pair ib_send_bw -F -n 100 -s 4096
pair ib_write_bw -F -n 50 -s 16384
finish
