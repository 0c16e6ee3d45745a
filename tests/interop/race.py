#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same program on via0, over shared memory of its own, and over TCP, side by side.

    race.py [--rounds N] [--only TEXT] [--short]

Each line is one contest: its competitors take turns, N (5) times, client and server each on a
core of its own, and the medians are printed as a row of docs/performance.md. --short is a try of
everything: one round, few messages. Needs VIADUCT_LIBRARY and VIADUCT_BIN, as the other tests."""
import argparse
import json
import re
import statistics
import sys

from bed import Bed, Wrong, free_ports, listens as tcp_listens
from cm import listens as rdma_listens

VIA, SHM, TCP = "via0", "shm", "tcp"


class Contest:
    """One measurement of one program. A competitor is whatever tells the programs apart."""
    better = "less"
    stays = False  # the server does not end by itself

    def __init__(self, name, unit, competitors, options):
        self.name, self.unit, self.competitors, self.options = name, unit, competitors, options

    def environment(self, bed, which):
        return {} if which == VIA else {"LD_PRELOAD": ""}

    def ready(self, bed, which, port, server):
        return tcp_listens(port)

    def run(self, which):
        """One value."""
        with Bed(60) as bed:
            port = free_ports(1)[0]
            env = self.environment(bed, which)
            server = bed.start(self.server(bed, which, str(port)), "server", core=0, env=env)
            bed.wait_until(lambda: self.ready(bed, which, port, server), server, "listened")
            client = bed.start(self.client(bed, which, str(port)), "client", core=1, env=env)
            client.process.wait(bed.left())
            if client.status != 0:
                raise Wrong(f"the client's status is {client.status}")
            if not self.stays:
                server.process.wait(bed.left())
            return self.value(client.out)


class Ucx(Contest):
    """Latency: one way, the median, as ucx_perftest prints it; bandwidth: the overall one."""

    def __init__(self, test, unit, options, column, better="less"):
        super().__init__(f"ucx_perftest {test} {' '.join(options[:2])}", unit, (VIA, SHM, TCP),
                         options)
        self.test, self.column, self.better = test, column, better

    def environment(self, bed, which):
        transport = {VIA: "rc_v", SHM: "posix", TCP: "tcp"}[which]
        device = {VIA: "via0:1", SHM: "all", TCP: "lo"}[which]
        return {**super().environment(bed, which), "UCX_TLS": transport,
                "UCX_NET_DEVICES": device, "UCX_WARN_UNUSED_ENV_VARS": "n"}

    def server(self, bed, which, port):
        return ["ucx_perftest", "-p", port]

    def client(self, bed, which, port):
        return ["ucx_perftest", "-p", port, "127.0.0.1", "-t", self.test, *self.options]

    def value(self, out):
        return float(re.search(r"^Final: +\d+ +(.*)$", out, re.M)[1].split()[self.column])


class Fabric(Contest):
    def __init__(self, options):
        super().__init__(f"fi_pingpong {' '.join(options[:2])}", "us one way", (VIA, SHM, TCP),
                         options)

    def both(self, which):
        how = {VIA: ["verbs", "-e", "msg"], SHM: ["shm", "-e", "rdm"],
               TCP: ["tcp", "-e", "msg"]}[which]
        return ["fi_pingpong", "-p", *how, *self.options]

    def environment(self, bed, which):
        return {**super().environment(bed, which), "FI_PROVIDER": self.both(which)[2]}

    def server(self, bed, which, port):
        return [*self.both(which), "-B", port]

    def client(self, bed, which, port):
        return [*self.both(which), "-P", port, "127.0.0.1"]

    def value(self, out):
        return float(re.search(r"^\d+\S* +\S+ +=\S+ +\S+ +\S+ +\S+ +([\d.]+)", out, re.M)[1])


class Fio(Contest):
    """The net engine's server is the reader, as with rdma."""

    def __init__(self, options, unit, better="less"):
        super().__init__(f"fio {' '.join(options[::2])}", unit, (VIA, TCP), options)
        self.better = better

    def both(self, which, port, *own):
        engine = ["--ioengine=rdma", "--verb=write"] if which == VIA else \
            ["--ioengine=net", "--protocol=tcp", "--nodelay=1"]
        return ["fio", "--name=race", "--thread", *engine, f"--port={port}",
                "--output-format=json", *self.options, *own]

    def server(self, bed, which, port):
        # A reader that wants no more closes, and a writer that has a rest dies: let it want more.
        own = [] if which == VIA else ["--listen", "--size=4g"]
        return self.both(which, port, "--rw=read", *own)

    def client(self, bed, which, port):
        return self.both(which, port, "--rw=write", "--hostname=127.0.0.1")

    def ready(self, bed, which, port, server):
        return rdma_listens(bed, port) if which == VIA else tcp_listens(port)

    def value(self, out):
        # The rdma engine pauses for half a second first, so its rate says nothing.
        job = json.loads(out[out.index("{"):])["jobs"][0]["write"]
        return job["lat_ns"]["mean"] / 1000


