#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that shellcheck finds nothing in our scripts.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need shellcheck

mapfile -t all < <(scripts)
shellcheck -x -P SCRIPTDIR "${all[@]}" || complain "shellcheck complains"
finish
