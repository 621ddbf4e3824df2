"""What every SQLite has to do, in whatever way it was built: acknowledged means at the primary.

On Debian's SQLite as a part of the suite; on each of harness/sqlites.py by tests/matrix/run.py.
"""
import itertools
import subprocess

import pytest
import test_write_kills
from harness import sqlites
from harness.check import fails, identical, in_words, outcome
from harness.crypt import RAW
from harness.host import BUSY, BUSY_SNAPSHOT, DEFAULTS
from harness.paths import LIB, SQLITE, python_on

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL)"
ROWS = "SELECT id, v FROM t ORDER BY id"
INSERT = "INSERT INTO t(v) VALUES(?)"
LARGE = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) INSERT INTO t(v) SELECT hex(randomblob(400)) FROM n"


# write_lock, write_path, key. A build runs every pair of two of them, and two neighbours in the list all eight.
WAYS = [way for number, way in enumerate(itertools.product(["eager", "optimistic"], ["pages", "rows"], [None, RAW]))
        if SQLITE is None or (number.bit_count() + sqlites.NAMES.index(SQLITE)) % 2]


@pytest.fixture(params=WAYS, ids=[f"{lock}-{path}-{'encrypted' if key else 'plain'}" for lock, path, key in WAYS])
def way(request, monkeypatch):
    """A way to write: options that every replica of the test has."""
    lock, write_path, key = request.param
    options = {"write_lock": lock, "write_path": write_path, **({"encryption_key": key} if key else {})}
    for name, value in options.items():
        monkeypatch.setitem(DEFAULTS, name, value)
    return options


def arrived(db, primary, query=ROWS):
    """The primary answers now what the replica does."""
    here = [list(row) for row in db(query)]
    assert here == primary.sql(query)
    return here


def settled(db, primary, path):
    """Nothing was kept back: the replica says so, and after a sync it is still the same, to the byte."""
    rows = arrived(db, primary)
    db.sync()
    assert arrived(db, primary) == rows
    assert db.frame_no == primary.hello()[1]
    assert db.status()["last_error"] is None
    assert db("PRAGMA integrity_check") == [("ok",)]
    if "encryption_key" not in DEFAULTS:
        identical(path, primary)


def test_it_is_the_sqlite_that_was_asked_for(host):
    """And the library is loaded into it."""
    (version,) = host._loader("SELECT sqlite_version() WHERE replica_version() IS NOT NULL")[0]
    if SQLITE in sqlites.BUILDS:
        assert version == sqlites.BUILDS[SQLITE].version


