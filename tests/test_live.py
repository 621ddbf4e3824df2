"""The live stream: each commit as it happens, through whatever happens to the primary and the way to it."""
import os
import time

import pytest
from conftest import SEED
from harness.check import identical, in_words
from harness.keys import Authority
from harness.primary import eventually, free_port
from harness.shell import stock
from harness.wire import crc64

COUNT = "SELECT count(*) FROM users"
INSERT = "INSERT INTO users(name) VALUES('x')"


def online(db):
    eventually(lambda: db.status()["state"] == "online", what="online")
    time.sleep(0.1)


def current(db, primary, within=5.0):
    """Waits until the replica is where the primary is; the seconds it took."""
    start, newest = time.perf_counter(), primary.hello()[1]
    eventually(lambda: db.frame_no == newest, within, 0.002, f"frame {newest} at {db.status()}")
    return time.perf_counter() - start


def lags(db, primary, count):
    """Sorted seconds from the primary's answer to a commit until the replica shows it."""
    lags = []
    for _ in range(count):
        before = db.one(COUNT)
        primary.sql(INSERT)
        start = time.perf_counter()
        while db.one(COUNT) == before:
            assert time.perf_counter() - start < 10
        lags.append(time.perf_counter() - start)
        time.sleep(0.01)
    return sorted(lags)


@pytest.fixture
def live(host, path, primary):
    db = host.open(path, primary.url, live=1)
    online(db)
    return db


def test_latency(live, primary, path):
    found = lags(live, primary, 100)
    print(f"a commit is readable after {found[50] * 1e3:.2f} ms (median), {found[98] * 1e3:.2f} ms (99 %), "
          f"{found[-1] * 1e3:.2f} ms (worst of 100)")
    assert found[50] < 0.25
    identical(path, primary)


def test_nothing_is_polled(host, primary, new_proxy, path):
    """One stream, and a question now and then whether the primary is still there."""
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, live=1)
    online(db)
    lags(db, primary, 20)
    time.sleep(4)
    methods = [request.rsplit("/", 1)[1] for request in proxy.requests]
    assert methods.count("LogEntries") == 1
    assert methods.count("Hello") <= 6 and methods.count("BatchLogEntries") <= 2, methods


def test_a_burst_of_commits(live, primary, path):
    frames, commits = live.status()["frames_applied"], live.frame_no
    start = time.perf_counter()
    primary.pipeline([{"type": "execute", "stmt": {"sql": INSERT}}] * 200)
    written = time.perf_counter() - start
    took = current(live, primary)
    print(f"200 commits written in {written * 1e3:.0f} ms, readable {took * 1e3:.1f} ms after that")
    assert live.one(COUNT) == 400
    assert live.status()["frames_applied"] - frames == live.frame_no - commits
    identical(path, primary)


def test_large_transactions(live, primary, path):
    for rows in (400, 3000, 12_000):  # the last two are more than is collected in memory
        primary.sql(f"INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM generate_series(1, {rows})")
        print(f"{rows} rows: {current(live, primary, 30):.2f} s")
    primary.sql("DELETE FROM orders WHERE id % 3 = 0")
    current(live, primary, 30)
    identical(path, primary)


def test_snapshots_stay_whole(live, host, primary, path):
    """Readers see before or after a commit, and a transaction keeps its snapshot."""
    primary.script("CREATE TABLE a(n); CREATE TABLE b(n); INSERT INTO a VALUES(0); INSERT INTO b VALUES(0)")
    current(live, primary)
    other = host.open(path)
    other("BEGIN")
    first = other.one("SELECT n FROM a")
    for i in range(1, 60):
        primary.transaction(("UPDATE a SET n = ?", [i]), ("UPDATE b SET n = ?", [i]))
        a, b = live("SELECT a.n, b.n FROM a, b")[0]
        assert a == b
        assert other.one("SELECT n FROM b") == first
    other("COMMIT")
    current(live, primary)
    assert live.one("SELECT n FROM a") == 59


def test_the_log_stays_bounded(live, primary, path):
    for _ in range(15):
        primary.pipeline([{"type": "execute", "stmt": {"sql": INSERT}}] * 200)
        current(live, primary)
    size = os.path.getsize(f"{path}-wal")
    print(f"{live.frame_no} frames applied, a log of {size // 1024} KiB")
    assert size < 20 << 20
    identical(path, primary)


