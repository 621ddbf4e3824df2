"""A library in a process of its own: reads commands as lines, answers each with the seconds it took.

usage: crypt_client.py LIBRARY KIND PATH [KEY]     kinds: see OPEN below
commands: insert MODE | scan | points | version
"""
import os
import sys
import time

ROWS, POINTS = 250_000, 60_000
INSERT = f"""
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
    INSERT INTO item SELECT i, i % 97, printf('item-%08d', i), randomblob(100 + i % 200) FROM n"""
SCAN = "SELECT count(*), sum(grp), sum(length(name)), sum(length(body)) FROM item"
# Every step a pseudo-random key: the statement is one, so that no binding is in the measurement.
READ = f"""
    WITH RECURSIVE r(i, x) AS (VALUES(1, 1) UNION ALL SELECT i + 1, (x * 1103515245 + 12345) % 2147483648 FROM r WHERE i < {POINTS})
    SELECT count(*), sum(length(body)) FROM r CROSS JOIN item ON item.id = 1 + (r.x >> 4) % {ROWS}"""


def stock(path, key):
    import sqlite3
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(sys.argv[1].removesuffix(".so"))
    target = f"file:{path}?vfs=replica&encryption_key={key}" if key else f"file:{path}"
    db = sqlite3.connect(target, uri=True, isolation_level=None)
    return db.execute, "{} on SQLite {}".format(*loader.execute("SELECT replica_version(), sqlite_version()").fetchone())


def sqlcipher(path, key):
    from sqlcipher3 import dbapi2
    db = dbapi2.connect(path, isolation_level=None)
    if key:
        db.execute(f"PRAGMA key = \"x'{key}'\"")
    return db.execute, f"{db.execute('PRAGMA cipher_version').fetchone()[0]} on SQLite {dbapi2.sqlite_version}"


def multiple_ciphers(cipher):
    def connect(path, key):
        import apsw
        db = apsw.Connection(path)
        if key:
            db.execute(f"PRAGMA cipher = '{cipher}'")
            db.execute(f"PRAGMA key = \"raw:{key}\"" if cipher == "chacha20" else f"PRAGMA hexkey = '{key}'")
        return db.execute, f"{apsw.mc_version} on SQLite {apsw.sqlite_lib_version()}"
    return connect


OPEN = {"libreplica": stock, "SQLCipher": sqlcipher, "SQLite3MC chacha20": multiple_ciphers("chacha20"),
        "SQLite3MC aegis": multiple_ciphers("aegis")}


def main():
    _, _, kind, path, *key = sys.argv
    execute = None

    def connect():
        nonlocal execute
        execute, version = OPEN[kind](path, key[0] if key else None)
        list(execute("PRAGMA cache_size = -2000"))
        list(execute("PRAGMA synchronous = OFF"))  # the library is measured, not the disk
        return version

    version = connect()
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "version":
            print(version, flush=True)
            continue
        if command == "insert":
            execute = None
            for suffix in ("", "-wal", "-shm", "-journal"):
                if os.path.exists(path + suffix):
                    os.unlink(path + suffix)
            connect()
            mode, = list(execute(f"PRAGMA journal_mode = {arguments[0]}"))[0]
            assert mode == arguments[0]
            list(execute("CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL)"))
        statement = {"insert": INSERT, "scan": SCAN, "points": READ}[command]
        begin = time.perf_counter()
        rows = list(execute(statement))
        seconds = time.perf_counter() - begin
        assert not rows or rows[0][0] == {"scan": ROWS, "points": POINTS}[command], rows
        print(seconds, flush=True)


main()
