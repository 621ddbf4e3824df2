"""Several writers on one file: each has its turn."""
import os
import subprocess
import time

import pytest
from harness.check import identical
from harness.host import replica_uri
from harness.paths import LIB, PYTHON

PROGRAM = """
import sqlite3, sys, threading, time
library, uri, name, ends, threads = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5])
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
done = [0] * threads
def write(thread):
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    while time.time() < ends:
        db.execute("INSERT INTO t(who) VALUES(?)", (f"{name}.{thread}",))
        done[thread] += 1
    db.close()
workers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(*done)
"""


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the queue is Linux's locks")
@pytest.mark.parametrize("processes, threads", [(3, 1), (1, 4), (2, 2)])
def test_nobody_starves(path, new_primary, host, processes, threads):
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, who TEXT NOT NULL)")
    db = host.open(path, primary.url)
    ends = time.time() + 6
    args = [PYTHON, "-c", PROGRAM, LIB, replica_uri(path, primary.url)]
    running = [subprocess.Popen([*args, str(n), str(ends), str(threads)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for n in range(processes)]
    counts = []
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        counts += map(int, out.split())
    print(counts)
    rows = primary.sql("SELECT count(*) FROM t GROUP BY who")
    assert sorted(row[0] for row in rows) == sorted(counts), "what was acknowledged is there, once"
    assert min(counts) > 10 and min(counts) * 4 > max(counts), counts
    db.sync()
    identical(path, primary)
