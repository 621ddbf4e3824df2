"""Runs in a process of its own: opens a replica by SQLite's C interface and calls the methods of its files itself, as
no SQLite does. Each case prints its result codes, as JSON."""
import ctypes
import json
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_void_p

sqlite = ctypes.CDLL("libsqlite3.so.0")
library, uri = sys.argv[1].encode(), sys.argv[2].encode()

FILE_POINTER, JOURNAL_POINTER = 7, 28
SHARED, RESERVED, EXCLUSIVE = 1, 2, 4
UNLOCK, LOCK, SHM_SHARED, SHM_EXCLUSIVE = 1, 2, 4, 8
OPEN = 0x2 | 0x4 | 0x40  # READWRITE, CREATE, URI


def checked(code, *fine):
    assert code in (0, *fine), code


def connect(target):
    db = c_void_p()
    checked(sqlite.sqlite3_open_v2(target, byref(db), OPEN, None))
    return db


def run(db, sql):
    return sqlite.sqlite3_exec(db, sql.encode(), None, None, None)


def one(db, sql):
    statement = c_void_p()
    checked(sqlite.sqlite3_prepare_v2(db, sql.encode(), -1, byref(statement), None))
    sqlite.sqlite3_column_text.restype = c_char_p
    value = sqlite.sqlite3_column_text(statement, 0) if sqlite.sqlite3_step(statement) == 100 else None
    sqlite.sqlite3_finalize(statement)
    return value.decode() if value is not None else None


class File:
    """A `sqlite3_file`, through its table of methods."""

    def __init__(self, db, which):
        pointer = c_void_p()
        checked(sqlite.sqlite3_file_control(db, b"main", which, byref(pointer)))
        self.file = pointer
        self.methods = ctypes.cast(ctypes.cast(pointer, POINTER(c_void_p))[0], POINTER(c_void_p))

    def call(self, number, *types):
        return ctypes.CFUNCTYPE(c_int, c_void_p, *types)(self.methods[number])

    def write(self, data, at):
        return self.call(3, c_char_p, c_int, c_int64)(self.file, data, len(data), at)

    def truncate(self, size):
        return self.call(4, c_int64)(self.file, size)

    def size(self):
        size = c_int64()
        checked(self.call(6, POINTER(c_int64))(self.file, byref(size)))
        return size.value

    def lock(self, level):
        return self.call(7, c_int)(self.file, level)

    def unlock(self, level):
        return self.call(8, c_int)(self.file, level)

    def control(self, op):
        return self.call(10, c_int, c_void_p)(self.file, op, None)

    def shm_lock(self, slot, count, flags):
        return self.call(14, c_int, c_int, c_int)(self.file, slot, count, flags)


loader = connect(b":memory:")
sqlite.sqlite3_enable_load_extension(loader, 1)
checked(sqlite.sqlite3_load_extension(loader, library, None, None))
db = connect(uri)
checked(run(db, "INSERT INTO t(v) VALUES('before')"))
main, log = File(db, FILE_POINTER), File(db, JOURNAL_POINTER)
sizes = main.size(), log.size()
page, frame = b"\x07" * 4096, (1).to_bytes(4, "big") + (9).to_bytes(4, "big") + bytes(16)
results = {}


def case(name, *codes):
    results[name] = codes
    assert (main.size(), log.size()) == sizes, name


case("a write to the file", main.write(page, 0), main.write(page, sizes[0]))
case("a cut of the file", main.truncate(0), main.truncate(sizes[0] + 4096))
case("a commit that nobody announced", log.write(frame, sizes[1]), log.write(page, sizes[1] + 24))
case("the log anew", log.write(bytes(32), 0))
case("a cut of the log", log.truncate(0))
case("rollback mode", main.lock(RESERVED), *(main.control(op) for op in (31, 32, 33)))
# As the last one to close would; the library has the file open, too.
case("to be alone", main.lock(EXCLUSIVE), main.write(page, 0), main.unlock(SHARED))
case("the write lock before a read lock", main.shm_lock(0, 1, LOCK | SHM_EXCLUSIVE))
case("locks in one", main.shm_lock(0, 8, LOCK | SHM_EXCLUSIVE))

# Inside a transaction: what belongs to none, and a checkpoint.
checked(run(db, "BEGIN IMMEDIATE"))
case("other forms of writes", log.write(page, sizes[1]), log.write(page[:100], sizes[1] + 24), log.write(page, -1))
case("the file in a transaction", main.write(page, 0), main.truncate(0), main.lock(EXCLUSIVE))
case("a checkpoint in a transaction", main.shm_lock(1, 1, LOCK | SHM_EXCLUSIVE))
checked(run(db, "ROLLBACK"))

# A reader that takes the lock past SQLite: announced, so what it writes would be shipped; ended, it may write no more.
case("a reader's transaction", main.shm_lock(7, 1, LOCK | SHM_SHARED), main.shm_lock(0, 1, LOCK | SHM_EXCLUSIVE),
     main.shm_lock(0, 1, LOCK | SHM_EXCLUSIVE), main.shm_lock(0, 1, UNLOCK | SHM_EXCLUSIVE),
     main.shm_lock(7, 1, UNLOCK | SHM_SHARED), log.write(frame, sizes[1]))

# Beside a plain database, where pragmas without a schema go to all.
plain = connect(b"file::memory:?vfs=replica")
code = run(plain, f"ATTACH '{uri.decode()}' AS app")
assert code == 0, (code, one(plain, "SELECT replica_last_error()"))
run(plain, "PRAGMA journal_mode = DELETE")
results["journal mode"] = one(plain, "PRAGMA app.journal_mode"), one(db, "PRAGMA journal_mode")
checked(run(plain, "INSERT INTO app.t(v) VALUES('attached')"))
run(plain, "PRAGMA locking_mode = EXCLUSIVE")
results["exclusive"] = run(plain, "INSERT INTO app.t(v) VALUES('exclusive')"), one(plain, "SELECT replica_last_error()")
sqlite.sqlite3_close(plain)

results["own locking mode"] = one(db, "PRAGMA locking_mode = EXCLUSIVE"), one(db, "PRAGMA locking_mode")
checked(run(db, "INSERT INTO t(v) VALUES('behind')"))
checked(run(db, "PRAGMA wal_checkpoint(TRUNCATE)"))
results["rows"] = one(db, "SELECT group_concat(v) FROM t")
results["integrity"] = one(db, "PRAGMA integrity_check")
print(json.dumps(results))
sqlite.sqlite3_close(db)
