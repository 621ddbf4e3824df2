"""The primary is away, is another one, or has another past than it had."""
import time

import pytest
from conftest import SEED
from harness.check import identical, in_words, open_refused, refused
from harness.host import SqlError
from harness.shell import integrity, sidecars, stock

COUNT = "SELECT count(*) FROM users"


# --- away -------------------------------------------------------------------------------------

def test_gone_reads_go_on(replica, primary, path, new_host):
    primary.stop()
    start = time.monotonic()
    refused(replica.sync, ("refused", "connect", "unreachable"), f"127.0.0.1:{primary.port}")
    assert time.monotonic() - start < 5
    assert replica.one(COUNT) == 200
    assert new_host().open(path).one(COUNT) == 200
    status = replica.status()
    assert status["state"] == "offline" and str(primary.port) in status["last_error"]
    primary.start()
    primary.sql("INSERT INTO users(name) VALUES('back')")
    assert replica.sync()["frames_synced"] > 0
    status = replica.status()
    assert (status["state"], status["last_error"]) == ("online", None)
    identical(path, primary)


def test_gone_at_the_first_open(host, primary, path):
    primary.stop()
    open_refused(host, path, primary.url, str(primary.port), ("refused", "connect", "unreachable"))
    assert sidecars(path) == []
    primary.start()
    assert host.open(path, primary.url).one(COUNT) == 200


def test_no_such_host(host, path):
    open_refused(host, path, "http://no-such-host.invalid:8080", "no-such-host.invalid", timeout=2)
    assert sidecars(path) == []


