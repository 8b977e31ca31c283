#!/usr/bin/env bash
# The suites that Redis and redis-py test themselves with, directly against redis-server and through the proxy's port, and
# what differs beside what tests/suites/expected.txt expects to. Not a part of `make test`: it fetches sources and takes
# about half an hour.
#   deploy/suites.sh                    everything
#   deploy/suites.sh unit/multi pubsub  units by their names, or parts of them
# Sources and a Python for them are fetched once, below target/suites and nowhere else. The logs are there too.
set -euo pipefail

cd "$(dirname "$0")/.."
. deploy/lib.sh

ROOT=$PWD/target/suites
REDIS_PY=8.1.0
GIVEN_UP=''

given_up() {
    say "!! SKIPPED: the suite of $1 is not run: $2"
    GIVEN_UP="$GIVEN_UP  !! not run: the suite of $1: $2
"
}

# redis_sources: those of the version that is installed, from Debian, which has the same tests, or from its repository.
redis_sources() {
    local version=$1 folder=$ROOT/redis-$1 lists=$ROOT/apt
    [ ! -e "$folder/tests/test_helper.tcl" ] || return 0
    rm -rf "$folder"
    if have apt-get && [ -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
        say "+ apt-get source redis   (with lists of its own, in $lists)"
        mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
        # shellcheck source=/dev/null
        (
            . /etc/os-release
            key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
            printf '%s\n' "deb-src $key http://deb.debian.org/debian $VERSION_CODENAME main" \
                "deb-src $key http://deb.debian.org/debian-security $VERSION_CODENAME-security main" >"$lists/sources.list"
            set -- -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null \
                -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache"
            apt-get "$@" -qq update && cd "$lists" && apt-get "$@" -qq --download-only source redis
        ) >"$ROOT/apt.log" 2>&1 || true
        if [ -e "$lists/redis_$version.orig.tar.gz" ]; then
            tar -xzf "$lists/redis_$version.orig.tar.gz" -C "$ROOT"
        fi
    fi
    if [ ! -e "$folder/tests/test_helper.tcl" ] && have git; then
        say "+ git clone redis $version"
        limit 300 git clone --quiet --depth 1 --branch "$version" https://github.com/redis/redis "$folder" || rm -rf "$folder"
    fi
    [ -e "$folder/tests/test_helper.tcl" ]
}

# python_sources: the package of redis-py with its tests, and a Python of its own to run them.
python_sources() {
    local folder=$ROOT/redis-$REDIS_PY venv=$ROOT/python needs=tests/suites/redis-py.txt key
    if [ ! -x "$venv/bin/pip" ]; then
        python3 -m venv "$venv" || { rm -rf "$venv"; return 1; }
    fi
    key=$(cksum <"$needs")
    if [ "$(cat "$venv/installed" 2>/dev/null)" != "$key" ]; then
        say "+ pip install -r $needs   (below target/suites)"
        limit 300 "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$needs" || return 1
        printf '%s' "$key" >"$venv/installed"
    fi
    if [ ! -e "$folder/tests/conftest.py" ]; then
        say "+ pip download redis==$REDIS_PY   (its sources)"
        limit 300 "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
            --dest "$ROOT" "redis==$REDIS_PY" && tar -xzf "$ROOT/redis-$REDIS_PY.tar.gz" -C "$ROOT"
    fi
    [ -e "$folder/tests/conftest.py" ]
}

mkdir -p "$ROOT"
have redis-server || die "redis-server is not installed"
have python3 || die "python3 is not installed"
cargo build --locked

set -- --place "$ROOT" --nearcache "${CARGO_TARGET_DIR:-$PWD/target}/debug/nearcache" "$@"
VERSION=$(redis-server --version | sed -n 's/.* v=\([0-9.]*\) .*/\1/p')
if ! have tclsh; then
    given_up Redis "tclsh is not installed (apt-get install tcl)"
elif redis_sources "$VERSION"; then
    set -- --redis "$ROOT/redis-$VERSION" "$@"
else
    given_up Redis "the sources of redis $VERSION could not be had"
fi
if python_sources; then
    set -- --redis-py "$ROOT/redis-$REDIS_PY" --python "$ROOT/python/bin/python" "$@"
else
    given_up redis-py "redis $REDIS_PY or what its tests need could not be had"
fi
status=0
python3 tests/suites/run.py "$@" || status=$?
printf '%s' "$GIVEN_UP"
exit "$status"
