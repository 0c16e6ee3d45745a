#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that docs/vipl-conformance.md names tests that there are, and leaves out no call, return
# code, control or status bit, state or error of the header.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
page=docs/vipl-conformance.md

# Tests by suite and name; those of a level without it.
tests=$(sed -n -e 's/^T_TEST(\(vipl_[a-z0-9]*\), \([a-z0-9_]*\)).*/\1\/\2/p' \
    -e 's/^T_\(RELIABLE_\)\{0,1\}LEVELS(\(vipl_[a-z0-9]*\), \([a-z0-9_]*\)).*/\2\/\3/p' \
    -e 's/^T_SPOILED(\([a-z0-9_]*\),.*/vipl_descriptor\/\1/p' tests/vipl/*_test.c)
# shellcheck disable=SC2016 # the quotes are the page's
named=$(grep -o '`vipl_[a-z0-9]*/[a-z0-9_]*`' "$page" | tr -d '`' | sort -u)
[ -n "$tests" ] || complain "tests/vipl has no tests"
[ -n "$named" ] || complain "$page names no test"
for name in $named; do
    grep -qx "$name" <<<"$tests" || complain "$page: there is no test $name"
done
while read -r name; do
    grep -q "\`$name\`" "$page" || complain "$page: $name is missing"
done < <(grep -o '\<Vip[A-Z][A-Za-z]*' via/vipl/vipl.map
    grep -o '^#define VIP_\(STATUS\|CONTROL\)_[A-Z_]*' via/vipl/vipl.h | sed 's/.* //'
    sed -n '/^typedef enum/,/^}/s/^    \(VIP_[A-Z_]*\).*/\1/p' via/vipl/vipl.h)
finish
