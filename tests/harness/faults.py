"""A proxy that knows requests: loses, holds and cuts single ones, on either way."""
import http.client
import http.server
import json
import re
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from .proxy import Proxy

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)

BATON = re.compile(rb"\r\n\r\n(?:[0-9a-f]+\r\n)?\x0a.([A-Za-z0-9+/=_-]{20,})", re.S)

PASS = "pass"
LOSE = "lose"  # never delivered, and silence
CUT = "cut"  # never delivered, the connection ends
CUT_INSIDE = "cut inside"  # half of it delivered, the connection ends
LOSE_ANSWER = "lose answer"  # delivered and answered; the client hears nothing
CUT_ANSWER = "cut answer"  # delivered and answered; the connection ends instead
TWICE = "twice"  # delivered twice, as by a proxy that tries again; the client hears the second answer


@dataclass
class CutBehind:
    """Delivered, and the connection ends so many seconds later, answered or not."""
    seconds: float


@dataclass
class Late:
    """Delivered so many seconds later, even if the client has given up by then."""
    seconds: float


@dataclass
class Answer:
    """Never delivered; the client hears this from the proxy itself."""
    status: int
    body: bytes = b""
    headers: tuple = ()

    def bytes(self):
        lines = [f"HTTP/1.1 {self.status} from the way", f"content-length: {len(self.body)}",
                 *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass
class Request:
    path: str
    body: bytes

    @property
    def begins(self):
        return b"BEGIN IMMEDIATE" in self.body

    @property
    def commits(self):
        """Ends a transaction of shipped pages."""
        return self.path == "/v3-protobuf/pipeline" and b"COMMIT" in self.body

    @property
    def pages(self):
        return self.body.count(b"UPDATE sqlite_dbpage")

    @property
    def is_part(self):
        """Carries a part of a large transaction, with more to follow."""
        return self.path == "/v3-protobuf/pipeline" and len(self.body) > 1_000_000 and not self.commits


class FaultProxy(Proxy):
    """`rule(request)` answers what is to become of it; it may take its time, and do things of its own."""

    def __init__(self, target, rule=None):
        self.rule = rule or (lambda request: PASS)
        self.log = []  # (request without its body, fate)
        self.batons = {}  # link: the stream that its last answer left open
        super().__init__(target)

    def once(self, choose, fate, before=lambda: None, after=lambda: None):
        """The next request that `choose` likes meets this fate; an Event that tells when it has."""
        done, lock, free = threading.Event(), threading.Lock(), [True]

        def rule(request):
            with lock:
                if not choose(request) or not free[0]:
                    return PASS
                free[0] = False
            before()
            return fate

        self.rule, self.after = rule, lambda: (after(), done.set())
        return done

    def close_streams(self):
        """Ends the streams that clients which are gone have left open."""
        for link in [link for link in list(self.batons) if link.gone]:
            body = json.dumps({"baton": self.batons.pop(link), "requests": [{"type": "close"}]})
            split = urlsplit(self.target)
            connection = http.client.HTTPConnection(split.netloc, timeout=10)
            connection.request("POST", "/v3/pipeline", body, {"content-type": "application/json"})
            connection.getresponse().read()
            connection.close()

    def after(self):
        """Called when a request that did not pass has met its fate."""

    def _serve(self, client):
        self.connections += 1
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            split = urlsplit(self.target)
            server = socket.create_connection((split.hostname, split.port), 10)
        except OSError:
            return self._shut(client)
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open |= {client, server}
        link = _Link(self, client, server)
        threading.Thread(target=link.backward, daemon=True).start()
        link.forward()
        self._open -= {client, server}


class _Link:
    def __init__(self, proxy, client, server):
        self.proxy, self.client, self.server = proxy, client, server
        self.fate, self.answered, self.gone = PASS, threading.Event(), False

    def end(self):
        self.gone = True
        Proxy._shut(self.client)
        Proxy._shut(self.server)

    def forward(self):
        data = b""
        try:
            while True:
                while not (whole := self._whole(data)):
                    more = self.client.recv(1 << 16)
                    if not more:
                        return
                    data += more
                head, body = data[:whole[0]], data[whole[0]:whole[1]]
                data = data[whole[1]:]
                self._request(head, body)
        except OSError:
            pass
        finally:
            self.end()

    @staticmethod
    def _whole(data):
        """Where the first request's head and body end."""
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return None
        length = LENGTH.search(data, 0, head + 2)
        end = head + 4 + (int(length[1]) if length else 0)
        return (head + 4, end) if len(data) >= end else None

    def _request(self, head, body):
        request = Request(head.split(b" ", 2)[1].decode(), body)
        self.proxy.requests.append(request.path)
        fate = self.proxy.rule(request)
        self.fate = fate
        self.answered.clear()
        self.proxy.log.append((request.path, request.begins, request.commits, request.pages, fate))
        if fate == PASS:
            return self.server.sendall(head + body)
        try:
            if isinstance(fate, Answer):
                return self.client.sendall(fate.bytes())
            if fate == CUT:
                raise ConnectionAbortedError
            if fate == CUT_INSIDE:
                self.server.sendall((head + body)[:len(head) + len(body) // 2])
                time.sleep(0.02)
                raise ConnectionAbortedError
            if fate == LOSE:
                while self.client.recv(1 << 16):
                    pass
                raise ConnectionAbortedError
            if isinstance(fate, Late):
                time.sleep(fate.seconds)
                self.fate = PASS
            self.server.sendall(head + body)
            if isinstance(fate, CutBehind):
                time.sleep(fate.seconds)
                raise ConnectionAbortedError
            # However long it takes; and whoever still listens.
            self.answered.wait(60)
            if fate == TWICE:
                time.sleep(0.02)  # all of it
                self.fate = PASS
                return self.server.sendall(head + body)
            if fate == CUT_ANSWER:
                raise ConnectionAbortedError
            if fate == LOSE_ANSWER:
                self.proxy.after()
                while self.client.recv(1 << 16):
                    pass
                raise ConnectionAbortedError
        finally:
            if fate != LOSE_ANSWER:
                self.proxy.after()

    def _remember(self, data):
        """The baton is the first field of a pipeline's answer."""
        if b"application/x-protobuf" not in data[:400]:
            return
        if baton := BATON.search(data):
            self.proxy.batons[self] = baton[1].decode()
        else:
            self.proxy.batons.pop(self, None)

    def backward(self):
        try:
            while data := self.server.recv(1 << 16):
                self.proxy.bytes_back += len(data)
                self._remember(data)
                # First: with the answer in its hands the client may ask for more, which has an answer of its own.
                self.answered.set()
                if self.fate in (LOSE_ANSWER, CUT_ANSWER, TWICE) or isinstance(self.fate, CutBehind):
                    continue
                try:
                    self.client.sendall(data)
                except OSError:
                    pass  # nobody listens any more
        except OSError:
            pass
        self.answered.set()
        Proxy._shut(self.client)
        Proxy._shut(self.server)


class Gateway:
    """A reverse proxy: clients keep their connections to it, whatever becomes of the server behind it."""

    def __init__(self, target):
        self.target = target
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                behind = http.client.HTTPConnection(urlsplit(gateway.target).netloc, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "content-length")}
                try:
                    behind.request("POST", self.path, body, headers)
                    answer = behind.getresponse()
                    data = answer.read()
                except OSError as error:
                    return self.send_error(502, str(error))
                finally:
                    behind.close()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
