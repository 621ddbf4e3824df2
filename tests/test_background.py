"""Background work: when it runs, in which process, what it leaves behind, and that nothing waits for it."""
import os
import threading
import time

import pytest
from harness.check import identical, refused
from harness.host import replica_uri
from harness.primary import eventually
from harness.shell import stock

COUNT = "SELECT count(*) FROM users"
INSERT = "INSERT INTO users(name) VALUES('x')"


def methods(proxy):
    return [request.rsplit("/", 1)[1] for request in proxy.requests]


def threads(host):
    return len(os.listdir(f"/proc/{host.pid}/task"))


def handles(host):
    return len(os.listdir(f"/proc/{host.pid}/fd"))


def resident_mb(host):
    return int(open(f"/proc/{host.pid}/statm").read().split()[1]) * 4096 / 1e6


def current(db, primary, within=5.0):
    start, newest = time.perf_counter(), primary.hello()[1]
    eventually(lambda: db.frame_no == newest, within, 0.002, f"frame {newest} at {db.status()}")
    return time.perf_counter() - start


# --- interval ------------------------------------------------------------------------------------

def test_interval(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, sync_interval=0.25)
    lags = []
    for _ in range(8):
        primary.sql(INSERT)
        lags.append(current(db, primary))
    print(f"readable after {min(lags):.2f} to {max(lags):.2f} s with an interval of 0.25 s")
    assert max(lags) < 1
    seen = len(methods(proxy))
    time.sleep(2)
    assert 5 <= len(methods(proxy)) - seen <= 10
    assert "LogEntries" not in methods(proxy)
    status = db.status()
    assert status["sync_interval"] == 0.25 and status["state"] == "online"
    assert status["frames_applied"] >= primary.hello()[1] and time.time() - status["last_sync"] < 1
    identical(path, primary)


def test_a_long_interval_delays_no_sync_and_no_close(host, primary, path):
    db = host.open(path, primary.url, sync_interval=3600)
    for _ in range(5):
        primary.sql(INSERT)
        start = time.perf_counter()
        assert db.sync()["frame_no"] == primary.hello()[1]
        assert time.perf_counter() - start < 1
    start = time.perf_counter()
    db.close()
    assert time.perf_counter() - start < 1


def test_catching_up_goes_in_steps(host, primary, path):
    """A replica that is far behind: the write lock is free in between."""
    host.open(path, primary.url).close()
    for _ in range(3):
        primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM generate_series(1, 3000)")
        primary.pipeline([{"type": "execute", "stmt": {"sql": INSERT}}] * 300)
    db = host.open(path, sync_interval=60)
    print(f"caught up in {current(db, primary, 30):.2f} s")
    identical(path, primary)


def test_a_stock_writer_costs_no_traffic(host, new_host, primary, path):
    """What was fetched while somebody else has the write lock is kept until it is free."""
    db = host.open(path, primary.url, sync_interval=0.05)
    current(db, primary)
    stranger = new_host(library=None).plain(path)
    stranger("BEGIN IMMEDIATE")
    before = db.status()["bytes_received"]
    primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM generate_series(1, 300)")
    time.sleep(2)
    fetched = db.status()["bytes_received"] - before
    assert 900_000 < fetched < 3_000_000 and db.status()["last_error"] is None
    start = time.perf_counter()
    other = host.open(path)
    other.close()
    assert time.perf_counter() - start < 0.5
    stranger("ROLLBACK")
    current(db, primary)
    identical(path, primary)


# --- configuration -------------------------------------------------------------------------------

