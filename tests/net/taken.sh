# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# An address has one NIC: who has the port in another runtime directory is not disturbed, and who
# comes second is told.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

# shellcheck disable=SC2317 # called by name
tells() { [ "$status" != 0 ] && grep -q "UDP port 4791 of 10.9.0.1 is taken" "$work/client"; }
# shellcheck disable=SC2317
holds_port() { ss -Hanu "src 10.9.0.1:4791" | grep -q .; }

second() { # a client of the server there, by another directory
    [ -d "$work/second" ] || mkdir -m 700 "$work/second"
    port=$((port + 1))
    start there server ibv_rc_pingpong -g 0 -p $port -n 10
    server=$started
    await or_over "$server" listens_tcp $port
    VIADUCT_LINK=roce VIADUCT_RUNTIME_DIR=$work/second VIADUCT_NICS=via0=10.9.0.1 \
        timeout 20 "$bin/viaduct" run -- ibv_rc_pingpong -g 0 -p $port -n 10 10.9.0.2 \
        >"$work/client" 2>&1
    status=$?
}

# The first is a server that nobody calls.
VIADUCT_LINK=roce start here first ib_write_lat -R -p 8999
first=$started
await or_over "$first" holds_port
second
say "the second NIC of an address is told so: client $status" tells
kill -9 "$server"
end_of "$server"
kill -9 "$first"
end_of "$first"
second
client=$status
end_of "$server"
say "and may begin once the first is gone: client $client, server $status" \
    both_fine "$client" "$status"
finish
