#!/bin/sh
# The README's second command: every test. Installs what it needs (Debian 12, root; Rust is there).
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo fmt --all --check
cargo clippy --release --all-targets -- -D warnings
cargo test --release
cargo build --release
/usr/bin/python3 -m pytest -q tests "$@"
