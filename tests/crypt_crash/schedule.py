"""A program of random transactions, the same for a seed whoever runs it: SQLite with a key, or stock SQLite without. Run as a
process of its own, with each change to its files logged; says on stdout what each transaction leaves.

    schedule.py FOLDER SEED [LIBRARY]
"""
import hashlib
import os
import random
import sqlite3
import sys
import urllib.parse

KEY = "5f" * 32
MODES = ["delete", "truncate", "persist", "wal"]
TRANSACTIONS = 7


class Plan:
    """What a seed decides."""

    def __init__(self, seed):
        rng = random.Random(f"plan {seed}")
        self.mode = MODES[seed % len(MODES)]
        self.names = ["a.db", "b.db"] if seed // len(MODES) % 2 else ["a.db"]
        self.page_size = rng.choice([512, 1024, 4096, 4096, 4096, 8192])
        self.cache_size = rng.choice([5, 5, 10, 2000])
        self.psow = rng.random() < 0.7
        self.vacuum = rng.random() < 0.3
        self.checkpoint = rng.choice([0, 3, 10, 1000])
        # Not where pages of a log have been spilled: there SQLite 3.40 itself loses commits in a crash.
        self.undoes = self.mode != "wal" or self.cache_size == 2000
        # Which of them are encrypted: all, or with two one may be plain.
        self.keyed = set(self.names) if rng.random() < 0.8 else {rng.choice(self.names)}


def uri(path, plan, keyed):
    query = {"psow": int(plan.psow)}
    if keyed is not None:
        query["vfs"] = "replica"
        if keyed:
            query["encryption_key"] = KEY
    return f"file:{urllib.parse.quote(str(path))}?{urllib.parse.urlencode(query)}"


def load(library):
    if library:
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(library)
        return loader
    return None


def state(db, schema="main"):
    """The number of the last transaction, and a digest of all that is there."""
    if not db.execute(f"SELECT count(*) FROM {schema}.sqlite_schema WHERE name = 'acts'").fetchone()[0]:
        return "0 empty"
    n = db.execute(f"SELECT max(n) FROM {schema}.acts").fetchone()[0]
    digest = hashlib.md5()
    for row in db.execute(f"SELECT id, v FROM {schema}.t ORDER BY id"):
        digest.update(repr(row).encode())
    return f"{n} {digest.hexdigest()}"


def act(db, schema, n, rng, plan):
    run = db.execute
    if n == 1:
        run(f"CREATE TABLE {schema}.acts(n)")
        run(f"CREATE TABLE {schema}.t(id INTEGER PRIMARY KEY, v)")
        run(f"CREATE INDEX {schema}.by_v ON t(substr(v, 1, 8))")
    run(f"INSERT INTO {schema}.acts VALUES(?)", (n,))
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        if kind < 0.5:
            size = rng.choice([30, 300, 3000, 9000])
            rows = [(rng.randbytes(rng.randint(1, size)),) for _ in range(rng.randint(1, 12))]
            db.executemany(f"INSERT INTO {schema}.t(v) VALUES(?)", rows)
        elif kind < 0.75:
            run(f"UPDATE {schema}.t SET v = ? WHERE id % 3 = ?", (rng.randbytes(rng.randint(1, 2000)), rng.randint(0, 2)))
        elif kind < 0.9 or not plan.undoes:
            run(f"DELETE FROM {schema}.t WHERE id % 4 = ?", (rng.randint(0, 3),))
        else:
            run("SAVEPOINT s")
            run(f"DELETE FROM {schema}.t")
            run("ROLLBACK TO s")


def main(folder, seed, library):
    plan, rng = Plan(seed), random.Random(f"acts {seed}")
    loader = load(library)

    def target(name):
        return uri(os.path.join(folder, name), plan, None if not library else name in plan.keyed)

    acks = os.open(os.path.join(folder, "acks"), os.O_RDWR | os.O_CREAT, 0o600)
    db = sqlite3.connect(target("a.db"), uri=True, isolation_level=None)
    schemas = ["main"]
    if "b.db" in plan.names:
        db.execute(f"ATTACH '{target('b.db')}' AS other")
        schemas.append("other")
    for schema in schemas:
        db.execute(f"PRAGMA {schema}.page_size = {plan.page_size}")
        db.execute(f"PRAGMA {schema}.journal_mode = {plan.mode}")
        db.execute(f"PRAGMA {schema}.synchronous = EXTRA")
        db.execute(f"PRAGMA {schema}.cache_size = {plan.cache_size}")
    db.execute(f"PRAGMA wal_autocheckpoint = {plan.checkpoint}")
    for n in range(1, TRANSACTIONS + 1):
        db.execute("BEGIN")
        for schema in schemas:
            act(db, schema, n, rng, plan)
        if rng.random() < 0.1 and n > 1 and plan.undoes:
            db.execute("ROLLBACK")
            db.execute("BEGIN")
            for schema in schemas:
                db.execute(f"INSERT INTO {schema}.acts VALUES(?)", (n,))
        db.execute("COMMIT")
        os.pwrite(acks, b".", n - 1)
        print(n, *(state(db, schema) for schema in schemas), sep="|", flush=True)
        if plan.vacuum and rng.random() < 0.3:
            for schema in schemas:
                db.execute(f"VACUUM {schema}")
        if plan.mode == "wal" and rng.random() < 0.2:
            db.execute(f"PRAGMA wal_checkpoint({rng.choice(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})")
    del loader
    os._exit(0)  # what is left is a crash's, too


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
