#!/usr/bin/env bash
# Installs what tests/clients needs: client libraries from their registries, in pinned versions, below target/clients and
# nowhere else. What is there already and still the right version is left alone.
#
# A library that cannot be had on this machine (no node, no network) is given up with its reason, in NAME.skipped beside
# where it would be: this script says it, and so does the test that is left out.
set -euo pipefail

cd "$(dirname "$0")/.."
. deploy/lib.sh

ROOT=target/clients
SCRIPTS=tests/clients
# For all of pip's or npm's work for one library: a registry that does not answer is not waited for any longer.
INSTALL_SECONDS=300

# given_up NAME REASON
given_up() {
    mkdir -p "$ROOT/$(dirname "$1")"
    say "$2" >"$ROOT/$1.skipped"
    say "!! SKIPPED: the client library $1 is not tested: $2"
}

# installed NAME KEY INSTALLER...: runs the installer in an empty folder unless what is there was made for this KEY.
installed() {
    local name=$1 key=$2 folder=$ROOT/$1 log=$ROOT/$1.log; shift 2
    rm -f "$folder.skipped"
    if [ -e "$folder/installed" ] && [ "$(cat "$folder/installed")" = "$key" ]; then return; fi
    say "+ $name"
    rm -rf "$folder"
    mkdir -p "$folder"
    if limit "$INSTALL_SECONDS" "$@" >"$log" 2>&1; then
        printf '%s' "$key" >"$folder/installed"
    else
        rm -rf "$folder"
        tail -n 5 "$log"
        given_up "$name" "it could not be installed (all of the log: $log)"
    fi
}

key_of() { cat "$@" | cksum | tr ' ' '-'; }

python_libraries() {
    local list name venv=$ROOT/python-venv version
    if ! have python3; then
        for list in "$SCRIPTS"/python/*.txt; do given_up "python/$(basename "$list" .txt)" "python3 is not installed"; done
        return
    fi
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ ! -x "$venv/bin/pip" ]; then
        if ! python3 -c 'import ensurepip' 2>/dev/null && can_install; then install_packages python3-venv; fi
        if ! python3 -m venv "$venv" >/dev/null 2>&1; then
            rm -rf "$venv"
            for list in "$SCRIPTS"/python/*.txt; do
                given_up "python/$(basename "$list" .txt)" "python3 has no venv (apt-get install python3-venv)"
            done
            return
        fi
    fi
    for list in "$SCRIPTS"/python/*.txt; do
        name=python/$(basename "$list" .txt)
        installed "$name" "$version-$(key_of "$list")" \
            "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --requirement "$list" --target "$ROOT/$name"
    done
}

node_libraries() {
    local name=node
    if ! have node || ! have npm; then
        given_up "$name" "node with npm is not installed"
        return
    fi
    # npm reads package.json where it installs; the scripts ask for the libraries there. Not `npm ci`: a registry that
    # mirrors only what it needs has no entry for another platform's binaries, which are optional and left out anyhow.
    installed "$name" "$(node --version)-$(key_of "$SCRIPTS/node/package.json" "$SCRIPTS/node/package-lock.json")" \
        bash -c 'cp "$1"/package.json "$1"/package-lock.json "$2" && cd "$2" && npm install --ignore-scripts --omit=optional --no-audit --no-fund' \
        _ "$SCRIPTS/node" "$ROOT/$name"
}

# The redis crate with features that the proxy is not built with, as a program of its own. Its build folder stays, so
# that another version of the script is built in a second.
rust_libraries() {
    local name=rust
    installed "$name" "$(cargo --version)-$(key_of "$SCRIPTS/rust/Cargo.toml" "$SCRIPTS/rust/Cargo.lock" "$SCRIPTS"/rust/src/*.rs)" \
        bash -c 'cargo build --locked --manifest-path "$1/Cargo.toml" --target-dir "$3" && cp "$3/debug/nearcache-client-smokes" "$2/smokes"' \
        _ "$SCRIPTS/rust" "$ROOT/$name" "$ROOT/rust-build"
}

mkdir -p "$ROOT"
python_libraries
node_libraries
rust_libraries
