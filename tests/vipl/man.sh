#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: every call that the library exports has a manual page without lint, and vipl(7) names it.
# Usage: man.sh FOLDER
set -euo pipefail
made=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cp "$made"/*.3 docs/man/vipl.7 docs/man/viaduct-run.1 "$folder"
cd "$folder"
mapfile -t calls < <(sed -n 's/^    \(Vip[A-Za-z]*\);$/\1/p' "$OLDPWD/via/vipl/vipl.map")
[ ${#calls[@]} -gt 40 ]
failed=0
for call in "${calls[@]}"; do
    if [ ! -s "$call.3" ] || ! grep -q "^.Xr $call 3" vipl.7; then
        echo "$call: no page, or vipl.7 does not name it"
        failed=1
    fi
done
# Pages of other packages need not be installed here.
if mandoc -Tlint ./*.3 vipl.7 | grep -vE 'referenced manual not found: Xr (ibv_|rdma_)'; then
    failed=1
fi
exit $failed