def test_an_open_with_local_data_needs_no_network(new_host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    new_host().open(path, proxy.url).close()
    proxy.silent, seen = True, len(proxy.requests)
    db = None
    for url in (proxy.url, None):
        start = time.monotonic()
        db = new_host().open(path, url)
        assert db.one(COUNT) == 200
        assert time.monotonic() - start < 3
    assert len(proxy.requests) == seen
    assert db.status()["frame_no"] == db.frame_no


def test_a_silent_primary_is_given_up_after_the_timeout(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, timeout=1)
    proxy.silent = True
    start = time.monotonic()
    refused(db.sync, ("time", "answer"))
    waited = time.monotonic() - start
    print(f"given up after {waited:.2f} s")
    assert 0.5 < waited < 6
    open_refused(host, path.with_name("new.db"), proxy.url, ("time", "answer"), timeout=1)
    proxy.silent = False
    db.sync()
    identical(path, primary)


def test_reads_go_on_while_a_sync_hangs(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db, other = host.open(path, proxy.url, timeout=3), host.open(path, proxy.url, timeout=3)
    proxy.silent = True
    sync = db.start("SELECT replica_sync()")
    time.sleep(0.3)
    start = time.monotonic()
    assert other.one(COUNT) == 200
    assert other.status()["sync_url"] == proxy.url
    host.open(path).close()
    assert time.monotonic() - start < 1.5
    with pytest.raises(SqlError):
        sync.result(20)


@pytest.mark.parametrize("after", [0, 100, 1000, 20_000, 300_000])
def test_cut_in_the_midst(after, host, primary, new_proxy, path):
    """Of a bootstrap, then of an increment; the next attempt finds its way."""
    proxy = new_proxy(primary.url)
    primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM generate_series(1, 400)")
    proxy.cut_after = after
    open_refused(host, path, proxy.url, str(proxy.port))
    assert sidecars(path) == []
    proxy.cut_after = None
    db = host.open(path, proxy.url)
    before = db.frame_no
    primary.sql("UPDATE orders SET note = randomblob(2000)")
    proxy.cut()
    proxy.cut_after = after
    refused(db.sync, str(proxy.port))
    assert (db.frame_no, integrity(path)) == (before, "ok")
    proxy.cut_after = None
    assert db.sync()["frame_no"] == primary.hello()[1]
    identical(path, primary)


def test_a_kept_connection_that_died_is_no_error(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    for _ in range(3):
        proxy.cut()
        db.sync()


# --- another history ----------------------------------------------------------------------------

def loud(status):
    """A re-bootstrap is told, not hidden."""
    in_words(status["last_error"], ("history", "log_id", "another", "lost", "not follow"), ("again", "anew", "bootstrap"))


@pytest.mark.parametrize("how", ["killed", "other database", "restored backup"])
def test_another_history_is_taken_as_one_transaction(how, host, new_host, primary, new_primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    primary.script("UPDATE users SET name = name || '!'; DELETE FROM orders WHERE id > 100;")
    db.sync()
    readers = [host.open(path), new_host(library=None).plain(path)]
    for reader in readers:
        reader("BEGIN")
        assert reader("SELECT count(*), max(name) FROM users") == [(200, "user 99!")]
    if how == "killed":
        primary.sql("UPDATE users SET name = 'unseen' WHERE id = 99")
        before = primary.hello()
        primary.kill()
        primary.start()
        assert primary.hello()[0] != before[0] and primary.hello()[1] < before[1]
        source, expected = primary, [(200, "user 98!")]
    elif how == "other database":
        source = new_primary("CREATE TABLE users(name); INSERT INTO users VALUES('other');")
        expected = [(1, "other")]
    else:
        source = new_primary(SEED)
        expected = [(200, "user 99")]
    proxy.target = source.url
    proxy.cut()
    assert db.sync()["frame_no"] == source.hello()[1]
    loud(db.status())
    for reader in readers:
        assert reader("SELECT count(*), max(name) FROM users") == [(200, "user 99!")]
        assert reader.one("PRAGMA integrity_check") == "ok"
        reader("COMMIT")
        assert reader("SELECT count(*), max(name) FROM users") == expected
    identical(path, source)
    source.sql("INSERT INTO users(name) VALUES('next')")
    assert db.sync()["frames_synced"] > 0
    identical(path, source)


def test_another_history_found_at_reopening(host, primary, path):
    host.open(path, primary.url).close()
    for _ in range(3):
        primary.sql("UPDATE users SET name = name || '.'")
        primary.kill()
        primary.start()
        db = host.open(path)
        db.sync()
        loud(db.status())
        db.close()
        identical(path, primary)


def test_killed_primary_that_went_past_our_frame(replica, primary, path):
    """The new history's numbers may be higher than ours: only the log_id tells."""
    before = replica.frame_no
    primary.kill()
    primary.start()
    while primary.hello()[1] <= before + 10:
        primary.script("UPDATE users SET name = name || '!'; UPDATE orders SET note = randomblob(300);")
    replica.sync()
    identical(path, primary)


@pytest.mark.parametrize("reopened", [False, True])
def test_an_empty_new_primary_is_refused_until_asked(reopened, host, primary, path):
    db = host.open(path, primary.url)
    primary.wipe()
    if reopened:
        db.close()
        db = host.open(path)
    for _ in range(2):
        refused(db.sync, "replica_resync", "empty")
        assert db.one(COUNT) == 200
    assert stock(path, COUNT + ";") == "200"
    # What loses nothing is said first, and works.
    words = db.status()["last_error"]
    assert 0 < words.index("VACUUM INTO") < words.index("replica_freeze") < words.index("replica_resync")
    copy = path.with_name("copy.db")
    db(f"VACUUM INTO '{copy}'")
    assert stock(copy, COUNT + ";") == "200"
    db("SELECT replica_resync()")
    assert (db("SELECT * FROM sqlite_schema"), db.frame_no) == ([], None)
    primary.script("CREATE TABLE fresh(a); INSERT INTO fresh VALUES(5);")
    db.sync()
    assert db("SELECT * FROM fresh") == [(5,)]
    identical(path, primary)


def test_an_empty_new_primary_that_then_gets_data(replica, primary, path):
    """Refused while empty; once it holds a database it is another history like any."""
    primary.wipe()
    refused(replica.sync, "replica_resync")
    primary.script("CREATE TABLE users(name); INSERT INTO users VALUES('new');")
    replica.sync()
    assert replica("SELECT name FROM users") == [("new",)]
    identical(path, primary)


def test_resync_while_the_primary_is_away_changes_nothing(replica, primary, path):
    primary.stop()
    refused(lambda: replica("SELECT replica_resync()"), str(primary.port))
    assert replica.one(COUNT) == 200 and integrity(path) == "ok"
    primary.start()
    replica.sync()
    identical(path, primary)


def test_resync_under_a_reader(replica, primary, host, path):
    reader = host.open(path)
    reader("BEGIN")
    assert reader.one(COUNT) == 200
    primary.sql("DELETE FROM users WHERE id > 60")
    replica("SELECT replica_resync()")
    assert (reader.one(COUNT), replica.one(COUNT)) == (200, 60)
    reader("COMMIT")
    assert reader.one(COUNT) == 60
    identical(path, primary)


# --- a tail that was lost (same log_id) ---------------------------------------------------------

@pytest.fixture
def long_history(history):
    for i in range(3, 8):
        history.commit(f"INSERT INTO t VALUES({i}, randomblob(6000))")
    return history


def commits(history):
    return [frame.no for frame in history.frames if frame.size_after]


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("regrown", ["shorter", "same length", "longer"])
def test_lost_tail(regrown, reopened, host, peer, long_history, path):
    """Same log_id, but what was at our frame is gone, or something else is there now."""
    db = host.open(path, peer.url)
    reader = host.open(path)
    reader("BEGIN")
    assert reader.one("SELECT count(*) FROM t") == 7
    if regrown == "same length":
        other = replace_tail(long_history)
    else:
        other = long_history.upto(commits(long_history)[-3])
        while regrown == "longer" and other.newest < long_history.newest + 8:
            other.commit(f"INSERT INTO t VALUES({100 + other.newest}, randomblob(100))")
    peer.history = other
    if reopened:
        db.close()
        db = host.open(path)
    db.sync()
    if regrown == "same length":  # nothing to see before the next frame
        other.append(*[(frame.page_no, frame.size_after, frame.page) for frame in other.frames[-3:]])
        db.sync()
    assert db.frame_no == other.newest
    loud(db.status())
    assert reader.one("SELECT count(*) FROM t") == 7
    reader("COMMIT")
    identical(path, other)


def replace_tail(history):
    """As long as before, with another last commit."""
    last = commits(history)[-2]
    other = history.upto(last)
    for frame in history.frames[last + 1:]:
        page = frame.page[:92] + b"replaced" + frame.page[100:] if frame.page_no == 1 else frame.page
        other.append((frame.page_no, frame.size_after, page))
    assert other.newest == history.newest and other.frames[-1].checksum != history.frames[-1].checksum
    return other


def test_lost_tail_and_then_the_primary_away(host, peer, long_history, path):
    """Detected, but the new history cannot be had whole: old data stay."""
    db = host.open(path, peer.url, timeout=2)
    peer.history = long_history.upto(commits(long_history)[-3]).commit("INSERT INTO t VALUES(90, 'x')")

    def hook(method, reply):
        if method == "BatchLogEntries":
            reply.fail(13, "out of order")

    peer.hook = hook
    refused(db.sync, "out of order")
    assert db.one("SELECT count(*) FROM t") == 7
    peer.hook = None
    db.sync()
    identical(path, peer.history)
