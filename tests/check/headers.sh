#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that every header compiles alone: in C, the public ones also in C++.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

warnings="-Wall -Wextra -Wshadow -Wconversion -Werror"

# alone COMPILER ARGS... HEADER
alone() {
    local header=${!#}
    echo "#include \"$header\"" |
        "${@:1:$#-1}" -fsyntax-only -D_GNU_SOURCE= -Iendpoints -I. - ||
        complain "$header: does not compile alone with $1"
}

for header in $(files '*.h' | grep '^endpoints/' | sed 's|^endpoints/||'); do
    # shellcheck disable=SC2086
    alone "${CC:-cc}" -x c -std=gnu17 $warnings "$header"
done
for header in $(files '*.h' | grep '^via/'); do
    # shellcheck disable=SC2086
    alone "${CC:-cc}" -x c -std=gnu17 $warnings "$header"
done
# via/NAME/NAME.h is what programs include.
for header in endpoints/viaduct.h $(files '*.h' | grep -E '^via/([^/]*)/\1\.h$'); do
    # shellcheck disable=SC2086
    alone "${CXX:-c++}" -U_GNU_SOURCE -x c++ -std=c++17 $warnings "$header"
done
finish
