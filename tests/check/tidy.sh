#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that clang-tidy finds nothing in the NIC and the examples, with the checks of .clang-tidy.
# Slow, so it is the build target `tidy` and no test.
# Usage: tidy.sh BUILD-FOLDER
build=$(realpath "$1")
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need clang-tidy

mapfile -t sources < <(files '*.c' | grep -E '^(endpoints|via|examples)/')
printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy -p "$build" --quiet ||
    complain "clang-tidy complains"
finish
