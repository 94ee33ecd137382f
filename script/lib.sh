# Shared by the scripts of this directory; sourced, never run. Callers have set -eu.

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv

say() { printf '%s\n' "$*" >&2; }

# Install Debian packages that are not there yet. One apt run, nothing when all are present.
need_packages() {
    missing=
    for package in "$@"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        say "these Debian packages are missing, install them as root:$missing"
        return 1
    fi
    say "installing Debian packages:$missing"
    apt-get update -qq
    # No service may start by itself: the tests and the demo start what they need.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null
}

# Install the distributions of this checkout (and the extras named) into .venv; skipped when
# nothing that decides the result has changed since the last time.
need_venv() {
    extras=$1
    stamp=$(cat "$root"/pyproject.toml "$root"/core/pyproject.toml \
        "$root"/plugins/*/pyproject.toml "$root"/core/bin/podctl | sha256sum | cut -c1-32)
    if [ -x "$venv/bin/podctl" ] && [ "$(cat "$venv/stamp$extras" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    [ -x "$venv/bin/python3" ] || /usr/bin/python3 -m venv "$venv"
    set -- -e "$root/core"
    for plugin in "$root"/plugins/*/; do
        set -- "$@" -e "${plugin%/}"
    done
    say "installing podctl into $venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" -e "$root$extras"
    "$venv/bin/python3" -m compileall -q "$root"/core/src "$root"/plugins/*/src || true
    printf '%s\n' "$stamp" >"$venv/stamp$extras"
}
