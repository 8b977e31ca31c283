#!/usr/bin/env bash
# Runs the proxy of this checkout: restart, restart_fg, restart_resp, stop, status. `make` calls it; see `make help`.
# Everything it keeps is in target/run: the pid, the settings the running process was started with, the log, and the
# Redis it started if nobody else had one. It never touches a process that is not of this checkout.
set -euo pipefail

cd "$(dirname "$0")/.."
ROOT=$(pwd -P)
. deploy/lib.sh

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$ROOT/$TARGET ;; esac
RUN=$ROOT/target/run
# As the system names them: either may be behind a link.
mkdir -p "$TARGET" "$RUN"
TARGET=$(cd "$TARGET" && pwd -P)
RUN=$(cd "$RUN" && pwd -P)
BIN=$TARGET/release/nearcache
PID_FILE=$RUN/nearcache.pid
SETTINGS_FILE=$RUN/nearcache.settings
ERR_FILE=$RUN/nearcache.err
REDIS_DIR=$RUN/redis
REDIS_PID_FILE=$RUN/redis.pid
START_SECONDS=15

# settings: prints the effective configuration, `KEY=value  # origin` a line. Its errors are the user's to read.
settings() { "$BIN" --config env.local --check; }
# value KEY and origin KEY read from $SETTINGS.
value() { printf '%s\n' "$SETTINGS" | sed -n "s|^$1=\(.*\)  # .*|\1|p"; }
origin() { printf '%s\n' "$SETTINGS" | sed -n "s|^$1=.*  # ||p"; }

# host_of_bind: an address under which the data ports can be reached from here.
host_of_bind() {
    local first; first=$(value BIND); first=${first%%,*}
    case $first in
    localhost | 0.0.0.0) say 127.0.0.1 ;;
    ::) say ::1 ;;
    *) say "$first" ;;
    esac
}
# host_for_people: how that address is typed.
host_for_people() {
    case $(value BIND) in
    localhost*) say localhost ;;
    *) case $HOST in *:*) say "[$HOST]" ;; *) say "$HOST" ;; esac ;;
    esac
}

# host_of_admin: how the admin port is reached from here.
host_of_admin() {
    local first; first=$(value ADMIN_BIND); first=${first%%,*}
    case $first in
    localhost | 0.0.0.0 | ::) say localhost ;;
    *:*) say "[$first]" ;;
    *) say "$first" ;;
    esac
}

# own_pid: the pid of the running proxy of this checkout, or nothing. The pid file alone proves nothing: pids are reused.
own_pid() {
    local pid exe
    [ -r "$PID_FILE" ] || return 0
    pid=$(cat "$PID_FILE")
    case $pid in '' | *[!0-9]*) return 0 ;; esac
    alive "$pid" || return 0
    if [ -r "/proc/$pid/cmdline" ]; then
        # A binary that was built anew since shows as "... (deleted)". With CORE_DUMPS=off only root may follow the link;
        # the command line tells by which path the program was started.
        exe=$(readlink "/proc/$pid/exe" || tr '\0' '\n' <"/proc/$pid/cmdline" | head -n 1); exe=${exe% (deleted)}
    else
        exe=$(ps -p "$pid" -o comm= || true)
    fi
    if [ "$exe" = "$BIN" ]; then say "$pid"; fi
}

# own_redis_pid: the pid of the Redis this script started, or nothing. It is known by its working directory.
own_redis_pid() {
    local pid
    [ -r "$REDIS_PID_FILE" ] || return 0
    pid=$(cat "$REDIS_PID_FILE")
    case $pid in '' | *[!0-9]*) return 0 ;; esac
    alive "$pid" || return 0
    if [ -d /proc/self ]; then
        if [ "$(readlink "/proc/$pid/cwd" || true)" = "$REDIS_DIR" ]; then say "$pid"; fi
    else
        case $(ps -p "$pid" -o command=) in *redis-server*) say "$pid" ;; esac
    fi
}

