# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the checks share: they run in the top folder, and complain line by line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C
problems=0

complain() {
    printf '%s\n' "$*"
    problems=$((problems + 1))
}

# Exit 1 if there was a complaint.
finish() {
    echo "$problems problems"
    [ "$problems" -eq 0 ]
}

# Exit 77, which ctest shows as skipped, when a tool is missing.
need() {
    command -v "$1" >/dev/null || {
        echo "skipped: $1 is not installed (apt install ${2-$1})"
        exit 77
    }
}

# files PATTERN...: the tree's files whose names match, without what builds leave behind.
files() {
    local args=() pattern
    for pattern in "$@"; do
        args+=(-o -name "$pattern")
    done
    find . \( -path ./build -o -path ./.git \) -prune -o -type f \( "${args[@]:1}" \) -print |
        sed 's|^\./||' | sort
}

# scripts: every shell script, by its first line.
scripts() {
    local file
    for file in $(files '*'); do
        case ${file##*/} in
        *.sh) echo "$file" ;;
        *.*) ;;
        *) if head -c 40 "$file" | head -n 1 | grep -q '^#!.*sh$'; then echo "$file"; fi ;;
        esac
    done
}
