#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a client and a server of a stock verbs program over via0, and judge both.

    pair.py [--pairs N] [--by-command] [--seconds N] [--libraries DIR] PROGRAM [OPTIONS]

PROGRAM is an ibv_*_pingpong or a perftest program; OPTIONS go to both sides. What names the
device, its GID and the port is added here. The sides sit on different cores."""
import argparse
import os
import sys

from bed import Bed, Wrong, arguments_of, environment_of, free_ports, listens, uses
from judge import perftest, pingpong, xsrq_pingpong


def command(args, port):
    where = ["-d", "via0", "-p", str(port)]
    if os.path.basename(args.program).startswith("ibv_"):
        return [args.program, "-g", "0", *where, *args.options]
    # -F: no look at the CPU's clock, of which perftest would only warn.
    return [args.program, "-F", "-x", "0", *where, *args.options]


def start_pair(bed, args, port):
    how = {"by_command": args.by_command, "env": environment_of(args.libraries)}
    server = bed.start(command(args, port), "server", core=0, **how)
    bed.wait_until(lambda: listens(port), server, "listened")
    if args.libraries and not uses(server, args.libraries):
        raise Wrong(f"the server does not use {args.libraries}")
    return bed.start([*command(args, port), "127.0.0.1"], "client", core=1, **how), server


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1, help="so many at once")
    args = arguments_of(parser)
    name = os.path.basename(args.program)
    judge = (xsrq_pingpong if name == "ibv_xsrq_pingpong"
             else pingpong if name.startswith("ibv_") else perftest)
    try:
        with Bed(args.seconds) as bed:
            pairs = [start_pair(bed, args, port) for port in free_ports(args.pairs)]
            bed.wait_all()
            for client, server in pairs:
                judge(client, server)
    except Wrong:
        return 1
    print(f"{args.program}: {args.pairs} of {args.pairs} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
