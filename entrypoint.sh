#!/bin/sh
# The container's start: one init-sync, one tick, then the scheduler, until a signal ends all of it.
#
#   entrypoint.sh                    supercronic with the crontab beside this file
#   entrypoint.sh supercronic        the same
#   entrypoint.sh supervisord        supervisord with the supervisord.conf beside this file
#   entrypoint.sh supercronic ARG…   the start-up, then that command as it is given
#   entrypoint.sh COMMAND ARG…       that command and nothing else (gitsync status, gitsync tick, sh)
#
# GIT_SYNC_SYNC_INTERVAL (30) and GIT_SYNC_TICK_INTERVAL (900) are whole seconds.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
child=
scheduler=
stopping=

say() { printf 'gitsync: %s\n' "$*" >&2; }
refuse() {
    say "$*"
    exit 2
}

# ---- intervals

# Refuses what is not a number of seconds: seconds NAME VALUE
seconds() {
    case $2 in
    '' | *[!0-9]* | 0* | ????????*)
        refuse "$1 is '$2': set it to whole seconds from 1 to 9999999, such as ${3}, without a unit or a leading zero"
        ;;
    esac
}

# The seven fields for "every N seconds", beginning at second AT of whatever N divides; fails where they can't say it,
# since */45 would fire at 0, 45, 0, 45: fields N AT
fields() {
    if [ "$1" -eq 1 ]; then
        echo '* * * * * * *'
    elif [ "$1" -lt 60 ] && [ $((60 % $1)) -eq 0 ]; then
        if [ $(($2 % $1)) -eq 0 ]; then echo "*/$1 * * * * * *"; else echo "$(($2 % $1))-59/$1 * * * * * *"; fi
    elif [ "$1" -eq 60 ]; then
        echo "$2 * * * * * *"
    elif [ $(($1 % 60)) -eq 0 ] && [ "$1" -lt 3600 ] && [ $((3600 % $1)) -eq 0 ]; then
        echo "$2 */$(($1 / 60)) * * * * *"
    elif [ "$1" -eq 3600 ]; then
        echo "$2 0 * * * * *"
    elif [ $(($1 % 3600)) -eq 0 ] && [ "$1" -lt 86400 ] && [ $((86400 % $1)) -eq 0 ]; then
        echo "$2 0 */$(($1 / 3600)) * * * *"
    elif [ "$1" -eq 86400 ]; then
        echo "$2 0 0 * * * *"
    else
        return 1
    fi
}

refuse_uneven() {
    refuse "$1 is '$2', which a crontab can't keep evenly: set it to seconds that divide a minute (1 2 3 4 5 6 10 12 15" \
        "20 30), to minutes that divide an hour (60 120 180 240 300 360 600 720 900 1200 1800) or to hours that divide a" \
        "day (3600 7200 10800 14400 21600 28800 43200 86400); or start with the command supervisord, which keeps any"
}

# Sets $crontab: the file beside this one, or that with the schedules of its two lines replaced.
choose_crontab() {
    crontab=$here/crontab
    if [ "$GIT_SYNC_SYNC_INTERVAL" -eq 30 ] && [ "$GIT_SYNC_TICK_INTERVAL" -eq 900 ]; then
        return
    fi
    sync_fields=$(fields "$GIT_SYNC_SYNC_INTERVAL" 0) || refuse_uneven GIT_SYNC_SYNC_INTERVAL "$GIT_SYNC_SYNC_INTERVAL"
    tick_fields=$(fields "$GIT_SYNC_TICK_INTERVAL" 15) || refuse_uneven GIT_SYNC_TICK_INTERVAL "$GIT_SYNC_TICK_INTERVAL"
    seven='^([^#[:space:]]+[[:space:]]+){7}'
    if ! made=$(mktemp -d) || ! sed -E "s|${seven}gitsync sync|$sync_fields gitsync sync|
        s|${seven}gitsync tick|$tick_fields gitsync tick|" "$crontab" >"$made/crontab"; then
        refuse "no place to write a crontab for other intervals: mount a tmpfs on /tmp, or set TMPDIR to a writable folder"
    fi
    crontab=$made/crontab
}

# ---- processes

