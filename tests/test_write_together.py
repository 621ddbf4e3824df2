"""Several connections and processes that write through one replica file; several replicas in one transaction."""
import threading
import time

import pytest
from harness.check import fails, identical, outcome, series, together
from harness.faults import CUT, CUT_ANSWER
from harness.host import BUSY, READONLY, SqlError, replica_uri
from harness.shell import shell, stock

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE counters(id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE acts(who TEXT, n INTEGER, filler BLOB, PRIMARY KEY(who, n));
INSERT INTO counters SELECT value, 0 FROM generate_series(0, 9);
"""
# Every act adds one to every counter.
WHOLE = "SELECT min(n) = max(n) AND max(n) = (SELECT count(*) FROM acts) FROM counters"
SECONDS = 5


def write(db, who, until, acts, begin="BEGIN IMMEDIATE"):
    """Acts without end; SQLITE_BUSY is no act."""
    n = 0
    while time.monotonic() < until:
        try:
            db(begin)
            assert db.one(WHOLE) == 1
            db("UPDATE counters SET n = n + 1")
            db("INSERT INTO acts VALUES(?, ?, randomblob(?))", who, n, n * 37 % 3000)
            db("COMMIT")
            acts[who] = n = n + 1
        except SqlError as error:
            assert error.code == BUSY, error
            outcome(lambda: db("ROLLBACK"))
            time.sleep(0.01)


@pytest.mark.parametrize("write_lock", ["eager", "optimistic"])
def test_writers_of_one_file(write_lock, new_host, new_primary, path):
    """Two processes of two connections each, a client of the primary, checkpoints, a stock shell that reads, syncs."""
    primary = new_primary(SEED)
    hosts = [new_host() for _ in range(2)]
    dbs = [hosts[n % 2].open(path, primary.url, write_lock=write_lock) for n in range(4)]
    other = hosts[0].open(path, primary.url)
    until, acts = time.monotonic() + SECONDS, {}

    def foreign():
        n = 0
        while time.monotonic() < until:
            primary.transaction("UPDATE counters SET n = n + 1", ("INSERT INTO acts VALUES('client', ?, NULL)", [n]))
            acts["client"] = n = n + 1
            time.sleep(0.05)

    def checkpoints():
        while time.monotonic() < until:
            for how in "PASSIVE", "RESTART", "TRUNCATE":
                result = shell(f".timeout 200\nPRAGMA wal_checkpoint({how});", path)
                assert not result.stderr or "locked" in result.stderr, result.stderr
                time.sleep(0.03)

    def look():
        while time.monotonic() < until:
            assert stock(path, f"PRAGMA quick_check; {WHOLE};") == "ok\n1"

    def syncs():
        while time.monotonic() < until:
            try:
                other.sync()
            except SqlError as error:
                assert error.code == BUSY, error
            assert other.one(WHOLE) == 1
            time.sleep(0.02)

    begins = ["BEGIN IMMEDIATE", "BEGIN", "BEGIN IMMEDIATE", "BEGIN"]
    together(foreign, checkpoints, look, syncs,
             *[lambda n=n: write(dbs[n], f"writer {n}", until, acts, begins[n]) for n in range(4)])
    print(write_lock, acts)
    assert {f"writer {n}" for n in range(4)} <= set(acts), "somebody never got through"
    there = dict(map(tuple, primary.sql("SELECT who, count(*) FROM acts GROUP BY who")))
    assert there == acts
    assert primary.sql(WHOLE) == [[1]]
    for db in dbs:
        db.sync()
        assert db.one(WHOLE) == 1
    identical(path, primary)


def test_a_statement_waits_for_the_one_of_another_connection(new_host, new_primary, path):
    """busy_timeout, as with stock SQLite: within a process and between two."""
    primary = new_primary(SEED)
    hosts = [new_host() for _ in range(2)]
    first = hosts[0].open(path, primary.url)
    for host in hosts:
        second = host.open(path, primary.url)
        first("BEGIN IMMEDIATE")
        first("UPDATE counters SET n = n + 1 WHERE id = 1")
        waiting = second.start("UPDATE counters SET n = n + 10 WHERE id = 1")
        time.sleep(0.5)
        assert not waiting.done()
        first("COMMIT")
        waiting.result(5)
        assert first.one("SELECT n FROM counters WHERE id = 1") % 11 == 0
        first("BEGIN IMMEDIATE")
        second("PRAGMA busy_timeout = 200")
        begun = time.monotonic()
        fails(lambda: second("UPDATE counters SET n = 0"), BUSY)
        assert 0.15 < time.monotonic() - begun < 2
        first("ROLLBACK")
    identical(path, primary)


def test_savepoints_and_spilled_pages_beside_a_checkpointer(new_host, new_primary, path):
    """A small cache: pages go to the log early, are overwritten there, rolled back to a savepoint, written again."""
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE TABLE u(x);")
    host = new_host()
    db, stop = host.open(path, primary.url), threading.Event()
    db("PRAGMA cache_size = 5")

    def checkpoints():
        while not stop.is_set():
            shell(".timeout 200\nPRAGMA wal_checkpoint(RESTART);", path)
            time.sleep(0.02)

    def work():
        try:
            for n in range(25):
                db("BEGIN")
                db(f"INSERT INTO t(v) SELECT randomblob(1000) FROM {series(40)}")
                db("SAVEPOINT a")
                db("UPDATE t SET v = randomblob(900) WHERE id % 2 = 0")
                db("SAVEPOINT b")
                db("DELETE FROM t WHERE id % 3 = 0")
                db(f"CREATE TABLE IF NOT EXISTS extra{n}(x)")
                db("ROLLBACK TO b")
                db("UPDATE t SET v = randomblob(1100) WHERE id % 5 = 0")
                if n % 2:
                    db("ROLLBACK TO a")
                db("RELEASE a")
                db("INSERT INTO u VALUES(?)", n)
                db("ROLLBACK" if n % 7 == 3 else "COMMIT")
                if n % 6 == 5:
                    db("DELETE FROM t WHERE id % 4 > 0")
        finally:
            stop.set()

    together(work, checkpoints)
    assert primary.sql("SELECT sum(id), sum(length(v)), count(*) FROM t") == [
        list(row) for row in db("SELECT sum(id), sum(length(v)), count(*) FROM t")]
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(path, primary)


class Pair:
    def __init__(self, host, path, primaries, urls, **options):
        self.paths, self.primaries = [path, path.with_name("second.db")], primaries
        self.db = host.open(self.paths[0], urls[0], **options)
        self.db(f"ATTACH '{replica_uri(self.paths[1], urls[1], **options)}' AS second")

    def act(self, n):
        self.db("BEGIN")
        self.db("UPDATE main.counters SET n = ?", n)
        self.db("UPDATE second.counters SET n = ?", n)
        self.db("COMMIT")

    def check(self):
        for path, primary, schema in zip(self.paths, self.primaries, ["main", "second"]):
            rows = self.db(f"SELECT * FROM {schema}.counters")
            assert rows == [tuple(row) for row in primary.sql("SELECT * FROM counters")], schema
            self.db.sync(schema)
            identical(path, primary)


@pytest.mark.parametrize("write_lock", ["eager", "optimistic"])
def test_two_replicas_in_one_transaction(write_lock, host, new_primary, path):
    primaries = [new_primary(SEED) for _ in range(2)]
    pair = Pair(host, path, primaries, [p.url for p in primaries], write_lock=write_lock)
    for n in range(1, 6):
        # An optimistic one finds out only at its COMMIT that it is behind.
        while (error := outcome(lambda: pair.act(n))) and write_lock == "optimistic":
            assert error.code == BUSY
            outcome(lambda: pair.db("ROLLBACK"))
        assert error is None
        assert [p.sql("SELECT DISTINCT n FROM counters") for p in primaries] == [[[n]], [[n]]]
        for primary in primaries[:n % 3]:
            primary.sql("INSERT INTO acts VALUES('client', ?, NULL)", n)
    pair.db("BEGIN")
    pair.db("UPDATE main.counters SET n = 99")
    pair.db("UPDATE second.counters SET n = 99")
    pair.db("ROLLBACK")
    pair.check()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("fate", [CUT, CUT_ANSWER])
def test_one_of_two_replicas_fails_at_the_commit(fate, which, host, new_primary, new_fault_proxy, path):
    """SQLite commits attached databases one after the other: each is like its primary, whatever became of the other."""
    primaries = [new_primary(SEED) for _ in range(2)]
    proxies = [new_fault_proxy(p.url) for p in primaries]
    pair = Pair(host, path, primaries, [p.url for p in proxies], timeout=2)
    pair.act(1)
    proxies[which].once(lambda request: request.commits, fate)
    error = outcome(lambda: pair.act(2))
    outcome(lambda: pair.db("ROLLBACK"))
    there = [p.sql("SELECT DISTINCT n FROM counters")[0][0] for p in primaries]
    if fate == CUT_ANSWER:
        assert error is None and there == [2, 2]
    else:
        assert error.code == READONLY and there[which] == 1
        if which == 0:
            assert there == [1, 1]
    pair.check()
    pair.act(3)
    pair.check()


def test_one_primary_in_two_files_of_one_transaction(host, new_primary, path):
    """The second cannot have the lock that the first has: SQLITE_BUSY, no deadlock, and both go on."""
    primary = new_primary(SEED)
    pair = Pair(host, path, [primary, primary], [primary.url, primary.url])
    pair.db("PRAGMA busy_timeout = 300")
    pair.db("BEGIN")
    pair.db("UPDATE main.counters SET n = 5")
    begun = time.monotonic()
    fails(lambda: pair.db("UPDATE second.counters SET n = 6"), BUSY)
    assert time.monotonic() - begun < 4
    pair.db("COMMIT")
    assert primary.sql("SELECT DISTINCT n FROM counters") == [[5]]
    pair.db("UPDATE second.counters SET n = n + 1")
    assert primary.sql("SELECT DISTINCT n FROM counters") == [[6]]
    pair.db.sync()
    pair.check()
