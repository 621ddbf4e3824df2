"""Several processes and connections on one replica file."""
import os
import time

import pytest
from harness.check import identical, together
from harness.host import replica_uri
from harness.primary import eventually
from harness.shell import stock


@pytest.mark.parametrize("processes", [1, 3])
def test_pulling_at_the_same_time(processes, new_host, primary, path):
    """Several connections pull the same file while the primary is written."""
    hosts = [new_host() for _ in range(processes)]
    dbs = [hosts[i % processes].open(path, primary.url) for i in range(3)]

    def pull(db):
        last = -1
        for _ in range(60):
            frame_no = db.sync()["frame_no"]
            assert frame_no >= last
            last = frame_no
            assert db.one("SELECT count(*) FROM users") >= 200

    def write():
        for i in range(100):
            primary.sql("INSERT INTO users(name) VALUES(?)", str(i))
            primary.sql("UPDATE orders SET note = randomblob(500) WHERE id % 5 = ?", i % 5)

    together(write, *[lambda db=db: pull(db) for db in dbs])
    for db in dbs:
        assert db.sync()["frame_no"] == primary.hello()[1]
        assert db.one("SELECT count(*) FROM users") == 300
    identical(path, primary)


def test_bootstrapping_at_the_same_time(new_host, primary, path):
    """All open one file that is not there yet; each gets the whole database."""
    for round_ in range(5):
        target = path.with_name(f"{round_}.db")
        hosts = [new_host() for _ in range(3)]
        counts = []
        together(*[lambda host=host: counts.append(host.open(target, primary.url).one("SELECT count(*) FROM users"))
                   for host in hosts])
        assert counts == [200] * 3
        identical(target, primary)
        for host in hosts:
            assert host.close() == 0


def test_a_slow_pull_onto_a_log_that_was_emptied(new_host, history, path, new_peer):
    """An empty log is no proof that nobody has written: another process has pulled more, and checkpointed it."""
    peer, slept = new_peer(history), []
    slow, fast = (new_host().open(path, peer.url) for _ in range(2))
    history.commit("UPDATE t SET v = 'old' WHERE id = 1")

    def hook(method, reply):
        if method == "BatchLogEntries" and not slept:
            slept.append(True)
            time.sleep(1.5)

    peer.hook = hook
    answer = slow.start("SELECT replica_sync()")
    eventually(lambda: slept)
    history.commit("UPDATE t SET v = 'new' WHERE id = 1")
    fast.sync()
    stock(path, "PRAGMA wal_checkpoint(TRUNCATE);")
    answer.result(20)
    assert (slow.frame_no, fast.frame_no) == (history.newest, history.newest)
    assert fast.one("SELECT v FROM t WHERE id = 1") == "new"
    identical(path, history)


def test_fork(host, primary, path):
    """A child opens the replica anew, syncs and ends; the parent's connection is none the worse."""
    db = host.open(path, primary.url)
    for i in range(3):
        primary.sql("INSERT INTO users(name) VALUES('x')")
        db.sync()
        primary.sql("INSERT INTO users(name) VALUES('y')")
        code = f"""
db = open_database({replica_uri(path)!r}, True)
assert db.execute("SELECT json_extract(replica_sync(), '$.frames_synced')").fetchone()[0] > 0
assert db.execute("SELECT count(*) FROM users").fetchone()[0] == {202 + 2 * i}
"""
        assert host.fork(code) == 0, "".join(host.stderr)
        assert db.sync()["frames_synced"] == 0
        assert db.one("SELECT count(*) FROM users") == 202 + 2 * i
    identical(path, primary)


def test_open_and_close_many_times(host, primary, path):
    """Nothing piles up: descriptors, threads, memory."""
    def counts():
        return tuple(len(os.listdir(f"/proc/{host.pid}/{kind}")) for kind in ("fd", "task"))

    def cycle(times):
        for _ in range(times):
            db = host.open(path, primary.url)
            db.sync()
            db.close()

    cycle(10)
    before = counts()
    cycle(100)
    after = counts()
    print(f"descriptors and threads: {before} before, {after} after")
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2
    identical(path, primary)
