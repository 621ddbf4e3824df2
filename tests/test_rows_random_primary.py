"""The differential property through a real primary: random schemas and random transactions on a replica that ships rows;
after every commit both have the same content, and in the end the same bytes. ROWS_SEED=n ROWS_CASES=1 repeats a case."""
import json
import os
import random
import subprocess
from collections import Counter

import pytest
from harness.check import same_bytes
from harness.host import DEFAULTS, replica_uri
from harness.paths import LIB, PYTHON, REPO
from harness.rows import content, differences
from harness.shell import file_bytes, python

CASES, STEPS = int(os.environ.get("ROWS_CASES", 12)), 12
PROGRAM = f"""
import json, random, sqlite3, sys
sys.path.insert(0, {str(REPO / "tests")!r})
from harness import random_rows
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
def connect(uri):
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    db.text_factory = bytes
    return db
random_rows.connect = connect
case = random_rows.Case(random.Random(int(sys.argv[2])), sys.argv[1])
last = lambda: (case.db.execute("SELECT replica_last_error()").fetchone()[0] or b"").decode()
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    done, before = case.transaction(), last()
    print(json.dumps([done, None if done else str(case.failed), before]), flush=True)
    if line == "sync\\n":
        case.db.execute("SELECT replica_sync()").fetchall()
"""


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_random_transactions_at_a_primary(lock, new_primary, tmp_path, monkeypatch):
    monkeypatch.setitem(DEFAULTS, "write_path", "rows")
    first = int(os.environ.get("ROWS_SEED", random.randrange(10**9)))
    refused, commits = Counter(), 0
    for seed in range(first, first + CASES):
        primary = new_primary()
        path, there = tmp_path / f"{seed}.db", tmp_path / "primary.db"
        case = subprocess.Popen([PYTHON, "-c", PROGRAM, replica_uri(path, primary.url, write_lock=lock), str(seed)], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert case.stdout.readline() == '"ready"\n', case.stderr.read()
            for step in range(STEPS):
                case.stdin.write("sync\n" if step % 4 == 3 else "go\n")
                case.stdin.flush()
                line = case.stdout.readline()
                assert line, case.stderr.read()
                done, error, why = json.loads(line)
                commits += done
                if not done:
                    assert "readonly" in error or "no transaction" in error, (error, why)
                    refused[why[:70]] += 1
                there.write_bytes(primary.image().bytes())
                found = differences(content(path), content(there))
                assert not found, "\n".join(found)
            case.stdin.close()
            assert case.wait(30) == 0, case.stderr.read()
            python(f"open_replica({str(path)!r}).execute('SELECT replica_sync()').fetchall()")
            same_bytes(file_bytes(path), primary.image().bytes())
        except AssertionError as e:
            raise AssertionError(f"ROWS_SEED={seed}, {lock}: {e}") from e
        finally:
            case.kill()
            case.wait()
            primary.kill()
    print(f"seeds {first}..{first + CASES - 1}: {commits} commits, refused: {refused}")
    assert commits > sum(refused.values()) * 4
