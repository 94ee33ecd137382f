# Process 1 of a pod: starts its apps, waits for them, and writes down how each ended.
#
# It is read by the host's /bin/sh and runs no program but the launcher and sleep(1): what stays of
# podctl in a running pod is a shell of some hundred kilobytes, and another for each app.
#
# Arguments: `yes` for a pod whose apps come and go, else `no`; seconds between the stop signal and
# SIGKILL; `yes` where systemd-nspawn is to be told once every app was started, else `no`; the apps
# to start. In /podctl/run, a directory of the pod on the host, it leaves
#   APP/pid      number of the app's process inside the pod
#   APP/status   its exit status; 128 and more for a signal, as a shell has it
#   APP/turn     which start of the pod's it was, by number
#   APP/stopping not empty once the app was asked to stop
#   _exits       APP and status of each app that has ended, in that order
#   _ready       once every app was started
# and finds there
#   APP/stdout, APP/stderr   FIFOs for its output, if there are any
#   _stop        once podctl has asked the pod to stop
#   APP/signal   number of the signal that asks the app to stop
#   APP/timeout  seconds between that and SIGKILL, where it has its own
#   _requests/*  `start-APP` and `stop-APP`: what SIGUSR1 asks to look for, of a pod whose apps come
#                and go
# In /podctl/status it leaves APP, its exit status, and for such a pod APP-started, empty.
# SIGTERM and SIGINT stop the pod, and what machinectl(1) sends for a power-off or a halt (systemd(1),
# SIGRTMIN+4 and SIGRTMIN+3).

# Until there is a handler process 1 does not get the signal at all (pid_namespaces(7)).
early=
trap 'early=yes' TERM INT 37 38
run=/podctl/run
mutable=$1
timeout=$2
reports=$3
shift 3
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
    # Where there is somebody to tell the apps' output apart.
    [ ! -p "$run/$1/stdout" ] || exec >"$run/$1/stdout" 8>"$run/$1/stderr"
    if [ ! -e "$run/$1/pre-start" ] || /podctl/launch "$1" pre-start 9<&- 2>&8 8>&-; then
        # The launcher can be stopped, as the app that it becomes.
        { trap - TERM INT USR1 37 38 && exec /podctl/launch "$1" app; } <&9 9<&- 2>&8 8>&- &
        pid=$!
        echo "$pid" >"$run/$1/pid"
        # Who asked before there was a number has reached nobody.
        asked=
        read -r asked <"$run/$1/stopping"
        [ -z "$asked" ] || { read -r signal <"$run/$1/signal" && kill "-$signal" "$pid"; }
        wait "$pid"
        code=$?
    else
        code=$?
    fi
    : >"$run/$1/pid"
    [ ! -e "$run/$1/post-stop" ] || /podctl/launch "$1" post-stop 9<&- 2>&8 8>&-
    echo "$code" >"$run/$1/status"
    # From here on the app's directory may go, and with the next line the pod may end.
    echo "$code" >"/podctl/status/$1"
    echo "$1 $code" >>"$run/_exits"
    kill -USR1 1
}

start() {
    started=$((started + 1))
    # An empty status is none yet.
    : >"$run/$1/status"
    : >"$run/$1/pid"
    : >"$run/$1/stopping"
    echo "$started" >"$run/$1/turn"
    [ "$mutable" = no ] || { rm -f "/podctl/status/$1" && : >"/podctl/status/$1-started"; }
    live "$1" &
}

# Whether an app was started and has not ended.
runs() {
    [ -e "$run/$1/status" ] || return
    ended=
    read -r ended <"$run/$1/status"
    [ -z "$ended" ]
}

# Send an app a signal, if it has not ended, nor been started again since the turn given.
tell() {
    runs "$1" || return
    pid=
    turn=
    read -r pid <"$run/$1/pid"
    read -r turn <"$run/$1/turn"
    [ -z "$pid" ] || [ "$turn" != "$3" ] || kill "-$2" "$pid"
}

stop_app() {
    runs "$1" || return
    echo yes >"$run/$1/stopping"
    seconds=
    read -r signal <"$run/$1/signal"
    read -r seconds <"$run/$1/timeout"
    read -r now <"$run/$1/turn"
    tell "$1" "$signal" "$now"
    {
        left=${seconds:-$timeout}
        # Not in one sleep: it would stay when the app has ended long ago.
        while [ "$left" -gt 0 ] && runs "$1"; do
            sleep 1 || exit
            left=$((left - 1))
        done
        tell "$1" KILL "$now"
    } &
}

stop_pod() {
    [ -z "$stopping" ] || return
    stopping=yes
    for app in "$run"/*/pid; do
        [ ! -e "$app" ] || { app=${app%/pid} && stop_app "${app##*/}"; }
    done
}

# Whether an exit status is what our own signal brings about. To be killed for having taken too long
# is a failure.
asked_for() {
    [ "$2" -ne 0 ] || return 0
    read -r signal <"$run/$1/signal"
    [ -n "$stopping" ] && [ "$2" -eq $((128 + signal)) ]
}

# Sets `ended` to the number of apps that have ended and `failed` to the status of the first one
# that failed, 0 while none has.
account() {
    count=0
    failed=0
    while read -r app code; do
        count=$((count + 1))
        [ "$failed" -ne 0 ] || asked_for "$app" "$code" || failed=$code
    done <"$run/_exits"
}

# Act on what has ended. The trap may call it at any point, also inside itself: then once more.
check() {
    again=yes
    while [ -z "$busy" ] && [ -n "$again" ]; do
        busy=yes
        again=
        [ "$mutable$stopping" = yes ] || account
        if [ "$mutable" = no ]; then
            [ "$failed" -eq 0 ] || stop_pod
            [ "$count" -lt "$started" ] || exit "$failed"
        elif [ -n "$stopping" ]; then
            [ "$count" -lt "$started" ] || exit 0
        fi
        busy=
    done
}

# Carry out one request. Its file goes last: then it was carried out.
request() {
    name=${1#*-}
    case $name in
        '' | *[!a-z0-9-]*) ;;
        *)
            if [ -e "$run/$name/signal" ] && [ -z "$stopping" ]; then
                case $1 in
                    start-*) runs "$name" || start "$name" ;;
                    stop-*) stop_app "$name" ;;
                esac
            fi
            ;;
    esac
    rm -f "$run/_requests/$1"
}

# Carry out all requests. As with check, a trap inside it only says that there are more.
requests() {
    more=yes
    while [ -z "$reading" ] && [ -n "$more" ]; do
        reading=yes
        more=
        for file in "$run"/_requests/*; do
            [ ! -e "$file" ] || request "${file##*/}"
        done
        reading=
    done
}

trap 'woken=yes; stop_pod; check' TERM INT 37 38
if [ "$mutable" = no ]; then
    trap 'woken=yes; check' USR1
else
    trap 'woken=yes; requests; check' USR1
fi
: >"$run/_exits"
[ -z "$early" ] || stop_pod
for app in "$@"; do
    [ -n "$stopping" ] || start "$app"
done
: >"$run/_ready"
# What was asked before there were traps has not been heard.
[ ! -e "$run/_stop" ] || stop_pod
# As from this process, the only one systemd-nspawn listens to.
[ "$reports" = no ] || systemd-notify --pid=1 --ready
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