def test_a_stock_writer_is_waited_for(live, new_host, primary, path):
    """Somebody's write lock delays the live commits and nothing else."""
    stranger = new_host(library=None).plain(path)
    stranger("BEGIN IMMEDIATE")
    before = live.one(COUNT)
    primary.sql(INSERT)
    time.sleep(0.5)
    assert live.one(COUNT) == before
    assert live.status()["last_error"] is None
    stranger("ROLLBACK")
    current(live, primary)
    identical(path, primary)


def test_manual_syncs_go_on_beside_it(live, primary, path):
    waits = []
    for _ in range(30):
        primary.sql(INSERT)
        start = time.perf_counter()
        answer = live.sync()
        waits.append(time.perf_counter() - start)
        assert answer["frame_no"] == primary.hello()[1] == live.frame_no
    print(f"a sync beside the live stream: {max(waits) * 1e3:.1f} ms at most")
    assert max(waits) < 1
    identical(path, primary)


@pytest.mark.parametrize("secure", [False, True])
def test_silence_is_no_failure(secure, new_host, primary, new_proxy, tmp_path, path):
    """Nothing comes for longer than any network wait may last: the same stream goes on."""
    authority = Authority(tmp_path) if secure else None
    proxy = new_proxy(primary.url, *([authority.pair] if secure else []))
    options = {"ca_file": authority.ca} if secure else {}
    db = new_host().open(path, proxy.url, live=1, timeout=0.4, **options)
    online(db)
    for _ in range(3):
        time.sleep(1.5)
        assert lags(db, primary, 5)[2] < 0.5
        assert db.status()["last_error"] is None
    assert db.status()["state"] == "online" and time.time() - db.status()["last_sync"] < 2
    if not secure:
        assert [request.rsplit("/", 1)[1] for request in proxy.requests].count("LogEntries") == 1
    else:
        assert proxy.connections <= 4
    identical(path, primary)


# --- away and back -------------------------------------------------------------------------------

def test_cut_and_back(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, live=1)
    online(db)
    for _ in range(5):  # cut in the air, the way being there again at once
        proxy.cut()
        primary.sql(INSERT)
        assert current(db, primary) < 2
    proxy.target = f"http://127.0.0.1:{free_port()}"  # and now it stays away
    proxy.cut()
    since = time.time()
    eventually(lambda: db.status()["state"] == "offline")
    for _ in range(3):
        primary.sql(INSERT)
    time.sleep(2)
    status = db.status()
    assert abs(status["offline_since"] - since) < 1 and str(proxy.port) in status["last_error"]
    assert db.one(COUNT) == 205
    start = time.perf_counter()
    assert db.one(COUNT) == 205 and host.open(path).one(COUNT) == 205
    assert time.perf_counter() - start < 0.5
    proxy.target = primary.url
    took = current(db, primary)
    print(f"current {took:.2f} s after the way was there again")
    assert took < 1.5
    status = db.status()
    assert (status["state"], status["offline_since"], status["last_error"]) == ("online", None, None)
    identical(path, primary)


def test_a_network_that_swallows_everything(host, primary, new_proxy, path):
    """No connection breaks; there is just no answer any more."""
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, live=1)
    online(db)
    proxy.silent = True
    start = time.perf_counter()
    eventually(lambda: db.status()["state"] == "offline", 15)
    print(f"noticed after {time.perf_counter() - start:.1f} s")
    primary.sql(INSERT)
    proxy.cut()
    time.sleep(2)
    proxy.silent = False
    took = current(db, primary)
    print(f"current {took:.2f} s after the network spoke again")
    assert took < 2.5
    identical(path, primary)


def test_closing_does_not_wait_for_the_network(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, live=1)
    online(db)
    proxy.silent = True
    waits = []
    for _ in range(5):
        start = time.perf_counter()
        db.close()
        waits.append(time.perf_counter() - start)
        start = time.perf_counter()
        db = host.open(path, live=1)
        assert db.one(COUNT) == 200 and time.perf_counter() - start < 1
        time.sleep(0.2)
    print(f"closed in {', '.join(f'{wait * 1e3:.0f}' for wait in waits)} ms")
    assert max(waits) < 1 and sorted(waits)[2] < 0.1


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_primary_restarts(how, live, host, primary, path):
    """A clean restart goes on; after a kill -9 the log is another: all of it is fetched again, loudly."""
    for _ in range(3):
        primary.sql(INSERT)
        if how == "restart":
            primary.restart()
        else:
            current(live, primary)
            primary.kill()
            primary.start()
        primary.sql(INSERT)
        took = eventually(lambda: live.one(COUNT) == primary.sql(COUNT)[0][0], 10)
        current(live, primary)
    if how == "kill":
        in_words(host.last_error(), "another log")
    identical(path, primary)


