# Process 1 of a pod: starts its apps, waits for them, and writes down how each ended.
#
# It is read by the host's /bin/sh and runs no program but the launcher and sleep(1): what stays of
# podctl in a running pod is a shell of some hundred kilobytes, and another for each app.
#
# Arguments: `yes` for a pod whose apps come and go, else `no`; seconds between the stop signal and
# SIGKILL; the apps to start. In /podctl/run, a directory of the pod on the host, it leaves
#   APP/pid      number of the app's process inside the pod
#   APP/status   its exit status; 128 and more for a signal, as a shell has it
#   exits        APP and status of each app that has ended, in that order
#   ready        once every app was started
# and finds there
#   APP/signal   number of the signal that asks the app to stop
#   requests/*   `start-APP` and `stop-APP`: what SIGUSR1 asks to look for
# SIGTERM and SIGINT stop the pod, and what machinectl(1) sends for a power-off or a halt (systemd(1),
# SIGRTMIN+4 and SIGRTMIN+3). Where there is NOTIFY_SOCKET it is told once every app was started.

run=/podctl/run
mutable=$1
timeout=$2
shift 2
started=0
stopping=
# Nothing is concluded before every app was started.
busy=yes
# Commands in the background get /dev/null for input (POSIX, 2.9.3): the apps are to have ours.
exec 9<&0 </dev/null
# And what a shell has to say of processes that a signal ended is not for the apps' standard error.
exec 8>&2 2>/dev/null

# One app from start to end, in a shell of its own. Who signals all processes of a control group
# does not mean it; the launcher gives the app the defaults again.
live() {
    trap '' TERM INT USR1 37 38
    rm_status "$1"
    if [ ! -e "$run/$1/pre-start" ] || /podctl/launch "$1" pre-start 9<&- 2>&8 8>&-; then
        /podctl/launch "$1" app <&9 9<&- 2>&8 8>&- &
        pid=$!
        echo "$pid" >"$run/$1/pid"
        wait "$pid"
        code=$?
    else
        code=$?
    fi
    [ ! -e "$run/$1/post-stop" ] || /podctl/launch "$1" post-stop 9<&- 2>&8 8>&-
    echo "$code" >"/podctl/status/$1"
    echo "$code" >"$run/$1/status"
    echo "$1 $code" >>"$run/exits"
    kill -USR1 1
}

# An empty status is none yet.
rm_status() {
    : >"$run/$1/status"
    : >"$run/$1/pid"
}

start() {
    started=$((started + 1))
    live "$1" &
}

# Send an app a signal, if it has not ended.
tell() {
    ended=
    pid=
    read -r ended <"$run/$1/status"
    read -r pid <"$run/$1/pid"
    [ -n "$ended" ] || [ -z "$pid" ] || kill "-$2" "$pid"
}

stop_app() {
    read -r signal <"$run/$1/signal"
    tell "$1" "$signal"
    { sleep "$timeout" && tell "$1" KILL; } &
}

stop_pod() {
    [ -z "$stopping" ] || return
    stopping=yes
    for app in "$run"/*/pid; do
        [ ! -e "$app" ] || { app=${app%/pid} && stop_app "${app##*/}"; }
    done
}

# Whether an exit status is what our own signal brings about.
asked_for() {
    [ "$2" -ne 0 ] || return 0
    read -r signal <"$run/$1/signal"
    [ -n "$stopping" ] && { [ "$2" -eq 137 ] || [ "$2" -eq $((128 + signal)) ]; }
}

# Sets `ended` to the number of apps that have ended and `failed` to the status of the first one
# that failed, 0 while none has.
account() {
    count=0
    failed=0
    while read -r app code; do
        count=$((count + 1))
        [ "$failed" -ne 0 ] || asked_for "$app" "$code" || failed=$code
    done <"$run/exits"
}

# Act on what has ended. The trap may call it at any point, also inside itself: then once more.
check() {
    again=yes
    while [ -z "$busy" ] && [ -n "$again" ]; do
        busy=yes
        again=
        account
        if [ "$mutable" = no ]; then
            [ "$failed" -eq 0 ] || stop_pod
            [ "$count" -lt "$started" ] || exit "$failed"
        elif [ -n "$stopping" ]; then
            [ "$count" -lt "$started" ] || exit 0
        fi
        busy=
    done
}

requests() {
    for request in "$run"/requests/*; do
        [ -e "$request" ] || return
        name=${request##*/}
        : >"$request.seen" && rm -f "$request" "$request.seen"
        case $name in
            start-*) start "${name#start-}" ;;
            stop-*) stop_app "${name#stop-}" ;;
        esac
    done
}

trap 'woken=yes; stop_pod; check' TERM INT 37 38
trap 'woken=yes; requests; check' USR1
: >"$run/exits"
for app in "$@"; do
    start "$app"
done
: >"$run/ready"
# As from this process, the only one systemd-nspawn listens to.
[ -z "$NOTIFY_SOCKET" ] || systemd-notify --pid=1 --ready
busy=
check
while :; do
    # Something to wait for while there is no app.
    [ "$mutable" = no ] || sleep infinity &
    woken=yes
    while [ -n "$woken" ]; do
        woken=
        # Returns after a trap, or when all children have ended.
        wait
    done
    # Shells that ended without a word were killed by somebody else.
    [ "$mutable" != no ] || exit 137
done
