#!/bin/bash
# Runs the two commands of the README on a bare Debian, as root and as a user: a chroot made by debootstrap, with Rust, a C
# compiler and git in it and nothing else. Needs root, debootstrap and the crates in cargo's cache (`cargo fetch`); takes some
# fifteen minutes. An argument is the Debian suite to use instead of this system's own.
#
# Everything is mounted in a mount namespace of its own, and goes with it. The crates and the toolchain are this system's.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" -eq 0 ] || { echo "run this as root: it makes a chroot" >&2; exit 1; }
    command -v debootstrap >/dev/null || { echo "install debootstrap" >&2; exit 1; }
    suite=${1:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
    mirror=$(sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+) .*/\2/p' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
    cargo fetch --locked
    root=$(mktemp -d)
    trap 'rm -rf --one-file-system "$root"' EXIT
    debootstrap --variant=minbase --include=gcc,libc6-dev,git,ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
    rm -f "$root.log"
    mkdir -p "$root/opt" "$root/src" "$root/cargo"
    cp -a "$(rustc --print sysroot)" "$root/opt/rust"
    home=${CARGO_HOME:-$HOME/.cargo}
    for part in registry config.toml; do
        [ ! -e "$home/$part" ] || cp -aL "$home/$part" "$root/cargo/"
    done
    # What git knows of, as it lies here: uncommitted changes are tested too.
    git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$root/src"
    chroot "$root" useradd --create-home --shell /bin/sh tester
    unshare --mount --pid --fork bash tests/bare.sh --inside "$root"
    exit
fi

root=$2
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mapfile -t commands < <(sed -nE 's/^(cargo (run|test)[^#]*).*/\1/p' README.md)
[ "${#commands[@]}" -ge 2 ] || { echo "README.md does not give two commands" >&2; exit 1; }
for user in root tester; do
    chroot "$root" chown -R "$user" /src /cargo
    for command in "${commands[@]:0:2}"; do
        printf '\n=== as %s: %s\n' "$user" "$command"
        chroot "$root" su "$user" -s /bin/sh -c "
            cd /src && export PATH=/opt/rust/bin:/usr/bin:/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true TMPDIR=/dev/shm
            exec $command"
    done
done
printf '\nboth commands are green on a bare machine, as root and as a user\n'
