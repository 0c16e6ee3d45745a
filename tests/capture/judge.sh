# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# judge.sh BIN: what VIADUCT_PCAP writes, judged frame by frame, where processes meet in shared
# memory, and once more where the same program talks over the wire.
set -u
bin=$1
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export VIADUCT_RUNTIME_DIR=$work/run VIADUCT_NICS=via0=127.0.0.1+::1
mkdir -m 700 "$work/run"
failed=0

judge() { # NAME OPTIONS...: of what talk said and what was captured
    local name=$1
    shift
    if python3 "$here/judge.py" "$work/talk" "$work/capture" "$@"; then
        echo "ok   $name"
    else
        echo "FAIL $name"
        failed=$((failed + 1))
    fi
    rm -f "$work/capture"
}

for gid in 0 2; do # IPv4, IPv6
    timeout 50 "$bin/viaduct" run --pcap "$work/capture" -- "$bin/tests/capture_talk" $gid \
        >"$work/talk" || exit 1
    judge "shared memory, GID $gid"
    VIADUCT_LINK=roce timeout 50 "$bin/viaduct" run --pcap "$work/capture" -- \
        "$bin/tests/capture_talk" $gid >"$work/talk" || exit 1
    judge "the wire, GID $gid" --wire
done
[ $failed -eq 0 ]
