"""A log of many batches: several are asked for at a time, and looked into one after the other."""
import itertools
import threading
import time
from dataclasses import replace

import pytest
from harness.check import identical, open_refused, refused, series
from harness.peer import History
from harness.shell import sidecars

BATCH = 1024


@pytest.fixture(scope="module")
def long_frames():
    """Transactions of about 60 frames, one of them of 700."""
    history = History().commit("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", "CREATE INDEX i ON t(substr(v, 1, 9))")
    for n in range(60):
        history.commit(f"INSERT INTO t VALUES({n}, randomblob({2_800_000 if n == 30 else 230_000}))",
                       f"UPDATE t SET v = randomblob(9000) WHERE id = {n // 2}")
    return history.frames


@pytest.fixture
def history(long_frames):
    assert len(long_frames) > 5 * BATCH + 100
    return History(long_frames)


@pytest.fixture
def log(new_primary):
    """log(): a primary whose log is never compacted."""
    return lambda: new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);", max_log_size=5000)


def grow(primary, *kilobytes):
    """A transaction for each."""
    for size in kilobytes:
        primary.sql(f"INSERT INTO t SELECT NULL, randomblob(1000) FROM {series(size)}")


class Together:
    """What a peer has to answer at the same time; `beside(reply)` changes what is asked for beside another."""

    def __init__(self, peer, beside=None, hold=0):
        self.now = self.most = 0
        self.offsets, self.changed = [], threading.Condition()
        self.serve, self.beside, self.hold = peer._BatchLogEntries, beside, hold
        peer._BatchLogEntries = self

    def __call__(self, offset, reply):
        with self.changed:
            self.offsets.append(offset)
            self.now += 1
            self.most, beside = max(self.most, self.now), self.now > 1
            self.changed.notify_all()
            # The first two come alone and in pairs; from then on it can wait for more.
            if len(self.offsets) > 2 and self.hold:
                self.changed.wait_for(lambda: self.most >= self.hold, 5)
        time.sleep(0.02)
        if beside and self.beside:
            self.beside(reply)
        else:
            self.serve(offset, reply)
        with self.changed:
            self.now -= 1


def test_transactions_of_every_size(host, log, new_proxy, path):
    """At bootstrap and at catch-up; they end anywhere, so batches overlap."""
    primary = log()
    proxy = new_proxy(primary.url)
    sizes = [1, 400, 3, 2000, 700, 9000, 20, 1500, 1500, 3000, 1, 1, 600, 2500, 12_000, 5]
    grow(primary, *sizes)
    db = host.open(path, proxy.url)
    assert db.frame_no == primary.hello()[1] > 6 * BATCH
    assert proxy.connections > 1
    identical(path, primary)
    primary.sql("DELETE FROM t WHERE id % 3 = 0")
    grow(primary, *reversed(sizes))
    primary.sql("UPDATE t SET v = randomblob(900) WHERE id % 5 = 0")
    newest = primary.hello()[1]
    assert db.sync()["frames_synced"] > 6 * BATCH and db.frame_no == newest
    identical(path, primary)


def test_many_are_asked_for_at_a_time(host, peer, history, path):
    together = Together(peer, hold=3)
    host.open(path, peer.url)
    assert together.most == 3
    assert peer.calls.count("BatchLogEntries") <= len(history.frames) // BATCH + 2
    identical(path, history)


def test_a_large_transaction_is_not_fetched_again_and_again(host, log, new_proxy, path):
    """Whoever asks from within it gets the rest of it; two may have, before its size is known."""
    primary = log()
    proxy = new_proxy(primary.url)
    grow(primary, *[500] * 40)
    small = primary.hello()[1] * 4120
    grow(primary, *[30_000] * 4)
    large = primary.hello()[1] * 4120 - small
    host.open(path, proxy.url)
    assert proxy.bytes_back < 1.2 * small + 1.3 * large
    identical(path, primary)


@pytest.mark.parametrize("frames", [1, 100, 600])
def test_a_primary_with_smaller_batches(frames, host, peer, history, path):
    """What was asked for ahead begins too far behind: thrown away, and asked for again."""
    peer.batch = frames
    together = Together(peer)
    host.open(path, peer.url)
    assert together.most <= 3
    identical(path, history)


def at_batch(number, change):
    """A hook that changes the number-th answer that holds a batch."""
    count, lock = itertools.count(1), threading.Lock()

    def hook(method, reply):
        if method == "BatchLogEntries":
            with lock:
                if next(count) == number:
                    change(reply)
    return hook


def busy(reply):
    reply.status, reply.headers, reply.raw = 503, {"content-type": "text/plain"}, b"one at a time"


def cut(reply):
    reply.raw, reply.cut = b"", True


@pytest.mark.parametrize("refuse", [busy, cut])
def test_something_on_the_way_bears_one_at_a_time(refuse, host, peer, history, path):
    together = Together(peer, refuse)
    host.open(path, peer.url)
    assert together.most > 1
    identical(path, history)


