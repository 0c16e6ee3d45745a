# SPDX-License-Identifier: MIT
"""Read one JSON document from stdin and hold it against the schema named in argv[1].

Every number must say its unit at the end of its key, or be a plain count."""
import json
import sys

UNITS = ("_ns", "_bytes", "_bytes_per_s", "_messages_per_s", "seconds", "bytes_per_s",
         "messages_per_s", "answers_per_s")
COUNTS = {
    "count", "qps", "depth", "batch", "iters", "check", "rounds", "gid", "gid_index", "port",
    "client_cpu", "server_cpu", "lat_cpu", "flow_cpu", "repeat", "cpus_allowed", "index", "ports",
    "ratio", "messages_compared",
    "pid", "peer_pid", "number", "peer", "messages", "peer_messages", "rnr_waits", "retries",
    "sends_waiting", "receives_waiting", "connections", "regions",
}
TOP = {
    "viaduct.devices/1": {"devices": list, "missing": list},
    "viaduct.doctor/1": {"host": dict, "checks": list},
    "viaduct.top/1": {"processes": list},
    "viaduct.pingpong/1": {"host": dict, "device": dict, "sides": dict, "options": dict,
                           "messages_compared": int, "results": list},
    "viaduct.bench/1": {"host": dict, "device": dict, "sides": dict, "options": dict,
                        "rounds": int, "results": list, "against": list},
    "viaduct.vibe/1": {"host": dict, "options": dict, "costs": list, "transfers": list},
}


def walk(value, key, path):
    if isinstance(value, dict):
        for name, child in value.items():
            assert name == name.lower() or name.startswith("_"), f"{path}.{name}: not lower case"
            walk(child, name, f"{path}.{name}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            walk(child, key, f"{path}[{number}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        assert key in COUNTS or key.endswith(UNITS) or key.startswith("max_"), f"{path}: no unit"


def check_latency(result):
    prefix = "rtt" if "rtt_min_ns" in result else "op" if "op_min_ns" in result else "one_way"
    times = [result[f"{prefix}_{name}_ns"] for name in
             ("min", "p50", "p90", "p99", "p99_9", "max")]
    assert times == sorted(times), f"percentiles do not rise: {times}"
    assert times[0] > 0


def check_result(result):
    assert result["count"] > 0 and result["seconds"] > 0 and result["size_bytes"] > 0
    if result["test"] == "lat":
        check_latency(result)
    else:
        rate = result["messages_per_s"]
        assert rate > 0
        assert abs(result["bytes_per_s"] / (rate * result["size_bytes"]) - 1) < 0.01


def main():
    document = json.load(sys.stdin)
    schema = sys.argv[1]
    assert document["schema"] == schema, document["schema"]
    for key, kind in TOP[schema].items():
        assert isinstance(document[key], kind), key
    assert set(document) == {"schema", *TOP[schema]}, set(document)
    walk(document, "", schema)
    for result in document.get("results", []):
        check_result(result)
    for cost in document.get("costs", []):
        assert 0 < cost["min_ns"] <= cost["median_ns"], cost
    for line in document.get("transfers", []):
        values = ("answers_per_s",) if line["test"] == "server" else ("one_way_ns", "bytes_per_s")
        assert all(line[value] > 0 for value in values), line
    for line in document.get("against", []):
        assert line["ratio"] > 0 and line["better"] in ("less", "more")
    if schema == "viaduct.devices/1":
        assert any(device["usable"] for device in document["devices"])


main()
