#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: every command has a man page without lint, and the page names every option that --help
# names (those of pingpong, which bench's page refers to, count for bench).
cd "$(dirname "$0")" || exit 1
. ./lib.sh
pages=../../docs/man

expect 0 --help
mapfile -t commands < <(sed -nE 's/^  ([a-z]+) .*/\1/p' <<<"$out")
for command in "${commands[@]}"; do
    page=$pages/viaduct-$command.1
    [ -f "$page" ] || wrong "$page is missing"
    expect 0 "$command" --help
    text=$(cat "$page")
    [ "$command" != bench ] || text+=$(cat "$pages/viaduct-pingpong.1")
    mapfile -t options < <(sed -nE 's/^  (-[a-zA-Z],|   ) --([a-z-]+) .*/\2/p' <<<"$out")
    [ ${#options[@]} -gt 0 ] || wrong 'help names no option'
    for option in "${options[@]}"; do
        grep -qE -- "[ ,]-$option( |\$)" <<<"$text" || wrong "$page does not name --$option"
    done
done
# From inside the folder, so that the pages find each other.
cd "$pages" || exit 1
mandoc -Tlint viaduct*.1 || wrong 'mandoc finds something'

finish
