#!/bin/bash
# Runs the two commands of the README on a bare Debian, as root and as a user: a chroot made by debootstrap, with Rust, a C
# compiler and git in it and nothing else. Needs root, debootstrap and a network for debootstrap; takes half an hour.
#
#   tests/bare.sh                           both commands, as root and as a user
#   tests/bare.sh tester 'cargo test …'     that command alone, as that user (root or tester)
#
# BARE_SUITE is the Debian suite to use instead of this system's own. BARE_ROOT is a folder where the chroot is made, used again
# and kept: what was built there is not built again.
#
# Everything is mounted, and runs, in namespaces of its own, and ends with them. The devices are made anew, so that nothing in
# there can put a file in the place of one of this system's. The crates and the toolchain are copies of this system's.
set -euo pipefail
cd "$(dirname "$0")/.."

make_chroot() {
    local suite mirror home part
    suite=${BARE_SUITE:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
    mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+) .*/\2/p' | head -n 1) || true
    debootstrap --variant=minbase --include=gcc,libc6-dev,git,ca-certificates "$suite" "$root" "$mirror" >"$root/log" 2>&1 ||
        { tail -n 20 "$root/log" >&2; return 1; }
    mkdir -p "$root/opt" "$root/src" "$root/cargo"
    cp -a "$(rustc --print sysroot)" "$root/opt/rust"
    cargo fetch --locked
    home=${CARGO_HOME:-$HOME/.cargo}
    for part in registry config.toml; do
        [ ! -e "$home/$part" ] || cp -aL "$home/$part" "$root/cargo/"
    done
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    chroot "$root" useradd --create-home --shell /bin/sh tester
    touch "$root/made"
}

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" -eq 0 ] || { echo "run this as root: it makes a chroot" >&2; exit 1; }
    command -v debootstrap >/dev/null || { echo "install debootstrap" >&2; exit 1; }
    root=${BARE_ROOT:-$(mktemp -d)}
    running=
    # shellcheck disable=SC2317 # The trap calls it.
    tidy() {
        # Killing the first process of the namespace kills all of them.
        [ -z "$running" ] || { kill -KILL "$running" && wait "$running"; } 2>/dev/null || true
        [ -n "${BARE_ROOT:-}" ] || rm -rf --one-file-system "$root"
    }
    trap tidy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    mkdir -p "$root"
    [ -e "$root/made" ] || make_chroot
    # What git knows of, as it lies here: uncommitted changes are tested too. What was built there stays.
    find "$root/src" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$root/src"
    # In the background, since a trap waits for a program in the foreground.
    unshare --mount --pid --fork --kill-child bash tests/bare.sh --inside "$root" "$@" &
    running=$!
    code=0
    wait "$running" || code=$?
    running=
    exit "$code"
fi

root=$2
shift 2
# A mount point, since whoever makes a mount namespace in there has to set how mounts below `/` spread.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
DEVICES
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

run_as() {
    local user=$1 command=$2
    printf '\n=== as %s: %s\n' "$user" "$command"
    chroot "$root" chown -R "$user" /src /cargo
    # Its own environment, which is what a login would give and a toolchain; the tests' files go to memory.
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" su "$user" -s /bin/sh -c "
        cd /src && export PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true \
            CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never TMPDIR=/dev/shm
        exec $command" </dev/null
}

if [ $# -gt 0 ]; then
    run_as "$1" "$2"
    exit
fi
mapfile -t commands < <(sed -nE 's/^(cargo (run|test)[^#]*).*/\1/p' README.md)
[ "${#commands[@]}" -ge 2 ] || { echo "README.md does not give two commands" >&2; exit 1; }
for user in root tester; do
    for command in "${commands[@]:0:2}"; do
        run_as "$user" "$command"
    done
done
printf '\nboth commands are green on a bare machine, as root and as a user\n'