gone() { ! alive "$1"; }

stop_proxy() {
    local pid drain; pid=$(own_pid)
    if [ -n "$pid" ]; then
        drain=$(sed -n 's/^DRAIN_SECS=\([^ ]*\)  # .*/\1/p' "$SETTINGS_FILE" 2>/dev/null || true)
        case $drain in '' | *[!0-9]*) drain=5 ;; esac
        kill -TERM "$pid" 2>/dev/null || true
        if ! wait_until $((drain + 3)) gone "$pid"; then
            say "pid $pid did not drain in time: ending it"
            kill -TERM "$pid" 2>/dev/null || true
            wait_until 2 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
            wait_until 2 gone "$pid" || die "pid $pid cannot be ended"
        fi
        say "stopped nearcache (pid $pid)"
    fi
    rm -f "$PID_FILE" "$SETTINGS_FILE"
}

stop_redis() {
    local pid; pid=$(own_redis_pid)
    if [ -n "$pid" ]; then
        kill -TERM "$pid" 2>/dev/null || true
        wait_until 10 gone "$pid" || die "the Redis of target/run (pid $pid) does not end"
        say "stopped the Redis that make had started (pid $pid; its data stays in target/run/redis)"
    fi
    rm -f "$REDIS_PID_FILE"
}

build() {
    have cargo || die "cargo is not installed: see https://rustup.rs"
    cargo build --release --locked
}

# ensure_redis: takes the Redis that answers at REDIS_URL. Starts one only where nobody said which.
ensure_redis() {
    local url place host port
    url=$(value REDIS_URL)
    place=${url#redis://}; place=${place##*@}; place=${place%/*}
    port=${place##*:}; host=${place%:*}; host=${host#[}; host=${host%]}
    if redis_answers "$host" "$port"; then
        say "Redis: the one that answers at $url"
        return
    fi
    if [ "$(origin REDIS_URL)" != default ]; then
        say "Redis: none answers at $url ($(origin REDIS_URL)); nearcache starts anyway and connects when one does"
        return
    fi
    if listens "$host" "$port"; then
        die "port $port is taken by $(owner_of "$port"), which is no Redis: stop it or set REDIS_URL in env.local"
    fi
    if ! have redis-server; then
        if can_install; then
            install_packages redis-server redis-tools
        else
            die "no Redis answers at $url and redis-server is not installed: sudo apt-get install redis-server, or set REDIS_URL in env.local"
        fi
    fi
    mkdir -p "$REDIS_DIR"
    # Its own directory and pid file; setsid keeps the Ctrl-C of restart_fg from it.
    (cd "$REDIS_DIR" && redis-server --bind 127.0.0.1 --port "$port" --dir "$REDIS_DIR" --daemonize yes \
        --pidfile "$REDIS_PID_FILE" --logfile "$REDIS_DIR/redis.log" >/dev/null)
    wait_until 10 redis_answers "$host" "$port" || die "redis-server does not answer; see target/run/redis/redis.log"
    say "Redis: none answered at $url, so one was started (pid $(cat "$REDIS_PID_FILE"), data in target/run/redis; make stop ends it)"
}

# taken PORT: whether somebody listens where the proxy wants to.
taken() {
    [ "$1" != off ] || return 1
    if listens "$HOST" "$1"; then return 0; fi
    case $(value BIND) in localhost*) listens ::1 "$1" ;; *) return 1 ;; esac
}

# ours PORT: whether the instance that is about to be replaced listens there.
ours() { [ -n "$(own_pid)" ] && grep -q "^[A-Z]*_PORT=$1  # " "$SETTINGS_FILE" 2>/dev/null; }

refuse_taken() {
    local key=$1 port; port=$(value "$key")
    if ! ours "$port" && taken "$port"; then
        die "port $port is taken by $(owner_of "$port"): stop it, or choose another ($key=$((port + 1000)) make $ACTION)"
    fi
}

