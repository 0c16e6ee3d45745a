#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that an installed copy can be used from outside: by pkg-config and by CMake, in C and
# in C++, and that the result runs.
# Usage: install.sh BUILD-FOLDER
build=$(realpath "$1")
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need pkg-config
consumer=$PWD/tests/check/consumer
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

cmake --install "$build" --prefix "$root/usr" >"$root/log" || complain "cmake --install fails"
pc=$(find "$root/usr" -name viaduct.pc)
lib=$(dirname "$(dirname "$pc")")
export LD_LIBRARY_PATH=$lib

# expect NAME COMMAND...: the program prints the version the package has.
version=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --modversion viaduct)
expect() {
    [ "$("${@:2}")" = "$version" ] || complain "$1: does not print $version"
}

read -ra flags < <(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs viaduct)
"${CC:-cc}" -Wall -Werror -std=c11 "$consumer/main.c" -o "$root/c" "${flags[@]}"
expect "pkg-config, C" "$root/c"
"${CXX:-c++}" -Wall -Werror -x c++ "$consumer/main.c" -o "$root/cxx" "${flags[@]}"
expect "pkg-config, C++" "$root/cxx"

cmake -S "$consumer" -B "$root/build" -DCMAKE_PREFIX_PATH="$root/usr" >>"$root/log"
cmake --build "$root/build" >>"$root/log"
expect "CMake, C" "$root/build/consumer_c"
expect "CMake, C++" "$root/build/consumer_cxx"

read -ra flags < <(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs vipl)
"${CC:-cc}" -Wall -Werror -std=c89 tests/vipl/client89.c -o "$root/vipl" "${flags[@]}" ||
    complain "pkg-config vipl: a client does not link"

if [ -x "$build/bin/viaduct" ]; then
    [ -x "$root/usr/bin/viaduct" ] || complain "the viaduct command is not installed"
fi
finish
