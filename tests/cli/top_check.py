# SPDX-License-Identifier: MIT
"""Read a viaduct.top/1 document from stdin: the two processes named in argv talk to each other."""
import json
import sys


def main():
    pids = [int(argument) for argument in sys.argv[1:3]]
    processes = {process["pid"]: process for process in json.load(sys.stdin)["processes"]}
    for own, other in (pids, reversed(pids)):
        assert own in processes, f"{own} is not there"
        process = processes[own]
        assert process["answers"] and process["regions"] > 0 and process["region_bytes"] > 0
        found = [qp for qp in process["queue_pairs"] if qp["peer_pid"] == other]
        assert found and process["connections"] >= 1, f"{own} is not connected to {other}"
        qp = found[0]
        assert qp["type"] == "RC" and qp["state"] == "RTS", qp["state"]
        peers = [peer["number"] for peer in processes[other]["queue_pairs"]]
        assert qp["peer"] in peers, "the peer has no such queue pair"
        assert qp["messages"] > 0 and qp["out_bytes"] > 0 and qp["peer_messages"] > 0, "idle"


try:
    main()
except AssertionError as error:
    sys.exit(str(error))
