#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that the library exports what endpoints/viaduct.map lists, no more and no less.
# Usage: exports.sh LIBRARY
library=$(realpath "$1")
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need nm binutils
if [ ! -e endpoints/viaduct.map ]; then
    echo "skipped: there is no export list yet"
    exit 77
fi

listed=$(sed -e 's|/\*.*\*/||' endpoints/viaduct.map |
    awk '/local:/ { on = 0 } on { print } /global:/ { on = 1 }' | tr -d ' \t;' | grep .)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sed 's/@.*//')
while read -r name; do
    complain "$name"
done < <(diff <(sort -u <<<"$listed") <(sort -u <<<"$exported") |
    sed -n 's/^< /listed, not exported: /p; s/^> /exported, not listed: /p')

# A program brings its own libibverbs; the library must not bring another.
if readelf -d "$library" | grep NEEDED | grep -E 'ibverbs|rdmacm'; then
    complain "the library links the verbs libraries"
fi
finish
