# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# A cable that is pulled and plugged again within the time that retries last costs time only; one
# that stays out ends the connection with an error on both sides.
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

pull() { # SECONDS; "" for ever
    sleep 0.3
    ip link set w0 down
    [ -n "$1" ] || return
    sleep "$1"
    ip link set w0 up
    ip addr replace fd09::1/64 dev w0 nodad
}

pull 0.4 &
puller=$!
cm_pair "rping -s -a 10.9.0.2 -p PORT" "rping -c -a 10.9.0.2 -p PORT -C 30000 -V"
wait $puller

port=$((port + 1))
there timeout 50 ibv_rc_pingpong -g 0 -p $port -n 100000000 >"$work/server" 2>&1 &
server=$!
await
pull "" &
status=0
here timeout 50 ibv_rc_pingpong -g 0 -p $port -n 100000000 10.9.0.2 >"$work/client" 2>&1 ||
    status=$?
kill $server 2>/dev/null || true
wait $server || true
if grep -q "transport retry counter exceeded" "$work/client"; then
    echo "ok   the cable stays out: the client ends with an error"
else
    echo "FAIL the cable stays out: client $status, $(tail -n 1 "$work/client")"
    failed=$((failed + 1))
fi
finish
