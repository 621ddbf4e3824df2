"""The life of two replicas of one primary: commits of every size here and there, maintenance, crashes, in random order.

After each step they answer as the primary does, and nothing is ever fetched again. LIFE_SEED=n begins with another
life, LIFE_CASES=n lives more of them, LIFE_STEPS makes them longer, LIFE_FAULTS=n gives requests and answers that are lost
another weight.
"""
import os
import random

import pytest
from harness.check import identical, outcome, series
from harness.faults import CUT, CUT_ANSWER, CUT_INSIDE, PASS, CutBehind
from harness.host import BUSY, IOERR, READONLY
from harness.primary import SqlFailed

CASES, STEPS = int(os.environ.get("LIFE_CASES", 1)), int(os.environ.get("LIFE_STEPS", 80))
FAULTS = int(os.environ.get("LIFE_FAULTS", 1))
SEED = """
CREATE TABLE a(id INTEGER PRIMARY KEY, n INT, data);
CREATE TABLE b(k TEXT PRIMARY KEY, data) WITHOUT ROWID;
CREATE INDEX a_n ON a(n);
INSERT INTO a SELECT value, value % 7, hex(randomblob(20)) FROM generate_series(1, 50);
"""
KEY = "a passphrase of several words"
# Why the outcome of a commit can remain unknown: another replica has done just the same, the log begins behind it.
UNKNOWN = ["equal commit", "compacted its log"]


