"""A primary that says whatever a test wants: honest by itself, hostile through a hook."""
import sqlite3
import struct
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from .wire import PAGE, Frame, Image, crc64, decode, encode, message


class History:
    """A log: a scratch database, and a frame for every page that each commit changed."""

    def __init__(self, frames=(), log_id=None):
        self.log_id = log_id or str(uuid.uuid4())
        self.frames = list(frames)
        self._scratch = tempfile.TemporaryDirectory()
        path = Path(self._scratch.name) / "db"
        path.write_bytes(self.image().bytes())
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=wal")

    def image(self, frames=None):
        image = Image(self.log_id)
        for frame in self.frames if frames is None else frames:
            image.pages[frame.page_no] = frame.page
            image.size = frame.size_after or image.size
            image.frame_no = frame.no
        return image

    def commit(self, *statements):
        """Runs the statements as one transaction and appends its frames."""
        old = self.image().pages
        self._db.execute("BEGIN IMMEDIATE")
        for statement in statements:
            self._db.execute(statement)
        self._db.execute("COMMIT")
        new = self._db.serialize()
        size = len(new) // PAGE
        pages = {n: new[(n - 1) * PAGE:n * PAGE] for n in range(1, size + 1)}
        changed = [n for n in pages if old.get(n) != pages[n]]
        self.append(*[(n, size if n == changed[-1] else 0, pages[n]) for n in changed])
        return self

    def append(self, *frames):
        """Frames as (page_no, size_after, page), numbered and summed as they should be."""
        for page_no, size_after, page in frames:
            last = self.frames[-1] if self.frames else Frame(-1, 0, 0, 0, b"")
            self.frames.append(Frame(last.no + 1, crc64(page, last.checksum), page_no, size_after, page))

    def upto(self, frame_no, same_log=True):
        """The same history, ended after a commit's last frame."""
        return History(self.frames[:frame_no + 1], self.log_id if same_log else None)

    @property
    def newest(self):
        return len(self.frames) - 1 if self.frames else None


@dataclass
class Reply:
    messages: list
    status: int = 200
    headers: dict = field(default_factory=lambda: {"content-type": "application/grpc-web+proto"})
    trailer: dict | None = field(default_factory=lambda: {"grpc-status": "0"})
    raw: object = None  # bytes, or an iterator of bytes, instead of messages and trailer
    cut: bool = False  # the connection ends before the chunked body does

    def body(self):
        if isinstance(self.raw, bytes):
            yield self.raw
        elif self.raw is not None:
            yield from self.raw
        else:
            for data in self.messages:
                yield message(data)
            if self.trailer is not None:
                yield message("".join(f"{k}:{v}\r\n" for k, v in self.trailer.items()).encode(), 0x80)

    def fail(self, code, text, in_header=True):
        """An error as servers send it, or at the end of an answer that began well."""
        if in_header:
            self.messages, self.trailer = [], None
        where = self.headers if in_header else self.trailer
        where.update({"grpc-status": str(code), "grpc-message": quote(text)})


class ScriptedPeer:
    """Serves a History. `hook(method, reply)` may change an answer; `compacted` is the first frame still in the log."""

    def __init__(self, history):
        self.history, self.hook, self.compacted = history, None, 0
        self.session, self.calls, self.batch = str(uuid.uuid4()), [], 1024
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.close_connection = not peer.answer(self)

            def handle(self):
                try:
                    super().handle()
                except (ConnectionError, TimeoutError):
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        """Answers one request; True if the connection can go on."""
        body = self._read(request)
        method = request.path.rsplit("/", 1)[1]
        self.calls.append(method)
        reply = Reply([])
        if method != "Hello" and request.headers.get("x-session-token") != self.session:
            reply.fail(9, "NO_HELLO")
        elif method == "Hello":
            reply.messages = [self.hello()]
        else:
            fields = dict(decode(body[5:]))
            getattr(self, "_" + method)(fields.get(1, 0), reply)
        if self.hook:
            self.hook(method, reply)
        request.send_response(reply.status)
        for name, value in reply.headers.items():
            request.send_header(name, value)
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        for part in reply.body():
            if part:
                request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if not reply.cut:
            request.wfile.write(b"0\r\n\r\n")
        return not reply.cut

    @staticmethod
    def _read(request):
        if request.headers.get("transfer-encoding") != "chunked":
            return request.rfile.read(int(request.headers.get("content-length") or 0))
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body

    def hello(self, **other):
        values = {"generation": "00000000-0000-0000-0000-000000000000", "log_id": self.history.log_id,
                  "session": self.session, "newest": self.history.newest, **other}
        return encode((1, values["generation"]), (3, values["log_id"]), (4, values["session"]),
                      (5, values["newest"]), (6, b""))

    def _BatchLogEntries(self, offset, reply):
        if offset < self.compacted:
            return reply.fail(9, "NEED_SNAPSHOT")
        reply.messages = [pack_frames(self.frames_from(offset))]

    def frames_from(self, offset):
        frames = []
        for frame in self.history.frames[offset:]:
            frames.append(frame)
            if frame.size_after and len(frames) >= self.batch:
                break
        return frames

    def _Snapshot(self, offset, reply):
        reply.messages = [encode((1, frame.pack())) for frame in self.snapshot(offset)]

    def snapshot(self, offset):
        newest = {frame.page_no: frame for frame in self.history.frames[offset:self.compacted]}
        size = self.history.image(self.history.frames[:self.compacted]).size
        frames = sorted(newest.values(), key=lambda frame: -frame.no)
        return [Frame(f.no, f.checksum, f.page_no, size if f is frames[-1] else 0, f.page) for f in frames]

    def _LogEntries(self, offset, reply):
        reply.fail(12, "not here")


def pack_frames(frames):
    """The one message of a BatchLogEntries answer."""
    return encode(*[(1, encode((1, frame.pack() if isinstance(frame, Frame) else frame))) for frame in frames])


def u32_message(length, data=b""):
    """A grpc-web message whose stated length is a lie."""
    return struct.pack(">BI", 0, length) + data
