#!/bin/sh
# The README's second command: every test. Installs what it needs (Debian 12, root; Rust is there).
# `run.sh ARGUMENT…`: the Python suite alone is run with these, as pytest takes them.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
sh tests/hosts/setup.sh &
hosts=$!
cargo fmt --all --check
cargo clippy --release --all-targets -- -D warnings
cargo test --release
cargo build --release
wait $hosts
# Side by side. Some look at the clock: what fails beside others has to pass alone.
/usr/bin/python3 -m pytest -q -n 3 tests "$@" ||
    /usr/bin/python3 -m pytest -q --last-failed --last-failed-no-failures none tests "$@"
[ $# != 0 ] || /usr/bin/python3 tests/matrix/run.py
