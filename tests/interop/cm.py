#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a server and a client of a stock program that connects by rdma_cm, and judge both.

    cm.py [--host A] [--clients N] [--seconds N] [--by-command] PROGRAM [OPTIONS]

PROGRAM is one of rdmacm-utils, a perftest program (run with -R), or `sockets`: Python's own
sockets over librspreload. OPTIONS go to both sides; host and port are added here."""
import argparse
import filecmp
import re
import shutil
import signal
import struct
import sys

from bed import Bed, Wrong, arguments_of, environment_of, free_ports
from judge import number, option, perftest, sound

# The table of bound ports in the runtime directory, endpoints/core/ports.c.
ENTRY = struct.Struct("<Q16sHB5x")
ENTRIES, LISTENS = 16, 2

# Sockets as C programs make them: Python's own set SOCK_CLOEXEC and call accept4(), which
# librspreload leaves to TCP.
SOCKETS = """
import ctypes, os, socket, sys
side, host, port, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
address = b"\\2\\0" + port.to_bytes(2, "big") + socket.inet_aton(host) + bytes(8)
def check(result):
    if result < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return result
def all_of(fd, count):
    got, part = b"", ctypes.create_string_buffer(1 << 16)
    while len(got) < count:
        length = check(libc.recv(fd, part, min(count - len(got), 1 << 16), 0))
        if not length:
            sys.exit("the other side went too early")
        got += part.raw[:length]
    return got
def send_all(fd, data):
    while data:
        data = data[check(libc.send(fd, data, len(data), 0)):]
