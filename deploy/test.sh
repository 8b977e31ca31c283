#!/usr/bin/env bash
# Everything that can be checked, in stages with their times: what `make test` and CI run. The first failure ends it.
#   deploy/test.sh            all stages
#   deploy/test.sh check      format, lints, documentation, house rules
#   deploy/test.sh clients    real client libraries against the proxy
#   deploy/test.sh icount     instructions and system calls per hit
#   deploy/test.sh bench      throughput and CPU beside other servers
#   deploy/test.sh micro      what the parts cost by themselves
#   deploy/test.sh tls        what TLS costs beside doing without
#   deploy/test.sh abuse      what abusive clients cost others
#   deploy/test.sh soak [SECONDS]  everything at once under faults, with a checker
#   deploy/test.sh asan       the tests under AddressSanitizer and LeakSanitizer
#   deploy/test.sh sim [SEED]  many runs of the simulation, or one again, step by step
#   deploy/test.sh fuzz TARGET SECONDS
# RESP_PORT, HTTP_PORT and FLASK_RUN_PORT choose the ports of the one end-to-end suite that uses fixed ones.
set -euo pipefail

cd "$(dirname "$0")/.."
. deploy/lib.sh
FUZZ_SECONDS=${FUZZ_SECONDS:-5}

TIMES=''
NOT_TESTED=''

stage() {
    local name=$1 began=$SECONDS; shift
    say "== $name"
    "$@"
    say "== $name: $((SECONDS - began)) s"
    TIMES="$TIMES$(printf '  %4d s  %s' $((SECONDS - began)) "$name")
"
}

# tools: what the stages need. redis-server, redis-cli, curl and python3 must be there; without valgrind, strace or
# nightly something is left out, and says so.
tools() {
    local missing='' pair
    for pair in redis-server:redis-server redis-cli:redis-tools curl:curl python3:python3 valgrind:valgrind strace:strace; do
        have "${pair%%:*}" || missing="$missing ${pair##*:}"
    done
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # words are meant
        if can_install; then install_packages $missing; else say "missing:$missing (sudo apt-get install$missing)"; fi
    fi
    for pair in redis-server redis-cli curl python3; do
        have "$pair" || die "$pair is needed for the end-to-end tests and is not installed"
    done
    for pair in rustfmt clippy; do
        cargo "$(case $pair in rustfmt) echo fmt ;; *) echo clippy ;; esac)" --version >/dev/null 2>&1 || rustup component add "$pair"
    done
}

check() {
    stage format cargo fmt --check
    stage lints cargo clippy --locked --all-targets -- -D warnings
    # Private items are documented too, so a link to one is no dead link.
    stage documentation env RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --no-deps --document-private-items
}

