#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that the model of the credit protocol has no deadlock, overrun, over-send, lost credit or
# livelock, and that the checker finds each of four mistakes in variants of it.
# Usage: model.sh credit.pml
set -euo pipefail
model=$(realpath "$1")
for tool in spin "${CC:=cc}"; do
    command -v "$tool" >/dev/null || {
        echo "$tool is not installed (apt install spin)"
        exit 1
    }
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
failures=0

# verify KIND DEFINES...: build the verifier (SAFETY or NP), run it, leave what it says in $said.
verify() {
    local run=(./pan -m100000)
    spin -a "${@:2}" "$model" >spin.log || { cat spin.log && exit 1; }
    "$CC" -w -O1 "-D$1" -DVECTORSZ=512 -o pan pan.c
    [ "$1" = SAFETY ] || run+=(-l)
    said=$("${run[@]}" 2>&1) || true
}

holds() {
    verify "$@"
    if grep -q 'errors: 0$' <<<"$said" && ! grep -qi 'search not completed' <<<"$said"; then
        echo "holds ($*): $(grep -o '[0-9]* states, stored' <<<"$said" | head -n 1)"
    else
        echo "FAIL: does not hold ($*)"
        echo "$said"
        failures=$((failures + 1))
    fi
}

# fails COMPLAINT KIND DEFINES...: the variant must be found out, for that reason.
fails() {
    verify "${@:2}"
    if grep -q "$1" <<<"$said"; then
        echo "found ($*)"
    else
        echo "FAIL: a mistake was not found ($*)"
        echo "$said"
        failures=$((failures + 1))
    fi
}

holds SAFETY -DDATA=1 -DRESERVE=1
holds SAFETY -DDATA=2 -DRESERVE=1
holds SAFETY -DDATA=1 -DRESERVE=2
holds NP -DLIVELOCK -DDATA=1 -DRESERVE=1
fails 'assertion violated (q_len(wire' SAFETY -DMISTAKE=1
fails 'invalid end state' SAFETY -DMISTAKE=2
fails 'assertion violated (end' SAFETY -DMISTAKE=3
fails 'invalid end state' SAFETY -DMISTAKE=4
exit $((failures > 0))
