"""kill -9 of a writing process at any moment: nothing acknowledged is lost, nothing local is ahead of the primary."""
import random
import subprocess
import time

import pytest
from harness.check import identical
from harness.host import DEFAULTS
from harness.paths import PYTHON
from harness.shell import PRELUDE, integrity

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE t(id INTEGER PRIMARY KEY, x);
CREATE TABLE log(n INTEGER PRIMARY KEY);
CREATE INDEX t_x ON t(substr(x, 1, 8));
"""
# Growth, a freelist that comes and goes, schema changes, spilled pages: page 1 changes as often as not.
WRITER = """
import random, sys
path, url, lock, first = sys.argv[1:]
db = open_replica(path, url, write_lock=lock)
db.execute("PRAGMA cache_size = 20")
n = int(first)
while True:
    n += 1
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO log VALUES(?)", (n,))
        db.execute("INSERT INTO t(x) SELECT randomblob(?) FROM (VALUES(1), (2), (3))", (random.randrange(20000),))
        if n % 5 == 0:
            db.execute("DELETE FROM t WHERE id % 3 = ?", (n // 5 % 3,))
        if n % 7 == 0:
            db.execute(f"CREATE TABLE t{n}(x)")
            db.execute(f"DROP TABLE IF EXISTS t{n - 7}")
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        # The one that was killed may have had the primary's lock: it gives it to another after 5 s.
        if db.in_transaction:
            db.execute("ROLLBACK")
        n = db.execute("SELECT max(n) FROM log").fetchone()[0] or 0
        continue
    print(n, flush=True)
"""


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_kills_of_a_writer(lock, path, new_primary, new_fault_proxy, new_host):
    chance = random.Random(lock)
    primary = new_primary(SEED)
    proxy = new_fault_proxy(primary.url)
    acknowledged = 0
    for n in range(25):
        writer = subprocess.Popen([PYTHON, "-c", f"DEFAULTS = {DEFAULTS!r}" + PRELUDE + WRITER, path, proxy.url, lock, str(acknowledged)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = writer.stdout.readline()
        assert first, writer.stderr.read()
        time.sleep(chance.uniform(0, 0.1))
        writer.kill()
        seen = [int(line) for line in [first, *writer.stdout.readlines()] if line.endswith("\n")]
        writer.wait()
        if n % 5:  # else the dead one may leave the primary locked for 5 s
            proxy.close_streams()
        assert integrity(path) == "ok"
        numbers = {n for (n,) in map(tuple, primary.sql("SELECT n FROM log"))}
        assert set(seen) <= numbers, (seen[-3:], max(numbers))
        acknowledged = max(numbers)
        assert numbers == set(range(1, acknowledged + 1))
    replica = new_host().open(path, primary.url)
    replica.sync()
    assert replica.one("SELECT max(n) FROM log") == acknowledged
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(path, primary)
