"""The primary comes back with another history, or is another one: nothing is shipped upon the old base."""
import time

import pytest
from harness.check import fails, identical, outcome
from harness.faults import Gateway
from harness.host import BUSY, READONLY

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO t SELECT value, 'seed ' || value FROM generate_series(1, 100);
"""
MODES = ["eager", "optimistic"]


@pytest.fixture
def primary(new_primary):
    return new_primary(SEED)


def ahead(db):
    """Writes until the frame number is well past what a rebuilt log begins with."""
    for n in range(12):
        db("UPDATE t SET v = ? WHERE id = 100", f"warm {n}")
    return db.frame_no


def crash(primary, frame_no=None):
    """kill -9: another log, lower frame numbers; then others write until the number is the same again."""
    old = primary.hello()
    primary.kill()
    primary.start()
    log_id, newest = primary.hello()
    assert log_id != old[0] and newest < old[1]
    n = 0
    while frame_no is not None and primary.hello()[1] < frame_no:
        n += 1
        primary.sql("UPDATE t SET v = ? WHERE id = 1", f"theirs {n}")
    if frame_no is not None:
        assert primary.hello()[1] == frame_no


def sound(primary, path, db):
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    db.sync()
    assert db("SELECT * FROM t") == [tuple(row) for row in primary.sql("SELECT * FROM t")]
    identical(path, primary)


@pytest.fixture(params=["direct", "gateway"])
def way(request, primary):
    """Straight to the primary, or through a reverse proxy whose connections outlive it."""
    if request.param == "direct":
        yield primary.url
    else:
        gateway = Gateway(primary.url)
        yield gateway.url
        gateway.stop()


@pytest.mark.parametrize("write_lock", MODES)
@pytest.mark.parametrize("same_frame", [False, True])
def test_a_statement_of_its_own(same_frame, write_lock, way, host, path, primary):
    """It is begun again on the new base, and succeeds."""
    db = host.open(path, way, write_lock=write_lock, timeout=3)
    frame_no = ahead(db)
    crash(primary, frame_no if same_frame else None)
    time.sleep(1)
    error = outcome(lambda: db("UPDATE t SET v = v || ' and mine' WHERE id = 1"))
    if error:  # in optimistic mode it had begun already
        assert write_lock == "optimistic" and error.code == BUSY, error
        db("UPDATE t SET v = v || ' and mine' WHERE id = 1")
    ((value,),) = primary.sql("SELECT v FROM t WHERE id = 1")
    assert value.endswith(" and mine") and value.startswith("theirs" if same_frame else "seed")
    sound(primary, path, db)


@pytest.mark.parametrize("write_lock", MODES)
def test_a_transaction_that_has_read(write_lock, way, host, path, primary):
    db = host.open(path, way, write_lock=write_lock, timeout=3)
    frame_no = ahead(db)
    db("BEGIN")
    db.one("SELECT v FROM t WHERE id = 1")
    crash(primary, frame_no)
    time.sleep(1)
    assert outcome(lambda: db("UPDATE t SET v = 'mine' WHERE id = 1")) or outcome(lambda: db("COMMIT"))
    outcome(lambda: db("ROLLBACK"))
    assert primary.sql("SELECT v LIKE 'theirs%' FROM t WHERE id = 1") == [[1]]
    db.sync()
    db("UPDATE t SET v = v || ' and mine' WHERE id = 1")
    assert primary.sql("SELECT v LIKE 'theirs% and mine' FROM t WHERE id = 1") == [[1]]
    sound(primary, path, db)


@pytest.mark.parametrize("write_lock", MODES)
def test_in_the_middle_of_a_transaction(write_lock, way, host, path, primary):
    """The lock is gone with the process; taken again, it is upon another base of the same number."""
    db = host.open(path, way, write_lock=write_lock, timeout=3)
    frame_no = ahead(db)
    db("BEGIN IMMEDIATE")
    db("UPDATE t SET v = 'mine' WHERE id = 1")
    crash(primary, frame_no)
    time.sleep(1)
    fails(lambda: db("COMMIT"), BUSY, READONLY)
    assert primary.sql("SELECT v LIKE 'theirs%' FROM t WHERE id = 1") == [[1]]
    outcome(lambda: db("ROLLBACK"))
    db.sync()
    assert db.one("SELECT v FROM t WHERE id = 1").startswith("theirs")
    sound(primary, path, db)


@pytest.mark.parametrize("write_lock", MODES)
def test_another_database_behind_the_address(write_lock, host, path, primary, new_primary, new_proxy):
    """Of the same size, schema and frame number."""
    other = new_primary(SEED)
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, write_lock=write_lock, timeout=3)
    frame_no = ahead(db)
    while other.hello()[1] < frame_no:
        other.sql("UPDATE t SET v = v || '.' WHERE id = 2")
    assert other.hello()[1] == frame_no
    proxy.target = other.url
    proxy.cut()
    before = primary.image().bytes()
    error = outcome(lambda: db("UPDATE t SET v = 'mine' WHERE id = 1"))
    if error:
        assert error.code in (BUSY, READONLY), error
        db("UPDATE t SET v = 'mine' WHERE id = 1")
    assert other.sql("SELECT v FROM t WHERE id = 1") == [["mine"]]
    assert other.sql("SELECT v FROM t WHERE id = 2")[0][0].startswith("seed 2.")
    assert primary.image().bytes() == before
    sound(other, path, db)


def test_an_empty_primary_takes_nothing(host, path, primary):
    """It has lost everything: the replica may be the last copy, so nothing is written anywhere."""
    db = host.open(path, primary.url, timeout=3)
    ahead(db)
    rows = db("SELECT * FROM t")
    primary.wipe()
    fails(lambda: db("UPDATE t SET v = 'mine' WHERE id = 1"), READONLY)
    assert db("SELECT * FROM t") == rows
    assert primary.hello()[1] is None
    assert "replica_resync" in db.host.last_error()
