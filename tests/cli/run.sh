#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: `viaduct run` hands over environment, arguments and status, and explains what it can't
# start.
cd "$(dirname "$0")" || exit 1
. ./lib.sh
# A sanitizer's runtime must come first in LD_PRELOAD; run keeps what is there in front.
export LD_PRELOAD=${CLI_PRELOAD-}
[ -n "$LD_PRELOAD" ] || unset LD_PRELOAD

expect 0 run -- env
says "^LD_PRELOAD=(.*:)?$(realpath "$VIADUCT_LIBRARY")\$"
if grep -q '^VIADUCT_NICS=' <<<"$out"; then wrong 'VIADUCT_NICS is set without --nic'; fi
quiet

expect 0 run --nic via0=127.0.0.1 --nic v-1.a_b=::1+127.0.0.3 --link=shm \
    --runtime-dir "$scratch/dir" env
says '^VIADUCT_NICS=via0=127.0.0.1,v-1.a_b=::1\+127.0.0.3$'
says '^VIADUCT_LINK=shm$'
says "^VIADUCT_RUNTIME_DIR=$scratch/dir\$"

# Preloaded twice, the library stands there once.
expect 0 run -- "$viaduct" run -- env
[ "$(grep '^LD_PRELOAD=' <<<"$out" | grep -o 'libviaduct\.so' | wc -l)" -eq 1 ] ||
    wrong 'the library is not preloaded once'

# Options behind the program are the program's.
expect 0 run printf '%s\n' --help 'a b'
says '^--help$'
says '^a b$'
for status in 0 1 3 77; do
    expect $status run -- sh -c "exit $status"
done

expect 2 run
complains 'no PROGRAM'
expect 2 run -- no-such-program-anywhere
complains "'no-such-program-anywhere' on the PATH"
expect 2 run -- ./no/such/file
complains "'./no/such/file': there is no such file"
expect 2 run -- "$scratch"
complains "can't be executed"
: >"$scratch/plain"
expect 2 run -- "$scratch/plain"
complains "can't be executed"
for bad in via0 =127.0.0.1 via0= via0=localhost 0via=127.0.0.1 'v a=127.0.0.1' via0=127.0.0 \
    via0=127.0.0.1+ via0=127.0.0.1++::1 a-name-that-is-longer-than-any-can-be=127.0.0.1; do
    expect 2 run --nic "$bad" -- true
    complains "--nic: '.*"
done
expect 2 run --link carrier-pigeon -- true
complains "--link: 'carrier-pigeon'"

# A program that can't take the preload runs all the same, after a warning. Debian's ldconfig is
# linked statically.
if [ -x /sbin/ldconfig ]; then
    expect 0 run -- /sbin/ldconfig --version
    complains 'warning: .* linked statically'
fi

finish
