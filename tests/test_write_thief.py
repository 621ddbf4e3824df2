"""Another client waits for the write lock for more than 5 s: the primary takes it back, at any moment of a write."""
import threading
import time

import pytest
from harness.check import fails, identical, outcome, series, together
from harness.faults import Late
from harness.host import BUSY

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE);
CREATE TABLE big(id INTEGER PRIMARY KEY, data BLOB);
INSERT INTO t SELECT value, 'seed ' || value FROM generate_series(1, 100);
"""
STOLEN = 5.5  # the primary takes a lock back after 5 s
BUSY_SNAPSHOT = BUSY | 2 << 8


class Thief:
    """Waits for the lock and, once it has it, commits something or leaves everything as it was."""

    def __init__(self, primary, commits):
        self.primary, self.commits, self.error = primary, commits, None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            with self.primary.stream() as run:
                run("BEGIN IMMEDIATE")
                self.got = time.monotonic()
                run("UPDATE t SET v = 'stolen' WHERE id = 50")
                run("COMMIT" if self.commits else "ROLLBACK")
        except BaseException as error:
            self.error = error

    def join(self):
        self.thread.join()
        assert not self.error, self.error


def begin(db, proxy, thief):
    """Before the first statement."""
    db("BEGIN IMMEDIATE")
    thief = thief()
    time.sleep(STOLEN)
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    db("INSERT INTO t(v) VALUES('more')")
    return thief


def statements(db, proxy, thief):
    """Between statements; the pages are in the local log already."""
    db("PRAGMA cache_size = 5")
    db("BEGIN")
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    db(f"INSERT INTO big SELECT NULL, randomblob(3000) FROM {series(50)}")
    thief = thief()
    time.sleep(STOLEN)
    db("INSERT INTO t(v) VALUES('more')")
    return thief


def commit(db, proxy, thief):
    """While the request that commits is on its way."""
    db("BEGIN")
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    db("INSERT INTO t(v) VALUES('more')")
    thieves = []
    proxy.once(lambda request: request.commits, Late(STOLEN), before=lambda: thieves.append(thief()))
    return thieves


def parts(db, proxy, thief):
    """Between the requests of a transaction of more than 4,096 pages."""
    db("BEGIN")
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    db("INSERT INTO t(v) VALUES('more')")
    db(f"INSERT INTO big SELECT NULL, randomblob(4000) FROM {series(5000)}")
    thieves = []
    proxy.once(lambda request: request.commits, Late(STOLEN), before=lambda: thieves.append(thief()))
    return thieves


def first_part(db, proxy, thief):
    """While the first of several requests is on its way."""
    thieves = parts(db, proxy, thief)
    proxy.once(lambda request: request.is_part, Late(STOLEN), before=lambda: thieves.append(thief()))
    return thieves


def prove(primary, seen):
    """The primary is sound and has all of the transaction or nothing."""
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    (((rows, mine, big),)) = primary.sql(
        "SELECT count(*), (SELECT v = 'mine' FROM t WHERE id = 7), (SELECT count(*) FROM big) FROM t")
    assert (rows, mine, big > 0) == ((101, 1, seen["big"] > 0) if seen["done"] else (100, 0, False)), (rows, mine, big)
    assert primary.sql("SELECT count(*) FROM sqlite_schema") == [[3]]


@pytest.mark.parametrize("phase", [begin, statements, commit, parts, first_part])
def test_the_lock_is_taken_back(phase, new_host, new_primary, new_fault_proxy, tmp_path):
    def robbed(commits, path, primary, proxy, db):
        thief = phase(db, proxy, lambda: Thief(primary, commits))
        big = db.one("SELECT count(*) FROM big")
        error, ended = outcome(lambda: db("COMMIT")), time.monotonic()
        (thief,) = thief if isinstance(thief, list) else [thief]
        thief.join()
        assert thief.got < ended, "nothing was stolen"
        if commits:  # the base is gone
            assert error and error.extended == BUSY_SNAPSHOT, error
            prove(primary, {"done": False, "big": big})
            assert outcome(lambda: db("ROLLBACK"))  # it has ended
            assert db.one("SELECT v FROM t WHERE id = 7") == "seed 7"
            db("BEGIN IMMEDIATE")
            db("UPDATE t SET v = 'mine' WHERE id = 7")
            db("INSERT INTO t(v) VALUES('more')")
            db("COMMIT")
            prove(primary, {"done": True, "big": 0})
        else:  # the lock was taken again
            assert error is None, error
            prove(primary, {"done": True, "big": big})
        assert primary.sql("SELECT v FROM t WHERE id = 50") == [["stolen" if commits else "seed 50"]]
        db.sync()
        identical(path, primary)

    cases = []
    for n, commits in enumerate([True, False]):
        primary = new_primary(SEED)
        proxy = new_fault_proxy(primary.url)
        path = tmp_path / f"{n}.db"
        cases.append((commits, path, primary, proxy, new_host().open(path, proxy.url, timeout=15)))
    together(*[lambda case=case: robbed(*case) for case in cases])


@pytest.mark.parametrize("waits", [False, True])
def test_a_transaction_that_pauses_for_longer_than_streams_live(waits, replica, primary, path):
    """10 s: the stream at the primary expires. The base holds, so does the transaction; with somebody who waited, not."""
    replica("BEGIN IMMEDIATE")
    replica("UPDATE users SET name = 'mine' WHERE id = 7")
    if waits:
        primary_waits = threading.Thread(target=lambda: primary.sql("UPDATE users SET name = 'stolen' WHERE id = 50"))
        primary_waits.start()
    time.sleep(10.8)
    replica("UPDATE users SET name = 'mine' WHERE id = 8")
    if waits:
        primary_waits.join()
        assert fails(lambda: replica("COMMIT"), BUSY).extended == BUSY_SNAPSHOT
        assert primary.sql("SELECT count(*) FROM users WHERE name = 'mine'") == [[0]]
        replica("UPDATE users SET name = 'mine' WHERE id IN (7, 8)")
    else:
        replica("COMMIT")
    assert primary.sql("SELECT count(*) FROM users WHERE name = 'mine'") == [[2]]
    identical(path, primary)


def test_a_lock_that_was_kept_for_a_retry_stays_with_the_transaction(replica, primary, path):
    """A stale replica's BEGIN IMMEDIATE is begun again with the same lock: nobody else gets it in the middle."""
    primary.sql("UPDATE users SET name = 'newer' WHERE id = 1")
    replica("BEGIN IMMEDIATE")
    assert replica.one("SELECT name FROM users WHERE id = 1") == "newer"
    time.sleep(0.6)
    done = []
    other = threading.Thread(target=lambda: done.append(primary.sql("UPDATE users SET name = 'theirs' WHERE id = 2")))
    other.start()
    time.sleep(0.5)
    assert not done, "it was not locked"
    replica("UPDATE users SET name = 'mine' WHERE id = 3")
    replica("COMMIT")
    other.join()
    replica.sync()
    identical(path, primary)


