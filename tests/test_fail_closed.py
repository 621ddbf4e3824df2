"""A replica's bytes change by what is known and in no other way, whatever the SQLite above does (src/vfs/access.rs)."""
import json
import subprocess
from pathlib import Path

import pytest
from harness import host
from harness.check import identical
from harness.crypt import RAW
from harness.host import replica_uri
from harness.paths import LIB, PYTHON

OK, BUSY, READONLY, CANTOPEN = 0, 5, 8, 14
PROGRAM = Path(host.__file__).with_name("raw_file.py")


@pytest.mark.parametrize("options", [{}, {"encryption_key": RAW}], ids=["plain", "encrypted"])
def test_what_no_sqlite_does(path, new_primary, options):
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL)")
    done = subprocess.run([PYTHON, PROGRAM, LIB, replica_uri(path, primary.url, **options)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    results = json.loads(done.stdout)
    refused = lambda count: [READONLY] * count
    assert results.pop("a write to the file") == refused(2)
    assert results.pop("a cut of the file") == refused(2)
    assert results.pop("a commit that nobody announced") == refused(2)
    assert results.pop("the log anew") == refused(1)
    assert results.pop("a cut of the log") == refused(1)
    assert results.pop("rollback mode") == refused(4)
    assert results.pop("to be alone") == [BUSY, READONLY, OK]
    assert results.pop("the write lock before a read lock") == [BUSY]
    assert results.pop("locks in one") == refused(1)
    assert results.pop("other forms of writes") == refused(3)
    assert results.pop("the file in a transaction") == [READONLY, READONLY, CANTOPEN]
    assert results.pop("a checkpoint in a transaction") == refused(1)
    assert results.pop("a reader's transaction") == [OK, OK, READONLY, OK, OK, READONLY]
    assert results.pop("journal mode") == ["wal", "wal"]
    code, words = results.pop("exclusive")
    assert code == CANTOPEN and "locking_mode=NORMAL" in words
    assert results.pop("own locking mode") == ["normal", "normal"]
    assert results.pop("rows") == "before,attached,behind"
    assert results.pop("integrity") == "ok"
    assert not results
    assert primary.sql("SELECT v FROM t") == [["before"], ["attached"], ["behind"]]
    if not options:
        identical(path, primary)