end = check(libc.socket(2, 1, 0))
if side == "server":
    check(libc.bind(end, address, 16))
    check(libc.listen(end, 5))
    end = check(libc.accept(end, None, None))
    for part in (size // 2, size - size // 2):
        send_all(end, all_of(end, part))
    libc.recv(end, ctypes.create_string_buffer(1), 1, 0)
else:
    data = os.urandom(size)
    check(libc.connect(end, address, 16))
    send_all(end, data[:size // 2])
    first = all_of(end, size // 2)
    send_all(end, data[size // 2:])
    if first + all_of(end, size - size // 2) != data:
        sys.exit("other data came back")
    print("came back:", size)
libc.close(end)
"""


def listens(bed, port):
    """Does some process listen on the RDMA port?"""
    try:
        with open(f"{bed.env['VIADUCT_RUNTIME_DIR']}/ports", "rb") as table:
            table.seek(port * ENTRIES * ENTRY.size)
            entries = table.read(ENTRIES * ENTRY.size)
    except FileNotFoundError:
        return False
    return any(owner and flags & LISTENS for owner, _, _, flags in ENTRY.iter_unpack(entries))


TRIES = 4


class TooEarly(Exception):
    """The client was refused by a server that was about to listen."""


class Recipe:
    """How to call the two sides, and what they must say."""
    server_stays = False

    def __init__(self, args, port, bed):
        self.args, self.port, self.bed, self.host = args, str(port), bed, args.host

    def server(self):
        return [self.args.program, "-b", self.host, "-p", self.port, *self.args.options]

    def client(self):
        return [self.args.program, "-s", self.host, "-p", self.port, *self.args.options]

    def environment(self):
        """What both sides get besides the bed's."""
        return environment_of(self.args.libraries)

    def ready(self, server):
        return listens(self.bed, int(self.port)) or server.status is not None

    def came_too_early(self, client):
        """
        perftest's server listens twice, for the talk about the test and for the test itself; on a
        busy machine its client may call in between, is refused, and does not try again.
        """
        return "RDMA_CM_EVENT_REJECTED; error: 8" in client.err

    def judge(self, client, server):
        sound(client)
        if not self.server_stays:
            sound(server)


class Rping(Recipe):
    def __init__(self, *how):
        super().__init__(*how)
        self.server_stays = "-P" in self.args.options

    def server(self):
        return ["rping", "-s", "-a", self.host, "-p", self.port, *self.args.options]

    def client(self):
        own = [each for each in self.args.options if each != "-P"]
        return ["rping", "-c", "-a", self.host, "-p", self.port, "-v", *own]

    def judge(self, client, server):
        if client.status != 0 or not self.server_stays and server.status != 0:
            raise Wrong(f"status {client.status} of the client, {server.status} of the server")
        said = len(re.findall(r"^ping data: rdma-ping-\d+: ", client.out, re.M))
        if said != number(client.argv, "-C", 0):
            raise Wrong(f"{said} pings came back")


class Tested(Recipe):
    """Both sides say how it ended."""

    def judge(self, client, server):
        super().judge(client, server)
        for side in (client, server):
            if "test complete" not in side.out or "return status 0" not in side.out:
                raise Wrong(f"the {side.title} did not complete the test")


class Udaddy(Tested):
    """Its -p is a port space: the port is always the same one."""

    def __init__(self, *how):
        super().__init__(*how)
        self.port = "7174"

    def server(self):
        return ["udaddy", "-b", self.host, *self.args.options]

    def client(self):
        return ["udaddy", "-s", self.host, *self.args.options]


class Mckey(Tested):
    def both(self, *own):
        return ["mckey", "-m", "239.7.7.7", "-b", self.host, *own, *self.args.options]

    def server(self):
        return ["stdbuf", "-oL", *self.both()]

    def client(self):
        return self.both("-s")

    def ready(self, server):
        return "receiving data transfers" in server.out


class Cmtime(Recipe):
    server_stays = True

    def client(self):
        return ["cmtime", "-s", self.host, "-b", self.host, "-p", self.port, *self.args.options]

    def judge(self, client, server):
        super().judge(client, server)
        steps = re.findall(r"^(\w+(?: \w+)?)\s*:\s+[\d.]+ ", client.out, re.M)
        if "connect" not in steps or "destroy" not in steps:
            raise Wrong(f"cmtime measured only {steps}")


class Plain(Recipe):
    """rdma_server and rdma_client, and their siblings with an x."""

    def server(self):
        return [self.args.program.replace("client", "server"), "-p", self.port,
                *self.args.options]

    def judge(self, client, server):
        super().judge(client, server)
        for side in (client, server):
            if not re.search(r"end 0$", side.out, re.M):
                raise Wrong(f"the {side.title} did not end well")


class Rcopy(Recipe):
    server_stays = True

    def paths(self):
        self.copy = f"{self.bed.env['VIADUCT_RUNTIME_DIR']}/copy"
        return [shutil.which("python3", path="/usr/bin"), f"{self.host}:{self.copy}"]

    def server(self):
        return ["rcopy", "-p", self.port]

    def client(self):
        return ["rcopy", *self.paths(), "-p", self.port]

    def judge(self, client, server):
        super().judge(client, server)
        if not filecmp.cmp(self.paths()[0], self.copy, shallow=False):
            raise Wrong("the copy differs")


class Stream(Recipe):
    """rstream and riostream: a row for every size."""

    def judge(self, client, server):
        super().judge(client, server)
        for side in (client, server):
            if not re.search(r"^\S+\s+\d+[km]?\s+\d+[km]?\s.*[\d.]+s\s", side.out, re.M):
                raise Wrong(f"the {side.title} measured nothing")


class Perftest(Recipe):
    def server(self):
        return [self.args.program, "-F", "-R", "-p", self.port, *self.args.options]

    def client(self):
        return [*self.server(), self.host]

    def judge(self, client, server):
        perftest(client, server)


class Sockets(Recipe):
    def side(self, name):
        preload = f"{self.bed.library}:/usr/lib/x86_64-linux-gnu/rsocket/librspreload.so"
        size = option(self.args.options, "-s", "1000000")
        return ["env", f"LD_PRELOAD={preload}", sys.executable, "-c", SOCKETS, name, self.host,
                self.port, size]

    def server(self):
        return self.side("server")

    def client(self):
        return self.side("client")

    def judge(self, client, server):
        super().judge(client, server)
        if "came back:" not in client.out:
            raise Wrong("nothing came back")


RECIPES = {"rping": Rping, "ucmatose": Tested, "udaddy": Udaddy, "mckey": Mckey,
           "cmtime": Cmtime, "rdma_client": Plain, "rdma_xclient": Plain, "rcopy": Rcopy,
           "rstream": Stream, "riostream": Stream, "sockets": Sockets}


def recipe_of(program):
    return RECIPES.get(program, Perftest)


def run(bed, args, find_recipe):
    """One server, and clients one after the other: all of them, or all but the last stay well."""
    recipe = find_recipe(args.program)(args, free_ports(1)[0], bed)
    how = {"by_command": args.by_command, "env": recipe.environment()}
    server = bed.start(recipe.server(), "server", core=0, **how)
    bed.wait_until(lambda: recipe.ready(server), server, "listened")
    for _ in range(args.clients):
        client = bed.start(recipe.client(), "client", core=1, **how)
        client.process.wait(bed.left())
        if recipe.came_too_early(client):
            raise TooEarly
        if recipe.server_stays:
            recipe.judge(client, server)
    if recipe.server_stays:
        if server.status is not None:
            raise Wrong(f"the server did not stay: status {server.status}")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(bed.left())
    else:
        bed.wait_all()
        recipe.judge(client, server)


def drive(find_recipe, text):
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--transport", help="where the program can choose one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--clients", type=int, default=1, help="so many, one after the other")
    args = arguments_of(parser)
    for _ in range(TRIES):
        try:
            with Bed(args.seconds) as bed:
                run(bed, args, find_recipe)
        except TooEarly:
            print(f"{args.program}: the client called before the server listened again")
            continue
        except Wrong:
            return 1
        print(f"{args.program}: passed")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(drive(recipe_of, __doc__))
