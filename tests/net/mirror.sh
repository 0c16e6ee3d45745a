# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# A network that brings back what was sent to a group: its members get it once all the same.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

in_there ip link add mirror type bridge mcast_snooping 0
in_there ip link set mirror up
in_there ip link set w1 master mirror
in_there ip link set w1 type bridge_slave hairpin on

# Of IPv4 the kernel itself drops what comes back.
VIADUCT_RUNTIME_DIR=$work/here VIADUCT_NICS=via0=fd09::1 "$bin/viaduct" run -- \
    "$bin/tests/contract_mcast" --filter '*/@(reaches|attached)*' >"$work/client" 2>&1
status=$?
touch "$work/server"
# shellcheck disable=SC2317 # called by name
ran() { [ "$status" = 0 ] && grep -q 'Tested: [1-9]' "$work/client"; }
say "each member gets one copy: $status" ran
finish
