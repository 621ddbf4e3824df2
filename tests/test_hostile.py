"""What a broken or hostile peer sends is refused in words: nothing is applied, the program lives, and goes on."""
import itertools
import os
import socket
import struct
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from harness.check import identical, in_words, open_refused, refused
from harness.host import SqlError
from harness.peer import ScriptedPeer, pack_frames, u32_message
from harness.shell import file_bytes, integrity, sidecars
from harness.wire import PAGE, Frame, crc64, encode, message, varint

U32, U64 = 2**32 - 1, 2**64 - 1


def resum(frames, prev):
    """The frames with a good checksum chain."""
    result = []
    for frame in frames:
        prev = crc64(frame.page, prev)
        result.append(replace(frame, checksum=prev))
    return result


# Each turns the honest frames of a BatchLogEntries answer (f) and the checksum before them into what the peer sends.
FRAMES = {
    "frame too short": lambda f, prev: [f[0].pack()[:100], *f[1:]],
    "frame too long": lambda f, prev: [f[0].pack() + b"x", *f[1:]],
    "frame of a page less one byte": lambda f, prev: [*f[:-1], f[-1].pack()[:-1]],
    "empty frame": lambda f, prev: [b"", *f],
    "header only": lambda f, prev: [f[0].pack()[:24], *f[1:]],
    "page 0": lambda f, prev: [replace(f[0], page_no=0), *f[1:]],
    "gap in frame numbers": lambda f, prev: [f[0], *(replace(x, no=x.no + 1) for x in f[1:])],
    "all numbers shifted": lambda f, prev: [replace(x, no=x.no + 7) for x in f],
    "numbers from before": lambda f, prev: [replace(x, no=max(0, x.no - 1)) for x in f],
    "frame left out": lambda f, prev: [f[0], *f[2:]],
    "frame twice": lambda f, prev: [f[0], *f],
    "descending": lambda f, prev: f[::-1],
    "frame number at the end of the range": lambda f, prev: [replace(x, no=U64) for x in f],
    "one bit of a page": lambda f, prev: [replace(f[0], page=bytes([f[0].page[0] ^ 1]) + f[0].page[1:]), *f[1:]],
    "checksum of the first frame": lambda f, prev: [replace(f[0], checksum=f[0].checksum ^ 1), *f[1:]],
    "checksum of the last frame": lambda f, prev: [*f[:-1], replace(f[-1], checksum=0)],
    "chain of another history": lambda f, prev: resum(f, prev ^ 0x55),
    "chain that begins anew within the transaction": lambda f, prev: [f[0], *resum(f[1:], 0)],
    "pages exchanged": lambda f, prev: [replace(f[0], page=f[1].page), replace(f[1], page=f[0].page), *f[2:]],
    "commit without end": lambda f, prev: [replace(x, size_after=0) for x in f],
    "size of 2^32-1 pages": lambda f, prev: [*f[:-1], replace(f[-1], size_after=U32)],
    "size of 2^31 pages": lambda f, prev: [*f[:-1], replace(f[-1], size_after=2**31)],
    "size far beyond the pages sent": lambda f, prev: [*f[:-1], replace(f[-1], size_after=1_000_000)],
    "first page is no database": lambda f, prev: resum(first_page(f, 0, os.urandom(100)), prev),
    "first page with another page size": lambda f, prev: resum(first_page(f, 16, b"\x02\x00"), prev),
    "first page of a rollback database": lambda f, prev: resum(first_page(f, 18, b"\x01\x01"), prev),
    "nothing": lambda f, prev: [],
}


def first_page(frames, at, value):
    """Changes bytes of page 1 (which the test's commit always contains)."""
    assert any(frame.page_no == 1 for frame in frames)
    return [replace(x, page=x.page[:at] + value + x.page[at + len(value):]) if x.page_no == 1 else x for x in frames]


def raw(make):
    """Replaces the body by bytes made of the honest body."""
    def change(reply):
        reply.raw = make(b"".join(reply.body()))
    return change


def head(status=None, **headers):
    def change(reply):
        reply.status = status or reply.status
        reply.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
    return change