class Qperf(Contest):
    """Latency of who sleeps for each message, without any polling: rc_lat and tcp_lat."""
    stays = True
    times = {"ns": 1e-3, "us": 1, "ms": 1e3}

    def __init__(self, seconds, size):
        super().__init__(f"qperf rc_lat, tcp_lat -m {size}", "us one way", (VIA, TCP),
                         ["-t", str(seconds), "-m", size])

    def server(self, bed, which, port):
        return ["qperf", "-lp", port]

    def client(self, bed, which, port):
        test = ["-cm1", "rc_lat"] if which == VIA else ["tcp_lat"]
        return ["qperf", "-lp", port, "127.0.0.1", *self.options, *test]

    def run(self, which):
        """Its server tells its port before it listens there: a quick client is refused at times."""
        for _ in range(5):
            try:
                return super().run(which)
            except Wrong:
                pass
        return super().run(which)

    def value(self, out):
        value, unit = re.search(r"latency += +([\d.]+) (\w+)", out).groups()
        return float(value) * self.times[unit]


class Rstream(Contest):
    """rstream speaks TCP, too: -T s."""

    def __init__(self, name, options, unit, column, better="less"):
        super().__init__(f"rstream {name}", unit, (VIA, TCP), options)
        self.column, self.better = column, better

    def both(self, which, port):
        return ["rstream", "-p", port, *self.options, *([] if which == VIA else ["-T", "s"])]

    def server(self, bed, which, port):
        return [*self.both(which, port), "-b", "127.0.0.1"]

    def client(self, bed, which, port):
        return [*self.both(which, port), "-s", "127.0.0.1"]

    def ready(self, bed, which, port, server):
        return rdma_listens(bed, port) if which == VIA else tcp_listens(port)

    def value(self, out):
        # name bytes xfers iters total time Gb/sec usec/xfer
        rows = [line.split() for line in out.splitlines() if re.match(r"\S+ +\d", line)]
        return float(rows[-1][self.column])


class Stream(Contest):
    """rstream's bandwidth beside iperf3's."""
    better = "more"

    def __init__(self, count, size):
        super().__init__("rstream -S 65536, iperf3 -l 65536", "Gbit/s", (VIA, TCP),
                         ["-S", "65536", "-I", "1", "-C", str(count)])
        self.size = size

    def server(self, bed, which, port):
        if which == TCP:
            return ["iperf3", "-s", "-1", "-p", port]
        return ["rstream", "-b", "127.0.0.1", "-p", port, *self.options]

    def client(self, bed, which, port):
        if which == TCP:
            return ["iperf3", "-c", "127.0.0.1", "-p", port, "-l", "65536", "-n", self.size, "-J"]
        return ["rstream", "-s", "127.0.0.1", "-p", port, *self.options]

    def ready(self, bed, which, port, server):
        return rdma_listens(bed, port) if which == VIA else tcp_listens(port)

    def value(self, out):
        if out.lstrip().startswith("{"):
            return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 1e9
        rows = [line.split() for line in out.splitlines() if re.match(r"\S+ +\d", line)]
        return float(rows[-1][-2])


