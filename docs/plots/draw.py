#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measure, and draw the plots of docs/performance.md.

    draw.py [--seconds S] [--bin FOLDER] [--out FOLDER]

Runs `viaduct bench` and `viaduct vibe` from FOLDER (build/release/bin) on via0, S (0.3) seconds a
point, and writes latency.svg, bandwidth.svg, registration.svg and waiting.svg beside this script.
Needs gnuplot (Debian: gnuplot-nox)."""
import argparse
import csv
import io
import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
STYLE = """set terminal svg size 640,400 font "sans-serif,13" background "white"
set logscale x 2
set logscale y
set grid lc rgb "#dddddd"
set key top left
set format y "%.0s%c"
set xtics ("8" 8, "64" 64, "512" 512, "4 Ki" 4096, "32 Ki" 32768, "256 Ki" 262144, \\
    "2 Mi" 2097152, "16 Mi" 16777216)
set style data linespoints
set pointsize 0.6
"""
COLOURS = ["#0b6e99", "#d1495b", "#3a7d44", "#edae49"]


def run(binary, *arguments):
    done = subprocess.run([binary, *arguments, "--quiet"], check=True, stdout=subprocess.PIPE,
                          text=True)
    return done.stdout


def tables(text):
    """Every table of a CSV output, as lists of dictionaries."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    heads, found = None, []
    for row in csv.reader(io.StringIO("\n".join(lines))):
        if row[0] in ("operation", "test"):
            heads = row
            found.append([])
        else:
            found[-1].append(dict(zip(heads, row)))
    return found


def draw(path, title, labels, series, more=""):
    """series: (name, [(x, y) ...]) in order."""
    data = "".join(f"$d{i} << EOD\n" + "".join(f"{x} {y:.6g}\n" for x, y in points) + "EOD\n"
                   for i, (_, points) in enumerate(series))
    curves = ", ".join(f'$d{i} title "{name}" lw 2 pt 7 lc rgb "{COLOURS[i % len(COLOURS)]}"'
                       for i, (name, _) in enumerate(series))
    program = (f'{STYLE}set output "{path}"\nset title "{title}"\nset xlabel "{labels[0]}"\n'
               f'set ylabel "{labels[1]}"\n{more}\n{data}plot {curves}\n')
    subprocess.run(["gnuplot"], input=program, check=True, text=True)
    # Editors and diffs like lines without blanks at their ends.
    path.write_text("".join(line.rstrip() + "\n" for line in path.read_text().splitlines()))


def results(binary, options, test, value):
    """value(result) by interface and size."""
    found = json.loads(run(binary, "bench", "--api", "all", "-t", test, "-o", "send",
                           "--rounds", "3", "--json",
                           *options))["results"]
    by_api = {}
    for result in found:
        by_api.setdefault(result["api"], []).append((result["size_bytes"], value(result)))
    return [(name, by_api[api]) for api, name in (("verbs", "verbs"), ("vipl", "VIPL"))]


def half_power(points):
    """n1/2: the size at which half of the highest bandwidth is reached, on the line between."""
    half = max(y for _, y in points) / 2
    before = points[0]
    for x, y in points:
        if y >= half:
            if y == before[1]:
                return x, half
            return before[0] + (half - before[1]) * (x - before[0]) / (y - before[1]), half
        before = (x, y)
    return before


def latency(binary, options, out):
    lines = results(binary, ["-s", "8:1M:*2", *options], "lat",
                    lambda r: r["rtt_middle_ns"] / 2)
    draw(out / "latency.svg", "Latency against size: half a round trip of sends",
         ("bytes", "nanoseconds"), lines)


def bandwidth(binary, options, out):
    lines = results(binary, ["-s", "64:4M:*2", *options], "bw",
                    lambda r: r["bytes_per_s"] / 1e6)
    at, half = half_power(lines[0][1])
    mark = (f'set arrow from {at:.0f},graph 0 to {at:.0f},{half:.0f} nohead dt 2 lc rgb "#808080"\n'
            f'set label "n1/2 = {at:.0f} bytes" at {at:.0f},{half:.0f} right offset -1,0\n'
            'set key bottom right\n')
    draw(out / "bandwidth.svg", "Bandwidth against size, one queue kept full",
         ("bytes", "megabytes a second"), lines, mark)


def registration(costs, out):
    def points(*what):
        sizes = sorted({int(c["size_bytes"]) for c in costs if c["operation"] in what})
        return [(size, sum(float(c["median_ns"]) for c in costs if c["operation"] in what
                           and int(c["size_bytes"]) == size)) for size in sizes]

    draw(out / "registration.svg", "Registering a buffer, or copying it",
         ("bytes", "nanoseconds"),
         [("register and deregister", points("register", "deregister")),
          ("copy once", points("copy in"))])


def waiting(lines, out):
    """How a completion is learned of."""
    names = dict.fromkeys(line["variant"] for line in lines)
    draw(out / "waiting.svg", "Polling, sleeping, being called: half a round trip",
         ("bytes", "nanoseconds"),
         [(name, [(int(line["size_bytes"]), float(line["ns"])) for line in lines
                  if line["variant"] == name]) for name in names], "set key center left")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--bin", default=str(HERE.parents[1] / "build/release/bin"))
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    options = parser.parse_args()
    binary, time = f"{options.bin}/viaduct", ["-D", str(options.seconds)]
    latency(binary, time, options.out)
    bandwidth(binary, time, options.out)
    costs, lines = tables(run(binary, "vibe", "-t", "cost,base", "-s", "16:64K:*4", "--csv", *time))
    registration(costs, options.out)
    waiting(lines, options.out)


if __name__ == "__main__":
    main()
