"""Commits shipped as rows: what the way itself promises, beyond what every write test asks of it."""
import threading
import time
from pathlib import Path

import pytest
from harness.check import identical, in_words
from harness.faults import CUT, CUT_ANSWER, PASS
from harness.host import BUSY_SNAPSHOT, DEFAULTS, READONLY, SqlError
from harness.primary import eventually
from harness.shell import stock

SCHEMA = """
CREATE TABLE people(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, age INT, boss REFERENCES people(id) ON DELETE CASCADE,
  shout TEXT AS (upper(name)), size INT AS (length(name)) STORED);
CREATE TABLE pets(owner INTEGER REFERENCES people(id) ON DELETE CASCADE ON UPDATE CASCADE, name TEXT, PRIMARY KEY(name, owner)) WITHOUT ROWID;
CREATE TABLE log(what TEXT, id INTEGER);
CREATE TABLE steps(n INTEGER);
CREATE TRIGGER people_log AFTER INSERT ON people BEGIN INSERT INTO log VALUES('born', new.id); END;
CREATE TRIGGER people_gone AFTER DELETE ON people BEGIN INSERT INTO log VALUES('gone', old.id); END;
CREATE TRIGGER steps_on AFTER INSERT ON steps WHEN new.n > 0 BEGIN INSERT INTO steps VALUES(new.n - 1); INSERT INTO log VALUES('step', new.n); END;
CREATE INDEX adults ON people(age) WHERE age >= 18;
CREATE UNIQUE INDEX names ON people(lower(name));
CREATE VIRTUAL TABLE words USING fts5(text, tokenize = 'porter');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
"""
TABLES = ["people", "pets", "log", "steps", "sqlite_sequence", "words", "boxes", "boxes_node", "words_data", "words_docsize",
          "sqlite_schema"]


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    monkeypatch.setitem(DEFAULTS, "write_path", "rows")


@pytest.fixture
def db(host, path, new_primary):
    primary = new_primary(SCHEMA)
    replica = host.open(path, primary.url, foreign_keys=1)
    replica.primary, replica.path = primary, path
    return replica


def columns(table):
    return "type, name, tbl_name, sql" if table == "sqlite_schema" else "rowid, *" if table in ("log", "steps") else "*"


def content(ask):
    return {table: sorted(map(repr, map(list, ask(f"SELECT {columns(table)} FROM {table}")))) for table in TABLES}


def equal(db):
    """Row for row, with nothing reconciled."""
    assert content(db) == content(db.primary.sql)
    assert db.primary.sql("PRAGMA integrity_check") == [["ok"]]
    assert db.frame_no == db.primary.hello()[1]


def undo(path):
    return Path(f"{path}-replica-undo")


MANY = [
    "INSERT INTO people(name, age) VALUES('ann', 30), ('bob', 40), ('cid', 5)",
    "UPDATE people SET boss = 1 WHERE id > 1",
    "INSERT INTO people(name, age) VALUES('ann', 9) ON CONFLICT(name) DO UPDATE SET age = excluded.age",
    "REPLACE INTO people(id, name, age) VALUES(2, 'Bea', 41)",
    "INSERT INTO pets SELECT id, 'pet of ' || name FROM people",
    "UPDATE people SET id = id + 100 WHERE name = 'cid'",
    "INSERT INTO steps VALUES(7)",
    "UPDATE people SET name = CASE name WHEN 'ann' THEN 'dan' WHEN 'cid' THEN 'ann' ELSE name END WHERE id <> 2",
    "INSERT INTO words VALUES('running dogs'), ('a sleeping cat')",
    "UPDATE words SET text = 'the dog ran' WHERE rowid = 1",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO boxes SELECT i, i, i + 1, -i, i FROM n",
    "DELETE FROM boxes WHERE id % 3 = 0",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO people(name, age) SELECT hex(randomblob(30)), i FROM n",
    "DELETE FROM people WHERE id = 1",
    "UPDATE people SET age = age + 1, name = name || 'x' WHERE id % 5 = 0",
    "DELETE FROM people WHERE id % 2",
]


def test_many_commits_before_a_pull(db):
    """Each upon pages that the primary lays out another way; what leads back to its own is kept all along."""
    db("PRAGMA recursive_triggers = on")
    for statement in MANY:
        db(statement)
        equal(db)
    assert undo(db.path).exists()
    before = content(db)
    assert db.sync()["frames_synced"] > 0
    assert not undo(db.path).exists() and content(db) == before
    equal(db)
    identical(db.path, db.primary)
    assert db.sync()["frames_synced"] == 0


