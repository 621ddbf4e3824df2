"""Round trips, write_lock, read_your_writes, replica_exec, replica_freeze."""
import json
import random
import time

import pytest
from harness.check import fails, identical, in_words, refused, series
from harness.host import BUSY_SNAPSHOT, READONLY, SqlError
from harness.shell import sidecars, stock

pytestmark = pytest.mark.usefixtures("write_path")
FIFTY = [("INSERT INTO users(name, email) VALUES(?, ?)", f"n{n}", "x" * 300) for n in range(50)]


def requests(proxy, action):
    proxy.requests.clear()
    action()
    return [path.rsplit("/", 1)[1] for path in proxy.requests]


def transaction(db, statements):
    db("BEGIN")
    for sql, *args in statements:
        db(sql, *args)
    db("COMMIT")


@pytest.mark.parametrize("statements", [FIFTY[:1], FIFTY], ids=["one", "fifty"])
def test_eager_takes_two_round_trips(statements, host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    for _ in range(3):
        assert requests(proxy, lambda: transaction(db, statements)) == ["pipeline"] * 2
    assert requests(proxy, lambda: db(*statements[0])) == ["pipeline"] * 2
    identical(path, primary)


def test_optimistic_takes_one_round_trip(host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, write_lock="optimistic")
    updates = [("UPDATE users SET email = ? WHERE id = ?", str(n), n + 1) for n in range(50)]
    transaction(db, updates)
    assert requests(proxy, lambda: transaction(db, [(sql, f"{x}!", n) for sql, x, n in updates])) == ["pipeline"]
    assert requests(proxy, lambda: transaction(db, updates)) == ["pipeline"]
    assert requests(proxy, lambda: db(updates[0][0], "?", 7)) == ["pipeline"]
    identical(path, primary)


def test_optimistic_is_eager_for_a_while_after_a_conflict(host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, write_lock="optimistic")
    update = "UPDATE users SET email = ? WHERE id = 1"
    db(update, "a")
    primary.sql("UPDATE users SET name = 'theirs' WHERE id = 2")
    with pytest.raises(SqlError) as caught:
        db(update, "b")
    assert caught.value.extended == BUSY_SNAPSHOT
    db(update, "c")
    # (What is left of the conflict ends on a connection of its own, which costs a Hello or two.)
    written = lambda text: [r for r in requests(proxy, lambda: db(update, text)) if r == "pipeline"]
    db(update, "c")
    time.sleep(0.3)
    assert written("d") == ["pipeline"] * 2
    for n in range(30):
        db(update, str(n))
    assert written("e") == ["pipeline"]
    assert primary.sql("SELECT name, email FROM users WHERE id < 3") == [["user 1", "e"], ["theirs", "u2@example.org"]]
    identical(path, primary)


@pytest.mark.parametrize("write_path", ["pages"], indirect=True)
def test_an_own_commit_is_not_pulled_back(host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    before = db.status()["frames_applied"]
    transaction(db, FIFTY)
    received = proxy.bytes_back
    assert db.sync()["frames_synced"] == 0
    assert proxy.bytes_back - received < 2000
    assert db.status()["frames_applied"] == before
    assert db.frame_no == primary.hello()[1]


def test_read_your_writes_off(host, path, primary):
    db = host.open(path, primary.url, read_your_writes=0)
    frame_no = db.frame_no
    db("INSERT INTO users(name) VALUES('mine')")
    assert primary.sql("SELECT count(*) FROM users") == [[201]]
    assert db.one("SELECT count(*) FROM users") == 200 and db.frame_no == frame_no
    assert stock(path, "PRAGMA integrity_check;") == "ok"
    assert db.sync()["frames_synced"] > 0
    assert db.one("SELECT count(*) FROM users") == 201
    db("BEGIN")
    db("CREATE TABLE t AS SELECT * FROM users")
    assert db.one("SELECT count(*) FROM t") == 201
    db("COMMIT")
    with pytest.raises(SqlError):
        db("SELECT * FROM t")
    db("INSERT INTO users(name) VALUES('more')")  # syncs first, so as not to build on what is hidden
    db.sync()
    assert db.one("SELECT count(*) FROM t") == 201 and db.one("SELECT count(*) FROM users") == 202
    identical(path, primary)


def test_exec(replica, primary, path):
    run = lambda *args: json.loads(replica.one(f"SELECT replica_exec({', '.join('?' * len(args))})", *args))
    answer = run("INSERT INTO users(name, email) VALUES(?, ?)", "direct", None)
    assert answer == {"columns": [], "rows": [], "affected_rows": 1, "last_insert_rowid": 201}
    assert replica.one("SELECT name FROM users WHERE id = 201") == "direct"
    answer = run("SELECT ?1 AS a, ?2 AS b, ?3 AS c, ?4 AS d, x'00ff' AS e", 7, 1.5, "text", None)
    assert answer["columns"] == ["a", "b", "c", "d", "e"]
    assert answer["rows"] == [[7, 1.5, "text", None, {"base64": "AP8="}]]
    assert run("SELECT hex(?), typeof(?)", b"\1\2", b"")["rows"] == [["0102", "blob"]]
    in_words(refused(lambda: run("SELECT * FROM nowhere"), "nowhere").text)
    refused(lambda: run("INSERT INTO users(id, name) VALUES(1, 'x')"), "UNIQUE", code=19)
    refused(lambda: run("SELECT 1; SELECT 2"))
    refused(lambda: replica("SELECT replica_exec()"), "statement")
    identical(path, primary)


def test_freeze(host, new_host, path, primary):
    db, other = host.open(path, primary.url), new_host().open(path)
    db("INSERT INTO users(name) VALUES('shared')")
    newest = primary.hello()
    assert db.one("SELECT replica_freeze()") == str(path)
    for connection in (db, other):
        connection("INSERT INTO users(name) VALUES('local')")
        refused(lambda: connection("SELECT replica_sync()"), "not a replica")
    assert primary.hello() == newest
    assert db.one("SELECT count(*) FROM users") == 203
    db.close()
    other.close()
    assert not [name for name in sidecars(path) if name.endswith("-replica")]
    assert stock(path, "INSERT INTO users(name) VALUES('stock'); SELECT count(*) FROM users; PRAGMA integrity_check;") == "204\nok"
    plain = host.open(path)
    assert plain.one("SELECT count(*) FROM users") == 204
    with pytest.raises(SqlError):
        host.open(path, primary.url)  # it has content of its own now


def test_a_position_file_that_is_taken_away_is_no_freeze(write_path, host, path, primary):
    """What would be written then would be nowhere but here: it is refused. Reads go on."""
    db = host.open(path, primary.url)
    db("INSERT INTO users(name) VALUES('shared')")
    position, away = path.with_name(f"{path.name}-replica"), path.with_name("away")
    position.rename(away)
    for write in ("INSERT INTO users(name) VALUES('nowhere')", "BEGIN IMMEDIATE"):
        fails(lambda: db(write), READONLY)
        in_words(host.last_error(), "-replica' is gone")
    refused(lambda: db.sync(), "-replica' is gone")
    assert db.one("SELECT count(*) FROM users") == 201 and db.status()["frame_no"]
    away.rename(position)
    db("INSERT INTO users(name) VALUES('again')")
    assert primary.sql("SELECT name FROM users WHERE id > 200") == [["shared"], ["again"]]
    # In the midst of a transaction.
    db("BEGIN")
    db("INSERT INTO users(name) VALUES('nowhere')")
    position.unlink()
    fails(lambda: db("COMMIT"), READONLY)
    assert primary.sql("SELECT count(*) FROM users") == [[202]]


def test_freeze_ends_background_work(host, new_host, path, primary):
    """Of this process and of another one."""
    db, other = host.open(path, primary.url, live=1), new_host().open(path, primary.url, live=1)
    db("INSERT INTO users(name) VALUES('shared')")
    db("SELECT replica_freeze()")
    primary.sql("UPDATE users SET name = 'theirs'")
    time.sleep(0.5)
    assert db.one("SELECT count(*) FROM users WHERE name = 'theirs'") == 0
    db("INSERT INTO users(name) VALUES('local')")
    assert other.one("SELECT count(*) FROM users") == 202
    assert stock(path, "PRAGMA integrity_check;") == "ok"


def test_optimistic_takes_one_round_trip_for_growth_too(write_path, host, path, primary, new_fault_proxy):
    proxy = new_fault_proxy(primary.url)
    db = host.open(path, proxy.url, write_lock="optimistic")
    work = [f"INSERT INTO orders SELECT NULL, 1, randomblob(200) FROM {series(300)}", "UPDATE orders SET note = randomblob(300) WHERE id % 11 = 5",
            f"INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM {series(20)}", f"INSERT INTO users(name) SELECT 'n' FROM {series(1000)}"]
    db("UPDATE users SET name = name || '.'")
    pages = db.one("PRAGMA page_count")
    for n in range(20):
        del proxy.log[:]
        db(work[n % len(work)])
        shipped = [(begins, commits) for _, begins, commits, *_ in proxy.log if begins or commits]
        assert shipped == [(True, True)], n
    assert db.one("PRAGMA page_count") > pages + 100
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(path, primary)
    db("CREATE INDEX more ON orders(user_id, id)")  # an eager one, and on with one request each
    db("UPDATE users SET name = name || '.'")
    del proxy.log[:]
    db(work[2])
    assert [(begins, commits) for _, begins, commits, *_ in proxy.log if begins or commits] == [(True, True)]
    identical(path, primary)


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("tables", range(2, 36, 3))
def test_growth_in_one_request_beside_a_schema_that_fills_its_page(tables, statistics, host, path, new_primary):
    """Where there is no room for one more object, or others are looked at with it, the lock is taken first."""
    primary = new_primary("CREATE TABLE t(x);" + "".join(f"CREATE TABLE a_name_of_some_length_{n}(x, y);" for n in range(tables)))
    db = host.open(path, primary.url, write_lock="optimistic", write_path="pages")
    if statistics:
        db("INSERT INTO t VALUES(1)")
        db("CREATE INDEX i ON t(x)")
        db("ANALYZE")
    for n in range(6):
        db("INSERT INTO t VALUES(randomblob(9000))")
        db(f"UPDATE t SET x = randomblob(9000) WHERE rowid = {n}")
        if statistics and n % 2:
            db("ANALYZE")
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    assert primary.sql("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'lr%'") == [[0]]
    identical(path, primary)


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_any_order_of_commits_of_any_kind(lock, write_path, host, path, primary):
    """On streams kept, prepared and taken anew, with others' commits in between."""
    rng = random.Random(f"{lock} {write_path}")
    replica = host.open(path, primary.url, write_lock=lock)

    def db(*statement):
        try:
            return replica(*statement)
        except SqlError as error:  # a guess that somebody else has made wrong
            assert lock == "optimistic" and error.extended == BUSY_SNAPSHOT
            return replica(*statement)

    for n in range(120):
        kind = rng.randrange(7)
        if kind == 0:
            db(f"CREATE TABLE made_{n}(x)")
        elif kind == 1:
            for (name,) in db("SELECT name FROM sqlite_schema WHERE name LIKE 'made%' LIMIT 2"):
                db(f"DROP TABLE {name}")
        elif kind == 2:
            db(f"INSERT INTO orders SELECT NULL, 1, randomblob(?) FROM {series(30)}", rng.randrange(3000))
        elif kind == 3:
            db("DELETE FROM orders WHERE id % 9 = ?", rng.randrange(9))
        elif kind < 6:
            db("UPDATE orders SET note = randomblob(300) WHERE id % 11 = ?", rng.randrange(11))
        else:
            primary.sql("UPDATE users SET name = name || '.' WHERE id % 5 = 0")
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(path, primary)


def test_growth_in_one_request_beside_an_underfull_schema_page(host, path, new_primary):
    """Where SQLite would balance the page of sqlite_schema that a throw-away table has come to and left."""
    long = ", ".join(f"column_with_a_long_name_{n} DEFAULT 'and a long default value'" for n in range(50))
    primary = new_primary(f"CREATE TABLE first({long});" + "".join(
        f"CREATE TABLE t{n}(x, {', '.join(f'y{m} DEFAULT 12345678' for m in range(14))});" for n in range(5)))
    db = host.open(path, primary.url, write_lock="optimistic", write_path="pages")
    for n in range(12):
        db("INSERT INTO t0(x) VALUES(randomblob(9000))")
        db("UPDATE t0 SET x = randomblob(9000) WHERE rowid = ?", n)
        if n == 6:
            db("ALTER TABLE t4 DROP COLUMN y13")
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    assert primary.sql("SELECT count(*) FROM sqlite_schema") == [[6]]
    identical(path, primary)
