#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program on Debian's pyverbs: the device, a domain, memory, and traffic between two connected
queue pairs, with the data compared."""
import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context, get_device_list
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import RecvWR, SGE, SendWR

SIZE, PORT, GID, PSN = 100000, 1, 0, 4711
ACCESS = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
          | e.IBV_ACCESS_REMOTE_ATOMIC)


class End:
    """A queue pair with a completion queue and a buffer of its own."""

    def __init__(self, context, pd):
        self.context = context
        self.channel = CompChannel(context)
        self.cq = CQ(context, 16, None, self.channel)
        self.cq.req_notify()
        self.mr = MR(pd, SIZE, ACCESS)
        # The first attributes bring it to INIT, with these rights.
        first = QPAttr(port_num=PORT)
        first.qp_access_flags = ACCESS
        self.qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq,
                                    cap=QPCap(16, 16, 1, 1)), first)

    def connect(self, other):
        route = GlobalRoute(dgid=self.context.query_gid(PORT, GID), sgid_index=GID)
        attr = QPAttr(port_num=PORT)
        attr.dest_qp_num = other.qp.qp_num
        attr.path_mtu = e.IBV_MTU_1024
        attr.rq_psn = attr.sq_psn = PSN
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        attr.min_rnr_timer, attr.timeout, attr.retry_cnt, attr.rnr_retry = 12, 14, 7, 7
        attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=PORT)
        self.qp.to_rts(attr)

    def sge(self):
        return SGE(self.mr.buf, SIZE, self.mr.lkey)

    def completed(self, opcode):
        """The next completion, waited for on the channel."""
        count, found = self.cq.poll()
        while not count:
            self.channel.get_cq_event(self.cq)
            self.cq.ack_events(1)
            self.cq.req_notify()
            count, found = self.cq.poll()
        assert found[0].status == e.IBV_WC_SUCCESS, found[0]
        assert found[0].opcode == opcode, found[0]
        return found[0]


def pattern(start):
    return bytes((start + i * 7 + i // 253) % 256 for i in range(SIZE))


def try_send(one, two):
    one.mr.write(pattern(1), SIZE)
    two.qp.post_recv(RecvWR(wr_id=5, sg=[two.sge()], num_sge=1))
    one.qp.post_send(SendWR(wr_id=6, opcode=e.IBV_WR_SEND, num_sge=1, sg=[one.sge()]))
    assert one.completed(e.IBV_WC_SEND).wr_id == 6
    got = two.completed(e.IBV_WC_RECV)
    assert got.wr_id == 5 and got.byte_len == SIZE, got
    assert two.mr.read(SIZE, 0) == pattern(1)
    print("send: right")


def try_rdma(one, two, name, opcode, done, source):
    source.mr.write(pattern(ord(name[0])), SIZE)
    work = SendWR(opcode=opcode, num_sge=1, sg=[one.sge()])
    work.set_wr_rdma(two.mr.rkey, two.mr.buf)
    one.qp.post_send(work)
    one.completed(done)
    assert one.mr.read(SIZE, 0) == two.mr.read(SIZE, 0) == pattern(ord(name[0]))
    print(f"{name}: right")


def try_atomic(one, two):
    two.mr.write((41).to_bytes(8, "little"), 8)
    work = SendWR(opcode=e.IBV_WR_ATOMIC_FETCH_AND_ADD, num_sge=1,
                  sg=[SGE(one.mr.buf, 8, one.mr.lkey)])
    work.set_wr_atomic(two.mr.rkey, two.mr.buf, 1, 0)
    one.qp.post_send(work)
    one.completed(e.IBV_WC_FETCH_ADD)
    assert one.mr.read(8, 0) == (41).to_bytes(8, "little")
    assert two.mr.read(8, 0) == (42).to_bytes(8, "little")
    print("atomic: right")


def main():
    names = [device.name.decode() for device in get_device_list()]
    assert "via0" in names, names
    context = Context(name="via0")
    print("ports:", context.query_device().phys_port_cnt)
    with PD(context) as pd:
        one, two = End(context, pd), End(context, pd)
        one.connect(two)
        two.connect(one)
        try_send(one, two)
        try_rdma(one, two, "write", e.IBV_WR_RDMA_WRITE, e.IBV_WC_RDMA_WRITE, one)
        try_rdma(one, two, "read", e.IBV_WR_RDMA_READ, e.IBV_WC_RDMA_READ, two)
        try_atomic(one, two)
        for end in (one, two):
            end.qp.close()
            end.mr.close()
            end.cq.close()
            end.channel.close()
    context.close()
    print("all was right")


if __name__ == "__main__":
    main()
