# SPDX-License-Identifier: MIT
# Benchmarks, tools and libraries above verbs, one a line: program(NAME [--flags of programs.py]
# PROGRAM OPTIONS...) is the test interop_NAME. qperf's UC and UD tests are left out: they can't
# connect by rdma_cm, and without it qperf writes no GRH, which every RoCE device refuses. iperf3
# asks for TCP_CONGESTION, which librspreload doesn't know.  A + in a
# transport stands for libfabric's semicolon.

foreach(test rc_bw rc_bi_bw rc_lat rc_rdma_read_bw rc_rdma_read_lat rc_rdma_write_bw
        rc_rdma_write_lat rc_rdma_write_poll_lat rc_compare_swap_mr rc_fetch_add_mr
        ver_rc_compare_swap ver_rc_fetch_add)
    program(qperf_${test} qperf ${test})
endforeach()

program(fio_write --transport write fio --bs=64k --size=64m)
program(fio_read --transport read fio --bs=64k --size=64m)
program(fio_write_small --transport write fio --bs=512 --size=1m)
program(fio_read_large --transport read fio --bs=1m --size=256m)
program(fio_send_verified --transport send fio --bs=64k --size=4m --verify=crc32c)
program(fio_send_small_verified --transport send fio --bs=1k --size=64k --verify=md5)

foreach(transport rc_v ud_v)
    foreach(test tag_lat tag_bw tag_sync_lat ucp_put_lat ucp_put_bw ucp_am_lat ucp_am_bw stream_lat
            ucp_add ucp_fadd ucp_swap ucp_cswap)
        program(ucx_${transport}_${test} --transport ${transport} ucx_perftest -t ${test} -n 1000)
    endforeach()
    # Over datagrams UCX emulates a get by messages, which its timer of 1 ms answers.
    program(ucx_${transport}_ucp_get --transport ${transport} ucx_perftest -t ucp_get -n 200)
    foreach(test tag_bw ucp_put_bw ucp_am_bw)
        program(ucx_${transport}_${test}_large --transport ${transport} ucx_perftest -t ${test}
            -n 100 -s 262144)
    endforeach()
endforeach()
program(ucx_rc_v_ucp_get_large --transport rc_v ucx_perftest -t ucp_get -n 100 -s 262144)

program(fabric_msg --transport verbs fi_pingpong -e msg -I 100)
program(fabric_msg_tagged --transport verbs+ofi_rxm fi_pingpong -e rdm -m tagged -I 100)
program(fabric_dgram --transport verbs fi_pingpong -e dgram -I 100)
program(fabric_rxm --transport verbs+ofi_rxm fi_pingpong -e rdm -I 100)
program(fabric_rxd --transport verbs+ofi_rxd fi_pingpong -e rdm -I 100)

program(iperf_rspreload iperf -n 100M)

mpi(openmpi_rc --transport rc_v openmpi --mca osc ucx)
mpi(openmpi_ud --transport ud_v openmpi --mca osc ucx)
mpi(openmpi_rc_messages --transport rc_v openmpi --mca osc ^ucx)
mpi(openmpi_fabric --transport verbs+ofi_rxm openmpi)
mpi(openmpi_rc_4 --transport rc_v --ranks 4 openmpi --mca osc ucx)
mpi(mpich_rc --transport rc_v mpich)
mpi(mpich_ud --transport ud_v mpich)
mpi(mpich_rc_4 --transport rc_v --ranks 4 mpich)

alone(ucx_info --says "# +Memory domain: via0" --says "# +Transport: rc_verbs"
    --says "# +Transport: ud_verbs" --says "# +Device: via0:1" --says "# +atomic_fadd: 64 bit"
    ucx_info -d)
alone(fabric_info --says "provider: verbs" --says "provider: verbs.ofi_rxm"
    --says "provider: verbs.ofi_rxd" --says "    domain: via0" --says "    domain: via0-dgram"
    fi_info)
alone(pyverbs --says "send: right" --says "write: right" --says "read: right"
    --says "atomic: right" --says "all was right" --script pyverbs_program.py /usr/bin/python3)