def test_one_that_is_too_old_is_refused_in_words():
    program = f"import sqlite3; db = sqlite3.connect(':memory:'); db.enable_load_extension(True); db.load_extension({LIB!r})"
    done = subprocess.run([python_on(sqlites.TOO_OLD), "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    in_words(done.stderr.splitlines()[-1], "3.34.1")


def test_commits_of_one_connection(way, host, path, new_primary):
    primary = new_primary(SCHEMA)
    db = host.open(path, primary.url)
    for n in range(4):
        db(INSERT, f"one of several {n}")
        assert len(arrived(db, primary)) == n + 1
    for begin in "BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "SAVEPOINT s":
        db(begin)
        db(INSERT, begin)
        db("UPDATE t SET v = v || '!' WHERE id % 2")
        db("RELEASE s" if begin == "SAVEPOINT s" else "COMMIT")
        arrived(db, primary)
    for mode in "PASSIVE", "FULL", "RESTART", "TRUNCATE":
        assert db.one(f"PRAGMA wal_checkpoint({mode})") == 0
        db(INSERT, f"after {mode}")
        arrived(db, primary)
    assert db.status()["commits_shipped"] == 12
    settled(db, primary, path)


def test_what_is_no_commit_is_not_at_the_primary(way, host, path, new_primary):
    primary = new_primary(SCHEMA)
    db = host.open(path, primary.url)
    db(INSERT, "first")
    newest = primary.hello()
    for begin in "BEGIN", "BEGIN IMMEDIATE":
        db(begin)
        db(INSERT, "not to be")
        db("ROLLBACK")
    db("PRAGMA cache_size = 5")
    db("BEGIN")
    db(LARGE)
    db("ROLLBACK")
    fails(lambda: db("INSERT INTO t(v) VALUES('a'), (NULL)"), 19)
    db("DELETE FROM t WHERE id > 1000")
    assert primary.hello() == newest and arrived(db, primary) == [[1, "first"]]
    db(INSERT, "second")
    assert len(arrived(db, primary)) == 2
    settled(db, primary, path)


def test_schema_and_growth(way, host, path, new_primary):
    primary = new_primary(SCHEMA)
    db = host.open(path, primary.url)
    schema = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    for statement in ("CREATE TABLE u(a, b)", LARGE, "CREATE INDEX t_v ON t(v)", "INSERT INTO u SELECT id, v FROM t",
                      "ALTER TABLE u ADD COLUMN c DEFAULT 5", "DELETE FROM t WHERE id > 3", "UPDATE u SET c = a",
                      "DROP TABLE u", "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET v = v || 't' WHERE id = new.id; END",
                      LARGE):
        db(statement)
        arrived(db, primary, schema)
        arrived(db, primary)
    settled(db, primary, path)


def test_values_are_exact(way, host, path, new_primary):
    """Not as text: how a number is printed differs from version to version."""
    primary = new_primary("CREATE TABLE v(id INTEGER PRIMARY KEY, x)")
    db = host.open(path, primary.url)
    values = [None, 0, -1, 2**63 - 1, -2**63, 0.1, -1e308, 5e-324, "", "text", "😀", b"", b"\0\xff", bytes(range(256)) * 99]
    db("BEGIN")
    for value in values:
        db("INSERT INTO v(x) VALUES(?)", value)
    db("COMMIT")
    assert [row[1:] for row in arrived(db, primary, "SELECT id, typeof(x), x FROM v ORDER BY id")] == \
        [[{type(None): "null", int: "integer", float: "real", str: "text", bytes: "blob"}[type(v)], v] for v in values]


def test_a_stale_replica(way, host, path, new_primary):
    """Its own statement works on the newest state; a transaction that has read may not."""
    primary = new_primary(SCHEMA)
    db = host.open(path, primary.url)
    for n in range(4):
        primary.sql(INSERT, f"there {n}")
        error = outcome(lambda: db(INSERT, f"here {n}"))
        if error:  # an optimistic one is refused once, and from then on eager for a while
            assert (way["write_lock"], error.extended) == ("optimistic", BUSY_SNAPSHOT)
            db(INSERT, f"here {n}")
        assert len(arrived(db, primary)) == 2 * n + 2
    primary.sql(INSERT, "there")
    db("BEGIN IMMEDIATE")
    db(INSERT, "here")
    db("COMMIT")
    assert len(arrived(db, primary)) == 10
    db("BEGIN")
    db(ROWS)
    primary.sql(INSERT, "in between")
    error = fails(lambda: db(INSERT, "upon an old snapshot") or db("COMMIT"), BUSY)
    assert error.extended == BUSY_SNAPSHOT
    db("ROLLBACK")
    db(INSERT, "again")
    assert [row[1] for row in arrived(db, primary)[10:]] == ["in between", "again"]
    settled(db, primary, path)


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "INSERT INTO t(v) VALUES('at once')"])
def test_the_first_statement_on_a_slow_way(begin, host, path, new_primary, new_proxy):
    """Nothing has been read through the connection, and the primary's lock is waited for inside that call."""
    primary = new_primary(SCHEMA)
    proxy = new_proxy(primary.url)
    host.open(path, proxy.url).close()
    proxy.delay = 0.1
    db = host.open(path, proxy.url)
    db(begin)
    if begin.startswith("BEGIN"):
        db(INSERT, "in it")
        db("COMMIT")
    assert len(arrived(db, primary)) == 1


