#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""judge.py TALK CAPTURE [--wire] - does the capture show what talk says it sent, packet by packet?

The file is read here, block by block, and its invariant CRCs computed anew; the fields are those
that tshark finds. With --wire the frames were really on a wire: there answers may be combined, so
requests only are compared.
"""
import ipaddress
import re
import struct
import subprocess
import sys
import zlib

SERVICES = {"RC": 0x00, "UC": 0x20, "UD": 0x60, "XRC": 0xA0}
# first, middle, last, only
MESSAGES = {
    "SEND": (0x00, 0x01, 0x02, 0x04),
    "SEND_IMM": (0x00, 0x01, 0x03, 0x05),
    "WRITE": (0x06, 0x07, 0x08, 0x0A),
    "WRITE_IMM": (0x06, 0x07, 0x09, 0x0B),
    "ANSWER": (0x0D, 0x0E, 0x0F, 0x10),
}
ACK, ATOMIC_ACK = 0x11, 0x12
NAK_ACCESS = 0x62
ANSWERS = MESSAGES["ANSWER"] + (ACK, ATOMIC_ACK)
SINGLE = {"READ": 0x0C, "COMPARE_SWAP": 0x13, "FETCH_ADD": 0x14}
UDP_PORT = 4791
problems = []


def complain(text):
    problems.append(text)


# ---- the file


def blocks(data):
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + size - 4]
        if struct.unpack_from("<I", data, at + size - 4)[0] != size:
            complain(f"block at {at} ends with another size")
        yield kind, body
        at += size


def options(body):
    found, at = {}, 0
    while at + 4 <= len(body):
        code, size = struct.unpack_from("<HH", body, at)
        if code == 0:
            break
        found[code] = body[at + 4 : at + 4 + size]
        at += 4 + (size + 3) // 4 * 4
    return found


def read_capture(path):
    """The packets: direction, nanoseconds, bytes."""
    with open(path, "rb") as file:
        data = file.read()
    interfaces, packets = [], []
    for kind, body in blocks(data):
        if kind == 1:
            described = options(body[8:])
            interfaces.append(described[3].decode())
            if described.get(9) != b"\x09":
                complain("times are not in nanoseconds")
        elif kind == 6:
            which, high, low, size = struct.unpack_from("<IIII", body)
            packets.append((which, high << 32 | low, body[20 : 20 + size]))
    for text, direction in zip(interfaces, ("sent", "received")):
        if not re.fullmatch(r".+\[\d+\] " + direction, text):
            complain(f"interface description {text!r}")
    if any(a[1] > b[1] for a, b in zip(packets, packets[1:])):
        complain("times go back")
    if packets and all(packet[1] % 1000 == 0 for packet in packets):
        complain("no time has nanoseconds")
    return packets


def crc_is_right(packet):
    """IBTA annex A17: over the headers, with what changes on the way masked."""
    v6 = packet[0] >> 4 == 6
    header = bytearray(packet[: 40 if v6 else 20])
    rest = bytearray(packet[len(header) :])
    if v6:
        header[0] |= 0x0F
        header[1:4] = b"\xff\xff\xff"
        header[7] = 0xFF
    else:
        header[1] = header[8] = 0xFF
        header[10:12] = b"\xff\xff"
    rest[6:8] = b"\xff\xff"
    rest[12] = 0xFF
    made = zlib.crc32(b"\xff" * 8 + bytes(header) + bytes(rest[:-4]))
    return struct.pack("<I", made) == bytes(rest[-4:])


# ---- what tshark makes of it

FIELDS = [
    "frame.interface_id",
    "infiniband.bth.opcode",
    "infiniband.bth.destqp",
    "infiniband.bth.psn",
    "infiniband.bth.a",
    "infiniband.bth.se",
    "infiniband.bth.padcnt",
    "infiniband.reth.va",
    "infiniband.reth.r_key",
    "infiniband.reth.dmalen",
    "infiniband.atomiceth.swapdt",
    "infiniband.atomiceth.cmpdt",
    "infiniband.atomicacketh.origremdt",
    "infiniband.immdt",
    "infiniband.deth.q_key",
    "infiniband.deth.srcqp",
    "infiniband.aeth.syndrome",
    "infiniband.aeth.msn",
]


def tshark(path, *arguments):
    # The heuristic that takes any small SEND for RPC would call it malformed.
    command = ["tshark", "-r", path, "--disable-protocol", "rpcordma", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def number(name, text):
    """Immediate data is shown as bytes, the rest as numbers."""
    return int(text, 16 if name == "immdt" else 0) if text else None


def dissect(path):
    for line in tshark(path, "-Y", "_ws.malformed || !infiniband"):
        complain(f"malformed: {line}")
    arguments = ["-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]
    for field in FIELDS:
        arguments += ["-e", field]
    names = [field.split(".", 1)[1] for field in FIELDS]
    lines = tshark(path, *arguments)
    return [{n: number(n, text) for n, text in zip(names, line.split("|"))} for line in lines]


def transport_of(packet):
    """Where the BTH begins."""
    return (40 if packet[0] >> 4 == 6 else 20) + 8


def payload_of(packet, headers):
    at = transport_of(packet)
    pad = packet[at + 1] >> 4 & 3
    return packet[at + headers : len(packet) - 4 - pad]


def read_xrc(packet):
    """What stands behind the BTH of an XRC packet: tshark 4.0 knows these by their opcode only."""
    at = transport_of(packet)
    operation, at, fields = packet[at] & 0x1F, at + 12, {}

    def take(layout, *names):
        nonlocal at
        fields.update(zip(names, struct.unpack_from(">" + layout, packet, at)))
        at += struct.calcsize(">" + layout)

    if operation not in ANSWERS:
        take("I", "srqn")
    if operation in (0x06, 0x0A, 0x0B, SINGLE["READ"]):
        take("QII", "reth.va", "reth.r_key", "reth.dmalen")
    if operation in (SINGLE["COMPARE_SWAP"], SINGLE["FETCH_ADD"]):
        take("QIQQ", "reth.va", "reth.r_key", "atomiceth.swapdt", "atomiceth.cmpdt")
    if operation in ANSWERS and operation != MESSAGES["ANSWER"][1]:
        take("I", "aeth.msn")
        fields["aeth.syndrome"] = fields["aeth.msn"] >> 24
        fields["aeth.msn"] &= 0xFFFFFF
    if operation == ATOMIC_ACK:
        take("Q", "atomicacketh.origremdt")
    if operation in (0x03, 0x05, 0x09, 0x0B):
        take("I", "immdt")
    return fields


# ---- what there must be


def parse(line):
    transport, op, *rest = line.split()
    request = {"transport": transport, "op": op}
    for word in rest:
        name, value = word.split("=", 1)
        request[name] = bytes.fromhex(value) if name == "data" else int(value)
    return request


def shares(request):
    mtu, data = request["mtu"], request["data"]
    return [data[at : at + mtu] for at in range(0, len(data), mtu)] or [b""]


def place(operations, index, count):
    if count == 1:
        return operations[3]
    return operations[0 if index == 0 else 2 if index == count - 1 else 1]


def bth(request, direction, operation, psn, **fields):
    """One frame: what tshark must find in it, and None where it must find nothing."""
    frame = {name.split(".", 1)[1]: None for name in FIELDS}
    frame.update(
        {
            "interface_id": direction,
            "bth.opcode": SERVICES[request["transport"]] | operation,
            "bth.destqp": request["to"] if direction == 0 else request["from"],
            "bth.psn": psn & 0xFFFFFF,
            "bth.a": 0,
            "bth.se": 0,
            "bth.padcnt": -len(fields.get("payload", b"")) & 3,
            "headers": 12,
            "payload": b"",
        }
    )
    if request["transport"] == "XRC" and direction == 0:
        frame["srqn"] = request["srqn"]
        frame["headers"] += 4
    for name, value in fields.items():
        frame[name.replace("__", ".")] = value
    return frame


def message(request, psn):
    """The frames of a SEND or a WRITE."""
    operations, parts = MESSAGES[request["op"]], shares(request)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        frame = bth(request, 0, place(operations, index, len(parts)), psn + index, payload=part)
        frame["bth.a"] = int(last and request["transport"] in ("RC", "XRC"))
        frame["bth.se"] = int(last and request["solicited"])
        if request["op"].startswith("WRITE") and index == 0:
            frame["reth.va"], frame["reth.r_key"] = request["va"], request["rkey"]
            frame["reth.dmalen"] = request["length"]
            frame["headers"] += 16
        if request["op"].endswith("IMM") and last:
            frame["immdt"] = request["imm"]
            frame["headers"] += 4
        if request["transport"] == "UD":
            frame["deth.q_key"], frame["deth.srcqp"] = request["rkey"], request["from"]
            frame["headers"] += 8
        yield frame


def single(request, psn):
    frame = bth(request, 0, SINGLE[request["op"]], psn, bth__a=1)
    if request["op"] == "READ":
        frame["reth.va"], frame["reth.r_key"] = request["va"], request["rkey"]
        frame["reth.dmalen"] = request["length"]
        frame["headers"] += 16
    else:
        add = request["op"] == "FETCH_ADD"
        frame["reth.va"], frame["reth.r_key"] = request["va"], request["rkey"]
        frame["atomiceth.swapdt"] = request["compare"] if add else request["swap"]
        frame["atomiceth.cmpdt"] = 0 if add else request["compare"]
        frame["headers"] += 28
    return frame


def acknowledged(request, operation, psn, msn, payload=b"", syndrome="ack"):
    # The code of the credits is the responder's to choose: any, of kind ACK.
    return bth(request, 1, operation, psn, headers=16, payload=payload, aeth__syndrome=syndrome,
               aeth__msn=msn)


def answers(request, psn, msn):
    parts = shares(request)
    if request["refused"]:
        yield acknowledged(request, ACK, psn, msn - 1, syndrome=NAK_ACCESS)
    elif request["op"] == "READ":
        for index, part in enumerate(parts):
            operation = place(MESSAGES["ANSWER"], index, len(parts))
            if operation == MESSAGES["ANSWER"][1]:
                yield bth(request, 1, operation, psn + index, payload=part)
            else:
                yield acknowledged(request, operation, psn + index, msn, part)
    elif request["op"] in SINGLE:
        frame = acknowledged(request, ATOMIC_ACK, psn, msn)
        frame["atomicacketh.origremdt"] = int.from_bytes(request["data"], "little")
        frame["headers"] += 8
        yield frame
    else:
        yield acknowledged(request, ACK, psn + len(parts) - 1, msn)


def expected(requests):
    position = {}
    for request in requests:
        psn, msn = position.get(request["from"], (request["psn"], 0))
        yield from [single(request, psn)] if request["op"] in SINGLE else message(request, psn)
        if request["transport"] in ("RC", "XRC"):
            yield from answers(request, psn, msn + 1)
        position[request["from"]] = psn + len(shares(request)), msn + 1


# ---- the comparison


def compare(index, wanted, found, packet):
    if wanted["bth.opcode"] & 0xE0 == SERVICES["XRC"]:
        found = found | read_xrc(packet)
    for name, value in wanted.items():
        if name == "headers":
            continue
        if name == "payload":
            seen = payload_of(packet, wanted["headers"])
        elif value == "ack":
            seen = "ack" if found[name] is not None and found[name] < 0x20 else found[name]
        else:
            seen = found[name]
        if seen != value:
            opcode = wanted["bth.opcode"]
            complain(f"frame {index}, opcode {opcode:#04x}: {name} is {seen!r}, not {value!r}")


def check_udp(index, packet):
    at = 40 if packet[0] >> 4 == 6 else 20
    source, target, size = struct.unpack_from(">HHH", packet, at)
    if target != UDP_PORT or source < 0xC000 or size != len(packet) - at:
        complain(f"frame {index}: UDP {source} -> {target}, {size} bytes of {len(packet) - at}")
    ends = packet[8:40] if at == 40 else packet[12:20]
    half = len(ends) // 2
    if ipaddress.ip_address(ends[:half]) != ipaddress.ip_address(ends[half:]):
        complain(f"frame {index}: not from this host to itself")


def main():
    talk, path = sys.argv[1:3]
    wire = "--wire" in sys.argv[3:]
    with open(talk, encoding="ascii") as file:
        requests = [parse(line) for line in file]
    packets, found = read_capture(path), dissect(path)
    if len(packets) != len(found):
        complain(f"tshark sees {len(found)} packets of {len(packets)}")
    wanted = list(expected(requests))
    pairs = [(packet[2], fields) for packet, fields in zip(packets, found)]
    for index, (packet, _) in enumerate(pairs):
        check_udp(index, packet)
        if not crc_is_right(packet):
            complain(f"frame {index}: wrong ICRC")
    if wire:  # sent by the one that asks; answers may be combined
        askers = {request["to"] for request in requests}
        pairs = [(packet, fields) for packet, fields in pairs
                 if fields["interface_id"] == 0 and fields["bth.destqp"] in askers]
        first = {}  # and what was late is sent again
        for packet, fields in pairs:
            first.setdefault((fields["bth.destqp"], fields["bth.psn"]), (packet, fields))
        pairs = list(first.values())
        wanted = [frame for frame in wanted if frame["interface_id"] == 0]
    if len(pairs) != len(wanted):
        complain(f"{len(pairs)} frames, not {len(wanted)}")
    for index, (frame, (packet, fields)) in enumerate(zip(wanted, pairs)):
        compare(index, frame, fields, packet)
    opcodes = {frame["bth.opcode"] for frame in wanted}
    print(f"{len(requests)} requests, {len(wanted)} frames, {len(opcodes)} opcodes")
    for problem in problems[:20]:
        print(f"FAIL {problem}")
    sys.exit(1 if problems or not requests else 0)


main()
