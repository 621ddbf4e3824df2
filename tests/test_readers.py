"""A sync never disturbs a reader and no reader disturbs a sync: same process, other process, no library at all."""
import threading
import time

import pytest
from harness.check import identical
from harness.shell import integrity, shell

COUNT = "SELECT count(*), total(length(name)) FROM users"


def change(primary):
    primary.script("INSERT INTO users(name) SELECT 'again ' || name FROM users; "
                   "UPDATE users SET name = upper(name); CREATE INDEX more ON users(email);")


@pytest.fixture(params=["same process", "another process", "another process, stock"])
def reader(request, new_host, host, replica, path):
    """A connection beside the one that syncs."""
    if request.param == "same process":
        return host.open(path)
    if request.param == "another process":
        return new_host().open(path)
    return new_host(library=None).plain(path)


def test_a_snapshot_is_unmoved(reader, replica, primary, path):
    reader("BEGIN")
    before = reader(COUNT)
    for _ in range(3):
        change(primary)
        primary.sql("DROP INDEX more")
        assert replica.sync()["frames_synced"] > 0
        assert reader(COUNT) == before
        assert reader.one("PRAGMA integrity_check") == "ok"
    after = replica(COUNT)
    assert after != before
    reader("COMMIT")
    assert reader(COUNT) == after == [tuple(row) for row in primary.sql(COUNT)]
    identical(path, primary)


def test_own_snapshot_is_unmoved_by_own_sync(replica, primary, path):
    replica("BEGIN")
    before = replica(COUNT)
    change(primary)
    assert replica.sync()["frames_synced"] > 0
    assert replica(COUNT) == before
    replica("COMMIT")
    assert replica(COUNT) != before
    identical(path, primary)


def test_a_sync_in_the_midst_of_a_query(replica, primary, path):
    """replica_sync() as a column of a query that goes on reading."""
    change(primary)
    rows = replica("SELECT id, CASE WHEN id = 5 THEN replica_sync() END, name FROM users ORDER BY id")
    assert len(rows) == 200 and rows[-1][2] == "user 200"
    assert replica.one("SELECT name FROM users WHERE id = 200") == "USER 200"
    identical(path, primary)


def test_stock_shells_check_integrity_during_syncs(replica, primary, path):
    """Three shells open, check and close without end while the replica pulls."""
    answers, errors, stop = [], [], threading.Event()

    def check():
        while not stop.is_set():
            result = shell(".timeout 10000\nPRAGMA integrity_check; SELECT count(*) = sum(pair) FROM pairs;", path)
            answers.append(result.stdout)
            if result.stderr or result.returncode:
                errors.append(result)

    primary.script("CREATE TABLE pairs(id INTEGER PRIMARY KEY, pair, filler); "
                   "INSERT INTO pairs SELECT value, 1, randomblob(400) FROM generate_series(1, 3000);")
    replica.sync()
    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    syncs, end = 0, time.monotonic() + 8
    while time.monotonic() < end:
        step = syncs % 4
        primary.sql(["UPDATE pairs SET filler = randomblob(400) WHERE id % 7 = ?",
                     "INSERT INTO pairs SELECT NULL, 1, randomblob(900) FROM generate_series(1, 300 + 0 * ?)",
                     "DELETE FROM pairs WHERE id % 11 = ?",
                     "UPDATE pairs SET filler = zeroblob(10) WHERE id % 5 = ?"][step], syncs % 5)
        assert replica.sync()["frames_synced"] > 0
        syncs += 1
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{len(answers)} checks during {syncs} syncs")
    assert not errors, errors[0]
    assert set(answers) == {"ok\n1\n"} and len(answers) > 10 and syncs > 40
    identical(path, primary)


def test_a_reader_is_never_kept_waiting(replica, primary, path, new_host):
    """Point reads in another process while some 60 MB come in."""
    primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3900) FROM generate_series(1, 15000)")
    reader, worst, count = new_host().open(path), 0.0, 0
    sync = replica.start("SELECT replica_sync()")
    while not sync.done():
        start = time.perf_counter()
        assert reader.one("SELECT name FROM users WHERE id = 50") == "user 50"
        worst, count = max(worst, time.perf_counter() - start), count + 1
    sync.result()
    print(f"{count} reads during the sync, the slowest {worst * 1e3:.1f} ms")
    assert count > 3 and worst < 2
    assert reader.one("SELECT count(*) FROM orders") == 15200


def test_a_sync_never_waits_for_a_reader(replica, primary, path, new_host):
    reader = new_host(library=None).plain(path)
    reader("BEGIN")
    before = reader(COUNT)
    worst = 0.0
    for i in range(30):
        primary.sql("UPDATE orders SET note = randomblob(1000)")
        start = time.perf_counter()
        replica.sync()
        worst = max(worst, time.perf_counter() - start)
    print(f"slowest sync under a reader {worst * 1e3:.1f} ms")
    assert worst < 2 and reader(COUNT) == before
    reader("COMMIT")
    identical(path, primary)


def test_nothing_half_applied_is_seen(replica, primary, path, new_host):
    """Two tables change together; whoever looks sees both or neither."""
    primary.script("CREATE TABLE a(n); CREATE TABLE b(n); INSERT INTO a VALUES(0); INSERT INTO b VALUES(0);")
    replica.sync()
    stop, seen, wrong = threading.Event(), set(), []
    stock_reader, own_reader = new_host(library=None).plain(path), new_host().open(path)

    def look(db):
        while not stop.is_set():
            ((a, b),) = db("SELECT a.n, b.n FROM a, b")
            seen.add(a)
            if a != b:
                wrong.append((a, b))

    threads = [threading.Thread(target=look, args=(db,)) for db in (stock_reader, own_reader)]
    for thread in threads:
        thread.start()
    for i in range(1, 120):
        primary.transaction("UPDATE a SET n = n + 1", "INSERT INTO orders SELECT NULL, 1, randomblob(2000) FROM users",
                            "UPDATE b SET n = n + 1")
        if i % 3 == 0:
            replica.sync()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and len(seen) > 5
    assert integrity(path) == "ok"


def test_checkpoints_by_a_stock_process_during_syncs(replica, primary, path, new_host):
    """Every kind of checkpoint, by a process that knows nothing of the library."""
    other = new_host(library=None).plain(path)
    for i in range(60):
        primary.sql("UPDATE orders SET note = randomblob(900) WHERE id % 3 = ?", i % 3)
        sync = replica.start("SELECT replica_sync()")
        other(f"PRAGMA wal_checkpoint({['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'][i % 4]})")
        sync.result(30)
    assert replica.sync()["frames_synced"] == 0
    identical(path, primary)
