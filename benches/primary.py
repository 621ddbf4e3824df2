"""The primary: a real sqld on loopback, its SQL (Hrana) and its log (gRPC-web)."""
import http.client
import json
import os
import socket
import struct
import subprocess
import time

FRAME = 4120
END = b"grpc-status:0\r\n\r\n0\r\n\r\n"  # the trailer message, then the last chunk


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Primary:
    """Owns one sqld process and its folder. `args` are added to its command line."""

    def __init__(self, binary, folder, *args):
        self.port = free_port()
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        os.makedirs(folder, exist_ok=True)
        self.log = open(os.path.join(folder, "sqld.log"), "ab")
        self.process = subprocess.Popen(
            [binary, "--db-path", os.path.join(folder, "db"), "--http-listen-addr", f"127.0.0.1:{self.port}",
             "--no-welcome", *args],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"sqld ended, see {self.log.name}")
                time.sleep(0.05)
        else:
            raise RuntimeError("sqld does not listen")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def cpu(self):
        """CPU seconds used so far, in all threads."""
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Hrana:
    """SQL at the primary over one kept connection and Hrana's JSON pipeline."""

    def __init__(self, port):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self.http.connect()
        self.http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pipeline(self, requests, baton=None):
        body = json.dumps({"baton": baton, "requests": requests}).encode()
        self.http.request("POST", "/v3/pipeline", body, {"content-type": "application/json"})
        answer = json.loads(self.http.getresponse().read())
        for result in answer["results"]:
            if result["type"] != "ok":
                raise RuntimeError(result["error"]["message"])
            errors = result["response"].get("result", {}).get("step_errors") or []
            for error in filter(None, errors):
                raise RuntimeError(error["message"])
        return answer

    def execute(self, *statements):
        """Each statement in its own transaction; the rows of the last one."""
        requests = [{"type": "execute", "stmt": statement(s)} for s in statements]
        answer = self.pipeline([*requests, {"type": "close"}])
        return [[cell.get("value") for cell in row] for row in answer["results"][-2]["response"]["result"]["rows"]]


def statement(sql, args=()):
    return {"sql": sql, "args": [value(a) for a in args]} if args else {"sql": sql}


def value(v):
    return {"type": "integer", "value": str(v)} if isinstance(v, int) else {"type": "text", "value": v}


class LogClient:
    """Asks for the log and, but for frame numbers where they are wanted, throws it away."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)
        self.token = None
        self.last_frame = self.hello()

    def hello(self):
        """Renews the session; the newest frame number."""
        self.request("Hello", b"\x08\x01")
        answer = self.read()
        fields = dict(protobuf(answer[5:5 + struct.unpack(">I", answer[1:5])[0]]))
        self.token = bytes(fields[4])
        return fields.get(5, -1)

    def request(self, method, message):
        body = struct.pack(">BI", 0, len(message)) + message
        head = (f"POST /wal_log.ReplicationLog/{method} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                "content-type: application/grpc-web+proto\r\nx-namespace-bin: ZGVmYXVsdA\r\n"
                f"content-length: {len(body)}\r\n")
        if self.token:
            head += f"x-session-token: {self.token.decode()}\r\n"
        self.sock.sendall(head.encode() + b"\r\n" + body)

    def read(self):
        """The body of the next answer, chunks joined."""
        data = bytearray()
        while not data.endswith(END):
            got = self.sock.recv_into(self.buffer)
            if not got or (not data and b"\r\ngrpc-status:" in self.buffer[:got].split(b"\r\n\r\n")[0]):
                raise RuntimeError(f"the primary refuses: {bytes(self.buffer[:got])!r}")
            data += memoryview(self.buffer)[:got]
        return dechunk(data)

    def skip(self, until=None):
        """Throws the next answer away: all of it, or `until` bytes of one that does not end."""
        size, tail, view = 0, b"", memoryview(self.buffer)
        while size < until if until else not tail.endswith(END):
            got = self.sock.recv_into(self.buffer)
            if not got:
                raise RuntimeError("the primary closed the connection")
            size += got
            tail = (tail + view[max(0, got - len(END)):got])[-len(END):]

    def batches(self):
        """Reads the whole log once: the offsets of consecutive requests, and the number of frames."""
        offset, offsets, frames = 0, [], 0
        while offset <= self.last_frame:
            offsets.append(offset)
            self.request("BatchLogEntries", offset_message(offset))
            numbers = frame_numbers(self.read())
            frames += len(numbers)
            offset = numbers[-1] + 1
        return offsets, frames

    def drain(self, offsets):
        """The same requests, one after the other, answers thrown away: seconds."""
        start = time.perf_counter()
        for offset in offsets:
            self.request("BatchLogEntries", offset_message(offset))
            self.skip()
        return time.perf_counter() - start

    def drain_stream(self, size):
        """The first `size` bytes of the endless stream thrown away: seconds. Nothing can be asked afterwards."""
        start = time.perf_counter()
        self.request("LogEntries", b"")
        self.skip(size)
        self.sock.close()
        return time.perf_counter() - start


def offset_message(offset):
    return b"\x08" + varint(offset) if offset else b""


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def dechunk(data):
    """The body of a chunked HTTP answer."""
    at, out = data.index(b"\r\n\r\n") + 4, bytearray()
    view = memoryview(data)
    while True:
        eol = data.index(b"\r\n", at)
        size = int(data[at:eol], 16)
        if not size:
            return out
        out += view[eol + 2:eol + 2 + size]
        at = eol + 4 + size


def protobuf(message):
    """(field, value) of each field: whole numbers and byte strings."""
    view, at = memoryview(message), 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = view[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    while at < len(view):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        else:
            size = number()
            yield tag >> 3, view[at:at + size]
            at += size


def frame_numbers(body):
    """The frame numbers in the body of an answer: Frames{1 frame{1 data}}."""
    numbers, at = [], 0
    while at + 5 <= len(body) and not body[at] & 0x80:
        size = struct.unpack_from(">I", body, at + 1)[0]
        for field, frame in protobuf(memoryview(body)[at + 5:at + 5 + size]):
            data = next(v for f, v in protobuf(frame) if f == 1)
            assert field == 1 and len(data) == FRAME
            numbers.append(struct.unpack_from("<Q", data)[0])
        at += 5 + size
    return numbers
