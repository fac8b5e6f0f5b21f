#!/usr/bin/env bash
# Mutation testing: changes one expression or function of a source file at a time, and looks whether a test fails.
#
#     tests/mutants.sh [FILE…]        # without files: every file that it knows tests for
#
# The tests of a file run in stages, the quick ones first; a later stage runs for what an earlier one missed. What all of
# them miss has to be in tests/mutants.equivalent, each line with the reason why no test can tell it from the original.
#
# MUTANTS_DIR is where the copy of the sources, the build and the results are: some 3 GB, by default in target/mutants.
# Needs cargo-mutants: cargo install cargo-mutants --locked.
set -euo pipefail
cd "$(dirname "$0")/.."

# The stages of a file: one line of arguments for `cargo test` each.
stages_of() {
    case $1 in
    src/policy.rs | src/plan.rs)
        printf -- '--lib\n--test plan_model\n--test dry_parity --test divergence\n--test sync --test tick --test init_sync\n'
        ;;
    # The unit tests beside these catch nearly all.
    src/state/*) printf -- '--lib\n--test lock --test records\n--test divergence --test misplaced --test sync --test remotes\n' ;;
    src/git/survey.rs) printf -- '--test follow\n--test git_settings --test meddling --test fifos\n' ;;
    src/git/place.rs) printf -- '--test follow\n--test meddling --test fifos\n--test long power_loss::order_of\n' ;;
    src/git/rescue.rs) printf -- '--test divergence\n--test meddling --test job_git --test records --test git_settings\n--test init_sync --test clock\n' ;;
    src/git/index.rs) printf -- '--test follow\n--test git_settings --test tick --test fifos\n--test damage\n' ;;
    src/git/commit.rs | src/git/changed.rs) printf -- '--test tick\n--test fifos --test git_settings\n--test damage --test divergence\n' ;;
    # Moves references.
    src/git.rs) printf -- '--test follow\n--test tick --test divergence\n--test damage --test meddling\n' ;;
    src/publish/command.rs) printf -- '--lib\n--test job_and_site\n' ;;
    src/publish.rs | src/publish/*) printf -- '--test publish\n--lib\n--test job_and_site\n' ;;
    *) return 1 ;;
    esac
}

known() {
    local file
    git ls-files 'src/*.rs' | grep -v tests.rs | while read -r file; do
        ! stages_of "$file" >/dev/null || echo "$file"
    done
}

work=${MUTANTS_DIR:-target/mutants}
mkdir -p "$work"
work=$(cd "$work" && pwd)
export CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_DEBUG=false
if [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000 ] 2>/dev/null; then
    export TMPDIR=/dev/shm
fi

# A copy at a fixed place, so that what is built is of use to the next run; an interrupted run harms no sources.
copy_sources() {
    rm -rf "$work/tree"
    mkdir "$work/tree"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -c 2>/dev/null | tar -x -C "$work/tree"
}

# Runs the stages of one file. What is left is in missed.txt and timeout.txt of its results.
run() {
    local file=$1 out stage args code
    out=$work/results/${file//\//-}
    rm -rf "$out"
    mkdir -p "$out"
    while read -r stage; do
        echo "=== $file: cargo test $stage"
        # What stands after `--` would not keep cargo-mutants from building the other tests.
        # shellcheck disable=SC2086
        mapfile -t args < <(printf -- '--cargo-arg=%s\n' $stage)
        code=0
        cargo mutants --in-place --dir "$work/tree" --output "$out" --file "$file" --iterate --no-shuffle \
            --minimum-test-timeout 60 --timeout-multiplier 3 --caught "${args[@]}" </dev/null || code=$?
        # 2: something was missed; 3: something timed out.
        case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac
        [ -s "$out/mutants.out/missed.txt" ] || [ -s "$out/mutants.out/timeout.txt" ] || break
    done < <(stages_of "$file")
}

# A mutant without its line and column, which every edit moves.
named() { sed -E 's/^([^:]+):[0-9]+:[0-9]+:/\1:/' "$@" | sort; }

if [ $# -eq 0 ]; then
    mapfile -t files < <(known)
else
    files=("$@")
    for file in "${files[@]}"; do
        stages_of "$file" >/dev/null || { echo "$file: $0 knows no tests for it; add it to stages_of" >&2; exit 2; }
    done
fi
copy_sources
for file in "${files[@]}"; do run "$file"; done

echo
survived=0
for file in "${files[@]}"; do
    out=$work/results/${file//\//-}/mutants.out
    count() { cat "$@" 2>/dev/null | wc -l; }
    # Caught in an earlier stage: caught, or not to be built.
    left=$(comm -23 <(named "$out/missed.txt") <(grep -v '^#' tests/mutants.equivalent | sed 's/\(.*\) | .*/\1/' | sort))
    printf '%s: %d caught or unviable, %d timed out, %d missed, %d of them not listed\n' "$file" \
        "$(count "$out"/{previously_caught,caught,unviable}.txt)" "$(count "$out/timeout.txt")" "$(count "$out/missed.txt")" \
        "$(printf '%s' "$left" | grep -c . || true)"
    [ -z "$left" ] || { printf '%s\n' "$left" | sed 's/^/    /'; survived=1; }
done
exit $survived
