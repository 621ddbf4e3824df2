"""kill -9 of programs that use an encrypted database, 200 times each: commits, checkpoints, changes of the key."""
import random
import time

import pytest
from harness.crypt import RAW, assert_no_plaintext, code_of, program, run
from harness.host import NOTADB

SEED = """
db = connect(sys.argv[1], sys.argv[2])
db.execute("PRAGMA journal_mode=" + sys.argv[3])
db.execute("CREATE TABLE first(n)"); db.execute("INSERT INTO first VALUES(0)")
db.execute("CREATE TABLE filler(id INTEGER PRIMARY KEY, data)")
db.executemany("INSERT INTO filler(data) VALUES(?)", [(os.urandom(700),) for _ in range(600)])
db.execute("CREATE INDEX by_data ON filler(substr(data, 1, 9))")
db.execute("CREATE TABLE last(n)"); db.execute("INSERT INTO last VALUES(0)")
"""

# One transaction after the other; says which are committed.
COMMITS = """
db = connect(sys.argv[1], sys.argv[2])
db.execute("PRAGMA journal_mode=" + sys.argv[3])
db.execute("PRAGMA cache_size=15")
db.execute("PRAGMA wal_autocheckpoint=" + sys.argv[4])
print("ready", flush=True)
n = db.execute("SELECT n FROM first").fetchone()[0]
while True:
    n += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE first SET n = ?", (n,))
    db.execute("UPDATE filler SET data = randomblob(700) WHERE id % 7 = ?", (n % 7,))
    if n % 3 == 0: db.execute("DELETE FROM filler WHERE id % 11 = ?", (n % 11,))
    if n % 3 == 1: db.executemany("INSERT INTO filler(data) VALUES(?)", [(os.urandom(900),) for _ in range(60)])
    db.execute("UPDATE last SET n = ?", (n,))
    db.execute("COMMIT")
    print(n, flush=True)
"""

CHECK = """
db = connect(sys.argv[1], sys.argv[2])
print(db.execute("PRAGMA integrity_check").fetchone()[0])
print(*db.execute("SELECT first.n, last.n FROM first, last").fetchone())
"""


class Checker:
    """A program that stays: checks after each kill without the start of another."""

    def __init__(self, new_host):
        self.new_host, self.host = new_host, new_host()

    def __call__(self, path, key=RAW):
        db = self.host.open(path, encryption_key=key)
        try:
            assert db.one("PRAGMA integrity_check") == "ok"
            ((first, last),) = db("SELECT first.n, last.n FROM first, last")
            assert first == last, "half a transaction"
            return first
        finally:
            db.close()


def kill_after(process, seconds):
    """Kills the program that long after it is ready; the lines it said since."""
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    time.sleep(seconds)
    process.kill()
    output, errors = process.stdout.read(), process.stderr.read()  # not communicate(): it forgets what is buffered
    process.communicate()
    assert not errors, errors
    return output.split()


@pytest.mark.parametrize("mode, checkpoint, kills", [
    ("wal", 0, 70),           # commits alone
    ("wal", 30, 200),         # checkpoints all the time
    ("delete", 0, 70), ("persist", 0, 40), ("truncate", 0, 40),
])
def test_kills_during_commits_and_checkpoints(mode, checkpoint, kills, new_host, tmp_path):
    path, rng, check = tmp_path / "a.db", random.Random(mode), Checker(new_host)
    run(SEED, path, RAW, mode)
    committed = at_work = 0
    begin, slow = time.perf_counter(), program(COMMITS, path, RAW, mode, checkpoint)
    lines = [slow.stdout.readline() for _ in range(9)]
    longest = (time.perf_counter() - begin) / 2  # four commits, or more: the start is in it
    slow.kill()
    committed = int(([*lines, *slow.stdout.read().split()])[-1])
    slow.communicate()
    committed = max(committed, check(path))
    for _ in range(kills):
        said = kill_after(program(COMMITS, path, RAW, mode, checkpoint), rng.uniform(0, longest))
        at_work += bool(said)
        found = check(path)
        acknowledged = int(said[-1]) if said else committed
        assert found in (acknowledged, acknowledged + 1), f"{acknowledged} was acknowledged, {found} is there"
        committed = found
    print(f"{kills} kills, {at_work} after a commit, {committed} commits")
    assert at_work > kills // 5
    assert_no_plaintext(tmp_path)