# proxy_answers PORT: whether the proxy is there. While Redis is away it answers PING too, with an error of its own; with
# a password in REDIS_URL it wants that first; what a Redis that loads its data says is passed on.
proxy_answers() {
    case "$(ask "$HOST" "$1" 'PING\r\n')" in
    +PONG | -?*) return 0 ;;
    *) return 1 ;;
    esac
}

# answer_all: whether each port that is not off answers, or the process is gone.
answer_all() {
    local pid=$1 resp http
    alive "$pid" || return 0
    resp=$(value RESP_PORT); http=$(value HTTP_PORT)
    if [ "$resp" != off ] && ! proxy_answers "$resp"; then return 1; fi
    if [ "$http" != off ] && ! http_answers "$HOST" "$http"; then return 1; fi
}

# lines: what can be pasted. The URL is quoted, because ? is a pattern in zsh.
lines() {
    local resp http where; resp=$(value RESP_PORT); http=$(value HTTP_PORT)
    if [ "$resp" != off ]; then
        where="-p $resp"
        if [ "$HOST" != 127.0.0.1 ]; then where="-h $HOST $where"; fi
        say "  redis-cli $where set name ada"
        if [ "$http" = off ]; then say "  redis-cli $where get name"; fi
    fi
    if [ "$http" != off ]; then say "  curl '$(host_for_people):$http/get?key=name'"; fi
    if [ "$(value ADMIN_PORT)" != off ]; then say "  dashboard: http://$(host_of_admin):$(value ADMIN_PORT)/"; fi
    have redis-cli || say "  (redis-cli is not installed here: apt-get install redis-tools)"
    have curl || say "  (curl is not installed here: apt-get install curl)"
}

# prepare: the binary, the settings, free ports, no older instance, a Redis. What can be refused is refused before the
# running instance is stopped.
prepare() {
    local http
    build
    mkdir -p "$RUN"
    SETTINGS=$(settings) || exit 1
    HOST=$(host_of_bind)
    if [ "$ACTION" = restart_resp ]; then
        if [ "$(value RESP_PORT)" = off ]; then die "RESP_PORT is off ($(origin RESP_PORT)): give it a port"; fi
        http=$(value HTTP_PORT)
        if ! ours "$http" && taken "$http"; then
            say "HTTP: port $http is taken by $(owner_of "$http"), so this instance speaks RESP only"
            export NEARCACHE_HTTP_PORT=off
            SETTINGS=$(settings 2>/dev/null) || exit 1
        fi
    else
        refuse_taken HTTP_PORT
    fi
    refuse_taken RESP_PORT
    # Another instance has the usual admin port: this one can do without. A port that somebody chose is wanted.
    http=$(value ADMIN_PORT)
    if [ "$http" != off ] && ! ours "$http" && taken "$http"; then
        if [ "$(origin ADMIN_PORT)" != default ]; then refuse_taken ADMIN_PORT; fi
        say "dashboard: port $http is taken by $(owner_of "$http"), so this instance has none (ADMIN_PORT=$((http + 1000)) make $ACTION gives it one)"
        export NEARCACHE_ADMIN_PORT=off
        SETTINGS=$(settings 2>/dev/null) || exit 1
    fi
    stop_proxy
    ensure_redis
}

background() {
    local pid log; prepare
    log=$(value LOG_FILE)
    if [ -z "$log" ]; then
        log=target/run/nearcache.log
        export NEARCACHE_LOG_FILE=$log
        SETTINGS=$(settings 2>/dev/null) || exit 1
    fi
    # Detached from the terminal. What it prints beside its log (a refusal to start, a panic) goes to a file of its own.
    if have setsid; then
        setsid "$BIN" --config env.local </dev/null >"$ERR_FILE" 2>&1 &
    else
        nohup "$BIN" --config env.local </dev/null >"$ERR_FILE" 2>&1 &
    fi
    pid=$!
    say "$pid" >"$PID_FILE"
    printf '%s\n' "$SETTINGS" >"$SETTINGS_FILE"
    if ! wait_until "$START_SECONDS" answer_all "$pid" || ! alive "$pid"; then
        say "nearcache does not answer; its last words:"
        cat "$ERR_FILE"
        tail -n 20 "$log" 2>/dev/null || true
        stop_proxy
        exit 1
    fi
    say "nearcache runs (pid $pid, log $log, make stop ends it). Try:"
    lines
}

