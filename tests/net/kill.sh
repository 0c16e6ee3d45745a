# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# A program is killed: its peer, which has something under way, hears of it from the host, long
# before its ACK timeouts would tell: 8 times 4.3 seconds here. And who comes next is served.
# shellcheck disable=SC2317 # conditions are called by name
# shellcheck source=tests/net/bed.sh
. "$(dirname "$0")/bed.sh"

carried() { awk '$1 == "w0:" { print $3 }' /proc/net/dev; }
has_carried() { [ "$(carried)" -ge "$1" ]; }

begin() { # OPTIONS...: $server and $client, with traffic between them
    port=$((port + 1))
    start there server ib_write_bw -F -x "${gid:-0}" -p $port -D 30 -u 20 "$@"
    server=$started
    await or_over "$server" listens_tcp $port
    start here client ib_write_bw -F -x "${gid:-0}" -p $port -D 30 -u 20 "$@" 10.9.0.2
    client=$started
    await has_carried $(($(carried) + 2000))
}

heard_soon() {
    [ $((SECONDS - killed)) -lt 15 ] &&
        grep -q "status 12\|transport retry counter exceeded\|Completion with error" "$work/client"
}

dies() { # NAME: the server is killed
    kill -9 "$server"
    local killed=$SECONDS
    end_of "$client"
    say "$1: the peer ends after $((SECONDS - killed)) s" heard_soon
    end_of "$server"
}

begin -s 65536
dies "the only process of its host is killed"
gid=2 begin -s 65536
dies "the same by IPv6"

# Another process of that host is there to tell.
start there waiting rping -s -a 10.9.0.2 -p 8999
other_server=$started
await listens there 8999
begin -s 65536
dies "one of two processes is killed"
start here next rping -c -a 10.9.0.2 -p 8999 -C 10 -V
end_of "$started"
next=$status
end_of "$other_server"
say "the other one goes on: client $next, server $status" both_fine "$next" "$status"

# Started again at once: same address, same slot, and a queue pair that is no more.
begin -s 65536
kill -9 "$server"
killed=$SECONDS
end_of "$server"
start there server rping -s -P -a 10.9.0.2 -p 8998
server=$started
end_of "$client"
say "a process is restarted: the peer ends after $((SECONDS - killed)) s" heard_soon
await listens there 8998
start here client rping -c -a 10.9.0.2 -p 8998 -C 1000000
client=$started
await has_carried $(($(carried) + 500))
kill -9 "$client"
end_of "$client"
start here client rping -c -a 10.9.0.2 -p 8998 -C 10 -V
end_of "$started"
say "a client is killed while it is connected: the next one is served" [ "$status" = 0 ]
kill -9 "$server"
end_of "$server"
finish