def test_a_lock_that_nobody_waits_for_any_more_is_given_back(replica, primary, path):
    """A write gives up after its busy_timeout; the lock that it had asked for comes later, and goes at once."""
    with primary.stream() as run:
        run("BEGIN IMMEDIATE")
        replica("PRAGMA busy_timeout = 300")
        fails(lambda: replica("UPDATE users SET name = 'mine' WHERE id = 3"), BUSY)
        run("ROLLBACK")
    begun = time.monotonic()
    primary.sql("UPDATE users SET name = 'theirs' WHERE id = 2")
    assert time.monotonic() - begun < 2
    replica("UPDATE users SET name = 'mine' WHERE id = 3")
    identical(path, primary)


def test_no_streams_pile_up_at_the_primary(host, primary, path):
    """It has 128, and an optimistic replica keeps one: conflicts and its own ends leave no other."""
    others = [host.open(path.with_name(f"{n}.db"), primary.url, write_lock="optimistic") for n in range(2)]
    for n in range(160):
        db = others[n % 2]
        if outcome(lambda: db("UPDATE users SET name = ? WHERE id = 1", str(n))):
            db("UPDATE users SET name = ? WHERE id = 1", str(n))
        if n % 4 == 0:
            primary.sql("UPDATE users SET name = 'theirs' WHERE id = 2")
    db = host.open(path, primary.url, write_lock="optimistic")
    for n in range(160):
        db("UPDATE users SET name = ? WHERE id = 1", str(n))
        if n % 2:
            db.close()
            db = host.open(path, primary.url, write_lock="optimistic")
    run = [primary.stream() for _ in range(100)]
    for stream in run:
        stream("SELECT 1")
    for stream in run:
        stream.__exit__()
