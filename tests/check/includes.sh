#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows that the layers keep to themselves: what a folder may include is written here.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Folders of endpoints/ whose headers each folder of endpoints/ may use, beside its own.
declare -A may=(
    [wire]=""
    [trace]="core wire"
    [engine]="wire trace"
    [link]="core engine wire trace"
    [core]="link engine wire trace"
    [uapi]="core link engine wire trace"
)

quoted() { sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\(.*\)".*/\1/p' "$1"; }
angled() { sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*<\(.*\)>.*/\1/p' "$1"; }

for file in $(files '*.[ch]' | grep '^endpoints/.*/'); do
    own=$(cut -d/ -f2 <<<"$file")
    [ -n "${may[$own]+set}" ] || complain "$file: no rule for the folder $own in this script"
    for header in $(quoted "$file"); do
        folder=${header%%/*}
        [ "$folder" != "$header" ] || continue
        case " $own ${may[$own]-} " in
        *" $folder "*) ;;
        *) complain "$file: $own/ may not include \"$header\"" ;;
        esac
    done
    # The seam between core and what carries its work, and the memory that peers may reach.
    case $own in core)
        for header in $(quoted "$file"); do
            case $header in link/link.h | link/shm/share.h) ;;
            link/*) complain "$file: core/ may use link/link.h, not \"$header\"" ;;
            esac
        done ;;
    esac
    case $own in wire | engine)
        for header in $(angled "$file"); do
            case $header in infiniband/* | sys/socket.h | pthread.h | unistd.h | time.h)
                complain "$file: $own/ does no I/O and has no clock, but includes <$header>" ;;
            esac
        done ;;
    esac
done

# Above the waist: the public verbs API and its own folder, or credit/.
for file in $(files '*.[ch]' | grep '^via/'); do
    own=$(cut -d/ -f2 <<<"$file")
    for header in $(quoted "$file"); do
        case ${header%%/*} in "$header" | "$own" | credit) ;;
        *) complain "$file: via/$own may not include \"$header\"" ;;
        esac
    done
    for header in $(angled "$file"); do
        case $header in infiniband/verbs.h | rdma/rdma_cma.h) ;;
        infiniband/* | rdma/*) complain "$file: via/ may not include <$header>" ;;
        esac
    done
done

# Examples run on hardware too, so they know nothing of the NIC's inside.
for file in $(files '*.[ch]' | grep '^examples/'); do
    for header in $(quoted "$file"); do
        case $header in core/* | uapi/* | link/* | engine/* | wire/* | trace/*)
            complain "$file: an example may not include \"$header\"" ;;
        esac
    done
done
finish
