"""Bootstrap, increment, no-op: after each the replica is the primary, byte for byte."""
import random

import pytest
from harness.check import identical, same_bytes
from harness.host import replica_uri
from harness.shell import sidecars, stock


def test_bootstrap(replica, primary, path):
    assert replica("SELECT * FROM users ORDER BY id") == [tuple(r) for r in primary.sql("SELECT * FROM users ORDER BY id")]
    assert replica("SELECT * FROM spenders") == [tuple(r) for r in primary.sql("SELECT * FROM spenders")]
    assert replica.frame_no == primary.hello()[1]
    assert replica.sync() == {"frame_no": replica.frame_no, "frames_synced": 0}
    identical(path, primary)


def test_own_checkpoint_leaves_the_primary_s_bytes(replica, primary, path):
    assert replica("PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
    assert path.with_name("app.db-wal").stat().st_size == 0
    same_bytes(path.read_bytes(), primary.image().bytes())


def test_close_leaves_the_primary_s_bytes(replica, primary, path):
    primary.sql("UPDATE users SET name = name || '!'")
    replica.sync()
    replica.close()
    same_bytes(path.read_bytes(), primary.image().bytes())
    assert sidecars(path) == ["app.db", "app.db-replica"]


def test_increment(replica, primary, path):
    before = replica.frame_no
    primary.sql("INSERT INTO users(name) VALUES('new')")
    primary.script("DELETE FROM orders WHERE id % 3 = 0; UPDATE users SET email = NULL WHERE id % 2;")
    newest = primary.hello()[1]
    assert replica.sync() == {"frame_no": newest, "frames_synced": newest - before}
    assert replica.frame_no == newest
    for query in ("SELECT * FROM users", "SELECT * FROM orders", "SELECT * FROM spenders"):
        assert replica(query) == [tuple(row) for row in primary.sql(query)]
    identical(path, primary)


def test_no_op(replica, primary, path):
    before = replica.frame_no
    for _ in range(3):
        assert replica.sync() == {"frame_no": before, "frames_synced": 0}
    assert replica.status()["frame_no"] == before == replica.status()["primary_frame_no"]
    identical(path, primary)


def test_requests_of_a_sync(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    print("bootstrap:", proxy.requests)
    counts = {}
    for what in ("no-op", "increment"):
        if what == "increment":
            primary.sql("UPDATE users SET name = 'x' WHERE id = 1")
        proxy.requests, connections = [], proxy.connections
        db.sync()
        counts[what] = len(proxy.requests)
        print(f"{what}:", proxy.requests)
        assert proxy.connections == connections, "the connection is not kept"
    assert counts["no-op"] <= 2 and counts["increment"] <= 3


def test_many_random_increments(host, primary, path):
    rng = random.Random(7)
    db = host.open(path, primary.url)
    for i in range(40):
        for _ in range(rng.randrange(1, 4)):
            low, count = rng.randrange(4000), rng.randrange(1, 400)
            primary.sql(*rng.choice([
                ("INSERT INTO orders SELECT NULL, 1 + value % 50, randomblob(value % 3000) "
                 "FROM generate_series(1, ?)", count),
                ("DELETE FROM orders WHERE id BETWEEN ? AND ?", low, low + 5 * count),
                ("UPDATE orders SET note = randomblob(500) WHERE id BETWEEN ? AND ?", low, low + count),
                (f"CREATE TABLE IF NOT EXISTS t{i} AS SELECT * FROM users LIMIT ?", count),
                ("CREATE INDEX IF NOT EXISTS by_note ON orders(note)",),
                ("DROP INDEX IF EXISTS by_note",),
            ]))
        assert db.sync()["frame_no"] == primary.hello()[1]
        assert db("SELECT count(*), total(length(note)) FROM orders") == \
            [tuple(r) for r in primary.sql("SELECT count(*), total(length(note)) FROM orders")]
        if i % 5 == 0:
            identical(path, primary)
    identical(path, primary)


def test_one_large_transaction(replica, primary, path):
    """More frames in one commit than a batch holds, with pages that were written twice."""
    primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM generate_series(1, 8000)")
    before = replica.frame_no
    result = replica.sync()
    assert result["frames_synced"] == primary.hello()[1] - before > 8000 * 3000 // 4096
    assert replica.one("SELECT count(*) FROM orders") == 8200
    identical(path, primary)


def test_many_small_commits_at_once(replica, primary, path):
    primary.script("".join(f"INSERT INTO users(name) VALUES('{i}');" for i in range(1500)))
    assert replica.sync()["frames_synced"] >= 1500
    assert replica.one("SELECT max(name + 0) FROM users") == 1499
    identical(path, primary)


def test_empty_primary_then_its_first_table(host, new_primary, path):
    primary = new_primary()
    db = host.open(path, primary.url)
    assert (db("SELECT * FROM sqlite_schema"), db.frame_no, db.sync()["frames_synced"]) == ([], None, 0)
    primary.script("CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    db.sync()
    assert (db("SELECT a FROM t"), db.frame_no) == ([(1,)], primary.hello()[1])
    identical(path, primary)


def test_empty_primary_closed_and_opened_again(host, new_primary, path):
    primary = new_primary()
    host.open(path, primary.url).close()
    db = host.open(path, primary.url)
    primary.script("CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    db.sync()
    assert db("SELECT a FROM t") == [(1,)]
    identical(path, primary)


def test_schema_change_reaches_every_connection(host, replica, primary, path, new_host):
    others = [host.open(path), new_host().open(path), new_host(library=None).plain(path)]
    for db in others:
        assert db.one("SELECT count(*) FROM users") == 200
    primary.script("ALTER TABLE users ADD COLUMN age DEFAULT 7; CREATE TABLE fresh(a); DROP VIEW spenders;")
    replica.sync()
    for db in (replica, *others):
        assert db.one("SELECT sum(age) FROM users") == 1400
        assert db("SELECT * FROM fresh") == []


def test_primary_restarted(replica, primary, path):
    """A clean restart makes every session unknown (NO_HELLO) and keeps the history."""
    for i in range(3):
        primary.restart()
        primary.sql("UPDATE users SET name = ? WHERE id = 2", f"restart {i}")
        before = replica.frame_no
        assert replica.sync()["frames_synced"] == primary.hello()[1] - before
        assert replica.one("SELECT name FROM users WHERE id = 2") == f"restart {i}"
    primary.restart()
    assert replica.sync()["frames_synced"] == 0
    assert replica.status()["last_error"] is None
    identical(path, primary)


def test_open_again_and_catch_up(host, primary, path):
    for i in range(4):
        db = host.open(path, primary.url)
        assert (db.sync()["frames_synced"] > 0) == (i > 0)
        db.close()
        identical(path, primary)
        primary.sql("INSERT INTO users(name) VALUES('more')")


def test_two_replicas_in_one_directory(host, new_primary, tmp_path):
    primaries = [new_primary(f"CREATE TABLE t(a); INSERT INTO t VALUES({n});") for n in (1, 2)]
    paths = [tmp_path / "a.db", tmp_path / "b.db"]
    dbs = [host.open(path, primary.url) for path, primary in zip(paths, primaries)]
    for primary in primaries:
        primary.sql("INSERT INTO t VALUES(9)")
    for db in dbs:
        db.sync()
    for path, primary in zip(paths, primaries):
        identical(path, primary)


def test_bound_to_one_schema_of_a_connection(host, primary, path):
    db = host.plain(":memory:", uri=True)
    db("ATTACH ? AS app", replica_uri(path, primary.url))
    primary.sql("INSERT INTO users(name) VALUES('new')")
    assert db.sync("app")["frames_synced"] > 0
    assert db.one("SELECT replica_frame_no('app')") == primary.hello()[1]
    assert db.one("SELECT count(*) FROM users") == 201


@pytest.mark.parametrize("statement", [
    "CREATE TABLE fat(a); INSERT INTO fat SELECT randomblob(1000000) FROM generate_series(1, 10); DROP TABLE fat",
    "CREATE VIRTUAL TABLE words USING fts5(text); INSERT INTO words SELECT name || ' ' || email FROM users",
    "CREATE TABLE strict(a INTEGER PRIMARY KEY, b ANY) STRICT, WITHOUT ROWID; INSERT INTO strict VALUES(1, x'00')",
    "PRAGMA user_version = 77",
])
def test_every_kind_of_page(statement, replica, primary, path):
    primary.script(statement)
    replica.sync()
    identical(path, primary)
    if "fts5" in statement:
        assert stock(path, "SELECT count(*) FROM words WHERE words MATCH 'user';") == "200"
    if "user_version" in statement:
        assert replica.one("PRAGMA user_version") == 77


def test_wal_stays_bounded(replica, primary, path):
    """While the replica only pulls, and again after a long reader has ended."""
    wal, peak = path.with_name("app.db-wal"), 0

    def pull(times):
        nonlocal peak
        for _ in range(times):
            primary.sql("UPDATE orders SET note = randomblob(1200) WHERE id % 2 = 0")
            replica.sync()
            peak = max(peak, wal.stat().st_size)

    pull(150)
    print(f"WAL at most {peak / 1e6:.1f} MB in 150 syncs, {replica.status()['bytes_received'] / 1e6:.0f} MB received")
    assert peak < 20e6
    reader = replica.host.open(path)
    reader("BEGIN")
    old = reader("SELECT total(length(note)) FROM orders")
    pull(60)
    assert reader("SELECT total(length(note)) FROM orders") == old
    reader("COMMIT")
    grown, peak = peak, 0
    pull(150)
    print(f"{grown / 1e6:.1f} MB under a long reader, {peak / 1e6:.1f} MB in the next 150 syncs")
    assert peak <= grown + 20e6
    identical(path, primary)


def test_spill_files_of_a_big_query(replica):
    """Sorters and temporary tables go through the same VFS."""
    replica("PRAGMA cache_size = 5")
    replica("PRAGMA temp_store = file")
    replica("CREATE TEMP TABLE big AS SELECT value, randomblob(200) AS b FROM "
            "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20000) SELECT * FROM n)")
    rows = replica("SELECT value FROM big ORDER BY b")
    assert sorted(rows) == [(n,) for n in range(1, 20001)]


def test_copies_out_of_a_replica(replica, primary, path):
    """VACUUM INTO and ATTACH go through the same VFS to plain files."""
    copy, other = path.with_name("copy.db"), path.with_name("other.db")
    replica("VACUUM INTO ?", str(copy))
    assert stock(copy, "PRAGMA integrity_check; SELECT count(*) FROM users;") == "ok\n200"
    replica("ATTACH ? AS other", str(other))
    replica("CREATE TABLE other.t AS SELECT * FROM users")
    replica("DETACH other")
    assert stock(other, "SELECT count(*) FROM t;") == "200"
    assert sidecars(copy) == ["copy.db"] and sidecars(other) == ["other.db"]
    identical(path, primary)
