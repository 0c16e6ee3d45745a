#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that what is to be read fits on a screen: functions of at most 70 lines, sources of at
# most 800, lines of at most 100 columns.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need ctags universal-ctags

mapfile -t sources < <(files '*.[ch]')
mapfile -t all < <(files '*.[ch]' CMakeLists.txt '*.cmake' '*.def'; scripts)

while read -r lines where; do
    complain "$where: $lines lines, at most 70"
done < <(ctags --languages=C --langmap=C:.c.h --kinds-C=f --fields=+ne \
    -x --_xformat='%{line} %{end} %{input} %{name}' "${sources[@]}" |
    awk '$2 - $1 + 1 > 70 { print $2 - $1 + 1, $3 ":" $1 ": " $4 }')

for file in "${sources[@]}"; do
    lines=$(wc -l <"$file")
    [ "$lines" -le 800 ] || complain "$file: $lines lines, at most 800"
done

while read -r where; do
    complain "$where: over 100 columns"
done < <(LC_ALL=C.UTF-8 awk 'length($0) > 100 { print FILENAME ":" FNR }' "${all[@]}")
finish