class Cmtime(Contest):
    """All the steps of a connection, from its identifier to its end, one after the other."""
    better = "more"
    stays = True

    def __init__(self, count):
        super().__init__(f"cmtime -c {count}", "connections/s", (VIA,), ["-c", str(count)])
        self.count = count

    def server(self, bed, which, port):
        return ["cmtime", "-b", "127.0.0.1", "-p", port, *self.options]

    def client(self, bed, which, port):
        return ["cmtime", "-s", "127.0.0.1", "-b", "127.0.0.1", "-p", port, *self.options]

    def ready(self, bed, which, port, server):
        return rdma_listens(bed, port)

    def value(self, out):
        # step total ms max us min us ...: everything that stands between two programs
        steps = dict(re.findall(r"^(\w+(?: \w+)?)\s*:\s+([\d.]+) ", out, re.M))
        spent = sum(float(steps[name]) for name in steps if name != "full connect")
        return self.count / (spent / 1000)


def contests(short):
    n = "200" if short else "20000"
    few = "50" if short else "500"
    ucx = [Ucx(test, "us one way", ["-s", size, "-n", n], 0)
           for test in ("tag_lat", "ucp_am_lat", "ucp_put_lat") for size in ("8", "4096")]
    # TCP's get and its puts of large blocks are answered by a timer: few of them are enough.
    ucx.append(Ucx("ucp_get", "us", ["-s", "8", "-n", few], 0))
    ucx.append(Ucx("tag_bw", "MB/s", ["-s", "1048576", "-n", few], 4, "more"))
    fabric = [Fabric(["-S", size, "-I", n]) for size in ("64", "4096")]
    size = "16m" if short else "512m"
    fio = [Fio(["--bs=4k", f"--size={size}", "--iodepth=1"], "us"),
           Fio(["--bs=64k", f"--size={size}", "--iodepth=1"], "us")]
    qperf = [Qperf(1 if short else 2, size) for size in ("64", "4096")]
    stream = [Rstream(f"-S {each}", ["-S", each, "-I", n, "-C", "1"], "us", -1)
               for each in ("64", "4096")]
    stream.append(Stream("500" if short else "20000", "100M" if short else "2G"))
    return [*ucx, *fabric, *fio, *qperf, *stream, Cmtime(100 if short else 2000)]


def row(contest, results):
    """The medians, and how many times each other is slower (or, of rates, less) than via0."""
    medians = {which: statistics.median(values) for which, values in results.items()}
    ours = medians[VIA]
    cells = []
    for which in (VIA, SHM, TCP):
        cells.append("-" if which not in medians else f"{medians[which]:.4g}")
    for which in (SHM, TCP):
        if which not in medians:
            cells.append("-")
            continue
        ratio = medians[which] / ours if contest.better == "less" else ours / medians[which]
        cells.append(f"{ratio:.2f}")
    return f"| `{contest.name}` | {contest.unit} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="TEXT", help="contests with this in the name")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    print("| program | unit | via0 | its own shm | tcp | shm : via0 | tcp : via0 |\n"
          "|---|---|---|---|---|---|---|", flush=True)
    for contest in contests(args.short):
        if args.only not in contest.name:
            continue
        results = {which: [] for which in contest.competitors}
        try:
            for _ in range(1 if args.short else args.rounds):
                for which in contest.competitors:
                    results[which].append(contest.run(which))
        except Wrong:
            return 1
        if min(min(values) for values in results.values()) <= 0:
            print(f"FAIL: {contest.name} measured {results}")
            return 1
        print(row(contest, results), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
