# SPDX-License-Identifier: MIT
"""Read the CSV of bench from stdin: comments, then tables, each with a row of heads."""
import csv
import sys

heads = None
rows = 0
for row in csv.reader(line for line in sys.stdin if not line.startswith("#")):
    if "size_bytes" in row:
        heads = row
        assert "op" in heads, heads
        continue
    assert heads is not None and len(row) == len(heads), row
    assert int(row[heads.index("size_bytes")]) > 0
    rows += 1
assert rows > 0