def test_configuration_at_run_time(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    idle = threads(host)

    def config(name, value):
        db("SELECT replica_config(?, ?)", name, value)
        assert float(db.status()[name]) == float(value)

    config("live", 1)
    primary.sql(INSERT)
    current(db, primary)
    eventually(lambda: "LogEntries" in methods(proxy))
    assert threads(host) > idle
    db("SELECT replica_config('timeout', 3)")
    primary.sql(INSERT)
    current(db, primary)
    config("live", 0)
    assert threads(host) == idle
    seen = len(methods(proxy))
    primary.sql(INSERT)
    time.sleep(0.7)
    assert len(methods(proxy)) == seen and db.frame_no < primary.hello()[1]
    config("sync_interval", 0.1)
    current(db, primary)
    config("sync_interval", 3600)
    primary.sql(INSERT)
    time.sleep(0.5)
    config("sync_interval", 0.1)
    current(db, primary)
    config("sync_interval", 0)
    assert threads(host) == idle
    for _ in range(20):  # back and forth, faster than it can follow
        config("live", 1)
        config("sync_interval", 0.01)
        config("live", 0)
        config("sync_interval", 0)
    assert threads(host) == idle
    identical(path, primary)


def test_a_second_open_may_ask_for_more(host, primary, path):
    first = host.open(path, primary.url)
    second = host.open(path, live=1)
    primary.sql(INSERT)
    current(first, primary)
    host.open(path).close()  # and one that does not ask takes nothing away
    second.close()
    primary.sql(INSERT)
    current(first, primary)
    assert first.status()["live"] == 1


# --- one process works ---------------------------------------------------------------------------

def test_one_process_works_and_another_takes_over(new_host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    hosts = [new_host() for _ in range(3)]
    dbs = []
    for host in hosts:
        dbs.append(host.open(path, proxy.url, live=1))
        current(dbs[-1], primary)
    eventually(lambda: "LogEntries" in methods(proxy))
    primary.sql(INSERT)
    for db in dbs:
        current(db, primary)
        assert db.one(COUNT) == 201
    assert methods(proxy).count("LogEntries") == 1
    for db in dbs:  # the others show what the working one knows
        status = eventually(lambda: db.status() if db.status()["state"] == "online" else None)
        assert status["primary_frame_no"] == primary.hello()[1] and status["last_sync"]
    assert [db.status()["frames_applied"] > 0 for db in dbs] == [True, False, False]
    for number in range(2):
        hosts[number].kill()
        primary.sql(INSERT)
        took = max(current(db, primary) for db in dbs[number + 1:])
        print(f"another process was current {took:.2f} s after a kill -9 of the working one")
        assert took < 1.5
    primary.sql(INSERT)
    assert current(dbs[2], primary) < 0.5
    identical(path, primary)


def test_the_working_process_closes(new_host, primary, path):
    first, second = new_host(), new_host()
    worker = first.open(path, primary.url, live=1)
    current(worker, primary)
    other = second.open(path, live=1)
    worker.close()
    primary.sql(INSERT)
    assert current(other, primary) < 1.5
    primary.stop()
    assert eventually(lambda: other.status()["state"] == "offline")


def test_the_others_know_that_it_is_offline(new_host, primary, path):
    worker = new_host().open(path, primary.url, live=1)
    current(worker, primary)
    other = new_host().open(path, live=1)
    primary.stop()
    status = eventually(lambda: other.status() if other.status()["state"] == "offline" else None)
    assert str(primary.port) in status["last_error"] and time.time() - status["offline_since"] < 5


def test_who_is_to_be_more_current_works_beside_it(new_host, primary, new_proxy, path):
    """The first process syncs seldom; another wants each commit at once, a third one soon."""
    proxy = new_proxy(primary.url)
    seldom = new_host().open(path, proxy.url, sync_interval=3600)
    current(seldom, primary)
    soon = new_host().open(path, sync_interval=0.2)
    for _ in range(3):
        primary.sql(INSERT)
        assert current(soon, primary) < 2
    live = new_host().open(path, live=1)
    eventually(lambda: "LogEntries" in methods(proxy))
    time.sleep(0.3)
    for _ in range(3):
        primary.sql(INSERT)
        assert current(live, primary) < 0.15
    assert seldom.frame_no == soon.frame_no == live.frame_no
    identical(path, primary)


# --- many ----------------------------------------------------------------------------------------

def test_ten_replicas_in_one_process(host, primary, tmp_path):
    (tmp_path / "ten").mkdir()
    dbs = [host.open(tmp_path / "ten" / f"{i}.db", primary.url, live=1) for i in range(10)]
    for _ in range(20):
        primary.sql(INSERT)
    print(f"ten replicas current in {max(current(db, primary) for db in dbs):.3f} s, {threads(host)} threads")
    assert dbs[0].one("SELECT count(*) FROM replica_databases WHERE state = 'online'") == 10
    for db in dbs:
        db.close()
    for i in range(10):
        identical(tmp_path / "ten" / f"{i}.db", primary)


def test_open_and_close_a_thousand_times(host, primary, path):
    def cycle(times):
        for i in range(times):
            db = host.open(path, primary.url, **({"live": 1} if i % 2 else {"sync_interval": 0.01}))
            if i % 10 == 0:
                primary.sql(INSERT)
                current(db, primary)
            db.close()

    cycle(50)
    time.sleep(0.3)
    before = (handles(host), threads(host), resident_mb(host))
    start = time.perf_counter()
    cycle(1000)
    took = time.perf_counter() - start
    time.sleep(0.3)
    after = (handles(host), threads(host), resident_mb(host))
    print(f"handles, threads, MB: {before} before, {after} after 1000 opens and closes in {took:.0f} s")
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2 and after[2] < before[2] + 6
    identical(path, primary)


def test_every_order_of_everything(host, primary, path):
    """Opens, closes, syncs, checkpoints, configuration and the stream, all at once: nothing hangs, nothing is lost."""
    stop, errors = time.monotonic() + 8, []

    def opens():
        while time.monotonic() < stop:
            db = host.open(path, primary.url, live=1)
            db.sync()
            db.close()

    def syncs():
        db = host.open(path, primary.url)
        while time.monotonic() < stop:
            db.sync()
            db.one(COUNT)
            db("PRAGMA wal_checkpoint(PASSIVE)")

    def configures():
        db = host.open(path, primary.url)
        for i in range(10 ** 9):
            if time.monotonic() > stop:
                return
            db("SELECT replica_config('live', ?)", i % 2)
            db("SELECT replica_config('sync_interval', ?)", (i % 3) / 10)

    def writes():
        while time.monotonic() < stop:
            primary.sql(INSERT)

    def run(action):
        try:
            action()
        except BaseException as error:
            errors.append(error)

    actors = [threading.Thread(target=run, args=(a,)) for a in (opens, opens, syncs, syncs, configures, writes)]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join(60)
        assert not actor.is_alive(), "something hangs"
    assert not errors, errors
    db = host.open(path)
    db.sync()
    assert db.one(COUNT) == primary.sql(COUNT)[0][0]
    identical(path, primary)


# --- ends ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{"live": 1}, {"sync_interval": 0.01}])
def test_a_program_that_never_closes_ends_cleanly(options, new_host, primary, path):
    for i in range(5):
        host = new_host()
        host.open(path, primary.url, **options)
        host.open(path)
        stop = time.monotonic() + 0.1 * i
        while time.monotonic() < stop:
            primary.sql(INSERT)
        start = time.perf_counter()
        assert host.close() == 0
        assert time.perf_counter() - start < 3
    host = new_host()
    current(host.open(path, live=1), primary)
    identical(path, primary)


@pytest.mark.parametrize("silent", [False, True])
def test_a_program_ends_in_the_midst_of_a_sync(silent, new_host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    new_host().open(path, proxy.url).close()
    primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM generate_series(1, 4000)")
    proxy.silent = silent
    for options in ({"live": 1}, {"sync_interval": 1}, {}):
        host = new_host()
        db = host.open(path, **options)
        db.start("SELECT replica_sync()")
        time.sleep(0.05)
        start = time.perf_counter()
        assert host.close() == 0
        assert time.perf_counter() - start < 3
    proxy.silent = False
    db = new_host().open(path, live=1)
    current(db, primary, 20)
    identical(path, primary)


def test_killed_at_any_moment(new_host, primary, path):
    """kill -9 of the working process while the stream runs: what is left is a state that the next one knows."""
    stop = threading.Event()

    def write():
        while not stop.is_set():
            primary.sql("UPDATE orders SET note = randomblob(700) WHERE id % 9 = abs(random()) % 9")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(12):
            host = new_host()
            db = host.open(path, primary.url, live=1)
            time.sleep(0.05 + 0.03 * i)
            assert db.status()["last_error"] is None
            host.kill()
    finally:
        stop.set()
        writer.join()
    db = new_host().open(path, live=1)
    current(db, primary)
    assert db.status()["frames_applied"] < primary.hello()[1]  # no bootstrap
    identical(path, primary)


# --- fork ----------------------------------------------------------------------------------------

def test_fork(host, primary, path):
    """Children of a process with a live replica open it anew; the parent's goes on."""
    db = host.open(path, primary.url, live=1)
    current(db, primary)
    for i in range(20):
        primary.sql(INSERT)
        code = f"""
import time
db = open_database({replica_uri(path, live=1)!r}, True)
deadline = time.time() + 10
while db.execute("SELECT count(*) FROM users").fetchone()[0] < {201 + i}:
    assert time.time() < deadline, "the child is not current"
    time.sleep(0.01)
assert db.execute("SELECT json_extract(replica_sync(), '$.frame_no')").fetchone()[0] >= 0
db.close()
"""
        assert host.fork(code) == 0, "".join(host.stderr)
        assert current(db, primary) < 2
    identical(path, primary)


def test_fork_under_load(host, primary, path):
    """The stream applies commits all the time; no child finds anything half done."""
    db = host.open(path, primary.url, live=1)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            primary.pipeline([{"type": "execute", "stmt": {"sql": INSERT}}] * 20)

    writer = threading.Thread(target=write)
    writer.start()
    code = f"""
import signal
signal.alarm(20)
db = open_database({replica_uri(path)!r}, True)
db.execute("SELECT replica_sync()").fetchone()
assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
db.close()
"""
    try:
        for _ in range(40):
            assert host.fork(code) == 0, "".join(host.stderr)
    finally:
        stop.set()
        writer.join()
    current(db, primary)
    identical(path, primary)


def test_an_inherited_connection(host, primary, path):
    """A child must not use it, as SQLite says; closing it, or ending, does no harm."""
    db = host.open(path, primary.url, live=1)
    current(db, primary)
    code = f"""
import signal, gc
signal.alarm(20)
import sqlite3
theirs = inherited[{db.name!r}]
try:
    theirs.execute("SELECT replica_sync()")
    raise SystemExit("it was used")
except sqlite3.OperationalError as error:
    assert "forked" in str(error), error
theirs.close()
"""
    for _ in range(5):
        assert host.fork(code) == 0, "".join(host.stderr)
        primary.sql(INSERT)
        assert current(db, primary) < 2
    assert db.one("PRAGMA integrity_check") == "ok"
    identical(path, primary)


def test_a_child_does_not_keep_the_lock(new_host, primary, path):
    """The parent is killed, its child lives on; another process takes over all the same."""
    parent, other = new_host(), new_host()
    worker = parent.open(path, primary.url, live=1)
    current(worker, primary)
    db = other.open(path, live=1)
    child = parent.call("fork", code="import time; time.sleep(6)")
    time.sleep(0.3)
    parent.kill()
    primary.sql(INSERT)
    took = current(db, primary)
    print(f"taken over in {took:.2f} s")
    assert took < 1.5
    del child


def test_a_resync_under_the_stream(host, primary, path):
    """A stock program wrote to the file: said at once, repaired by replica_resync, and the stream goes on."""
    db = host.open(path, primary.url, live=1)
    current(db, primary)
    stock(path, "DELETE FROM orders;")
    primary.sql(INSERT)
    error = eventually(lambda: db.status()["last_error"], 10)
    assert "changed locally" in error
    db("SELECT replica_resync()")
    primary.sql(INSERT)
    assert current(db, primary) < 2
    assert db.one("SELECT count(*) FROM orders") == 200 and db.status()["last_error"] is None
    identical(path, primary)


# --- two replicas --------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"live": 1}])
def test_wait_across_two_replicas(options, new_host, primary, path):
    first = new_host().open(path, primary.url, **options)
    second = new_host().open(path.with_name("second.db"), primary.url, **options)
    for i in range(20):
        primary.sql("INSERT INTO users(id, name) VALUES(?, 'w')", 1000 + i)
        first.sync()
        assert second.one("SELECT replica_wait(?, 5)", first.frame_no) == 1
        assert second.one("SELECT name FROM users WHERE id = ?", 1000 + i) == "w"
    start = time.perf_counter()
    assert second.one("SELECT replica_wait(?, 0.3)", first.frame_no + 1000) == 0
    assert 0.25 < time.perf_counter() - start < 2


def test_a_plain_file_has_no_background(host, path):
    """Options without a primary: nothing runs, nothing fails."""
    before = threads(host)
    db = host.open(path, live=1, sync_interval=1)
    db("CREATE TABLE t(a)")
    refused(db.sync, ("not a replica", "sync_url"))
    db.close()
    eventually(lambda: threads(host) <= before)