def page(status, content_type="text/html"):
    def change(reply):
        reply.status, reply.headers = status, {"content-type": content_type}
        reply.raw = b"<html><head><title>Sign in</title></head><body>Please sign in</body></html>" * 20
    return change


def cut(make):
    def change(reply):
        raw(make)(reply)
        reply.cut = True
    return change


def endless(start, part):
    return lambda reply: setattr(reply, "raw", itertools.chain(start, itertools.repeat(part)))


# Each changes a whole answer.
ANSWERS = {
    "message length 2^32-1": raw(lambda body: u32_message(U32, body[5:])),
    "message length 2^31": raw(lambda body: u32_message(2**31, body[5:])),
    "message longer than the body": raw(lambda body: u32_message(len(body) * 2, body[5:])),
    "message of length 0": raw(lambda body: u32_message(0, body[5:])),
    "ends in the midst of a message": raw(lambda body: body[:len(body) // 2]),
    "ends in the length": raw(lambda body: body[:3]),
    "empty body": raw(lambda body: b""),
    "connection cut in the midst": cut(lambda body: body[:len(body) // 2]),
    "connection cut at once": cut(lambda body: b""),
    "no trailer": lambda reply: setattr(reply, "trailer", None),
    "trailer cut short": raw(lambda body: body[:-4]),
    "trailer without a status": lambda reply: setattr(reply, "trailer", {"x": "y"}),
    "status in the trailer": lambda reply: reply.fail(13, "the disk is full", in_header=False),
    "status that is no number": lambda reply: setattr(reply, "trailer", {"grpc-status": "good"}),
    "status in the header": lambda reply: reply.fail(13, "the disk is full"),
    "unknown frame flag": raw(lambda body: b"\x17" + body[1:]),
    "compressed flag": raw(lambda body: b"\x01" + body[1:]),
    "random bytes": raw(lambda body: os.urandom(5000)),
    "random protobuf": lambda reply: setattr(reply, "messages", [os.urandom(3000)]),
    "varint without end": lambda reply: setattr(reply, "messages", [b"\x0a" + b"\xff" * 100]),
    "field longer than its message": lambda reply: setattr(reply, "messages", [b"\x0a" + varint(10**6) + b"x" * 50]),
    "field of 2^63 bytes": lambda reply: setattr(reply, "messages", [b"\x0a" + varint(2**63) + b"x" * 50]),
    "deep groups": lambda reply: setattr(reply, "messages", [b"\x0b" * 100_000]),
    "html with status 200": page(200),
    "html as grpc": page(200, "application/grpc-web+proto"),
    "html with status 404": page(404),
    "html with status 500": page(500),
    "html with status 502": page(502),
    "json": head(content_type="application/json"),
    "no content type": lambda reply: reply.headers.clear(),
    "http status 500": head(500),
    "http status 429": head(429),
    "endless zeros": endless([], bytes(1 << 16)),
    "endless empty messages": endless([], message(b"") * 10_000),
    "endless text": endless([], b"lorem ipsum " * 5000),
    "endless trailer": endless([struct.pack(">BI", 0x80, U32)], b"x: y\r\n" * 9000),
    "endless field": endless([u32_message(U32, b"\x0a" + varint(U32 - 6))], os.urandom(1 << 16)),
    "endless headers": lambda reply: reply.headers.update({f"x-{i}": "y" * 1000 for i in range(5000)}),
}

HELLOS = {
    "no log_id": dict(log_id=None),
    "empty log_id": dict(log_id=""),
    "log_id that is no text": dict(log_id=b"\xff\xfe\xfd"),
    "log_id of a megabyte": dict(log_id="x" * 2**20),
    "no session": dict(session=None),
    "session with line ends": dict(session="a\r\nx-evil: 1"),
    "newest frame at the end of the range": dict(newest=U64),
    "newest frame beyond the log": dict(newest=10**9),
}


def change_of(kind, name, peer):
    """A hook that spoils the answers of one kind."""
    def hook(method, reply):
        if kind == "Hello" and method == "Hello":
            ANSWERS[name](reply)
        elif kind == "hello" and method == "Hello":
            reply.messages = [peer.hello(**HELLOS[name])]
        elif kind == "batch" and method == "BatchLogEntries":
            ANSWERS[name](reply)
        elif kind == "snapshot" and method == "Snapshot":
            ANSWERS[name](reply)
    return hook


SPOILT = [(kind, name) for kind in ("Hello", "batch", "snapshot") for name in ANSWERS]
SPOILT += [("hello", name) for name in HELLOS]


class Peer(ScriptedPeer):
    """`spoil` turns the frames of a batch answer into others."""
    spoil = None

    def _BatchLogEntries(self, offset, reply):
        super()._BatchLogEntries(offset, reply)
        frames = self.frames_from(offset)
        if self.spoil and frames:
            prev = self.history.frames[offset - 1].checksum if offset else 0
            reply.messages = [pack_frames(self.spoil(frames, prev))]


@pytest.fixture
def host(host):
    host.patience = 20
    return host


@pytest.fixture
def peer(history):
    peer = Peer(history)
    yield peer
    peer.stop()


def next_commit(history):
    """Grows the database: page 1 and at least five others change."""
    return history.commit("INSERT INTO t VALUES(10, randomblob(20000))", "CREATE TABLE u(a)")


def check_increment(host, peer, history, path, spoil, honest, *needles):
    """A sync fails in words and changes nothing; the next one, with an honest peer, succeeds."""
    db = host.open(path, peer.url, timeout=2)
    next_commit(history)
    before = file_bytes(path), db("SELECT id, hex(v) FROM t"), db.frame_no
    spoil()
    refused(db.sync, *needles)
    assert (file_bytes(path), db("SELECT id, hex(v) FROM t"), db.frame_no) == before
    assert integrity(path) == "ok"
    assert path.stat().st_size == len(before[0])
    honest()
    assert db.sync()["frame_no"] == history.newest
    identical(path, history)
    assert host.peak_mb() < 150


def check_bootstrap(host, peer, history, path, spoil, honest):
    """The first open fails in words and leaves nothing; the next one, with an honest peer, succeeds."""
    spoil()
    open_refused(host, path, peer.url, timeout=2)
    assert sidecars(path) == []
    honest()
    db = host.open(path, peer.url)
    assert db.frame_no == history.newest
    identical(path, history)
    assert host.peak_mb() < 150


@pytest.mark.parametrize("check", [check_increment, check_bootstrap])
@pytest.mark.parametrize("name", FRAMES)
def test_hostile_frames(name, check, host, peer, history, path):
    check(host, peer, history, path, lambda: setattr(peer, "spoil", FRAMES[name]), lambda: setattr(peer, "spoil", None))


@pytest.mark.parametrize("kind, name", SPOILT)
def test_hostile_answers(kind, name, host, peer, history, path):
    if kind == "snapshot":
        peer.compacted = history.newest + 1

    def spoil():
        peer.hook = change_of(kind, name, peer)
        if kind == "snapshot":
            peer.compacted = history.newest + 1

    needles = ["the disk is full"] if name in ("status in the trailer", "status in the header") else []
    check_increment(host, peer, history, path, spoil, lambda: setattr(peer, "hook", None), *needles)


@pytest.mark.parametrize("name", ["html with status 200", "status in the trailer", "no trailer", "random bytes",
                                  "ends in the midst of a message", "endless zeros", "connection cut in the midst"])
@pytest.mark.parametrize("kind", ["Hello", "batch", "snapshot"])
def test_hostile_answers_at_bootstrap(kind, name, host, peer, history, path):
    if kind == "snapshot":
        peer.compacted = history.newest + 1
    check_bootstrap(host, peer, history, path, lambda: setattr(peer, "hook", change_of(kind, name, peer)),
                    lambda: setattr(peer, "hook", None))


@pytest.mark.parametrize("status, code", [(401, 23), (403, 23), (500, None)])
def test_http_errors_tell_status_and_words(status, code, host, peer, history, path):
    db = host.open(path, peer.url)

    def hook(method, reply):
        reply.status, reply.headers, reply.raw = status, {"content-type": "application/json"}, b'{"error":"no luck today"}'

    peer.hook = hook
    refused(db.sync, str(status), "no luck today", code=code)


# --- pages beyond the size: part of an honest log, dropped -----------------------------------------

@pytest.mark.parametrize("page_no", [1, 1000, 2**31, U32])
def test_pages_beyond_the_size_are_dropped(page_no, host, peer, history, path):
    """A frame of a page that the commit cut off again. Absurd numbers may be refused, but cost nothing."""
    db = host.open(path, peer.url)
    before = file_bytes(path)
    honest = next_commit(history.upto(history.newest))
    size, frames = honest.frames[-1].size_after, honest.frames[history.newest + 1:]
    history.append(*[(f.page_no, 0, f.page) for f in frames[:-1]], (min(U32, size + page_no), 0, b"\xaa" * PAGE),
                   (frames[-1].page_no, size, frames[-1].page))
    try:
        db.sync()
        assert file_bytes(path) == history.image().bytes()
    except SqlError as error:
        in_words(error.text)
        assert page_no > 1000 and file_bytes(path) == before
    assert integrity(path) == "ok"
    assert path.stat().st_size <= size * PAGE and host.peak_mb() < 150


def test_a_page_beyond_the_size_is_empty_when_the_size_has_come_to_it(host, new_host, peer, history, path):
    """It is a free page that was never written; what is here is known again by its content."""
    db = host.open(path, peer.url)
    size, page1 = history.image().size, history.image().pages[1]
    history.append((size + 1, 0, b"\xaa" * PAGE), (1, size, page1))
    db.sync()
    _, trunk, free = struct.unpack(">III", page1[28:40])
    page1 = page1[:28] + struct.pack(">III", size + 2, size + 2, free + 2) + page1[40:]
    trunk = struct.pack(">III", trunk, 1, size + 1).ljust(PAGE, b"\0")
    history.append((1, 0, page1), (size + 2, size + 2, trunk))
    db.sync()
    host.kill()
    assert file_bytes(path)[size * PAGE:] == bytes(PAGE) + trunk and integrity(path) == "ok"
    db = new_host().open(path, peer.url)
    next_commit(history)
    db.sync()
    assert db.frame_no == history.newest


# --- snapshots ----------------------------------------------------------------------------------

SNAPSHOTS = {
    "without a final size": lambda f: [replace(x, size_after=0) for x in f],
    "of no frames": lambda f: [],
    "final size absurd": lambda f: [*f[:-1], replace(f[-1], size_after=U32)],
    "final size too large": lambda f: [*f[:-1], replace(f[-1], size_after=f[-1].size_after + 1000)],
    "ascending": lambda f: [replace(x, size_after=0) for x in f[:0:-1]] + [replace(f[0], size_after=f[-1].size_after)],
    "a number twice": lambda f: [f[0], f[0], *f[1:]],
    "page 0": lambda f: [replace(f[0], page_no=0), *f[1:]],
    "frame too short": lambda f: [f[0].pack()[:-1], *f[1:]],
    "frame too long": lambda f: [f[0].pack() + b"x", *f[1:]],
    "size in the midst": lambda f: [f[0], replace(f[1], size_after=3), *f[2:]],
    "number at the end of the range": lambda f: [replace(f[0], no=U64), *f[1:]],
    "frames from before the request": lambda f: [replace(x, no=i) for i, x in zip(range(len(f) - 1, -1, -1), f)],
}
AT_BOOTSTRAP = {
    "a page left out": lambda f: [*f[:1], *f[2:]],
    "only the newest frame": lambda f: [replace(f[0], size_after=f[-1].size_after)],
    "first page is no database": lambda f: [replace(x, page=bytes(PAGE)) if x.page_no == 1 else x for x in f],
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_hostile_snapshot(name, host, peer, history, path):
    def spoil():
        peer.compacted = history.newest + 1
        change(SNAPSHOTS[name])

    change = snapshot_changer(peer)
    check_increment(host, peer, history, path, spoil, lambda: change(None))


@pytest.mark.parametrize("name", [name for name in SNAPSHOTS if name != "frames from before the request"] + list(AT_BOOTSTRAP))
def test_hostile_snapshot_at_bootstrap(name, host, peer, history, path):
    next_commit(history)
    peer.compacted = history.newest + 1
    change = snapshot_changer(peer)
    check_bootstrap(host, peer, history, path, lambda: change({**SNAPSHOTS, **AT_BOOTSTRAP}[name]), lambda: change(None))


def snapshot_changer(peer):
    def change(how):
        def answer(offset, reply):
            frames = peer.snapshot(offset)
            reply.messages = [encode((1, x.pack() if isinstance(x, Frame) else x)) for x in (how(frames) if how else frames)]
        peer._Snapshot = answer
    return change


# --- loops and detours -------------------------------------------------------------------------

def forever(code, text, *methods):
    def hook(method, reply):
        if method in methods:
            reply.fail(code, text)
    return hook


@pytest.mark.parametrize("code, text, methods", [
    (9, "NO_HELLO", ["BatchLogEntries"]),
    (9, "NO_HELLO", ["Hello", "BatchLogEntries"]),
    (14, "snapshot not found", ["Snapshot"]),
    (9, "NEED_SNAPSHOT", ["BatchLogEntries"]),
    (14, "try again", ["Hello", "BatchLogEntries", "Snapshot"]),
])
def test_the_same_refusal_for_ever(code, text, methods, host, peer, history, path):
    """Ends within the timeout and a little."""
    if "Snapshot" in methods:
        peer.compacted = history.newest + 1
    hook = forever(code, text, *methods)

    def spoil():
        if "Snapshot" in methods:
            peer.compacted = history.newest + 1
        peer.hook = hook

    start = time.monotonic()
    check_increment(host, peer, history, path, spoil, lambda: setattr(peer, "hook", None))
    assert time.monotonic() - start < 15


def test_snapshots_that_lead_nowhere(host, peer, history, path):
    """The log stays compacted whatever is pulled."""
    db = host.open(path, peer.url, timeout=2)
    next_commit(history)
    before = file_bytes(path)
    peer.compacted = history.newest + 1
    peer.hook = forever(9, "NEED_SNAPSHOT", "BatchLogEntries")
    try:
        db.sync()  # may succeed: the snapshot alone reached Hello's frame
        assert db.frame_no == history.newest
    except SqlError as error:
        in_words(error.text)
        assert file_bytes(path) == before
    peer.hook = None
    db.sync()
    identical(path, history)


def test_a_primary_that_writes_faster_than_we_read(host, peer, history, path):
    """A sync goes to the newest frame it was told at its start, and ends."""
    db = host.open(path, peer.url)
    peer.batch = 1
    for i in range(20, 24):
        history.commit(f"INSERT INTO t VALUES({i}, randomblob(3000))")
    target = history.newest

    def hook(method, reply):
        if method == "BatchLogEntries":
            history.commit(f"INSERT INTO t VALUES({100 + history.newest}, randomblob(3000))")

    peer.hook = hook
    assert db.sync()["frame_no"] >= target
    peer.hook = None
    assert len(peer.calls) < 40
    db.sync()
    identical(path, history)


def test_redirects_do_not_carry_the_token(host, peer, history, path):
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(str(self.headers))
            self.send_error(404)
        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    db = host.open(path, peer.url, auth_token="very.secret.token", timeout=2)

    def hook(method, reply):
        there = f"http://127.0.0.1:{server.server_port}/wal_log.ReplicationLog/Hello"
        reply.status, reply.headers = status, {"location": there}

    for status in (301, 302, 307, 308):
        peer.hook = hook
        refused(db.sync)
    server.shutdown()
    server.server_close()
    assert "secret" not in "".join(seen)


def test_a_port_that_speaks_no_http(host, path):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n" * 1000)
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    open_refused(host, path, f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=2)
    assert sidecars(path) == []
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_an_honest_peer(host, peer, history, path):
    """The scripted peer, unspoilt, is a primary like any: else every refusal above would prove nothing."""
    db = host.open(path, peer.url)
    identical(path, history)
    next_commit(history)
    assert db.sync()["frames_synced"] > 5
    identical(path, history)
    peer.compacted = history.newest + 1
    fresh = path.with_name("fresh.db")
    host.open(fresh, peer.url)
    identical(fresh, history)
