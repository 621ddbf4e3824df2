"""The primary's replication protocol in plain Python, independent of the library: the oracle.

gRPC-web over HTTP/1.1, three protobuf messages, frames with a rolling CRC-64/GO-ISO.
"""
import base64
import http.client
import struct
import time
import urllib.parse
from dataclasses import dataclass, field

PAGE = 4096
FRAME = struct.Struct("<QQII")  # frame_no, checksum, page_no, size_after


# --- checksum ---------------------------------------------------------------------------------

def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0xD800000000000000 if byte & 1 else byte >> 1
        table.append(byte)
    return table


_TABLE = _table()


def crc64(data, prev=0):
    state = int(f"{prev:064b}"[::-1], 2)
    for byte in data:
        state = _TABLE[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFFFFFFFFFF


# --- protobuf ---------------------------------------------------------------------------------

def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def encode(*fields):
    """fields: (number, int | bytes | str | None), None is left out."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif value is not None:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def decode(data):
    """[(number, int | bytes)] of one message."""
    fields, pos = [], 0

    def number():
        nonlocal pos
        n = shift = 0
        while True:
            byte = data[pos]
            pos += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    while pos < len(data):
        key = number()
        if key & 7 == 0:
            fields.append((key >> 3, number()))
        elif key & 7 == 2:
            length = number()
            fields.append((key >> 3, bytes(data[pos:pos + length])))
            pos += length
        else:
            raise ValueError(f"wire type {key & 7}")
    return fields


# --- frames -----------------------------------------------------------------------------------

@dataclass
class Frame:
    no: int
    checksum: int
    page_no: int
    size_after: int
    page: bytes

    @classmethod
    def parse(cls, data):
        assert len(data) == FRAME.size + PAGE, len(data)
        return cls(*FRAME.unpack_from(data), bytes(data[FRAME.size:]))

    def pack(self):
        return FRAME.pack(self.no, self.checksum, self.page_no, self.size_after) + self.page


# --- grpc-web ---------------------------------------------------------------------------------

class Status(Exception):
    def __init__(self, code, message):
        super().__init__(f"status {code}: {message}")
        self.code, self.message = code, message


def message(data, flag=0):
    return struct.pack(">BI", flag, len(data)) + data


@dataclass
class Image:
    """The primary's database as its log describes it."""
    log_id: str = ""
    frame_no: int | None = None
    pages: dict = field(default_factory=dict)
    size: int = 0
    rounds: dict = field(default_factory=lambda: {"batch": 0, "snapshot": 0})

    def bytes(self):
        return b"".join(self.pages[n] for n in range(1, self.size + 1))


class Puller:
    """A raw replication client."""

    def __init__(self, url, namespace="default", token=None):
        self.address = urllib.parse.urlsplit(url).netloc
        self.http = http.client.HTTPConnection(self.address, timeout=30)
        self.headers = {"content-type": "application/grpc-web+proto",
                        "x-namespace-bin": base64.b64encode(namespace.encode()).decode().rstrip("=")}
        if token:
            self.headers["x-authorization"] = f"Bearer {token}"

    def close(self):
        self.http.close()

    def call(self, method, body):
        """The messages of the answer, as they come."""
        self.http.request("POST", f"/wal_log.ReplicationLog/{method}", message(body), self.headers)
        answer = self.http.getresponse()
        assert answer.status == 200, (answer.status, answer.read())
        if int(answer.headers.get("grpc-status") or 0):
            answer.read()
        self._check(answer.headers)
        while True:
            flag, length = struct.unpack(">BI", answer.read(5))
            data = answer.read(length)
            if flag & 0x80:
                answer.read()
                lines = (line.split(":", 1) for line in data.decode().split("\r\n") if line)
                self._check({key.strip(): value.strip() for key, value in lines})
                return
            yield data

    @staticmethod
    def _check(headers):
        code = int(headers.get("grpc-status") or 0)
        if code:
            raise Status(code, urllib.parse.unquote(headers.get("grpc-message") or ""))

    def hello(self):
        (answer,) = self.call("Hello", encode((1, 1)))
        fields = dict(decode(answer))
        self.headers["x-session-token"] = fields[4].decode()
        return fields[3].decode(), fields.get(5)

    def batch(self, next_offset):
        (answer,) = self.call("BatchLogEntries", encode((1, next_offset)))
        return [Frame.parse(dict(decode(f))[1]) for n, f in decode(answer) if n == 1]

    def snapshot(self, next_offset):
        for answer in self.call("Snapshot", encode((1, next_offset))):
            yield Frame.parse(dict(decode(answer))[1])

    def image(self, verify=False):
        """Pulls the whole database. `verify` checks the checksum chain too (slow)."""
        image = Image()
        image.log_id, newest = self.hello()
        if newest is None:
            return image
        offset, chain = 0, 0
        deadline = time.monotonic() + 60
        while offset <= newest:
            try:
                frames = self.batch(offset)
                image.rounds["batch"] += 1
                assert frames, f"nothing at {offset} of {newest}"
                for frame in frames:
                    assert frame.no == offset, (frame.no, offset)
                    if verify and chain is not None:
                        chain = crc64(frame.page, chain)
                        assert chain == frame.checksum, frame.no
                    elif verify:
                        chain = frame.checksum
                    image.pages[frame.page_no] = frame.page
                    image.size = frame.size_after or image.size
                    offset += 1
            except Status as status:
                if "NEED_SNAPSHOT" not in status.message:
                    raise
                try:
                    frames = list(self.snapshot(offset))
                except Status as status:
                    if status.code != 14 or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                    continue
                image.rounds["snapshot"] += 1
                for frame in frames:
                    image.pages[frame.page_no] = frame.page
                image.size = frames[-1].size_after
                offset, chain = frames[0].no + 1, None
        image.frame_no = offset - 1
        return image
