#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that the listings of the book are what is compiled: each block of C stands behind a comment
# that names a file, and its lines are in that file, one after the other.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need python3

mapfile -t pages < <(files '*.md' | grep '^docs/book/')
[ ${#pages[@]} -gt 0 ] || complain "there is no book"
while read -r where; do
    complain "$where"
done < <(python3 - "${pages[@]}" <<'PYTHON'
import re
import sys

for page in sys.argv[1:]:
    text = open(page, encoding="utf-8").read()
    for block in re.finditer(r"(?:<!-- from (\S+) -->\n)?```c\n(.*?)```", text, re.S):
        line = text.count("\n", 0, block.start()) + 1
        source, listing = block.groups()
        if source is None:
            print(f"{page}:{line}: a listing that does not say where it is from")
        elif listing not in open(source, encoding="utf-8").read():
            print(f"{page}:{line}: not, or no longer, in {source}")
PYTHON
)
finish