@pytest.mark.parametrize("fails", [2, 3, 4])
def test_one_answer_is_cut_in_the_midst(fails, host, peer, history, path):
    """Only what is missing is asked for again."""
    def cut_in_the_midst(reply):
        body = b"".join(reply.body())
        reply.raw, reply.cut = body[:len(body) * 2 // 3], True
        seen.append(len(body))

    seen, together = [], Together(peer)
    peer.hook = at_batch(fails, cut_in_the_midst)
    host.open(path, peer.url)
    assert seen and len(set(together.offsets)) == len(together.offsets)
    identical(path, history)


def test_a_close_ends_all_the_waits(host, peer, history, path):
    """Of background work that fetches everything again, and waits for several answers."""
    waiting, over = threading.Semaphore(0), threading.Event()

    def hold(method, reply):
        if method == "BatchLogEntries" and peer.calls.count(method) > first:
            waiting.release()
            over.wait(20)

    peer.history = History().commit("CREATE TABLE other(a)")
    db = host.open(path, peer.url, sync_interval=0.05, timeout=20)
    first = peer.calls.count("BatchLogEntries") + 1
    peer.hook = hold
    peer.history = history
    assert waiting.acquire(timeout=10) and waiting.acquire(timeout=10)
    start = time.perf_counter()
    db.close()
    assert time.perf_counter() - start < 3
    over.set()
    peer.hook = None
    host.open(path, peer.url).sync()
    identical(path, history)


@pytest.mark.parametrize("midst", [0, 1])
def test_the_primary_goes_away_in_the_midst(midst, host, peer, history, path):
    def hook(method, reply):
        if peer.calls.count("BatchLogEntries") >= 3:
            body = b"".join(reply.body())
            reply.raw, reply.cut = body[:len(body) // 2 * midst], True

    peer.hook = hook
    open_refused(host, path, peer.url, "cut short")
    peer.hook = None
    host.open(path, peer.url)
    identical(path, history)


def test_the_session_ends_in_the_midst(host, peer, history, path):
    peer.hook = at_batch(2, lambda reply: setattr(peer, "session", "another"))
    host.open(path, peer.url)
    assert peer.calls.count("Hello") == 2
    identical(path, history)


def test_the_log_is_compacted_in_the_midst(host, peer, history, path):
    end = next(frame.no for frame in history.frames if frame.size_after and frame.no > 3.5 * BATCH)
    peer.hook = at_batch(2, lambda reply: setattr(peer, "compacted", end + 1))
    host.open(path, peer.url)
    assert "Snapshot" in peer.calls
    identical(path, history)


def test_a_trickle_that_nobody_wants_any_more(host, peer, history, path):
    """The one before it is bad: that is told at once, not when the trickle ends."""
    def serve(offset, reply):
        honest(offset, reply)
        if offset > 2 * BATCH:
            body = b"".join(reply.body())
            reply.raw = itertools.chain([body[:9]], (time.sleep(0.5) or body[9 + i:10 + i] for i in range(100)))
            trickles.append(offset)
            asked_ahead.set()
        elif offset:
            asked_ahead.wait(5)
            reply.messages = [reply.messages[0][:100] + b"x" + reply.messages[0][101:]]

    honest, trickles, asked_ahead = peer._BatchLogEntries, [], threading.Event()
    peer._BatchLogEntries = serve
    start = time.perf_counter()
    open_refused(host, path, peer.url, "checksum", timeout=2)
    assert trickles and time.perf_counter() - start < 10


SPOIL = {
    "one bit of a page": lambda f: replace(f, page=bytes([f.page[0] ^ 1]) + f.page[1:]),
    "checksum": lambda f: replace(f, checksum=f.checksum ^ 1),
    "frame number": lambda f: replace(f, no=f.no + 1),
    "a number from before": lambda f: replace(f, no=0),
}


@pytest.mark.parametrize("catch_up", [False, True])
@pytest.mark.parametrize("at", [BATCH + 80, -1])
@pytest.mark.parametrize("name", SPOIL)
def test_a_hostile_frame_somewhere(name, at, catch_up, host, peer, history, path):
    """Nothing of all the batches is applied."""
    before = history.upto(next(frame.no for frame in history.frames if frame.size_after and frame.no > 10))
    at = history.frames[at].no
    honest = peer.frames_from
    peer.frames_from = lambda offset: [SPOIL[name](f) if f.no == at else f for f in honest(offset)]
    if catch_up:
        peer.history = before
        db = host.open(path, peer.url)
        peer.history = history
        refused(db.sync, "frame")
        identical(path, before)
    else:
        open_refused(host, path, peer.url, "frame")
        assert sidecars(path) == []
    peer.frames_from = honest
    host.open(path, peer.url).sync()
    identical(path, history)