# clients: what is installed stays installed; the tests beside it are run by `cargo test` already.
clients() {
    stage 'client libraries' bash deploy/clients.sh
    # They mostly wait, for one another and for Redis to come back.
    stage clients cargo test --locked --test clients -- --ignored --test-threads 6
    # Again where it is not scrolled away.
    local reason
    for reason in target/clients/*.skipped target/clients/*/*.skipped; do
        if [ -e "$reason" ]; then
            reason=${reason#target/clients/}
            NOT_TESTED="$NOT_TESTED  !! not tested: ${reason%.skipped}: $(cat "target/clients/$reason")
"
        fi
    done
}

# fuzz_ready: nightly and cargo-fuzz, got if they can be. cargo-fuzz needs nightly for its sanitizers.
fuzz_ready() {
    have rustup || return 1
    if ! cargo +nightly --version >/dev/null 2>&1; then
        say "+ rustup toolchain install nightly --profile minimal"
        rustup toolchain install nightly --profile minimal || return 1
    fi
    if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
        say "+ cargo install cargo-fuzz --locked"
        cargo install cargo-fuzz --locked || return 1
    fi
}

# fuzz_one TARGET SECONDS: new inputs go below target/, the committed corpus is read and never written.
fuzz_one() {
    local target=$1 found=target/fuzz-corpus/$1 corpus=fuzz/corpus/$1
    mkdir -p "$found"
    [ -d "$corpus" ] || corpus=
    # shellcheck disable=SC2086 # an absent corpus is no argument
    cargo +nightly fuzz run "$target" "$found" $corpus -- -max_total_time="$2" -print_final_stats=0
}

# fuzz_quietly: the same for the stages: libFuzzer's hundreds of lines go to a file, which is shown when it fails.
fuzz_quietly() {
    local log=target/fuzz-$1.log
    mkdir -p target
    if ! fuzz_one "$@" >"$log" 2>&1; then cat "$log"; die "fuzz target $1 failed (above)"; fi
    tail -n 1 "$log"
}

fuzz_all() {
    local targets target
    if ! fuzz_ready; then
        say "!! FUZZING SKIPPED: there is no nightly toolchain with cargo-fuzz, and none could be had."
        say "!! The bodies of the fuzz targets were driven by the stable tests above, over the committed corpus only."
        return
    fi
    targets=$(cargo +nightly fuzz list)
    [ -n "$targets" ] || die "there are no fuzz targets"
    for target in $targets; do stage "fuzz $target for $FUZZ_SECONDS s" fuzz_quietly "$target" "$FUZZ_SECONDS"; done
}

# deployment: what is in deploy/ for others' tools, checked with these where they can be had.
deployment() {
    if ! have promtool && [ "${CI:-}" = true ] && can_install; then install_packages prometheus; fi
    if have promtool; then
        promtool check rules deploy/prometheus/alerts.yml
        promtool test rules deploy/prometheus/alerts_test.yml
    else
        say "!! SKIPPED: alert rules and /metrics were not checked, promtool is not installed (apt-get install prometheus)"
        NOT_TESTED="$NOT_TESTED  !! not tested: alert rules and /metrics: no promtool
"
    fi
    if have systemd-analyze; then
        # It wants the program to be there; ours is not installed.
        mkdir -p target/systemd
        sed 's|/usr/local/bin/nearcache|/bin/true|' deploy/systemd/nearcache.service >target/systemd/nearcache.service
        cp deploy/systemd/nearcache.socket target/systemd/
        systemd-analyze verify target/systemd/nearcache.service target/systemd/nearcache.socket
        # 1.5 of 10 today: what is left open is the network, and /proc for the memory limit.
        if systemd-analyze security --help 2>&1 | grep -q -- --threshold; then
            systemd-analyze security --offline=true --threshold=20 target/systemd/nearcache.service >target/systemd/security.txt 2>&1 ||
                { cat target/systemd/security.txt; die "the systemd unit lets through more than it should (above)"; }
            tail -n 1 target/systemd/security.txt
        fi
    else
        say "!! SKIPPED: the systemd units were not verified, systemd-analyze is not installed"
    fi
    python3 -c 'import json; json.load(open("deploy/grafana/nearcache.json"))'
    if python3 -c 'import yaml' 2>/dev/null; then
        python3 -c 'import yaml; assert all(part["kind"] for part in yaml.safe_load_all(open("deploy/kubernetes/sidecar.yaml")))'
    else
        say "!! SKIPPED: the Kubernetes example was not parsed, Python has no yaml (apt-get install python3-yaml)"
    fi
    have chromium || have chromium-browser || have google-chrome || NOT_TESTED="$NOT_TESTED  !! not tested: the dashboard in a browser: no Chromium (apt-get install chromium)
"
}

# supply: licences, sources and doubles of every crate, on all platforms, where cargo-deny is installed. It is not installed
# here: building it takes longer than all of the tests. tests/dependencies.rs has looked at this platform's in any case.
supply() {
    if cargo deny --version >/dev/null 2>&1; then
        cargo deny --offline --locked check licenses sources bans
    else
        say "!! SKIPPED: cargo-deny is not installed (cargo install cargo-deny --locked); tests/dependencies.rs has checked this platform"
    fi
}

# compose: whether the classic docker-compose takes our file with our env file. It needs no engine for that.
compose() {
    local cmd=''
    if ! have docker-compose && ! docker compose version >/dev/null 2>&1 && [ "${CI:-}" = true ] && can_install; then
        install_packages docker-compose
    fi
    if have docker-compose; then cmd=docker-compose; elif docker compose version >/dev/null 2>&1; then cmd='docker compose'; fi
    if [ -z "$cmd" ]; then
        say "!! SKIPPED: docker-compose.yml was not validated, docker-compose is not installed (apt-get install docker-compose)"
        return
    fi
    # The caller's own settings are meant for a proxy outside of a container.
    # shellcheck disable=SC2086 # words are meant
    mkdir -p target
    env -u HTTP_PORT -u RESP_PORT -u ADMIN_PORT -u FLASK_RUN_PORT $cmd --env-file env.local config >target/compose.yml
    say "docker-compose.yml is valid with env.local ($($cmd version --short))"
}

# icount: `cargo bench` builds the proxy with the release profile itself.
icount() { cargo bench --locked --bench icount; }
bench() { cargo bench --locked --bench compare; }
micro() { cargo bench --locked --bench micro; }

tls() { cargo bench --locked --bench tls; }

abuse() { cargo bench --locked --bench abuse; }

# soak [SECONDS]: the test that runs for seconds in `cargo test`, for longer.
soak() { SOAK_SECONDS=${1:-120} cargo test --locked --test server soak:: -- --nocapture; }

# largest: 512 MB up and down, where there is the memory for it; the test says aloud where there is not.
largest() {
    cargo test --locked --test server large::the_largest -- --ignored --nocapture 2>&1 | tee target/largest.log
    if grep -q '^!! SKIPPED' target/largest.log; then
        NOT_TESTED="$NOT_TESTED  !! not tested: $(sed -n 's/^!! SKIPPED: //p' target/largest.log)
"
    fi
}

# asan: what our own crate and its dependencies do, with a nightly compiler; the standard library is taken as it is. The
# binary that the end-to-end tests start is instrumented too. Abuse is left out: a sanitizer's memory is not ours.
asan() {
    have rustup && cargo +nightly --version >/dev/null 2>&1 || die "asan needs a nightly toolchain (rustup toolchain install nightly)"
    local host; host=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1 CARGO_TARGET_DIR=target/asan SIM_SEEDS=${SIM_SEEDS:-300} \
        cargo +nightly test --locked --target "$host" --lib --test simulation --test server -- \
        --skip abuse:: --skip buffers:: --skip crowds:: "$@"
}

# sim [SEED]: the seeds of `make test` and many more (SIM_SEEDS), or one of them with each of its steps.
sim() {
    local test=every_reply_is_right_whatever_the_seed
    if [ -n "${1:-}" ]; then
        case $1 in *[!0-9]*) die "a seed is a number: make sim SEED=7" ;; esac
        SIM_SEED=$1 cargo test --locked --test simulation "$test" -- --exact --nocapture
    else
        SIM_SEEDS=${SIM_SEEDS:-20000} cargo test --locked --test simulation "$test" -- --exact --nocapture
    fi
}

