"""Several writers on one file: each has its turn."""
import os
import signal
import subprocess
import time

import pytest
from harness.check import fails, identical
from harness.host import BUSY, replica_uri
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


TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, who TEXT NOT NULL)"
WRITE = "INSERT INTO t(who) VALUES('x')"


def test_who_does_not_wait_stands_in_nobody_s_way(path, new_primary, host):
    primary = new_primary(TABLE)
    first, second = (host.open(path, primary.url) for _ in range(2))
    second("PRAGMA busy_timeout = 0")
    first("BEGIN IMMEDIATE")
    fails(lambda: second(WRITE), BUSY)
    first(WRITE)
    first("COMMIT")
    first("PRAGMA busy_timeout = 0")
    first(WRITE)
    second(WRITE)
    assert primary.sql("SELECT count(*) FROM t") == [[3]]


def test_a_stopped_process_that_waits_stops_nobody(path, new_primary, new_host):
    primary = new_primary(TABLE)
    writer, waiter = new_host(), new_host()
    first, second = writer.open(path, primary.url), waiter.open(path, primary.url)
    first("BEGIN IMMEDIATE")
    waiting = second.start(WRITE)
    time.sleep(0.2)
    os.kill(waiter.pid, signal.SIGSTOP)
    try:
        first(WRITE)
        first("COMMIT")
        for _ in range(3):
            first(WRITE)
    finally:
        os.kill(waiter.pid, signal.SIGCONT)
    waiting.result(30)
    assert primary.sql("SELECT count(*) FROM t") == [[5]]


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
