#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that a library exports what its list says, no more and no less.
# Usage: exports.sh LIBRARY MAP
library=$(realpath "$1")
map=$(realpath "$2")
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need nm binutils

listed=$(sed -e 's|/\*.*\*/||' "$map" |
    awk '/local:/ { on = 0 } on { print } /global:/ { on = 1 }' | tr -d ' \t;' | grep .)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sed 's/@.*//')
while read -r name; do
    complain "$name"
done < <(diff <(sort -u <<<"$listed") <(sort -u <<<"$exported") |
    sed -n 's/^< /listed, not exported: /p; s/^> /exported, not listed: /p')

# A program brings its own libibverbs; the NIC must not bring another.
if [ "${map##*/}" = viaduct.map ] &&
    readelf -d "$library" | grep NEEDED | grep -E 'ibverbs|rdmacm'; then
    complain "the library links the verbs libraries"
fi
finish