def test_two_round_trips_each_and_no_more(host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    for n in range(5):
        proxy.requests.clear()
        db("UPDATE users SET email = ? WHERE id < 50", str(n))
        assert [path.rsplit("/", 1)[1] for path in proxy.requests] == ["pipeline"] * 2
        assert db.frame_no == primary.hello()[1]
    identical(path, primary)


def test_optimistic_takes_one_for_everything(host, path, primary, new_proxy):
    """Rows can grow the file and change the schema upon a stream that is kept."""
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, write_lock="optimistic")
    db("UPDATE users SET email = 'first'")
    for n, statement in enumerate(["INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM users", "CREATE TABLE t(a PRIMARY KEY, b)",
                                   "INSERT INTO t SELECT id, name FROM users", "ALTER TABLE t RENAME COLUMN b TO c", "DROP TABLE t",
                                   "DELETE FROM orders"]):
        proxy.requests.clear()
        db(statement)
        assert [path.rsplit("/", 1)[1] for path in proxy.requests] == ["pipeline"], statement
        assert db.frame_no == primary.hello()[1]
        if n == 3:
            db.sync()
    identical(path, primary)


def test_auto_on_a_primary_without_sqlite_dbpage(host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    proxy.rewrite = lambda data: data.replace(b"sqlite_dbpage", b"sqlite_nopage")
    db = host.open(path, proxy.url, write_path="auto")
    assert db.status()["write_path"] is None
    for n in range(3):
        proxy.requests.clear()
        db("INSERT INTO users(name) VALUES('as rows')")
        assert len(proxy.requests) == 2
    assert db.status()["write_path"] == "rows"
    assert primary.sql("SELECT count(*) FROM users") == [[203]]
    with_pages = host.open(path.with_name("other.db"), primary.url, write_path="auto")
    with_pages("INSERT INTO users(name) VALUES('as pages')")
    assert with_pages.status()["write_path"] == "pages"
    db.sync()
    identical(path, primary)
    identical(path.with_name("other.db"), primary)


def test_pages_after_rows_of_the_same_file(host, new_host, path, primary):
    """Pages are built upon the primary's own only."""
    by_rows, by_pages = host.open(path, primary.url), new_host().open(path, primary.url, write_path="pages")
    for n in range(5):
        by_rows("INSERT INTO users(name) VALUES(?)", f"rows {n}")
        by_pages("UPDATE users SET name = ? WHERE id = ?", f"pages {n}", n + 1)
        by_pages("INSERT INTO users(name) VALUES(?)", f"pages {n}")
        assert by_rows("SELECT id, name FROM users") == [tuple(row) for row in primary.sql("SELECT id, name FROM users")]
    identical(path, primary)


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_what_others_commit_in_between(lock, host, path, primary):
    db = host.open(path, primary.url, write_lock=lock)
    conflicts = 0
    for n in range(20):
        try:
            db("UPDATE users SET email = ? WHERE id = 1", f"here {n}")
        except SqlError as error:
            assert (lock, error.extended) == ("optimistic", BUSY_SNAPSHOT)
            conflicts += 1
            db("UPDATE users SET email = ? WHERE id = 1", f"here {n}")
        if n % 3 == 0:
            primary.sql("UPDATE users SET email = ? WHERE id = 2", f"there {n}")
        if n % 7 == 0:
            primary.sql("INSERT INTO orders VALUES(NULL, 1, randomblob(9000))")
        assert db.one("SELECT email FROM users WHERE id = 1") == f"here {n}"
    assert primary.sql("SELECT email FROM users WHERE id < 3") == [["here 19"], ["there 18"]]
    assert conflicts == (2 if lock == "optimistic" else 0)  # eager for 16 transactions after the first
    identical(path, primary)


def test_a_snapshot_of_before_is_no_base(host, path, primary):
    db = host.open(path, primary.url)
    db("UPDATE users SET email = 'mine' WHERE id = 1")
    primary.sql("UPDATE users SET name = 'theirs' WHERE id = 1")
    db("BEGIN")
    assert db.one("SELECT name FROM users WHERE id = 1") == "user 1"
    with pytest.raises(SqlError) as caught:
        db("UPDATE users SET name = name || '!' WHERE id = 1")
    assert caught.value.extended == BUSY_SNAPSHOT
    db("ROLLBACK")
    db("UPDATE users SET name = name || '!' WHERE id = 1")
    assert primary.sql("SELECT name, email FROM users WHERE id = 1") == [["theirs!", "mine"]]
    identical(path, primary)


def test_a_statement_that_does_something_else_there(host, path, primary, new_proxy):
    """The rows it affects are counted before the commit."""
    primary.script("CREATE TABLE usery(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT); INSERT INTO usery SELECT * FROM users WHERE id > 105;")
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    newest = primary.hello()
    proxy.rewrite = lambda data: data.replace(b'"users"', b'"usery"')
    for statement in ("UPDATE users SET email = 'x' WHERE id BETWEEN 100 AND 107", "DELETE FROM users WHERE id BETWEEN 100 AND 107"):
        with pytest.raises(SqlError) as caught:
            db(statement)
        assert caught.value.code == READONLY
        in_words(host.last_error(), "something else", "replica_exec")
    assert primary.hello() == newest and not undo(path).exists()
    assert db.one("SELECT count(*) FROM users WHERE email = 'x'") == 0 and db.one("SELECT count(*) FROM users") == 200
    proxy.rewrite = None
    db("UPDATE users SET email = 'x' WHERE id BETWEEN 100 AND 107")
    assert primary.sql("SELECT count(*) FROM users WHERE email = 'x'") == [[8]]
    identical(path, primary)


@pytest.mark.parametrize("statement", [
    "PRAGMA application_id = 7",
    "PRAGMA default_cache_size = 77",
])
def test_what_cannot_be_expressed(statement, replica, primary, path):
    newest, before = primary.hello(), stock(path, ".dump")
    with pytest.raises(SqlError) as caught:
        replica(statement)
    assert caught.value.code == READONLY
    in_words(replica.host.last_error(), "write_path=pages")
    assert "replica_exec" not in replica.host.last_error()
    assert primary.hello() == newest and stock(path, ".dump") == before and not undo(path).exists()
    replica("INSERT INTO users(name) VALUES('after')")
    assert primary.sql("SELECT count(*) FROM users") == [[201]]
    identical(path, primary)


STATISTICS = "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY 1, 2"


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_statistics_are_rows_where_the_primary_has_their_table(lock, host, new_host, path, primary):
    pages = new_host().open(path.with_name("pages.db"), primary.url, write_path="pages")
    pages("ANALYZE")
    db = host.open(path, primary.url, write_lock=lock)
    db("DELETE FROM users WHERE id > 100")
    db("ANALYZE")
    assert [["users", "users_by_name", "100 1"]] == [row for row in primary.sql(STATISTICS) if row[0] == "users"]
    db("CREATE TABLE more(a, b); ")
    db("CREATE INDEX more_a ON more(a)")
    db("INSERT INTO more SELECT id % 3, id FROM users")
    db("PRAGMA optimize=0x10002")
    db("ANALYZE more")
    assert [list(row) for row in db(STATISTICS)] == primary.sql(STATISTICS)
    db("DROP INDEX more_a")
    db("DROP TABLE more")
    assert [list(row) for row in db(STATISTICS)] == primary.sql(STATISTICS)
    identical(path, primary)


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_statistics_are_no_obstacle_where_it_has_none(lock, host, path, primary):
    """They are not the primary's, and go with the next pull, which comes at once. Everything else stays."""
    db = host.open(path, primary.url, write_lock=lock)
    db("INSERT INTO users(name) VALUES('before')")
    db("ANALYZE")
    db("BEGIN")
    db("INSERT INTO users(name) VALUES('with')")
    db("CREATE TABLE more(a)")
    db("ANALYZE")
    db("COMMIT")
    db("CREATE INDEX more_a ON more(a)")
    db("INSERT INTO users(name) VALUES('behind')")
    db("PRAGMA optimize=0x10002")
    for query in ("SELECT name FROM users WHERE id > 200 ORDER BY id", "SELECT name FROM sqlite_schema ORDER BY name"):
        assert [list(row) for row in db(query)] == primary.sql(query)
    assert primary.sql("SELECT count(*) FROM users WHERE id > 200") == [[3]]
    identical(path, primary)


@pytest.mark.parametrize("next_step", ["CREATE TABLE more(a)", "ANALYZE", "INSERT INTO users(name) VALUES('x')"])
def test_statistics_that_no_pull_has_taken_yet(next_step, host, path, primary, new_fault_proxy):
    proxy = new_fault_proxy(primary.url)
    db = host.open(path, proxy.url)
    db("INSERT INTO users(name) VALUES('before')")
    proxy.rule = lambda request: CUT if request.path.endswith("BatchLogEntries") else PASS
    db("ANALYZE")
    assert db.one("SELECT count(*) FROM users WHERE name = 'before'") == 1
    assert db.one("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'") == 1
    proxy.rule = lambda request: PASS
    db(next_step)
    identical(path, primary)


@pytest.mark.parametrize("with_statistics", [False, True])
def test_a_lost_answer_beside_local_statistics(with_statistics, host, path, primary, new_fault_proxy):
    proxy = new_fault_proxy(primary.url)
    db = host.open(path, proxy.url)
    db("BEGIN")
    db("INSERT INTO users(name) VALUES('lost')")
    db("CREATE TABLE more(a)")
    if with_statistics:
        db("ANALYZE")
    done = proxy.once(lambda request: request.commits, CUT_ANSWER)
    db("COMMIT")
    assert done.is_set()
    assert primary.sql("SELECT count(*) FROM users WHERE name = 'lost'") == [[1]]
    identical(path, primary)


class Cutter:
    """Lets the request with the COMMIT through (or not), and its answer not."""

    def __init__(self, proxy, arrives=True):
        self.proxy, self.arrives, self.cuts, self.then = proxy, arrives, 1, None
        proxy.rewrite = self.rewrite

    def rewrite(self, data):
        self.proxy.cut_after = None
        if b"COMMIT" in data and self.cuts:
            self.cuts -= 1
            if not self.arrives:
                raise ConnectionAbortedError
            self.proxy.cut_after = 1
        return data


@pytest.mark.parametrize("lock, commits_before", [("eager", 0), ("eager", 3), ("optimistic", 3)])
@pytest.mark.parametrize("statement", [
    "INSERT INTO people(name, age) VALUES('new', 77), ('newer', 78)",
    "UPDATE people SET name = name || '!', age = 1",
    "DELETE FROM people WHERE id % 2",
    "CREATE TABLE t AS SELECT * FROM people",
    "ALTER TABLE steps ADD COLUMN more TEXT DEFAULT 'x'",
    "INSERT INTO words VALUES('a word')",
    "DROP TABLE steps",
    "ALTER TABLE people RENAME TO folk",
    "CREATE INDEX i ON people(age, name)",
    "PRAGMA user_version = 5",
])
def test_a_lost_answer_to_the_commit(lock, commits_before, statement, host, path, new_primary, new_proxy):
    """It is committed: found in the log, whatever pages it is on there."""
    primary = new_primary(SCHEMA)
    primary.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO people(name) SELECT hex(randomblob(20)) FROM n")
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, write_lock=lock)
    db.primary = primary
    for n in range(commits_before):
        db("INSERT INTO people(name) SELECT hex(randomblob(25)) FROM people LIMIT 70")
    cutter = Cutter(proxy)
    try:
        db(statement)
    except SqlError:
        pytest.fail(host.last_error())
    assert cutter.cuts == 0
    same = "SELECT 'people', id, name, age, boss FROM people ORDER BY 2" if "RENAME" not in statement else "SELECT id, name FROM folk"
    for ask in (same, "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2", "PRAGMA user_version"):
        assert [list(row) for row in db(ask)] == primary.sql(ask)
    assert db.frame_no == primary.hello()[1]
    db("INSERT INTO log VALUES('one more', 1)")
    assert db.one("SELECT count(*) FROM log") == primary.sql("SELECT count(*) FROM log")[0][0]
    identical(path, primary)


