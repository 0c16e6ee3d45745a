#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: devices, pingpong and bench on via0; every form of output is read by a real parser, and
# text is compared with golden/ after numbers that vary were masked.
cd "$(dirname "$0")" || exit 1
. ./lib.sh

# Numbers, names of the machine and runs of dashes and blanks vary; words do not.
mask() {
    sed -E -e 's/^(# (viaduct|host|device|sides)) .*/\1 .../' -e 's/[0-9]+(\.[0-9]+)?/N/g' \
        -e 's/-+/-/g' -e 's/ +/ /g'
}

parses() {
    python3 json_check.py "$1" <"$scratch/out" || wrong "no good $1 document"
}

golden() {
    mask <"$scratch/out" >"$scratch/masked"
    [ "${CLI_GOLDEN-}" != write ] || cp "$scratch/masked" "golden/$1.txt"
    same "golden/$1.txt" "$scratch/masked"
}

expect 0 devices
quiet
says '^via0  active, Ethernet, MTU [0-9]+ bytes'
says '^  gid 0 .* RoCE v2$'
expect 0 devices --json
parses viaduct.devices/1
expect 77 devices --device no-such-device
complains "'no-such-device'"

expect 0 doctor --json
parses viaduct.doctor/1

few='--iters 100 --check 10'
# shellcheck disable=SC2086 # several words are meant
{
    expect 0 pingpong $few --op all --sizes 8:64:*8
    quiet
    says '^# check .* compared byte by byte: all right$'
    golden pingpong
    expect 0 pingpong $few --json
    parses viaduct.pingpong/1
    expect 0 pingpong $few --events --half
    expect 0 pingpong $few --cpus 0,0 --sizes 8
    expect 77 pingpong --device no-such-device
    complains "'no-such-device'"
    expect 2 pingpong --gid 255
    complains '--gid: via0 has no GID 255'

    expect 0 bench $few --sizes 8:4K:*512
    golden bench
    expect 0 bench $few --json --qps 4 --events
    parses viaduct.bench/1
    expect 0 bench $few --sizes 8:64:*8 --csv --plot "$scratch/plot.svg"
    python3 csv_check.py <"$scratch/out" || wrong 'no good CSV'
    python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$scratch/plot.svg" ||
        wrong 'no good SVG'
    expect 0 bench --test lat --op send --seconds 0.01 --against floor --rounds 3 --json
    parses viaduct.bench/1
}
expect 2 bench --qps 65535 --depth 32768
complains '--(qps|depth): '

# A server of one command, a client of the other, and a port nobody chose.
"$viaduct" pingpong server --port 0 --once 2>"$scratch/server" &
server=$!
# The server writes one line when it listens; tail ends with that line.
port=$(timeout 20 tail -n +1 -F "$scratch/server" 2>/dev/null |
    sed -nE '/TCP port ([0-9]+)$/{s/.* //;p;q}')
# shellcheck disable=SC2086
expect 0 bench $few --port "$port" client 127.0.0.1
quiet
wait $server || wrong 'the server failed'

# The port is closed again: nobody answers.
expect 1 pingpong --port "$port" client 127.0.0.1
complains "no server answers at 127.0.0.1, TCP port $port"

# No device at all.
export VIADUCT_NICS=nonsense
for command in pingpong bench devices; do
    expect 77 $command
    grep -q 'VIADUCT_NICS' <<<"$err" || wrong 'the wrong variable is not named'
done

finish
