#!/bin/bash
# Installs the programs that the tests run, from Debian; says nothing and is quick where all of them are there.
#
# supercronic is in Debian's testing suite alone. Where the configured suites don't have it, the testing source is derived
# from the stable one that is there, and pinned so that nothing else ever comes from it.
set -euo pipefail

declare -A package_of=(
    [strace]=strace [faketime]=faketime [nginx]=nginx-light [sshd]=openssh-server [supervisord]=supervisor
    [shellcheck]=shellcheck [hyperfine]=hyperfine [git]=git [curl]=curl [perl]=perl [python3]=python3
    [supercronic]=supercronic [tini]=tini [systemd-analyze]=systemd [mkfs.btrfs]=btrfs-progs [mkfs.ext4]=e2fsprogs
    [findmnt]=util-linux [apache2]=apache2-bin [fcgiwrap]=fcgiwrap [gitolite]=gitolite3 [squid]=squid
    [dulwich]=python3-dulwich
)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing=()
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; install them (on Debian, as root, this script does it)" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" >&2; }

# A package that is a service must not start it: a test starts its own, on loopback.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=yes
fi
trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT

candidate() { LC_ALL=C apt-cache policy "$1" | awk '/Candidate:/ { print $2 }' | grep -v '^(none)$'; }

# The stable source with its suites replaced by `testing`; security and backports have other suites and are left out.
derive_testing() {
    local codename list
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    printf 'Package: %s\nPin: release a=testing\nPin-Priority: %d\n\n' '*' -1 supercronic 90 \
        >/etc/apt/preferences.d/gitsync-testing
    for list in /etc/apt/sources.list.d/*.sources; do
        if [ -e "$list" ] && grep -Eq "^Suites:(.* )?$codename( |\$)" "$list"; then
            # A stanza whose suites include the plain code name, and the first such one only.
            awk -v RS= -v suite="$codename" '$0 ~ "Suites:([^\n]* )?" suite "( |\n|$)" { print; exit }' "$list" |
                sed -E 's/^Suites:.*/Suites: testing/; s/^Components:.*/Components: main/' \
                    >/etc/apt/sources.list.d/gitsync-testing.sources
            return
        fi
    done
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        if [ -e "$list" ] && grep -Eq "^deb .* $codename " "$list"; then
            grep -E "^deb .* $codename " "$list" | head -n 1 | sed -E "s/ $codename .*/ testing main/" \
                >/etc/apt/sources.list.d/gitsync-testing.list
            return
        fi
    done
    echo "no Debian source found to derive testing from" >&2
    return 1
}

apt update
if [[ " ${missing[*]} " == *" supercronic "* ]] && ! candidate supercronic >/dev/null; then
    derive_testing
    apt update
fi
apt install -y --no-install-recommends "${missing[@]}"
