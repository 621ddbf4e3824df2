"""Another implementation, written from src/crypt/FORMAT.md alone: what it decrypts, a stock SQLite reads."""
import hashlib
import hmac

import pytest
from harness.crypt import RAW, run
from harness.shell import stock

AESGCM = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead").AESGCM


def hkdf(salt, key, info):
    return hmac.new(hmac.new(salt, key, hashlib.sha256).digest(), info + b"\1", hashlib.sha256).digest()


def number(data, at, size=4):
    return int.from_bytes(data[at:at + size], "little")


class File:
    def __init__(self, path, secret):
        self.data = path.read_bytes()
        slots = [self.data[at:at + 512] for at in (0, 4096)]
        valid = [s for n, s in enumerate(slots)
                 if s[:16] == b"libreplica-crypt" and s[16] == 2 and s[17] == n and hashlib.sha256(s[:480]).digest() == s[480:]]
        slot = max(valid, key=lambda s: number(s, 20))
        assert slot[18] == 0 and slot[24:36] == bytes(12)
        wrapping = hkdf(slot[36:52], secret, b"libreplica 1 wrap")
        data_key = AESGCM(wrapping).decrypt(slot[68:80], slot[80:128], slot[:68])
        self.unit, self.spaced = 1 << (slot[19] & 127), slot[19] > 127
        self.ciphers = {name: AESGCM(hkdf(slot[52:68], data_key, f"libreplica 1 {name}".encode()))
                        for name in ("database", "wal", "journal")}

    def open(self, name, cell, cell_number, context=bytes(8), page=None):
        return self.ciphers[name].decrypt(cell[:12], cell[12:], cell_number.to_bytes(8, "little") + context
                                          + (page.to_bytes(4, "little") if page else b""))

    def content(self):
        stride = self.unit + 28
        if self.spaced:  # groups of 64 KiB of content
            size = 65536 // self.unit * stride
            groups = [self.data[at:at + size] for at in range(8192, len(self.data), -(-size // 4096) * 4096)]
            cells = [group[at:at + stride] for group in groups for at in range(0, len(group), stride)]
        else:
            cells = [self.data[at:at + stride] for at in range(4608, len(self.data), stride)]
        return b"".join(self.open("database", cell, n) for n, cell in enumerate(cells))

    def log(self, path):
        data = path.read_bytes()
        header = self.open("wal", data[32:92], int(self.spaced))
        page, salt, out = int.from_bytes(header[8:12], "big"), header[16:24], [header]
        cells, frame, durable = 56 + page + 28, 1, 0
        first, stride = (4096, -(-cells // 4096) * 4096) if self.spaced else (92, cells)
        while first + (frame - 1) * stride + cells <= len(data):
            at = first + (frame - 1) * stride
            head = self.open("wal", data[at:at + 56], 2 * frame, salt)
            assert durable <= int.from_bytes(head[24:], "big") < frame
            durable = int.from_bytes(head[24:], "big")
            out += [head[:24], self.open("wal", data[at + 56:at + cells], 2 * frame + 1, salt, int.from_bytes(head[:4], "big"))]
            frame += 1
        return b"".join(out), frame - 1, durable

    def journal(self, path):
        data = path.read_bytes()
        assert data[:16] == (b"\0libreplica-jrns" if self.spaced else b"\0libreplica-jrnl")
        group = 128 if self.spaced else 1 << 30
        places = [n // group * 69632 + 16 + n % group * 542 for n in range(len(data) // 542 + 1)]
        cells = [self.open("journal", data[at:at + 542], n) if any(data[at:at + 542]) else bytes(514)  # a gap
                 for n, at in enumerate(places) if at + 542 <= len(data)]
        return b"".join(cell[2:] for cell in cells[:-1]) + cells[-1][2:2 + number(cells[-1], 0, 2)]


PROGRAM = """
db = connect(sys.argv[1], sys.argv[2], psow=sys.argv[5])
db.execute("PRAGMA page_size=" + sys.argv[3])
db.execute("PRAGMA journal_mode=" + sys.argv[4])
db.execute("PRAGMA cache_size=5")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
db.executemany("INSERT INTO t(v) VALUES(?)", [("a" * 500,)] * 300)
if sys.argv[4] == "delete":
    db.execute("BEGIN")
    db.execute("UPDATE t SET v = 'b'")
os._exit(0)
"""


@pytest.mark.parametrize("psow", [1, 0])
@pytest.mark.parametrize("size", [512, 4096, 16384])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_read_by_another_implementation(mode, size, psow, tmp_path):
    path, plain = tmp_path / "a.db", tmp_path / "plain.db"
    run(PROGRAM, path, RAW, size, mode, psow)
    file = File(path, bytes.fromhex(RAW))
    assert file.unit == min(size, 4096) and file.spaced == (psow == 0)
    plain.write_bytes(file.content())
    if mode == "wal":
        log, frames, durable = file.log(tmp_path / "a.db-wal")
        assert frames > 300 and durable > 250
        (tmp_path / "plain.db-wal").write_bytes(log)
    else:
        (tmp_path / "plain.db-journal").write_bytes(file.journal(tmp_path / "a.db-journal"))
    assert stock(plain, "PRAGMA integrity_check; SELECT v = replace(hex(zeroblob(250)), '0', 'a'), count(*) FROM t GROUP BY 1;") \
        == "ok\n1|300"


def test_after_a_change_of_the_key(tmp_path):
    path, plain = tmp_path / "a.db", tmp_path / "plain.db"
    run("""
db = connect(sys.argv[1], sys.argv[2])
db.execute("CREATE TABLE t(v)")
db.execute("SELECT replica_rekey(?)", (sys.argv[3],)).fetchone()
""", path, "a passphrase", RAW)
    plain.write_bytes(File(path, bytes.fromhex(RAW)).content())
    assert stock(plain, "SELECT sql FROM sqlite_schema;") == "CREATE TABLE t(v)"
