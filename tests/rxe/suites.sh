# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# In the guest: the suites of VIPL and of the verbs contract on the kernel's own NIC, both ends on
# one interface. That tests our tests. What is known to fail there, and why, is in `differences`:
# each of those tests must fail, and each line must be about one.
#
# Two processors, each goes on with the next program. Of the topologies two processes alone, the one
# that all tests have. Left out: XRC, which this NIC has not; a gigabyte, which takes too long; and
# what the device itself says of a peer's death, which is nothing.
bin=$1/tests
known=$(dirname "$0")/differences
export VIPL_TEST_DEVICE=rxe0 VIADUCT_TEST_DEVICE=rxe0 VIADUCT_TEST_GID=1 VIADUCT_TEST_SLOW=2

ip link add d0 type dummy
ip link set d0 mtu 4500
ip addr add 10.7.0.1/24 dev d0
ip link set d0 up
rdma link add rxe0 type rxe netdev d0
for _ in $(seq 100); do
    grep -qs 0a07:0001 /sys/class/infiniband/rxe0/ports/1/gids/1 && break
    sleep 0.1
done

now() { cut -d' ' -f1 /proc/uptime; }

run_program() { # NAME, on the processor of the shell
    local start status=0
    start=$(now)
    timeout 150 "$bin/$1" --plain --isolate --seconds 12 --known "$known" --not one_process \
        --not two_threads --not gigabyte --not vipl_crash/told_why \
        >"/run/out/$1" 2>&1 || status=$?
    echo "$1: status $status, from $start to $(now), $(tail -n 1 "/run/out/$1")"
    [ $status -eq 0 ] || echo "$1" >>/run/failed
}

take_turns() { # PROCESSOR
    local program
    taskset -cp "$1" $BASHPID >/dev/null
    for program in "${programs[@]}"; do
        ! mkdir "/run/turn/$program" 2>/dev/null || run_program "$program"
    done
}

programs=()
for program in "$bin"/contract_* "$bin"/vipl_*; do
    case $program in
    */vipl_client_* | */contract_xrc | */vipl_vi) ;;
    *) programs+=("${program##*/}") ;;
    esac
done
mkdir /run/turn
: >/run/failed
take_turns 0 &
take_turns 1 &
wait
# As many queue pairs as there may be: beside other programs this kernel's NIC locks itself up.
run_program vipl_vi
programs+=(vipl_vi)

# A line of the list that nothing failed by is out of date.
(cd /run/out && sed -n 's/^known \([^ ]*\):.*/\1/p' "${programs[@]}") >/run/held
mapfile -t held </run/held
while read -r pattern reason; do
    [[ $pattern != "#"* && -n $pattern ]] || continue
    for name in "${held[@]}"; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ $name != $pattern ]] || continue 2
    done
    echo "FAIL no test has failed by \"$pattern $reason\""
    echo "$pattern" >>/run/failed
done <"$known"

while read -r program; do
    [ ! -f "/run/out/$program" ] || grep -A 3 ^FAIL "/run/out/$program"
done </run/failed
for language in c cxx; do
    timeout 60 "$bin/vipl_client_$language" $language || echo client >>/run/failed
done
echo "${#programs[@]} programs"
[ ${#programs[@]} -gt 30 ] && [ ! -s /run/failed ]