def test_kills_during_the_checkpoint_of_a_large_log(new_host, tmp_path):
    """200 kills of programs that do nothing but checkpoint."""
    path, rng, check = tmp_path / "a.db", random.Random(8), Checker(new_host)
    run(SEED, path, RAW, "wal")
    keeper = new_host().open(path, encryption_key=RAW)
    keeper("PRAGMA wal_autocheckpoint=0")
    expected = 0
    for _ in range(200):
        expected += 1
        keeper.script(f"BEGIN; UPDATE first SET n = {expected}; UPDATE filler SET data = randomblob(700); "
                      f"UPDATE last SET n = {expected}; COMMIT;")
        process = program("""
db = connect(sys.argv[1], sys.argv[2])
db.execute("SELECT * FROM first").fetchall()
print("ready", flush=True)
print(*db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone(), flush=True)
sys.stdin.read()
""", path, RAW)
        kill_after(process, rng.uniform(0, 0.006))
        assert keeper.one("SELECT n FROM last") == expected
    keeper.host.kill()
    assert check(path) == expected


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_kills_during_rekey(mode, new_host, tmp_path):
    """100 in each mode: afterwards exactly one of the keys is right, and everything is there."""
    path, rng = tmp_path / "a.db", random.Random(9)
    key = f"{0:064x}"
    run(SEED, path, key, mode)
    host, changed = new_host(), 0
    for _ in range(100):
        process = program("""
db = connect(sys.argv[1], sys.argv[2])
db.execute("SELECT * FROM first").fetchall()
print("ready", flush=True)
for n in range(int(sys.argv[2], 16) + 1, 10**9):
    print(f"{n:064x}", flush=True)
    db.execute("SELECT replica_rekey(?)", (f"{n:064x}",)).fetchone()
""", path, key)
        said = kill_after(process, rng.uniform(0, 0.02))
        candidates = [key, *said][-2:]
        right = [k for k in dict.fromkeys(candidates)
                 if code_of(lambda: host.open(path, encryption_key=k)("SELECT * FROM first")) != NOTADB]
        assert len(right) == 1, (key, said, right)
        changed += right[0] != key
        key = right[0]
    print(f"{changed} kills after at least one change")
    assert changed > 50
    db = host.open(path, encryption_key=key)
    assert db.one("PRAGMA integrity_check") == "ok"
    assert db.one("SELECT count(*) FROM filler") == 600


def test_kills_during_creation(new_host, tmp_path):
    rng, host = random.Random(10), new_host()
    there = 0
    for i in range(60):
        path = tmp_path / f"{i}.db"
        process = program("""
print("ready", flush=True)
db = connect(sys.argv[1], sys.argv[2])
db.execute("CREATE TABLE t(v)")
print("created", flush=True)
sys.stdin.read()
""", path, RAW)
        said = kill_after(process, rng.uniform(0, 0.02))
        db = host.open(path, encryption_key=RAW)
        tables = db.one("SELECT count(*) FROM sqlite_schema")
        assert tables or not said
        there += tables
        db("CREATE TABLE IF NOT EXISTS t(v)")
        db.close()
    print(f"{there} of 60 were there")
    assert there


def test_vacuum_killed(new_host, tmp_path):
    path, rng, check = tmp_path / "a.db", random.Random(12), Checker(new_host)
    run(SEED, path, RAW, "delete")
    for _ in range(40):
        process = program("""
db = connect(sys.argv[1], sys.argv[2])
db.execute("PRAGMA cache_size=10")
print("ready", flush=True)
while True: db.execute("VACUUM")
""", path, RAW)
        kill_after(process, rng.uniform(0, 0.05))
        assert check(path) == 0
