#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a server and a client of a benchmark or tool that has its own way to meet, and judge both.

    programs.py [--transport T] [--seconds N] PROGRAM [OPTIONS]

PROGRAM is qperf, fio, ucx_perftest, fi_pingpong or iperf; the transport is UCX's (rc_v, ud_v),
libfabric's (verbs, verbs+ofi_rxm ...) or fio's verb. Host, port and what names the device are
added here. None of them may fall back to TCP: each judge sees to that."""
import json
import re
import sys

from bed import Wrong, listens as tcp_listens
from cm import Recipe, drive, listens
from judge import sound

RSPRELOAD = "/usr/lib/x86_64-linux-gnu/rsocket/librspreload.so"


class Talks(Recipe):
    """Both sides first talk by TCP, at a port of ours."""

    def ready(self, server):
        return tcp_listens(int(self.port))


class Qperf(Talks):
    """
    The server stays. Up to 0.4.11 it tells its port before it listens there, and a quick client
    is refused now and then; later sources listen first. Connections are made by rdma_cm: without
    it qperf never writes a GRH, which RoCE needs.
    """
    server_stays = True

    def server(self):
        return ["qperf", "-lp", self.port]

    def client(self):
        return ["qperf", "-lp", self.port, self.host, "-cm1", "-t", "1", *self.args.options]

    def came_too_early(self, client):
        return "Event rejected" in client.out + client.err

    def judge(self, client, server):
        sound(client)
        for test in (each for each in self.args.options if each[0] != "-"):
            if not re.search(rf"^{test}:\n +\w+ += +[\d.]+ \S+", client.out, re.M):
                raise Wrong(f"qperf measured no {test}")


class Fio(Recipe):
    """
    The client writes, whatever the verb; of sends the server verifies every block. fio allows no
    RNR retry: the server posts a receive for each message at once, before the client's first.
    """

    def both(self, name, *own):
        return ["fio", f"--name={name}", "--thread", "--ioengine=rdma", f"--port={self.port}",
                f"--verb={self.args.transport}", "--verify_state_save=0",
                "--output-format=json", *own, *self.args.options]

    def server(self):
        return self.both("server", "--rw=read", "--iodepth=64")

    def client(self):
        own = ["--iodepth=8", "--do_verify=0", f"--hostname={self.host}"]
        return self.both("client", "--rw=write", *own)

    def ready(self, server):
        return listens(self.bed, int(self.port))

    def judge(self, client, server):
        moved = {}
        for side in (client, server):
            if side.status != 0:
                raise Wrong(f"the {side.title}'s status is {side.status}")
            job = json.loads(side.out[side.out.index("{"):])["jobs"][0]
            if job["error"]:
                raise Wrong(f"the {side.title}'s error is {job['error']}")
            moved[side.title] = job["write"]["io_bytes"] + job["read"]["io_bytes"]
        if not moved["client"] or self.args.transport == "send" and \
                moved["server"] != moved["client"]:
            raise Wrong(f"moved {moved}")


class UcxPerftest(Talks):
    """UCX is left no other transport than the one named, and that has only our device."""

    def environment(self):
        return {"UCX_TLS": self.args.transport, "UCX_NET_DEVICES": "via0:1"}

    def server(self):
        return ["ucx_perftest", "-p", self.port]

    def client(self):
        return ["ucx_perftest", "-p", self.port, self.host, "-w", "100", *self.args.options]

    def judge(self, client, server):
        super().judge(client, server)
        count = self.args.options[self.args.options.index("-n") + 1]
        if not re.search(rf"^Final: +{count} +[\d.]+", client.out, re.M):
            raise Wrong(f"the client did not do {count} rounds")


class FiPingpong(Talks):
    """-c has both sides compare the data of every message."""

    def both(self):
        return ["fi_pingpong", "-p", self.args.transport.replace("+", ";"), "-c", *self.args.options]

    def server(self):
        return [*self.both(), "-B", self.port]

    def client(self):
        return [*self.both(), "-P", self.port, self.host]

    def judge(self, client, server):
        super().judge(client, server)
        count = self.args.options[self.args.options.index("-I") + 1]
        for side in (client, server):
            rows = re.findall(rf"^\S+ +{count} +=(\d+) ", side.out, re.M)
            if not rows or set(rows) != {count}:
                raise Wrong(f"the {side.title}'s rows count {rows}, not {count}")


class Iperf(Recipe):
    """An ordinary TCP program over librspreload: it listens at an RDMA port, and at no TCP port."""

    def environment(self):
        return {"LD_PRELOAD": f"{self.bed.library}:{RSPRELOAD}"}

    def server(self):
        return ["iperf", "-s", "-P", "1", "-p", self.port]

    def client(self):
        return ["iperf", "-c", self.host, "-p", self.port, *self.args.options]

    def ready(self, server):
        if tcp_listens(int(self.port)):
            raise Wrong("the server listens at a TCP port")
        return listens(self.bed, int(self.port))

    def judge(self, client, server):
        totals = []
        for side in (client, server):
            if side.status != 0:
                raise Wrong(f"the {side.title}'s status is {side.status}")
            totals += re.findall(r"^\[ +\d+\] [\d.]+-[\d.]+ sec +([\d.]+ \w+) ", side.out, re.M)
        if len(totals) != 2 or totals[0] != totals[1]:
            raise Wrong(f"not the same was sent and received: {totals}")


RECIPES = {"qperf": Qperf, "fio": Fio, "ucx_perftest": UcxPerftest, "fi_pingpong": FiPingpong,
           "iperf": Iperf}

if __name__ == "__main__":
    sys.exit(drive(RECIPES.__getitem__, __doc__))
