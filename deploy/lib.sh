# What run.sh and test.sh share: talking, installing packages, asking a port. Sourced; sets no options.
# Works with bash 3.2 (macOS) and needs no redis-cli, curl or ss for what it does itself.

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# limit SECONDS COMMAND...: the command, ended after so many seconds where the system has `timeout`.
limit() {
    if have timeout; then timeout "$@"; else shift; "$@"; fi
}

# can_install: whether packages can be installed without asking anybody.
can_install() { have apt-get && [ "$(id -u)" -eq 0 ]; }

# install_packages PACKAGE...: with apt, printing the command, starting and enabling no service of theirs.
install_packages() {
    local policy=/usr/sbin/policy-rc.d made='' failed=''
    say "+ apt-get install -y --no-install-recommends $*   (services are not started)"
    # The maintainer scripts ask policy-rc.d before they start anything; 101 forbids it. A policy that is there already
    # is somebody's decision and stays.
    if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; then made=yes; fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update >/dev/null && apt-get install -y --no-install-recommends "$@" >/dev/null; } || failed=yes
    if [ -n "$made" ]; then rm -f "$policy"; fi
    [ -z "$failed" ] || die "apt-get could not install: $*"
    # The package enables its service for the next boot; nobody asked for that.
    case " $* " in *" redis-server "*) if have systemctl; then systemctl disable redis-server >/dev/null 2>&1 || true; fi ;; esac
}

# ask HOST PORT REQUEST: the first line of the reply, within 2 s. REQUEST may have \r\n as printf knows them.
ask() {
    limit 3 bash -c '
        exec 3<>"/dev/tcp/$1/$2" || exit 1
        printf "$3" >&3
        IFS= read -r -t 2 line <&3 && printf "%s\n" "${line%$'"'\\r'"'}"' _ "$@" 2>/dev/null
}

# listens HOST PORT: whether somebody accepts connections there.
listens() { limit 3 bash -c 'exec 3<>"/dev/tcp/$1/$2"' _ "$@" 2>/dev/null; }

# redis_answers HOST PORT: whether a Redis is there. One that wants a password answers PING too, with an error.
redis_answers() {
    case "$(ask "$1" "$2" 'PING\r\n')" in
    +PONG* | -NOAUTH* | -DENIED* | -LOADING* | -MASTERDOWN*) return 0 ;;
    *) return 1 ;;
    esac
}

# http_answers HOST PORT: whether something that speaks HTTP is there.
http_answers() {
    # A path that exists nowhere: the answer needs no Redis and counts as no miss.
    case "$(ask "$1" "$2" 'GET /no-such-path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')" in
    HTTP/1.*) return 0 ;;
    *) return 1 ;;
    esac
}

# owner_of PORT: "name (pid 12)" of who listens there, or that the system does not tell.
owner_of() {
    local port=$1 found='' pid inode
    if have ss; then
        found=$(ss -Hltnp "sport = :$port" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (pid \2)/p' | head -n 1)
    fi
    if [ -z "$found" ] && have lsof; then
        found=$(lsof -nP -iTCP:"$port" -sTCP:LISTEN 2>/dev/null | awk 'NR == 2 { print $1 " (pid " $2 ")" }')
    fi
    if [ -z "$found" ] && [ -r /proc/net/tcp ]; then
        inode=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
            awk -v port="$(printf ':%04X' "$port")" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10; exit }')
        if [ -n "$inode" ]; then
            pid=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d/ -f3)
            if [ -n "$pid" ]; then found="$(cat "/proc/$pid/comm") (pid $pid)"; fi
        fi
    fi
    say "${found:-a process the system does not name to this user (try: sudo ss -ltnp 'sport = :$port')}"
}

# alive PID: whether it runs. A zombie does not.
alive() {
    kill -0 "$1" 2>/dev/null || return 1
    if [ -r "/proc/$1/stat" ]; then ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; fi
}

# wait_until SECONDS COMMAND...: runs the command until it succeeds.
wait_until() {
    local tries=$(($1 * 20)); shift
    while [ "$tries" -gt 0 ]; do
        if "$@"; then return 0; fi
        sleep 0.05
        tries=$((tries - 1))
    done
    return 1
}