case ${1:-all} in
all)
    stage tools tools
    check
    stage tests cargo test --locked
    clients
    stage 'the largest value' largest
    stage 'soak for 120 s' soak 120
    stage compose compose
    stage deployment deployment
    stage 'supply chain' supply
    stage fuzzing fuzz_all
    stage 'cost of a hit' icount
    say "== all stages passed in $SECONDS s:"
    printf '%s' "$TIMES$NOT_TESTED"
    ;;
check)
    check
    stage 'house rules' cargo test --locked --test house --test config
    ;;
clients)
    clients
    printf '%s' "$TIMES$NOT_TESTED"
    ;;
icount) icount ;;
bench) bench ;;
micro) micro ;;
tls) tls ;;
abuse) abuse ;;
soak) soak "${2:-3600}" ;;
asan) asan ;;
sim) sim "${2:-}" ;;
fuzz)
    [ -n "${2:-}" ] || die "which target? make fuzz TARGET=resp_parser SECONDS=60 (there are: $(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//' | tr '\n' ' '))"
    fuzz_ready || die "fuzzing needs a nightly toolchain (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz --locked)"
    fuzz_one "$2" "${3:-60}"
    ;;
*) die "usage: deploy/test.sh [all|check|clients|icount|bench|micro|abuse|soak [SECONDS]|asan|sim [SEED]|fuzz TARGET SECONDS]" ;;
esac
