#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that the tree's text is fit for print: licence lines, no notes to self, no machine's
# paths, no dead links in the documents.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

mapfile -t code < <(files '*.[ch]' CMakeLists.txt '*.cmake'; scripts)
mapfile -t text < <(files '*')

for file in "${code[@]}"; do
    head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT' || complain "$file: no SPDX line"
done
while read -r where; do
    complain "$where"
done < <(grep -nHIE '\b(TODO|FIXM[E]|XX[X])\b|/wor[k]/|/roo[t]/|/hom[e]/[a-z]' "${text[@]}" |
    grep -v '^tests/check/text.sh:')
while read -r where; do
    complain "$where: blanks at the end of the line"
done < <(grep -nHIE '[[:blank:]]+$' "${code[@]}" | cut -d: -f1,2)

for file in $(files '*.md'); do
    for link in $(grep -oE '\]\([^)# ]+' "$file" | cut -c3- | grep -vE '^[a-z]+:' || true); do
        [ -e "$(dirname "$file")/$link" ] || complain "$file: links to $link, which is not there"
    done
done
finish