foreground() {
    prepare
    say "nearcache runs in the foreground, Ctrl-C ends it. Try in another terminal:"
    lines
    say $$ >"$PID_FILE"
    printf '%s\n' "$SETTINGS" >"$SETTINGS_FILE"
    exec "$BIN" --config env.local
}

# info: the lines of INFO nearcache, over RESP: a bulk string, or a verbatim one in RESP3.
info() {
    limit 5 bash -c '
        exec 3<>"/dev/tcp/$1/$2" || exit 1
        printf "*2\r\n\$4\r\nINFO\r\n\$9\r\nnearcache\r\n" >&3
        IFS= read -r -t 3 head <&3 || exit 1
        head=${head%$'"'\\r'"'}
        case $head in "$"[0-9]*) head -c "${head#?}" <&3 ;; *) exit 1 ;; esac' _ "$HOST" "$1" 2>/dev/null | tr -d '\r'
}

status() {
    local pid resp http text redis; pid=$(own_pid); redis=$(own_redis_pid)
    if [ -n "$redis" ]; then say "Redis of target/run: pid $redis"; fi
    if [ -z "$pid" ]; then
        say "nearcache of this checkout does not run (make restart starts it)"
        return 3
    fi
    SETTINGS=$(cat "$SETTINGS_FILE"); HOST=$(host_of_bind)
    resp=$(value RESP_PORT); http=$(value HTTP_PORT)
    say "nearcache runs: pid $pid, HTTP $http, RESP $resp, admin $(value ADMIN_PORT), upstream $(value REDIS_URL), log $(log=$(value LOG_FILE); say "${log:-on the terminal}")"
    if ! answer_all "$pid"; then say "but not every port answers"; return 1; fi
    if [ "$resp" = off ]; then return; fi
    text=$(info "$resp") || { say "but INFO nearcache is not answered"; return 1; }
    # First what is asked for most: state, hit ratios, entries, bytes; then every counter.
    printf '%s\n' "$text" | awk -F: -v limits="$(value CACHE_CAPACITY) $(value CACHE_MAX_BYTES)" '
        /^#/ || NF < 2 { next }
        { name = $1; sub(/^nearcache_/, "", name); of[name] = substr($0, length($1) + 2); order[++n] = name }
        function percent(part, whole) {
            return whole > 0 ? sprintf("%.1f%% (%d of %d)", 100 * part / whole, part, whole) : "none yet"
        }
        function line(label, text) { printf "  %-33s %s\n", label, text }
        END {
            split(limits, max, " ")
            reads = of["hits"] + of["misses"] + of["joined"]
            line("state", of["state"])
            line("hit ratio of cacheable reads", percent(of["hits"], reads))
            line("hit ratio of all commands", percent(of["hits"], reads + of["relayed"] + of["local"]))
            line("entries", of["entries"] " of at most " max[1])
            line("bytes", of["bytes"] " of at most " max[2])
            print "  counters (INFO nearcache):"
            for (i = 1; i <= n; i++) line("  " order[i], of[order[i]])
        }'
}

ACTION=${1:-}
case $ACTION in
restart | restart_resp) background ;;
restart_fg) foreground ;;
stop)
    stop_proxy
    stop_redis
    ;;
status) status ;;
*) die "usage: deploy/run.sh restart|restart_fg|restart_resp|stop|status" ;;
esac
