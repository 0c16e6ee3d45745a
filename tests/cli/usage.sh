#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows: help goes to stdout and fits a screen; a bad argument is one line on stderr that names
# it, and status 2. No device is touched.
cd "$(dirname "$0")" || exit 1
. ./lib.sh

# Help, against the texts in golden/ (CLI_GOLDEN=write makes them anew).
for command in '' devices run pingpong bench vibe doctor top remove add; do
    # shellcheck disable=SC2086 # no word at all is meant
    expect 0 $command --help
    quiet
    golden=golden/help${command:+-$command}.txt
    [ "${CLI_GOLDEN-}" != write ] || cp "$scratch/out" "$golden"
    same "$golden" "$scratch/out"
    [ "$(wc -l <"$scratch/out")" -le 40 ] || wrong 'help does not fit a screen'
    [ "$(wc -L <"$scratch/out")" -le 90 ] || wrong 'help is too wide'
done
expect 0
same golden/help.txt "$scratch/out"
expect 0 help bench
same golden/help-bench.txt "$scratch/out"
expect 0 --version
says '^viaduct [0-9]+\.[0-9]+\.[0-9]+$'

expect 2 nonsense
complains "'nonsense'"
expect 2 help nonsense
complains "'nonsense'"

# Options that every command refuses alike.
for command in devices run pingpong bench vibe doctor top remove add; do
    expect 2 "$command" --nonsense
    complains "^viaduct $command: .*'--nonsense'"
    expect 2 "$command" -Z
    complains "^viaduct $command: .*'-Z'"
done
expect 2 devices --json=yes
complains '--json takes no value'
expect 2 devices extra
complains "'extra'"
expect 2 top extra
complains "'extra'"
expect 2 top --seconds 0
complains "--seconds: '0'"
expect 2 doctor one two
complains "'two'"

for command in pingpong bench; do
    expect 2 $command --sizes
    complains '--sizes needs a value'
    for bad in 0 x 8:4 8:64:*1 8:64:/2 8:64:+0 64x 2G -8 99999999999999999999 ''; do
        expect 2 $command --sizes="$bad"
        complains "--sizes: '.*' is not sizes"
    done
    for bad in '' nonsense send,nonsense; do
        expect 2 $command --op "$bad"
        complains "--op: '$bad' is not a list"
    done
    for bad in 0 -1 x 1.5 ''; do
        expect 2 $command --iters "$bad"
        complains "--iters: '$bad' is not a number"
    done
    expect 2 $command --port 65536
    complains "--port: '65536'"
    for bad in 0 0,x 0,1,2 -1,0 ''; do
        expect 2 $command --cpus "$bad"
        complains "--cpus: '$bad'"
    done
    expect 2 $command --cpus 100000,0
    complains "--cpus: '100000,0': CPU 100000"
    expect 2 $command --gid 256
    complains "--gid: '256'"
    expect 2 $command nonsense
    complains "'nonsense'"
    expect 2 $command client
    complains "'client' needs"
    expect 2 $command client host extra
    complains "'extra'"
    expect 2 $command server extra
    complains "'extra'"
done

for command in pingpong bench; do
    for bad in '' nonsense verbs,unet; do
        expect 2 $command --api "$bad"
        complains "--api: '$bad' is not a list"
    done
done
expect 2 bench --api vipl --op atomic
complains 'VIA has no atomics'
expect 2 vibe --json --csv
complains '--csv: not together'
expect 2 vibe --plot "$scratch/no"
complains '--plot: .* No such file'
expect 2 vibe --test nonsense
complains "--test: 'nonsense'"
expect 2 vibe --repeat 0
complains "--repeat: '0'"
expect 2 vibe server extra
complains "'extra'"

expect 2 bench --json --csv
complains '--csv: not together'
expect 2 bench --plot picture.png
complains "--plot: 'picture.png'"
expect 2 bench --plot "$scratch/no/such/folder.svg"
complains '--plot: .* No such file'
expect 2 bench --test bw --op atomic
complains 'bandwidth of atomics'
for bad in 0 -1 x nan inf ''; do
    expect 2 bench --seconds "$bad"
    complains "--seconds: '$bad'"
done
expect 2 bench --against nonsense
complains "--against: 'nonsense'"
expect 2 bench --depth 1
complains "--depth: '1'"

finish
