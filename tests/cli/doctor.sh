#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: doctor finds nothing to fail where the tests run, and tells programs apart.
cd "$(dirname "$0")" || exit 1
. ./lib.sh

expect 0 doctor
quiet
for check in library provider cpus runtime-dir memfd process-vm userfaultfd membarrier memlock \
    hardware device; do
    says "^(ok|note|warn) +$check "
done
expect 0 doctor sh
says '^ok +program .*/sh takes the preload'

printf '#!/usr/bin/env sh\n' >"$scratch/script"
chmod +x "$scratch/script"
expect 0 doctor "$scratch/script"
says "^ok +program .*$scratch/script, run by .*/sh takes the preload"

if [ -x /sbin/ldconfig ]; then
    expect 1 doctor /sbin/ldconfig
    says '^FAIL +program .* will not see via0'
    says '-> it is linked statically'
fi

# Another machine's program: an ELF header that says so.
head -c 64 "$(readlink -f /proc/self/exe)" >"$scratch/foreign"
printf '\x08\x00' | dd of="$scratch/foreign" bs=1 seek=18 conv=notrunc status=none
chmod +x "$scratch/foreign"
expect 1 doctor "$scratch/foreign"
says '-> it is for another machine'

expect 1 doctor no-such-program-anywhere
says '^FAIL +program'

# A process: with the library, in an environment that was cleared, and none at all. A process
# stopped by reading a pipe is there for as long as doctor looks.
mkfifo "$scratch/hold"
process_is() { # STATUS PATTERN COMMAND...
    local wanted=$1 pattern=$2
    shift 2
    "$@" <"$scratch/hold" >"$scratch/started" &
    local pid=$!
    exec 9>"$scratch/hold"
    until [ -s "$scratch/started" ]; do :; done
    expect "$wanted" doctor --pid "$pid"
    says "$pattern"
    exec 9>&-
    wait "$pid" || true
}
process_is 0 '^ok +process +process [0-9]+ has via0 under it' \
    "$viaduct" run -- sh -c 'echo started; read -r line'
process_is 1 '^FAIL +process +process [0-9]+ was started without LD_PRELOAD' \
    env -i /bin/sh -c 'echo started; read -r line'
says '-> sudo, su, env -i, .* clear the environment'
expect 1 doctor --pid 999999999
says '^FAIL +process '

# A wrong configuration is found, and named by the library itself.
export VIADUCT_NICS=nonsense
expect 1 doctor
says '^FAIL +device '
unset VIADUCT_NICS

finish
