"""sqlite3_interrupt and progress handlers end every wait for a primary, and nothing has changed then."""
import socket
import time

import pytest
from harness.check import identical
from harness.faults import LOSE, LOSE_ANSWER, PASS
from harness.host import SqlError

INTERRUPT, IOERR = 9, 10
SOON = 0.35  # 100 ms, on a machine that is busy with other tests
INSERT = "INSERT INTO orders(user_id, note) VALUES(1, 'interrupted')"
COUNT = "SELECT count(*) FROM orders WHERE note = 'interrupted'"


@pytest.fixture
def proxy(new_fault_proxy, primary):
    return new_fault_proxy(primary.url)


@pytest.fixture
def db(host, path, proxy, write_path):
    db = host.open(path, proxy.url, timeout=20)
    db("UPDATE users SET name = 'before' WHERE id = 1")
    db.sync()
    return db


def ended(db, sql, code=INTERRUPT):
    """Starts it, interrupts it, and it ends at once."""
    running = db.start(sql)
    time.sleep(0.5)
    assert not running.done(), running.exception()
    begun = time.monotonic()
    db.interrupt()
    with pytest.raises(SqlError) as caught:
        running.result(30)
    took = time.monotonic() - begun
    assert took < SOON, f"{took:.3f} s"
    assert caught.value.code == code, (caught.value.code, caught.value)


def goes_on(db, proxy, primary, path):
    """As if nothing had been."""
    proxy.rule = lambda request: PASS
    proxy.cut()
    assert db.one(COUNT) == 0
    db.sync()
    db("UPDATE users SET name = 'after' WHERE id = 1")
    assert primary.sql("SELECT name FROM users WHERE id = 1") == [["after"]]
    assert primary.sql(COUNT) == [[0]]
    identical(path, primary)


@pytest.mark.parametrize("sql", [
    "SELECT replica_sync()",
    "SELECT replica_wait(1000000, 30)",
    "SELECT replica_exec('UPDATE users SET name = name')",
    "SELECT replica_resync()",
    INSERT,
    "BEGIN IMMEDIATE",
])
def test_a_wait_for_a_primary_that_is_silent(db, proxy, primary, path, sql):
    proxy.rule = lambda request: LOSE
    ended(db, sql)
    goes_on(db, proxy, primary, path)


def test_a_wait_for_a_frame_that_does_not_come(db, proxy, primary, path):
    ended(db, "SELECT replica_wait(1000000, 30)")
    goes_on(db, proxy, primary, path)


def test_a_wait_for_the_primary_s_lock(db, proxy, primary, path):
    db("PRAGMA busy_timeout = 20000")
    with primary.stream() as run:
        run("BEGIN IMMEDIATE")
        ended(db, INSERT)
        run("ROLLBACK")
    goes_on(db, proxy, primary, path)


def test_a_wait_for_another_connection_s_sync(db, host, proxy, primary, path):
    other = host.open(path)
    proxy.rule = lambda request: LOSE
    first = other.start("SELECT replica_sync()")
    time.sleep(0.2)
    ended(db, "SELECT replica_sync()")
    other.interrupt()
    with pytest.raises(SqlError):
        first.result(5)
    goes_on(db, proxy, primary, path)


@pytest.mark.parametrize("sql", ["SELECT replica_sync()", "SELECT replica_exec('UPDATE users SET name = name')"])
def test_a_progress_handler(db, proxy, primary, path, sql):
    proxy.rule = lambda request: LOSE
    db.progress_handler(0.6)
    begun = time.monotonic()
    with pytest.raises(SqlError) as caught:
        db(sql)
    assert 0.55 < time.monotonic() - begun < 0.6 + SOON
    assert caught.value.code == INTERRUPT
    db.progress_handler(3600)
    goes_on(db, proxy, primary, path)


@pytest.mark.parametrize("end", ["COMMIT", "RELEASE s"])
def test_a_transaction_on_a_slow_way(db, proxy, primary, path, end):
    """The connection is asked while it commits, and commits once."""
    proxy.rule = lambda request: time.sleep(0.15) or PASS
    db("BEGIN" if end == "COMMIT" else "SAVEPOINT s")
    db(INSERT)
    db("UPDATE users SET name = 'slow' WHERE id = 2")
    begun = time.monotonic()
    db(end)
    assert time.monotonic() - begun > 0.15
    proxy.rule = lambda request: PASS
    assert primary.sql(COUNT) == [[1]] and db.one(COUNT) == 1
    identical(path, primary)


def test_the_next_write_is_heard_as_well(db, proxy, primary, path):
    proxy.rule = lambda request: LOSE
    for _ in range(2):
        ended(db, INSERT)
    goes_on(db, proxy, primary, path)


def test_a_commit_whose_answer_is_waited_for(db, proxy, primary, path):
    """The log tells what became of it, if it does so in no time; else the outcome is said to be unknown."""
    proxy.rule = lambda request: LOSE_ANSWER if b"COMMIT" in request.body else PASS
    running = db.start(INSERT)
    time.sleep(0.5)
    db.interrupt()
    try:
        assert running.result(SOON) == []
    except SqlError as error:
        assert error.code == IOERR and "unknown" in db.host.last_error()
        db.sync()
    assert primary.sql(COUNT) == [[1]] and db.one(COUNT) == 1


def test_a_commit_that_nobody_tells_about(db, proxy, primary, path):
    """It may be there: the error says so, and the next sync shows it."""
    begun = []

    def rule(request):
        if b"COMMIT" in request.body and not begun:
            begun.append(request)
            return LOSE_ANSWER
        return LOSE if begun else PASS

    proxy.rule = rule
    ended(db, INSERT, code=IOERR)
    assert "unknown" in db.host.last_error()
    proxy.rule = lambda request: PASS
    proxy.cut()
    db.sync()
    assert db.one(COUNT) == 1
    identical(path, primary)


def test_a_connect_that_nobody_answers(host, path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(8)]  # more than it has room for: then nobody is answered
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        ended(host.plain(":memory:", uri=True), f"ATTACH 'file:{path}?vfs=replica&timeout=20&sync_url={url}' AS app")
        for client in waiting:
            client.close()
    assert not path.exists() or path.stat().st_size == 0


def test_a_first_fetch(host, path, proxy):
    proxy.rule = lambda request: LOSE if "Batch" in request.path else PASS
    db = host.plain(":memory:", uri=True)
    ended(db, f"ATTACH 'file:{path}?vfs=replica&timeout=20&sync_url={proxy.url}' AS app")
    assert not path.exists() or path.stat().st_size == 0
    proxy.rule = lambda request: PASS
    db(f"ATTACH 'file:{path}?vfs=replica&sync_url={proxy.url}' AS app")
    assert db.one("SELECT count(*) FROM app.users") == 200


def test_a_large_pull_in_its_midst(host, path, proxy, primary):
    """Several requests are under way then."""
    db = host.open(path, proxy.url, timeout=20)
    primary.sql("INSERT INTO orders(user_id, note) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) SELECT 1, randomblob(3000) FROM n")
    for _ in range(2):
        primary.sql("UPDATE orders SET note = randomblob(3000)")
    proxy.rule = lambda request: time.sleep(0.3) or PASS
    ended(db, "SELECT replica_sync()")
    goes_on(db, proxy, primary, path)
