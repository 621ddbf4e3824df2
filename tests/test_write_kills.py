"""kill -9 of a writing process, 200 times: a sound file after each, nothing acknowledged lost, nothing ahead of the primary."""
import random
import shutil
import subprocess
import threading
import time

import pytest
from harness.check import identical, together
from harness.host import replica_uri
from harness.paths import LIB, PYTHON
from harness.shell import stock

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE acts(n INTEGER PRIMARY KEY, rows INTEGER);
CREATE TABLE data(id INTEGER PRIMARY KEY, act INTEGER, v BLOB);
CREATE INDEX by_v ON data(substr(v, 1, 20));
"""
# Growth, a freelist that shrinks and grows, new tables; each act one transaction that proves itself.
WRITER = f"""
import random, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
uri, seed = sys.argv[1:]
rng = random.Random(seed)
db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=20)
db.execute("PRAGMA cache_size = 10")
while True:
    try:
        db.execute("BEGIN IMMEDIATE")
        n = db.execute("SELECT 1 + coalesce(max(n), 0) FROM acts").fetchone()[0]
        kind = rng.randrange(5)
        if kind == 0:
            db.execute(f"CREATE TABLE made_{{n}}(x)")
        if kind == 1:
            for name, in db.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'made%' LIMIT 3").fetchall():
                db.execute(f"DROP TABLE {{name}}")
        if kind == 2:
            db.execute("DELETE FROM data WHERE id % 3 = ?", [n % 3])
        if kind > 2:
            db.executemany("INSERT INTO data(act, v) VALUES(?, randomblob(?))",
                           [(n, rng.randrange(5000)) for _ in range(rng.randrange(1, 40))])
        db.execute("UPDATE data SET v = randomblob(50) WHERE id % 11 = ?", [n % 11])
        db.execute("INSERT INTO acts SELECT ?, count(*) FROM data", [n])
        db.execute("COMMIT")
        print("done", n, flush=True)
    except sqlite3.OperationalError as error:
        print("error", error.sqlite_errorname, flush=True)
        if error.sqlite_errorcode & 255 not in (5, 8):
            raise
        if db.in_transaction:
            db.execute("ROLLBACK")
"""
# The rows are those of the last act.
SOUND = "PRAGMA integrity_check; SELECT (SELECT rows FROM acts WHERE n = (SELECT max(n) FROM acts)) = count(*) FROM data;"
LANES, KILLS = 5, 20


class Lane:
    """One replica, written to by one process after the other; each is killed."""

    def __init__(self, primary, proxy, path, write_lock, seed):
        self.primary, self.proxy, self.path = primary, proxy, path
        self.uri = replica_uri(path, proxy.url, write_lock=write_lock, timeout=5)
        self.watched = seed.endswith(" 0")  # a stock program reads it all the time
        self.rng, self.done, self.in_between = random.Random(seed), 0, 0

    def copy(self):
        """The files as the dead one left them."""
        copy = self.path.with_name("copy " + self.path.name)
        for end in "", "-wal":
            shutil.copy(f"{self.path}{end}", f"{copy}{end}")
        return copy

    def kill_one(self, number):
        writer = subprocess.Popen([PYTHON, "-c", WRITER, self.uri, str(number)], text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        line = writer.stdout.readline()
        time.sleep(self.rng.uniform(0, 0.12))
        writer.kill()
        output, errors = writer.communicate()
        assert not errors, errors
        said = [line.split() for line in (line + output).splitlines(True) if line.endswith("\n")]
        assert ["done"] in [words[:1] for words in said], said
        acknowledged = max(int(words[1]) for words in said if words[0] == "done")
        # A shell that is the last to close checkpoints and takes the log away; else the next writer recovers.
        looked_at = self.path if number % 2 or self.watched else self.copy()
        ((there,),) = self.primary.sql("SELECT max(n) FROM acts")
        result = stock(looked_at, SOUND)
        assert result == "ok\n1", result
        here = int(stock(looked_at, "SELECT max(n) FROM acts;"))
        assert acknowledged <= there, "acknowledged, and not at the primary"
        assert acknowledged <= here <= there, (acknowledged, here, there)
        self.in_between += there > here  # killed between the two commits
        self.done += 1
        self.proxy.close_streams()  # what the dead one had open holds the lock for 5 s


@pytest.mark.parametrize("write_lock", ["eager", "optimistic"])
def test_kills(write_lock, new_primary, new_fault_proxy, new_host, tmp_path):
    lanes = []
    for n in range(LANES):
        primary = new_primary(SEED)
        lanes.append(Lane(primary, new_fault_proxy(primary.url), tmp_path / f"{n}.db", write_lock, f"{write_lock} {n}"))
    stop = threading.Event()

    def run(lane):
        try:
            for number in range(KILLS):
                lane.kill_one(number)
        finally:
            stop.set() if lane is lanes[0] else None

    def read(lane):
        """A stock program that looks on: whole transactions, at every moment."""
        while not lane.path.exists():
            time.sleep(0.05)
        reads = 0
        while not stop.is_set():
            result = stock(lane.path, SOUND)
            assert result in ("ok\n1", "ok"), result  # "ok": before the first act
            reads += 1
            time.sleep(0.1)
        assert reads > 10

    together(*[lambda lane=lane: run(lane) for lane in lanes], lambda: read(lanes[0]))
    assert sum(lane.done for lane in lanes) == LANES * KILLS
    print(f"{write_lock}: {sum(lane.in_between for lane in lanes)} of {LANES * KILLS} between the two commits")
    for lane in lanes:
        db = new_host().open(lane.path, lane.primary.url)
        db.sync()
        assert lane.primary.sql("PRAGMA integrity_check") == [["ok"]]
        identical(lane.path, lane.primary)
