"""A client in a process of its own: reads commands as JSON lines, answers with JSON lines.

usage: client.py libreplica LIBRARY | libsql-experimental | hrana
commands: ["open", path, url, options] | ["sync"] | ["query", sql] | ["write", workload]; open, sync and write answer
with the seconds they took.
"""
import json
import os
import resource
import sys
import time
import urllib.parse


class Libreplica:
    def __init__(self, library):
        import sqlite3
        self.sqlite3 = sqlite3
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(library.removesuffix(".so"))
        self.version = "{} on SQLite {}".format(*loader.execute("SELECT replica_version(), sqlite_version()").fetchone())

    def open(self, path, url, options):
        query = urllib.parse.urlencode({"vfs": "replica", "sync_url": url, **options})
        self.db = self.sqlite3.connect(f"file:{path}?{query}", uri=True, isolation_level=None)
        self.sync()

    def sync(self):
        self.db.execute("SELECT replica_sync()").fetchone()


class LibsqlExperimental:
    def __init__(self):
        import importlib.metadata
        import libsql_experimental
        self.libsql = libsql_experimental
        self.version = importlib.metadata.version("libsql-experimental")

    def open(self, path, url, _):
        self.db = self.libsql.connect(path, sync_url=url, auth_token="", isolation_level=None)
        self.db.sync()

    def sync(self):
        self.db.sync()


class Hrana:
    """No replica: the SQL protocol alone, as few requests as a workload allows."""
    version = "3"

    def open(self, _, url, __):
        import primary
        self.primary, self.port = primary, urllib.parse.urlsplit(url).port
        self.db = primary.Hrana(self.port)

    def query(self, sql):
        return self.db.execute(sql)


def batch(hrana, statements, baton=None, close=True):
    steps = [{"stmt": hrana.primary.statement(*s), **({"condition": {"type": "ok", "step": i - 1}} if i else {})}
             for i, s in enumerate(statements)]
    requests = [{"type": "batch", "batch": {"steps": steps}}, *([{"type": "close"}] if close else [])]
    return hrana.db.pipeline(requests, baton)


INSERT = "INSERT INTO account(balance, note) VALUES (?, ?)"
UPDATE = "UPDATE account SET balance = balance + 1 WHERE id = ?"
FILL = ("INSERT INTO account(balance, note) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "SELECT i, 'one of many' FROM n")
TEN = [(INSERT, (n, "one of ten")) for n in range(10)]
FIVE = [(UPDATE, (n,)) for n in range(1, 6)]
THOUSAND = [(n, "one of a thousand") for n in range(1000)]


def transaction(db, statements):
    db.execute("BEGIN IMMEDIATE")
    for sql, args in statements:
        cursor = db.execute(sql, args)
        if sql.startswith("SELECT"):
            cursor.fetchall()
    db.execute("COMMIT")


def executemany(db):
    db.execute("BEGIN IMMEDIATE")
    db.executemany(INSERT, THOUSAND)
    db.execute("COMMIT")


READ = ("SELECT balance FROM account WHERE id = ?", (1,))
WORKLOADS = {
    "insert": lambda db: db.execute(INSERT, (1, "one")),
    "ten": lambda db: transaction(db, TEN),
    "mixed": lambda db: transaction(db, [READ, *FIVE]),
    "many": executemany,
}


def hrana_mixed(hrana):
    answer = batch(hrana, [("BEGIN IMMEDIATE",), READ], close=False)
    batch(hrana, [*FIVE, ("COMMIT",)], answer["baton"])


HRANA_WORKLOADS = {
    "insert": lambda h: batch(h, [(INSERT, (1, "one"))]),
    "ten": lambda h: batch(h, [("BEGIN IMMEDIATE",), *TEN, ("COMMIT",)]),
    "mixed": hrana_mixed,
    "many": lambda h: batch(h, [("BEGIN IMMEDIATE",), *((INSERT, row) for row in THOUSAND), ("COMMIT",)]),
}


def timed(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def answer(client, command, *args):
    if command == "version":
        return client.version
    if command in ("open", "sync"):
        return timed(getattr(client, command), *args)
    if command == "query":
        return client.query(*args) if isinstance(client, Hrana) else client.db.execute(*args).fetchall()
    if command == "write":
        if isinstance(client, Hrana):
            return timed(HRANA_WORKLOADS[args[0]], client)
        return timed(WORKLOADS[args[0]], client.db)
    if command == "fill":
        return timed(client.db.execute, FILL, args)
    if command == "memory":  # peak, in MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    raise ValueError(command)


def main():
    kinds = {"libreplica": Libreplica, "libsql-experimental": LibsqlExperimental, "hrana": Hrana}
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library may write to standard output
    client = kinds[sys.argv[1]](*sys.argv[2:])
    for line in sys.stdin:
        try:
            reply = {"ok": answer(client, *json.loads(line))}
        except Exception as e:
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), file=replies, flush=True)


main()
