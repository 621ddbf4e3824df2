"""What an answer may cost: memory, disk, time, requests. Whoever answers has a budget for each."""
import itertools
import socket
import struct
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from harness.check import fails, identical, in_words, open_refused, outcome, refused
from harness.faults import PASS, Answer
from harness.host import READONLY
from harness.peer import History
from harness.shell import file_bytes, sidecars
from harness.wire import PAGE, encode, message, varint

PROTOBUF = (("content-type", "application/x-protobuf"),)


@pytest.fixture
def proxy(primary, new_fault_proxy):
    return new_fault_proxy(primary.url)


# --- memory ---------------------------------------------------------------------------------------

def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def execute(stmt):
    """The answer to an execute with this result."""
    return field(3, field(1, field(2, field(1, stmt))))


def batch(result):
    return field(3, field(1, field(3, field(1, result))))


LARGE = {
    "results": lambda n: field(3, b"") * n,
    "columns": lambda n: execute(field(1, b"") * n),
    "rows": lambda n: execute(field(2, b"") * n),
    "values": lambda n: execute(field(2, field(1, b"") * n)),
    "results of steps": lambda n: batch(field(1, b"") * n),
    "errors of steps": lambda n: batch(field(2, b"") * n),
    "columns of a step": lambda n: batch(field(1, field(2, field(1, b"") * n))),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("size", [8 << 20, 60 << 20])
def test_a_small_answer_becomes_no_gigabytes(size, name, host, path, proxy, primary):
    db = host.open(path, proxy.url, timeout=20)
    answer = Answer(200, LARGE[name](size // 2), PROTOBUF)
    proxy.rule = lambda request: answer if request.path.endswith("pipeline") else PASS
    fails(lambda: db("INSERT INTO users(name) VALUES('x')"), READONLY)
    in_words(host.last_error(), ("items", "bytes", "results"))
    refused(lambda: db("SELECT replica_exec('SELECT 1')"), ("items", "bytes", "results"))
    assert host.peak_mb() < 400
    proxy.rule = lambda request: PASS
    db("INSERT INTO users(name) VALUES('x')")
    identical(path, primary)


def test_what_a_primary_does_answer_is_not_too_much(replica):
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i, i, NULL FROM n"
    assert replica.one("SELECT json_array_length(replica_exec(?) -> 'rows')", rows) == 100_000


# --- disk -----------------------------------------------------------------------------------------

def inflated(history, size, free):
    """Page 1 once more, and with it a size that nothing stands behind."""
    page1 = history.image().pages[1]
    page1 = page1[:28] + struct.pack(">III", size, struct.unpack(">I", page1[32:36])[0], free) + page1[40:]
    history.append((1, size, page1))


@pytest.mark.parametrize("size", [5000, 10**6, 2**32 - 2])
def test_one_frame_makes_no_large_file(size, host, path, peer, history):
    db = host.open(path, peer.url)
    before = file_bytes(path)
    honest = history.newest
    inflated(history, size, size)
    refused(db.sync, str(size))
    assert file_bytes(path) == before and path.stat().st_size == len(before)
    peer.history = history.upto(honest)
    db.sync()
    assert db.one("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("size", [20_000, 10**6, 2**32 - 2])
@pytest.mark.parametrize("compacted", [False, True])
def test_nor_a_first_fetch(compacted, size, host, path, peer, history):
    inflated(history, size, size)
    if compacted:
        peer.compacted = history.newest + 1
    open_refused(host, path, peer.url, str(size))
    assert sidecars(path) == []


# --- time -----------------------------------------------------------------------------------------

def drip(data, pause=0.2):
    for byte in data:
        yield bytes([byte])
        time.sleep(pause)


@pytest.mark.parametrize("method", ["Hello", "BatchLogEntries", "Snapshot"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_byte_now_and_then_holds_no_sync(status, method, host, path, peer, history):
    db = host.open(path, peer.url, timeout=1)
    history.commit("INSERT INTO t VALUES(77, randomblob(30000))")
    if method == "Snapshot":
        peer.compacted = history.newest + 1

    def hook(called, reply):
        if called == method:
            reply.status = status
            reply.raw = drip(b"".join(reply.body()) if status == 200 else b"word " * 1000)

    peer.hook = hook
    begun = time.monotonic()
    refused(db.sync, ("slow", "500"))
    assert time.monotonic() - begun < 6
    peer.hook = None
    db.sync()
    identical(path, history)


@pytest.mark.parametrize("part", ["head", "body"])
def test_nor_an_open_nor_a_write(part, new_host, path, primary, proxy):
    """A server that takes every request and answers byte by byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100000\r\n\r\n"

    def answer(client):
        try:
            client.recv(1 << 16)
            if part == "body":
                client.sendall(head)
            for byte in itertools.chain(b"" if part == "body" else head, itertools.repeat(0)):
                client.sendall(bytes([byte]))
                time.sleep(0.2)
        except OSError:
            pass

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    slow = f"http://127.0.0.1:{listener.getsockname()[1]}"
    begun = time.monotonic()
    open_refused(new_host(), path.with_name("none.db"), slow, timeout=1)
    assert time.monotonic() - begun < 6
    # A write: the log is the primary's, the rest is not.
    db = new_host().open(path, proxy.url, timeout=1)
    proxy.rule = lambda request: Answer(200, b"", PROTOBUF) if request.path.endswith("pipeline") else PASS
    begun = time.monotonic()
    assert outcome(lambda: db("INSERT INTO users(name) VALUES('x')"))
    assert time.monotonic() - begun < 6
    listener.close()


# --- consequences -----------------------------------------------------------------------------------

@pytest.mark.parametrize("way", ["live", "interval", "sync"])
def test_histories_that_change_all_the_time(way, host, path, peer, history):
    """Each is a full fetch: a few at once, then ever fewer."""
    options = {"live": {"live": 1}, "interval": {"sync_interval": "0.05"}, "sync": {}}[way]
    db = host.open(path, peer.url, **options)
    content = db("SELECT id, v FROM t")
    fetches = []

    def hook(method, reply):
        if method == "Hello":
            peer.history = History(history.frames, str(uuid.uuid4()))
            reply.messages = [peer.hello()]
        elif method == "BatchLogEntries":
            fetches.append(time.monotonic())

    peer.hook = hook
    end = time.monotonic() + 6
    while time.monotonic() < end:
        if way == "sync":
            outcome(db.sync)
        time.sleep(0.05)
    assert 1 <= len(fetches) < 20, len(fetches)
    in_words(db.status()["last_error"], ("again and again", "history changed", "another log"))
    assert db("SELECT id, v FROM t") == content
    peer.hook = None
    db("SELECT replica_resync()")
    identical(path, history)


def test_a_stream_is_not_sent_elsewhere(host, path, primary, proxy):
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    there = f"http://127.0.0.1:{server.server_port}"
    db = host.open(path, proxy.url, auth_token="a.secret.token", write_path="pages")
    failed = encode((2, encode((1, "no"), (2, "NO"))))
    answer = Answer(200, encode((1, "baton"), (2, there), (3, failed), (3, failed), (3, failed)), PROTOBUF)
    proxy.rule = lambda request: answer if request.begins else PASS
    assert outcome(lambda: db("INSERT INTO users(name) VALUES('x')"))
    time.sleep(0.5)
    server.shutdown()
    server.server_close()
    assert seen == []


def test_no_proxy_leads_to_this_machine(new_host, path, primary):
    away = "http://127.0.0.1:1"
    names = [name for base in ("http_proxy", "https_proxy", "all_proxy") for name in (base, base.upper())]
    host = new_host(env={name: away for name in names} | {"no_proxy": "", "NO_PROXY": ""})
    host.open(path, primary.url)("INSERT INTO users(name) VALUES('x')")
    identical(path, primary)


@pytest.mark.parametrize("cgi", [False, True])
def test_a_proxy_that_a_request_of_cgi_names_is_not_taken(cgi, new_host, path, primary, new_fault_proxy):
    """A name that only the proxy knows."""
    proxy = new_fault_proxy(primary.url)
    env = {"HTTP_PROXY": proxy.url, "http_proxy": "", "all_proxy": "", "ALL_PROXY": "", "no_proxy": "", "NO_PROXY": ""}
    host = new_host(env=env | ({"REQUEST_METHOD": "POST"} if cgi else {}))
    error = outcome(lambda: host.open(path, "http://replica.invalid", timeout=3))
    if cgi:
        assert error and not proxy.requests and proxy.connections == 0
    else:
        assert proxy.connections > 0


# --- words ----------------------------------------------------------------------------------------

TOKEN = "eyJhbGciOiJFZERTQSJ9.s3cr3t.signature"
EVIL = f"Bearer {TOKEN}\x1b[2J\x1b]0;owned\x07\r\nX-Y: z\x9b31m\u202etxt\x00end" + "!" * 100_000


@pytest.mark.parametrize("way", ["http", "redirect", "content type", "status in the header", "status in the trailer", "sql", "log id"])
def test_what_a_server_says_acts_nowhere(way, host, path, tmp_path, peer, history, primary, new_fault_proxy):
    proxy = new_fault_proxy(primary.url)
    db = host.open(path, proxy.url if way == "sql" else peer.url, auth_token=TOKEN)

    def hook(method, reply):
        if way == "http":
            reply.status, reply.headers, reply.raw = 500, {"content-type": "text/plain"}, EVIL.encode()
        elif way == "redirect":
            reply.status, reply.headers = 302, {"location": f"http://{TOKEN}.example/{TOKEN}"}
        elif way == "content type":
            reply.headers["content-type"] = f"text/{TOKEN}"
        elif way == "log id":
            peer.history.log_id = "a\x1b[2Jb"
            reply.messages = [peer.hello()]
        else:
            reply.fail(13, EVIL[:5000], in_header=way == "status in the header")

    peer.hook = hook
    if way == "sql":
        failed = encode((2, encode((1, EVIL), (2, "SQLITE_ERROR"))))
        answer = Answer(200, encode((3, failed), (3, encode((1, encode((1, b"")))))), PROTOBUF)
        proxy.rule = lambda request: answer if request.path.endswith("pipeline") else PASS
        error = outcome(lambda: db("SELECT replica_exec('SELECT 1')"))
    else:
        error = outcome(db.sync)
    for text in (error.text, host.last_error() or "", db.status()["last_error"] or ""):
        assert "s3cr3t" not in text and not any(ord(c) < 32 or 0x7f <= ord(c) < 0xa0 or c == "\u202e" for c in text), text
        assert len(text) < 2000