class Life:
    def __init__(self, seed, lock, primary, proxy, new_host, tmp_path):
        self.rng, self.primary, self.new_host = random.Random(seed), primary, new_host
        self.proxy = proxy
        self.steps, self.names, self.replicas = [], 0, []
        for number in range(2):
            path = tmp_path / f"{seed}.{number}.db"
            options = {"write_lock": lock, "timeout": 10}
            if self.rng.random() < 0.3:
                options["encryption_key"] = KEY
            if self.rng.random() < 0.3:
                options["live"] = 1
            elif self.rng.random() < 0.3:
                options["sync_interval"] = 0.05
            replica = {"path": path, "options": options, "db": None, "host": None, "reader": None}
            self.replicas.append(replica)
            self.open(replica)

    def open(self, replica):
        replica["host"] = replica["host"] or self.new_host()
        replica["db"] = db = replica["host"].open(replica["path"], self.proxy.url, **replica["options"])
        db(f"PRAGMA cache_size = {self.rng.choice([-2000, 10, 100])}")
        db(f"PRAGMA wal_autocheckpoint = {self.rng.choice([0, 10, 1000])}")

    # --- what happens ---

    def statement(self):
        rng = self.rng
        rows = rng.choice([1, 1, 1, 3, 30, 300, 600, 2500])
        size = rng.choice([10, 10, 500, 3600]) if rows > 600 else rng.choice([10, 500, 3600, 9000])
        self.names += 1
        blob, older = f"randomblob({size})", rng.randrange(1, self.names + 1)
        return rng.choice([
            f"INSERT INTO a(n, data) SELECT value % 100, {blob} FROM {series(rows)}",
            f"INSERT OR REPLACE INTO b(k, data) SELECT 'k' || (value * {rng.randrange(1, 50)}), {blob} FROM {series(rows)}",
            f"UPDATE a SET data = {blob} WHERE id IN (SELECT id FROM a ORDER BY id LIMIT {rows} OFFSET {rng.randrange(50)})",
            f"UPDATE a SET n = n + 1 WHERE id % {rng.choice([2, 3, 10, 100])} = 0",
            f"UPDATE b SET data = data WHERE k > 'k{rng.randrange(10)}'",
            f"DELETE FROM a WHERE id IN (SELECT id FROM a ORDER BY id DESC LIMIT {rows})",
            f"DELETE FROM b WHERE k >= 'k{rng.randrange(10)}'",
            f"DELETE FROM {rng.choice('ab')}" if rng.random() < 0.3 else "DELETE FROM a WHERE id = 3",
            f"CREATE TABLE t{self.names}(x, y); INSERT INTO t{self.names} SELECT value, {blob} FROM {series(min(rows, 300))}",
            f"DROP TABLE IF EXISTS t{older}",
            f"ALTER TABLE b ADD COLUMN c{self.names} DEFAULT {rows}",
            f"ALTER TABLE t{older} RENAME TO t{self.names}",
            f"CREATE VIRTUAL TABLE f{self.names} USING fts5(words)",
            f"INSERT INTO f{older} SELECT 'some words ' || data FROM a LIMIT 20",
            f"CREATE INDEX i{self.names} ON a(n, id)", f"DROP INDEX IF EXISTS i{older}",
        ])

    def here(self, replica):
        """A transaction; what SQLite was told of it is true."""
        db, before, seen = replica["db"], self.content(), []
        statements = [self.statement() for _ in range(self.rng.choice([1, 1, 2, 4]))]
        end = self.rng.choice(["COMMIT"] * 6 + ["ROLLBACK"])
        fate = self.rng.choice([CUT, CUT_INSIDE, *[CUT_ANSWER, CutBehind(self.rng.uniform(0, 0.02))] * FAULTS] + [PASS] * 12)
        self.steps.append((replica["path"].name, *statements, end, fate))
        self.proxy.once(lambda request: request.commits, fate)

        def run():
            seen.append(self.content(db))
            db(self.rng.choice(["BEGIN", "BEGIN IMMEDIATE"]))
            for statement in statements:
                for part in statement.split(";"):
                    # Of a table that is not there.
                    if error := outcome(lambda part=part: db(part)):
                        if error.code != 1:
                            raise error
            if self.rng.random() < 0.2:
                db("SAVEPOINT s")
                db(f"UPDATE a SET data = 'never', n = -1 WHERE id % {self.rng.choice([1, 5])} = 0")
                db("ROLLBACK TO s")
            seen.append(self.content(db))
            db(end)

        asked = len(self.proxy.log)
        error, unknown = outcome(run), False
        self.proxy.rule = lambda request: PASS
        if error:
            # Another replica, or this one in the background, has moved it on.
            why = replica["host"].last_error()
            unknown = error.code == IOERR and any(cause in why for cause in UNKNOWN)
            assert error.code in (BUSY, READONLY) or unknown, (error, why)
            outcome(lambda: db("ROLLBACK"))
            self.steps.append(("refused", str(error), replica["host"].last_error()))
        if error or end == "ROLLBACK":
            # What is unknown may be there.
            assert self.content() == before or unknown and self.content() == seen[1]
        elif seen[0] != seen[1]:
            if any(commits for _, _, commits, *_ in self.proxy.log[asked:]):
                assert seen[1] == self.content()
            else:
                # It did nothing: what has changed came in the background, and more may come.
                replica["db"].sync()
            self.compare(replica)

    def there(self):
        statement = self.statement()
        self.steps.append(("primary", statement))
        try:
            self.primary.script(statement)
        except SqlFailed as error:
            assert "no such" in str(error) or "already" in str(error), error

    def maintain(self, replica):
        step = self.rng.choice(["PASSIVE", "RESTART", "TRUNCATE", "reopen", "kill", "sync", "sync", "read", "restart"])
        self.steps.append((replica["path"].name, step))
        if step == "sync":
            replica["db"].sync()
            self.compare(replica)
        elif step == "restart":
            self.primary.restart()
        elif step == "read":
            if reader := replica["reader"]:
                assert self.content(reader[0]) == reader[1]
                reader[0].close()
                replica["reader"] = None
            else:
                reader = replica["host"].open(replica["path"], self.proxy.url, **replica["options"])
                reader("BEGIN")
                replica["reader"] = reader, self.content(reader)
        elif step in ("reopen", "kill"):
            if step == "kill":
                replica["host"].kill()
                replica["host"] = replica["reader"] = None
            else:
                replica["db"].close()
            self.open(replica)
        else:
            outcome(lambda: replica["db"](f"PRAGMA wal_checkpoint({step})"))

    # --- what must hold ---

    TABLES = "SELECT name, sql FROM sqlite_schema ORDER BY name"

    def content(self, db=None):
        if not db:
            return self.read(self.primary.sql)
        # One transaction: a replica that moves in the background may have another schema for the next statement.
        db("SAVEPOINT content")
        found = self.read(db)
        db("RELEASE content")
        return found

    def read(self, connection):
        def ask(sql):
            return [list(row) for row in connection(sql)]

        schema = ask(self.TABLES)
        tables = [name for name, sql in schema if name[0] in "abt" and sql and sql.startswith("CREATE TABLE")]
        begins = "hex(substr({}, 1, 8))".format
        columns = {"a": f"total(n), total(length(data)), max({begins('data')}), min({begins('data')})",
                   "b": f"min(k), max(k), max({begins('data')})", "t": f"max(x), max({begins('y')})"}
        return schema, [ask(f"SELECT count(*), {columns[table[0]]} FROM {table}") for table in tables]

    def compare(self, replica):
        assert self.content(replica["db"]) == self.content()
        self.not_again(replica)

    @staticmethod
    def not_again(replica):
        why = replica["host"].last_error() or ""
        # A primary that is ended before it has written its log begins another one.
        assert "fetched again" not in why or "another log" in why, why

    def run(self):
        for _ in range(STEPS):
            replica = self.rng.choice(self.replicas)
            self.rng.choice([self.here] * 6 + [self.maintain] * 3 + [lambda _: self.there()] * 2)(replica)
            assert self.primary.sql("PRAGMA integrity_check") == [["ok"]]
        for replica in self.replicas:
            if replica["reader"]:
                assert self.content(replica["reader"][0]) == replica["reader"][1]
                replica["reader"][0].close()
            replica["db"].sync()
            self.compare(replica)
            self.not_again(replica)
            replica["db"]("PRAGMA wal_checkpoint(TRUNCATE)")
            assert replica["db"]("PRAGMA integrity_check") == [("ok",)]
            if "encryption_key" not in replica["options"]:
                replica["host"].close()
                identical(replica["path"], self.primary)


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_life(lock, write_path, new_primary, new_fault_proxy, new_host, tmp_path):
    first = int(os.environ.get("LIFE_SEED", 990000))
    for seed in range(first, first + CASES):
        primary = new_primary(SEED, **({"max_log_duration": 1} if seed % 3 == 2 else {}))
        life = Life(seed, lock, primary, new_fault_proxy(primary.url), new_host, tmp_path)
        try:
            life.run()
        except BaseException as error:
            steps = "\n".join(map(str, life.steps))
            raise AssertionError(f"LIFE_SEED={seed}, {lock}, {write_path}: {error}\n{steps}") from error