def test_connections_and_processes_in_turn(way, host, new_host, path, new_primary):
    primary = new_primary(SCHEMA)
    writers = [host.open(path, primary.url), host.open(path, primary.url), new_host().open(path, primary.url)]
    for n in range(9):
        writers[n % 3](INSERT, f"writer {n % 3}")
        for db in writers:
            assert len(arrived(db, primary)) == n + 1
        if n % 4 == 3:
            writers[(n + 1) % 3]("PRAGMA wal_checkpoint(TRUNCATE)")
    settled(writers[0], primary, path)


def test_the_first_table_of_an_empty_primary(way, host, path, new_primary):
    primary = new_primary()
    db = host.open(path, primary.url)
    db(SCHEMA)
    arrived(db, primary, "SELECT name, sql FROM sqlite_master")
    for n in range(3):
        db(INSERT, f"row {n}")
        assert len(arrived(db, primary)) == n + 1
    settled(db, primary, path)


def test_kills_and_recovery(way, new_host, path, new_primary, new_fault_proxy):
    """What was acknowledged survives, what was not is nowhere, and the one that comes next goes on."""
    primary = new_primary(SCHEMA)
    proxy = new_fault_proxy(primary.url)
    for n in range(2):
        host = new_host()
        db = host.open(path, proxy.url)
        db(INSERT, f"acknowledged {n}")
        host.kill()
        host = new_host()
        db = host.open(path, proxy.url)
        assert len(arrived(db, primary)) == 2 * n + 1
        db(INSERT, f"behind the recovery {n}")
        arrived(db, primary)
        db("PRAGMA cache_size = 5")
        db("BEGIN")
        db(LARGE)
        host.kill()
        proxy.close_streams()  # what the dead one had open holds the lock for 5 s
    db = new_host().open(path, proxy.url)
    assert len(arrived(db, primary)) == 4
    db(INSERT, "last")
    arrived(db, primary)
    settled(db, primary, path)


@pytest.mark.parametrize("lock, write_path", [way[:2] for way in WAYS if way[2] is None])
def test_kills_at_any_moment(lock, write_path, new_host, path, new_primary, new_fault_proxy, monkeypatch):
    """A few of what test_write_kills.py does at length."""
    monkeypatch.setitem(DEFAULTS, "write_path", write_path)
    primary = new_primary(test_write_kills.SEED)
    lane = test_write_kills.Lane(primary, new_fault_proxy(primary.url), path, lock, f"{SQLITE} {lock}")
    for number in range(4):
        lane.kill_one(number)
    db = new_host().open(path, primary.url)
    db.sync()
    identical(path, primary)


def test_a_torn_index_of_the_log(way, new_host, path, new_primary):
    """A writer that died within the header of the -shm: whoever comes next recovers it, and that is no write."""
    primary = new_primary(SCHEMA)
    first, second = [new_host().open(path, primary.url) for _ in range(2)]
    for n, (db, other) in enumerate([(first, second), (second, first)] * 2):
        db(INSERT, f"before {n}")
        with open(f"{path}-shm", "r+b") as shm:
            shm.seek(8)
            shm.write(b"\xff\xff\xff\xff")  # the change counter of the first copy
        (other if n < 2 else db)(INSERT, f"behind {n}")
        assert len(arrived(other, primary)) == len(arrived(db, primary)) == 2 * n + 2
    settled(first, primary, path)


def test_pull_and_live(way, host, new_host, path, new_primary):
    primary = new_primary(SCHEMA)
    db = host.open(path, primary.url)
    for n in range(3):
        primary.sql(INSERT, f"there {n}")
        assert db.sync()["frames_synced"] > 0
        assert len(arrived(db, primary)) == n + 1
        db("PRAGMA wal_checkpoint(TRUNCATE)")
    settled(db, primary, path)
