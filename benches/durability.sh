#!/usr/bin/env bash
# What it costs a tick that its objects, index, references and marker are on disk when it says so.
#
# The same tick, by turns: as it is, and with fsync, fdatasync and syncfs made no-ops by strace. Both run under strace with the
# same filter, so that what strace itself costs is in both. Needs git and strace; prints medians and their ratio.
#
#   cargo build --release && benches/durability.sh [ROUNDS]
set -euo pipefail
rounds=${1:-20}
gitsync=$(cd "$(dirname "$0")/.." && pwd)/target/release/gitsync
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=bench GIT_AUTHOR_EMAIL=bench@example.org
export GIT_COMMITTER_NAME=bench GIT_COMMITTER_EMAIL=bench@example.org

git init -q --bare -b main upstream.git
git init -q -b main seed
mkdir seed/state
for n in $(seq 100); do echo "$n" > "seed/state/$n"; done
git -C seed add -A
git -C seed commit -qm seed
git -C seed push -q ../upstream.git main
"$gitsync" init-sync -q --repo ours --remote-url "$folder/upstream.git" > /dev/null

calls=fsync,fdatasync,syncfs
# shellcheck disable=SC2016 # the job's shell expands it
job='for n in 1 2 3; do date +%s%N > state/$n; done'
one() { # one FILE STRACE-OPTIONS…: a tick's milliseconds, appended to FILE
    local file=$1 start
    shift
    start=$(date +%s%N)
    strace -f --seccomp-bpf -o calls.log -e trace=$calls "$@" "$gitsync" tick -q --repo ours -- sh -c "$job" > /dev/null
    echo $((($(date +%s%N) - start) / 1000)) >> "$file"
}
for _ in $(seq "$rounds"); do
    one durable.us
    grep -c -E 'sync' calls.log > count || true
    one fast.us -e inject=$calls:retval=0
done
median() { sort -n "$1" | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
durable=$(median durable.us)
fast=$(median fast.us)
awk -v d="$durable" -v f="$fast" -v c="$(cat count)" -v n="$rounds" 'BEGIN {
    printf "a tick that commits 3 files and pushes them to a path remote, median of %d:\n", n
    printf "  synced to disk  %.1f ms (%d sync calls, gitsync and the receiving git together)\n", d / 1000, c
    printf "  not synced      %.1f ms\n", f / 1000
    printf "  ratio           %.2f\n", d / f
}'