# Every child of a process, by /proc, because a slim image has no ps.
children_of() {
    for status in /proc/[0-9]*/status; do
        while read -r key value _; do
            case $key in
            Pid:) pid=$value ;;
            PPid:)
                if [ "$value" = "$1" ]; then echo "$pid"; fi
                break
                ;;
            esac
        done 2>/dev/null <"$status"
    done
}

# A signal for us is one for what runs.
stop() {
    stopping=yes
    kill -s TERM "$child" 2>/dev/null
    if [ "$scheduler" != supercronic ]; then
        return
    fi
    # supercronic starts no more jobs now, and waits for those that run without telling them. Each is a process group of
    # its own, out of reach of whoever signals ours. Told once, a pass ends its job and itself within 20 s.
    told=
    while :; do
        for job in $(children_of "$child"); do
            case " $told " in
            *" $job "*) ;;
            *)
                kill -s TERM -- "-$job" 2>/dev/null || kill -s TERM "$job" 2>/dev/null
                told="$told $job"
                ;;
            esac
        done
        # The shell that supercronic gave a job is gone before the pass is.
        alive=
        for job in $told; do
            if kill -s 0 -- "-$job" 2>/dev/null; then alive=yes; fi
        done
        if [ -z "$alive" ] && ! kill -s 0 "$child" 2>/dev/null; then
            return
        fi
        sleep 0.1
    done
}

# Runs a command in the background, where a shell hears signals, and waits until it has ended. Gives its exit code.
run() {
    if [ -n "$stopping" ]; then
        return 143
    fi
    "$@" &
    child=$!
    # A signal that came between the two lines above found no child yet.
    if [ -n "$stopping" ]; then stop; fi
    while :; do
        wait "$child"
        code=$?
        # A trap interrupts the wait; only a child that is gone has told its own exit code.
        if ! kill -s 0 "$child" 2>/dev/null; then
            return "$code"
        fi
    done
}

# ---- the start

if [ $# -eq 0 ]; then
    set -- supercronic
fi
case $1 in
supercronic | supervisord) ;;
*) exec "$@" ;;
esac

: "${GIT_SYNC_SYNC_INTERVAL:=30}" "${GIT_SYNC_TICK_INTERVAL:=900}"
export GIT_SYNC_SYNC_INTERVAL GIT_SYNC_TICK_INTERVAL
seconds GIT_SYNC_SYNC_INTERVAL "$GIT_SYNC_SYNC_INTERVAL" 30
seconds GIT_SYNC_TICK_INTERVAL "$GIT_SYNC_TICK_INTERVAL" 900
bare=
if [ $# -eq 1 ]; then
    bare=$1
fi
if [ "$bare" = supercronic ]; then
    choose_crontab
    set -- supercronic -no-reap -quiet -passthrough-logs "$crontab"
elif [ "$bare" = supervisord ]; then
    set -- supervisord -c "$here/supervisord.conf"
fi

trap stop TERM INT HUP

run gitsync init-sync
code=$?
if [ -n "$stopping" ]; then
    exit "$code"
fi
case $code in
0) ;;
75) say 'the remote is out of reach for now; started all the same, with what is here, and the next pass tries again' ;;
*)
    say "not started: gitsync init-sync failed (exit $code); mend what it says above, then start again"
    exit "$code"
    ;;
esac

# supervisord's own loop begins with a tick.
if [ "$bare" != supervisord ]; then
    run gitsync tick
    code=$?
    if [ -n "$stopping" ]; then
        exit "$code"
    fi
    if [ "$code" -ne 0 ]; then
        say "the first tick failed (exit $code); the next one is due in $GIT_SYNC_TICK_INTERVAL s at the latest"
    fi
fi

if [ "$1" = supervisord ]; then
    trap - TERM INT HUP
    # supervisord opens the container's stdout and stderr anew, by name. A socket refuses that, and so does a pipe that
    # belongs to another user; a pipe of our own doesn't, and cat hands on what comes through.
    if ! { (true >>/dev/fd/3 && true >>/dev/fd/4) 2>/dev/null; } 3>&1 4>&2; then
        if ! made=$(mktemp -d) || ! mkfifo "$made/log"; then
            refuse "no place for a pipe: mount a tmpfs on /tmp, or set TMPDIR to a writable folder"
        fi
        cat "$made/log" &
        exec "$@" >"$made/log" 2>&1
    fi
    exec "$@"
fi
scheduler=supercronic
run "$@"
exit $?
