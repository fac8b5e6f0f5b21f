#!/bin/bash
# Builds the image for real and runs it, where there is no docker and no registry: buildah with chroot isolation, on a base
# made by debootstrap from the Debian source that this machine uses. Needs root, buildah, debootstrap, git, and cargo, which
# runs the instructions of the build stage here, or a built program in GITSYNC_BINARY (either on a Debian no newer than the
# base). Takes some minutes; not part of CI.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
started=
export TMPDIR=$work
store=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
finish() {
    local process
    for process in /proc/[0-9]*; do
        case $(readlink "$process/root") in
        "$work"/*) kill -s KILL "${process#/proc/}" ;;
        esac
    done
    if [ -n "$started" ]; then wait "$started" || true; fi
    buildah "${store[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT
step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
# until_so WHAT COMMAND…: waits for it, two minutes at most.
until_so() {
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ] || ! kill -s 0 "$started"; then
            cat "$work/log" >&2
            fail "waited in vain for: $what"
        fi
        sleep 0.2
    done
    echo "ok: $what"
}

step "the program, by the instructions of the Dockerfile's build stage"
binary=${GITSYNC_BINARY:-}
if [ -z "$binary" ]; then
    mkdir "$work/src"
    # Each instruction on one line, comments left out; /gitsync, where the stage puts its result, is in $work here.
    # shellcheck disable=SC2016
    sed -n '/ AS build$/,/^FROM \${BINARY}/p' Dockerfile | sed -e '1d;$d' -e '/^ *#/d' -e 's|/gitsync$|"$work"/gitsync|' |
        sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' >"$work/stage"
    while read -r instruction rest; do
        case $instruction in
        COPY)
            read -ra names <<<"$rest"
            to=$work/src/${names[-1]}
            unset 'names[-1]'
            mkdir -p "$(dirname "$to")"
            for name in "${names[@]}"; do
                grep -qxF "!$name" .dockerignore || fail "$name does not reach the builder"
                cp -r "$name" "$to"
            done
            ;;
        RUN) (cd "$work/src" && work=$work CARGO_TARGET_DIR=target sh -ec "$rest") ;;
        WORKDIR | '') ;;
        *) fail "the stage has an instruction that is not known here: $instruction" ;;
        esac
    done <"$work/stage"
    binary=$work/gitsync
fi
"$binary" --version

step "a base image, as debian:stable-slim is laid out"
source=$(grep -lsE '^Suites:' /etc/apt/sources.list.d/*.sources | head -n 1)
mirror=$(sed -n 's/^URIs: *//p' "$source" | head -n 1)
debootstrap --variant=minbase stable "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; fail debootstrap; }
rm -f "$work/base/etc/apt/sources.list"
{
    awk -v RS= 'NR == 1' "$source" | sed 's/^Suites:.*/Suites: stable stable-updates/; s/^Components:.*/Components: main/'
} >"$work/base/etc/apt/sources.list.d/debian.sources"
# A machine that lives on a frozen mirror has told its apt so; the base lives on the same.
apt-config dump | grep -i '^Acquire::Check-Valid-Until' >"$work/base/etc/apt/apt.conf.d/10mirror" || true
cat "$work/base/etc/debian_version"

base=$(buildah "${store[@]}" from scratch)
buildah "${store[@]}" add -q "$base" "$work/base" / >/dev/null
buildah "${store[@]}" commit -q "$base" localhost/base >/dev/null
rm -rf "$work/base"
holder=$(buildah "${store[@]}" from scratch)
buildah "${store[@]}" add -q "$holder" "$binary" /gitsync >/dev/null
buildah "${store[@]}" commit -q "$holder" localhost/binary >/dev/null

step "the image"
# The stage that builds the program is not needed here, and this buildah may be too old to see that by itself.
# shellcheck disable=SC2016
sed '/ AS build$/,/^FROM \${BINARY}/{/^FROM \${BINARY}/!d}' Dockerfile >"$work/Dockerfile"
buildah "${store[@]}" build --isolation chroot --format docker --ignorefile .dockerignore -f "$work/Dockerfile" \
    --build-arg BASE_IMAGE=localhost/base --build-arg BINARY=localhost/binary --pull-never -t localhost/gitsync .
buildah "${store[@]}" images
buildah "${store[@]}" inspect --type image localhost/gitsync |
    python3 -c 'import json, sys; c = json.load(sys.stdin)["Docker"]["config"]
for k in ("User", "Entrypoint", "Cmd", "Volumes", "StopSignal", "Healthcheck", "Labels"): print(k, json.dumps(c.get(k)))'

container=$(buildah "${store[@]}" from --pull-never localhost/gitsync)
mkdir "$work/volumes" "$work/volumes/repo" "$work/volumes/public"
upstream=$work/volumes/upstream.git
git init -q --bare -b main "$upstream"
first=$(git -C "$upstream" -c user.name=a -c user.email=a@example.org \
    commit-tree -m first "$(git -C "$upstream" mktree </dev/null)")
git -C "$upstream" update-ref refs/heads/main "$first"
chown -R 10001:10001 "$work/volumes"
chmod 755 "$work" "$work/volumes"
as_git() { git -c safe.directory='*' -C "$upstream" "$@"; }
job='mkdir -p state && date >>state/now'
site='ls -l >{public_dir}/index.html'
inside() {
    buildah "${store[@]}" run --isolation chroot \
        -v "$work/volumes/repo:/repo" -v "$work/volumes/public:/public" -v "$upstream:/upstream.git" \
        -e GIT_SYNC_REMOTE_URL=/upstream.git -e GIT_SYNC_SYNC_INTERVAL="${interval:-1}" -e GIT_SYNC_TICK_INTERVAL=2 \
        -e GIT_SYNC_TICK_COMMAND="$job" -e GIT_SYNC_BUILD_COMMAND="$site" "$container" -- "$@"
}

step "what is in it"
inside sh -ec 'id; gitsync --version; git --version; python --version; ssh -V; tini --version; supervisord --version
    dpkg-query -W supercronic; supercronic -quiet -test /opt/gitsync/crontab; ls -ld /repo /public; ls -l /opt/gitsync'
[ "$(inside id -u)" = 10001 ] || fail "not the user it should be"

step "a bad interval stops the start"
code=0
interval=soon inside /usr/bin/tini -- /opt/gitsync/entrypoint.sh supercronic || code=$?
[ "$code" -ne 0 ] || fail "it started"
[ ! -e "$work/volumes/repo/.git" ] || fail "it began all the same"

ticks() { as_git rev-list --count --grep='^chore(state): tick at' main; }
more_ticks_than() { [ "$(ticks)" -gt "$1" ]; }
site_is_there() { [ -s "$work/volumes/public/index.html" ]; }
for scheduler in supercronic supervisord; do
    step "the entry point with $scheduler"
    before=$(ticks 2>/dev/null || echo 0)
    set -m
    inside /usr/bin/tini -- /opt/gitsync/entrypoint.sh "$scheduler" >"$work/log" 2>&1 &
    started=$!
    set +m
    until_so "ticks arrive upstream" more_ticks_than $((before + 3))
    until_so "the site is published" site_is_there
    # The health check, word for word.
    inside sh -c "$(sed -n 's/^ *CMD exec \(gitsync status\)/\1/p' Dockerfile)" || fail "not healthy"
    pid=$(pgrep -f "^/usr/bin/tini -- /opt/gitsync/entrypoint.sh $scheduler" -g "$started" | head -n 1)
    [ -n "$pid" ] || pid=$(pgrep -f "^/usr/bin/tini -- /opt/gitsync/entrypoint.sh $scheduler" | head -n 1)
    echo "stopping tini, pid $pid"
    began=$SECONDS
    kill -s TERM "$pid"
    code=0
    wait "$started" || code=$?
    started=
    echo "stopped after $((SECONDS - began)) s, exit code $code"
    [ $((SECONDS - began)) -lt 30 ] || fail "not within the grace"
    cat "$work/log"
done
git -c safe.directory='*' -C "$work/volumes/repo" fsck --full --strict
step "PASSED"
