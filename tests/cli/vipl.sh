#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: pingpong and bench over VIPL beside verbs, and VIBe, each test of it, with output that real
# parsers read.
cd "$(dirname "$0")" || exit 1
. ./lib.sh

parses() {
    python3 json_check.py "$1" <"$scratch/out" || wrong "no good $1 document"
}

few='--iters 100 --check 10'
# shellcheck disable=SC2086 # several words are meant
{
    expect 0 pingpong $few --api all --rounds 2 --sizes 8:4K:*512
    quiet
    for op in send write read; do
        for size in 8 4096; do
            says "^\\| $op +\\| +$size \\|"
            says "^\\| vipl $op +\\| +$size \\|"
        done
    done
    expect 0 pingpong $few --api vipl --op all --events --json
    parses viaduct.pingpong/1
    grep -q '"api": "vipl"' "$scratch/out" || wrong 'no line over VIPL'
    ! grep -q '"api": "verbs"' "$scratch/out" || wrong 'a line over verbs'

    expect 0 bench $few --api all --qps 2 --rounds 2 --quiet --csv --plot "$scratch/plot.svg"
    quiet
    python3 csv_check.py <"$scratch/out" || wrong 'no good CSV'
    expect 0 bench $few --api vipl --test rate --op send --depth 512
    quiet
    expect 0 bench $few --api all --test lat --op send --rounds 2 --quiet --json
    parses viaduct.bench/1
    grep -q '"rival": "verbs"' "$scratch/out" || wrong 'no VIPL beside verbs'
}

expect 0 vibe --iters 100 --repeat 3 --sizes 4K --json --plot "$scratch"
quiet
parses viaduct.vibe/1
for test in cost base segments cq reuse vis rdma level pipeline server; do
    [ $test = cost ] || grep -q "\"test\": \"$test\"" "$scratch/out" || wrong "no line of $test"
    python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$scratch/vibe-$test.svg" ||
        wrong "no good SVG of $test"
done
expect 0 vibe --iters 10 --repeat 1 --test cost,level,server --sizes 64 --csv
quiet
says '^operation,size_bytes,median_ns,min_ns$'
says '^level,reception,64,'
expect 0 vibe --iters 10 --test base,pipeline --sizes 64 --csv
quiet
says '^base,handler,64,'
says '^pipeline,1 under way,64,'

# A server, and a client that finds it.
"$viaduct" vibe server --port 0 --once 2>"$scratch/server" &
server=$!
port=$(timeout 20 tail -n +1 -F "$scratch/server" 2>/dev/null |
    sed -nE '/TCP port ([0-9]+)$/{s/.* //;p;q}')
expect 0 vibe --iters 10 --repeat 2 --test cost,rdma --sizes 64 --port "$port" client 127.0.0.1
quiet
wait $server || wrong 'the server failed'
expect 1 vibe --port "$port" client 127.0.0.1
complains "no server answers at 127.0.0.1, TCP port $port"

export VIADUCT_NICS=nonsense
expect 1 vibe --test cost
grep -q 'VipOpenNic' <<<"$err" || wrong 'the cause is not named'

finish
