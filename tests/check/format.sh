#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that the sources are formatted as .clang-format says, or with --fix makes them so.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need clang-format

mapfile -t sources < <(files '*.[ch]')
if [ "${1-}" = --fix ]; then
    exec clang-format -i "${sources[@]}"
fi
while read -r file; do
    complain "$file: run clang-format -i on it"
done < <(clang-format --dry-run "${sources[@]}" 2>&1 |
    sed -n 's/^\([^:]*\):[0-9].*clang-format-violations.*/\1/p' | sort -u)
finish
