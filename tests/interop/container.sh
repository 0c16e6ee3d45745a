#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The recipe for containers, without an engine: an ordinary user's own user, mount, process, network
# and IPC namespaces and another root folder. In it two programs meet on via0, and doctor finds
# nothing to fail.
#   container.sh              run the test
#   container.sh enter FOLDER COMMAND...   (itself, inside the namespaces)
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# The root of the container: the system's programs, its own /dev, /tmp and /proc.
enter() {
    local root=$1
    shift
    mkdir -p "$root"/{usr,etc,dev,proc,sys,tmp,viaduct}
    for folder in usr etc sys; do mount --rbind "/$folder" "$root/$folder"; done
    for link in bin sbin lib lib64; do ln -sfn "usr/$link" "$root/$link"; done
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev"
    mkdir "$root/dev/shm"
    for node in null zero urandom; do
        touch "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mount --bind "$VIADUCT_HOME" "$root/viaduct"
    ip link set lo up
    exec chroot "$root" "$@"
}

if [ "${1-}" = enter ]; then
    shift
    enter "$@"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/{root,viaduct/bin,viaduct/lib}
cp "$VIADUCT_BIN/viaduct" "$scratch/viaduct/bin/"
cp "$VIADUCT_LIBRARY" "$scratch/viaduct/lib/libviaduct.so.0"
ln -s libviaduct.so.0 "$scratch/viaduct/lib/libviaduct.so"
cp "$here/container.sh" "$scratch/"
cat >"$scratch/viaduct/inside" <<'INSIDE'
set -eu
PATH=/viaduct/bin:/usr/bin:/bin
viaduct doctor >/tmp/doctor || { cat /tmp/doctor; exit 1; }
viaduct run -- ibv_rc_pingpong -g 0 -n 500 -c &
# The server listens at its usual TCP port, 18515, of this network namespace.
until grep -q ':4853 .* 0A ' /proc/net/tcp /proc/net/tcp6; do :; done
viaduct run -- ibv_rc_pingpong -g 0 -n 500 -c 127.0.0.1
wait $!
echo met in a container
INSIDE
chmod -R a+rX "$scratch"

user=()
if [ "$(id -u)" -eq 0 ]; then
    chown 65534:65534 "$scratch/root"
    user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
cd /
env -i PATH="$PATH" VIADUCT_HOME="$scratch/viaduct" "${user[@]}" timeout -s KILL 50 \
    unshare --user --map-root-user --mount --pid --fork --kill-child --ipc --net --uts \
    bash "$scratch/container.sh" enter "$scratch/root" /bin/sh /viaduct/inside \
    >"$scratch/out" 2>&1 || { cat "$scratch/out"; exit 1; }
cat "$scratch/out"
grep -qx 'met in a container' "$scratch/out"