def test_the_primary_comes_back_empty(live, host, primary, path):
    primary.wipe()
    eventually(lambda: "empty" in (live.status()["last_error"] or ""), 10)
    assert live.one(COUNT) == 200
    in_words(live.status()["last_error"], "replica_resync", "last copy")
    primary.script("CREATE TABLE users(name); INSERT INTO users VALUES('new')")
    eventually(lambda: live.one(COUNT) == 1, 10)
    identical(path, primary)


def test_compaction(new_primary, host, path):
    primary = new_primary(SEED, max_log_duration=1)
    db = host.open(path, primary.url, live=1)
    online(db)
    for i in range(30):
        primary.sql("UPDATE orders SET note = randomblob(900) WHERE id % 7 = ?", i % 7)
        time.sleep(0.1)
    current(db, primary)
    identical(path, primary)


def test_an_empty_primary_gets_its_first_table(new_primary, host, path):
    primary = new_primary()
    db = host.open(path, primary.url, live=1)
    online(db)
    assert (db.one("SELECT count(*) FROM sqlite_schema"), db.frame_no) == (0, None)
    primary.script("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    eventually(lambda: db.one("SELECT count(*) FROM sqlite_schema") == 1)
    current(db, primary)
    assert db.one("SELECT a FROM t") == 1
    identical(path, primary)


def test_stock_readers_beside_it(live, primary, path):
    for _ in range(10):
        primary.sql("UPDATE orders SET note = randomblob(1500)")
        assert stock(path, "PRAGMA integrity_check;") == "ok"
    current(live, primary)
    identical(path, primary)


# --- peers that lie ------------------------------------------------------------------------------

def streaming(peer, frames):
    """Has LogEntries send these frames and stay open."""
    from harness.wire import encode, message

    def hook(method, reply):
        if method == "LogEntries":
            reply.headers.pop("grpc-status", None)
            reply.headers.pop("grpc-message", None)

            def body():
                for frame in frames:
                    yield message(encode((1, frame.pack())))
                time.sleep(3)

            reply.raw, reply.cut = body(), True

    peer.hook = hook


@pytest.mark.parametrize("lie", ["checksum", "chain", "order", "page 0", "length"])
def test_a_lying_stream_changes_nothing(lie, host, history, path, new_peer):
    peer = new_peer(history)
    host.open(path, peer.url).close()
    longer = history.upto(history.newest).commit("INSERT INTO t VALUES(9, 'lie')")
    frames = longer.frames[history.newest + 1:]
    if lie == "checksum":
        frames[-1].checksum ^= 1
    elif lie == "chain":  # begins anew, which it may only with a transaction
        assert len(frames) > 1
        previous = 0
        for frame in frames[1:]:
            frame.checksum = previous = crc64(frame.page, previous)
    elif lie == "order":
        frames[0].no += 1
    elif lie == "page 0":
        frames[0].page_no = 0
    else:
        frames[-1].page = frames[-1].page[:100]
    streaming(peer, frames)
    db = host.open(path, live=1)
    deadline = time.monotonic() + 20
    while peer.calls.count("LogEntries") < 2:
        assert db.one("SELECT count(*) FROM t WHERE id = 9") == 0
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert db.frame_no == history.newest and db.one("PRAGMA integrity_check") == "ok"
    db.close()
    identical(path, history)


def test_a_primary_without_streams_is_asked_again_and_again(host, peer, history, path):
    """LogEntries is refused: it becomes a poll."""
    db = host.open(path, peer.url, live=1)
    in_words(eventually(lambda: db.status()["last_error"]), "not here")
    time.sleep(2)
    assert peer.calls.count("LogEntries") < 12, "no pause in between"
    history.commit("INSERT INTO t VALUES(9, 'x')")
    eventually(lambda: db.one("SELECT count(*) FROM t WHERE id = 9") == 1, 10)


def test_a_hanging_background_sync_delays_no_manual_one(host, history, path, new_peer):
    peer = new_peer(history)
    host.open(path, peer.url).close()
    hung = []

    def hook(method, reply):
        if method == "Hello" and not hung:
            hung.append(time.time())
            time.sleep(4)

    peer.hook = hook
    for options in ({"sync_interval": 30}, {"live": 1}):
        hung.clear()
        db = host.open(path, **options)
        eventually(lambda: hung)
        start = time.perf_counter()
        db.sync()
        took = time.perf_counter() - start
        print(f"{options}: a sync took {took * 1e3:.1f} ms")
        assert took < 1
        start = time.perf_counter()
        db.close()
        assert time.perf_counter() - start < 1


