# SPDX-License-Identifier: MIT
# A few of the programs over the wire, in a network of their own: one for each part of it that has
# something to say, so that all together take seconds. wire(NAME DRIVER ARGUMENTS...) is the test
# wire_NAME.

wire(rc_extended pair.py ibv_rc_pingpong -n 500 -s 9000 -N -t -c)
wire(srq_events pair.py ibv_srq_pingpong -n 500 -q 64 -e)
wire(ud_events pair.py ibv_ud_pingpong -n 500 -e -c)
wire(send_shared pair.py ib_send_bw -n 500 --use-srq -q 8 -e)
wire(send_group pair.py ib_send_lat -n 500 -c UD -g
    -M 0:0:0:0:0:0:0:0:0:0:255:255:230:1:2:3)
wire(write_uc pair.py ib_write_bw -n 500 -c UC -q 8)
wire(write_inline_list pair.py ib_write_bw -n 1024 -s 32 -I 64 -l 16)
wire(read_both_ways pair.py ib_read_bw -n 500 -q 8 -b)
wire(atomic_both_ways pair.py ib_atomic_bw -n 500 -q 8 -b)
wire(send_xrc pair.py ib_send_bw -n 500 -c XRC --use-srq -q 4 -b)
wire(four_pairs pair.py --pairs 4 ib_write_bw -n 200 -q 8)
wire(rping cm.py --clients 3 rping -P -C 10)
wire(cmtime cm.py cmtime -c 200)
wire(sockets cm.py sockets)
wire(fio programs.py --transport send fio --bs=1k --size=64k --verify=md5)
wire(ucx_rc programs.py --transport rc_v ucx_perftest -t ucp_am_bw -n 200 -s 65536)
wire(ucx_ud programs.py --transport ud_v ucx_perftest -t tag_lat -n 200)
wire(fabric programs.py --transport verbs fi_pingpong -e dgram -I 100)