@pytest.mark.parametrize("commits_before", [0, 3])
def test_a_commit_that_never_arrives(commits_before, host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    for n in range(commits_before):
        db("UPDATE users SET email = ?", str(n))
    newest = primary.hello()
    cutter = Cutter(proxy, arrives=False)
    with pytest.raises(SqlError):
        db("UPDATE users SET name = 'never'")
    assert cutter.cuts == 0 and primary.hello() == newest
    assert db.one("SELECT count(*) FROM users WHERE name = 'never'") == 0
    db("UPDATE users SET name = 'then' WHERE id = 1")
    assert primary.sql("SELECT count(*), count(DISTINCT name) FROM users WHERE name IN ('never', 'then')") == [[1, 1]]
    identical(path, primary)


@pytest.mark.parametrize("damage", ["lost", "damaged", "cut short"])
@pytest.mark.parametrize("next_step", ["sync", "write"])
def test_an_undo_that_is_of_no_use(damage, next_step, host, new_host, path, primary):
    """Everything is fetched again; never a mixture."""
    db = host.open(path, primary.url)
    db("UPDATE users SET email = 'x' WHERE id % 3 = 0")
    db("INSERT INTO orders SELECT NULL, 1, randomblob(500) FROM users")
    host.kill()
    file = undo(path)
    if damage == "lost":
        file.unlink()
    elif damage == "damaged":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(file.read_bytes()[:-100])
    again = new_host().open(path, primary.url)
    assert again.one("SELECT count(*) FROM users WHERE email = 'x'") == 66
    if next_step == "sync":
        again.sync()
    else:
        again("INSERT INTO users(name) VALUES('on')")
    in_words(again.host.last_error(), "undo", "again")
    assert again.one("SELECT count(*) FROM orders") == 400
    again("INSERT INTO users(name) VALUES('and on')")
    identical(path, primary)


def test_a_primary_that_lost_its_history(host, path, primary):
    """After kill -9 it has another log: all of it is taken, undo or not."""
    db = host.open(path, primary.url)
    db("UPDATE users SET email = 'mine'")
    primary.kill()
    primary.start()
    db.sync()
    assert not undo(path).exists()
    assert db("SELECT * FROM users") == [tuple(row) for row in primary.sql("SELECT * FROM users")]
    db("UPDATE users SET email = 'again'")
    identical(path, primary)


def test_a_primary_that_goes_away_before_the_pull(host, new_host, path, primary):
    """What was committed stays readable, by stock programs, too, and across a restart."""
    db = host.open(path, primary.url)
    db("UPDATE users SET email = 'mine' WHERE id < 50")
    frame_no = db.frame_no
    primary.stop()
    with pytest.raises(SqlError):
        db("UPDATE users SET email = 'never'")
    assert stock(path, "SELECT count(*) FROM users WHERE email = 'mine'; PRAGMA integrity_check;") == "49\nok"
    host.close()
    db = new_host().open(path, primary.url)
    assert db.one("SELECT count(*) FROM users WHERE email = 'mine'") == 49 and db.frame_no == frame_no
    primary.start()
    db("UPDATE users SET email = 'ours' WHERE id < 50")
    identical(path, primary)


def test_a_live_replica_reconciles_by_itself(host, path, primary):
    db = host.open(path, primary.url, live=1)
    for n in range(30):
        db("UPDATE users SET email = ? WHERE id = ?", f"n{n}", n + 1)
        assert db.one("SELECT email FROM users WHERE id = ?", n + 1) == f"n{n}"
    eventually(lambda: not undo(path).exists(), what="reconciled")
    identical(path, primary)


def test_readers_see_the_same_rows_all_along(host, new_host, path, primary):
    """A stock reader beside a writer and a syncing process: the sum never goes back, and is never one between."""
    primary.script("CREATE TABLE a(n INT); CREATE TABLE b(n INT, x); INSERT INTO a VALUES(0); INSERT INTO b VALUES(0, '')")
    writer, syncer = host.open(path, primary.url), new_host().open(path, primary.url)
    reader = new_host(library=None).plain(path)
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(reader("SELECT a.n, b.n FROM a, b")[0])

    def sync():
        while not done.is_set():
            syncer.sync()
            time.sleep(0.003)

    threads = [threading.Thread(target=read), threading.Thread(target=sync)]
    [thread.start() for thread in threads]
    until, n = time.monotonic() + 4, 0
    while time.monotonic() < until:
        writer("BEGIN IMMEDIATE")
        writer("UPDATE a SET n = n + 1")
        writer("UPDATE b SET n = n + 1, x = hex(randomblob(3000))")
        writer("COMMIT")
        n += 1
    done.set()
    [thread.join() for thread in threads]
    assert n > 50 and len(seen) > 100
    assert all(a == b for a, b in seen) and seen == sorted(seen) and seen[-1][0] <= n
    assert primary.sql("SELECT a.n, b.n FROM a, b") == [[n, n]]
    identical(path, primary)


def test_two_processes_that_write(host, new_host, path, primary):
    primary.script("CREATE TABLE a(n INT, x); INSERT INTO a VALUES(0, '')")
    hosts = [host, new_host()]
    dbs = [h.open(path, primary.url) for h in hosts]
    futures = []

    def run(db):
        for n in range(40):
            db("UPDATE a SET n = n + 1, x = hex(randomblob(2500))")

    threads = [threading.Thread(target=run, args=[db]) for db in dbs]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert primary.sql("SELECT n FROM a") == [[80]] == [list(row) for row in dbs[0]("SELECT n FROM a")]
    identical(path, primary)


def test_a_lock_that_was_taken_back(host, path, primary):
    """Longer than the primary lets anybody hold its lock: nothing is shipped that another writer has passed."""
    db = host.open(path, primary.url)
    db("BEGIN")
    db("UPDATE users SET email = 'slow' WHERE id = 1")
    primary.sql("UPDATE users SET email = 'thief' WHERE id = 1")  # waits until the lock is taken back
    with pytest.raises(SqlError) as caught:
        db("COMMIT")
    assert caught.value.extended == BUSY_SNAPSHOT
    assert primary.sql("SELECT email FROM users WHERE id = 1") == [["thief"]]
    db("UPDATE users SET email = email || '!' WHERE id = 1")
    assert primary.sql("SELECT email FROM users WHERE id = 1") == [["thief!"]]
    identical(path, primary)


def test_a_loop_over_rows_that_writes(host, path, primary):
    """Statements of their own, while the connection still reads: no pull comes in between."""
    db = host.open(path, primary.url)
    for (user,) in db("SELECT id FROM users WHERE id <= 20"):
        db("UPDATE users SET email = 'looped' WHERE id = ?", user)
    assert primary.sql("SELECT count(*) FROM users WHERE email = 'looped'") == [[20]]
    assert undo(path).exists()
    db("SELECT replica_freeze()")
    assert not undo(path).exists()


@pytest.mark.parametrize("schema_changes", [
    ["DELETE FROM orders WHERE id > 100", "DELETE FROM orders WHERE id < 60", "CREATE TABLE b(x)", "CREATE TABLE c(x)"],
    ["DELETE FROM orders WHERE id > 100", "DELETE FROM orders WHERE id < 60", None, "CREATE TABLE b(x)", "CREATE TABLE c(x)"],
    ["CREATE TABLE a(x)", "CREATE TABLE b(x)", "DROP TABLE a", "CREATE TABLE c(x)"],
    ["CREATE TABLE b(x)", "CREATE TABLE a(x)", "CREATE TABLE c(x)", "DROP TABLE a"],
    ["CREATE TABLE a(x)", "CREATE TABLE d(x)", "DROP TABLE a", "DROP TABLE d", None, "CREATE TABLE b(x)", "CREATE TABLE c(x)"],  # None: a transaction ends
    ["CREATE TABLE c(x)", None, "CREATE TABLE a(x)", "CREATE TABLE b(x)", "DROP TABLE a"],
])
def test_connections_that_know_where_tables_lie(schema_changes, host, new_host, path, primary):
    """There they lie at other pages: whoever knows where they lie here looks again."""
    db = host.open(path, primary.url)
    others = [host.open(path, primary.url), new_host().open(path, primary.url), new_host(library=None).plain(path)]
    db("BEGIN")
    for change in schema_changes:
        if change:
            db(change)
        else:
            db("COMMIT")
            db("BEGIN")
    db("INSERT INTO b VALUES('of b')")
    db("INSERT INTO c VALUES('of c')")
    db("COMMIT")

    def seen():
        return [[one.one(f"SELECT x FROM {table}") for table in "bc"] for one in [db, *others]]

    assert seen() == [["of b", "of c"]] * 4
    places = db("SELECT name, rootpage FROM sqlite_schema WHERE name IN ('b', 'c')")
    db.sync()
    assert seen() == [["of b", "of c"]] * 4
    assert places != db("SELECT name, rootpage FROM sqlite_schema WHERE name IN ('b', 'c')"), "nothing was tested"
    for n, one in enumerate([db, *others[:2]]):
        one("UPDATE b SET x = x || ?", n)
    assert primary.sql("SELECT x FROM b") == [["of b012"]]
    identical(path, primary)
