"""Power cuts in random transactions over encrypted databases (`crypt_crash/`; thousands of them: `tests/crypt_crash/run.py`), and
the cases that SQLite's own crash tests found, each by itself."""
import errno
import itertools
import os
import sys
from pathlib import Path

import pytest
from harness.crash import run as crash
from harness.crypt import PRELUDE, RAW, code_of, local_uri
from harness.host import NOTADB
from harness.shell import stock

sys.path.insert(0, str(Path(__file__).with_name("crypt_crash")))
CORRUPT = 11


@pytest.mark.parametrize("seeds", [range(0, 40), range(1000, 1040)])
def test_power_cuts(seeds):
    from run import LIB, one_seed
    counts = [one_seed(seed, 6, LIB) for seed in seeds]
    stock_cuts, keyed = map(sum, zip(*counts))
    print(f"{stock_cuts} of stock SQLite, {keyed} with a key")
    assert keyed == stock_cuts == 6 * len(seeds)


FIRST = PRELUDE + f"""
db = connect(sys.argv[1], {RAW!r})
db.execute("PRAGMA cache_size=3")
db.execute("BEGIN")
db.execute("CREATE TABLE t(v)")
db.executemany("INSERT INTO t VALUES(?)", [("x" * 900,)] * 60)
db.execute("COMMIT")
"""
BACKUP = PRELUDE + f"""
source = sqlite3.connect(":memory:")
source.execute("CREATE TABLE t(v)")
source.executemany("INSERT INTO t VALUES(?)", [("x" * 900,)] * 60)
source.commit()
source.backup(connect(sys.argv[1], {RAW!r}), pages=5)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.mark.parametrize("program", [FIRST, BACKUP], ids=["transaction", "backup"])
def test_killed_in_the_first_transaction(program, folder, host):
    """An empty file or all of it; with zeros or garbage for what was written, too."""
    path, seen = folder / "a.db", set()
    for at in itertools.count(1, 11):
        for damage in (None, b"\0", b"\x5a"):
            for file in folder.iterdir():
                file.unlink()
            _, code = crash(program, path, folder=folder, at=at)
            if damage and code and (folder / "a.db-journal").exists() and path.exists():
                path.write_bytes(damage * path.stat().st_size)
            db = host.open(path, encryption_key=RAW)
            tables = db.one("SELECT count(*) FROM sqlite_schema")
            if not (damage and code):
                seen.add(tables)
            if code:
                assert tables == 0 or not (folder / "a.db-journal").exists()
            assert db.one("PRAGMA integrity_check") == "ok"
            assert db.one("PRAGMA journal_mode=wal") == "wal"
            db("CREATE TABLE more(v)")
            db.close()
            assert host.open(path, encryption_key=RAW).one("SELECT count(*) FROM sqlite_schema") == tables + 1
        if code == 0:
            break
    assert seen == {0, 1}


def test_a_second_connection_during_the_first_transaction(folder, host):
    path = folder / "a.db"
    db = host.open(path, encryption_key=RAW)
    db("PRAGMA cache_size=3")
    db("BEGIN")
    db("CREATE TABLE t AS SELECT hex(randomblob(900)) AS v FROM (WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n "
       "WHERE i < 60) SELECT i FROM n)")
    assert path.stat().st_size > 10_000
    other = host.open(path, encryption_key=RAW)
    db("COMMIT")
    assert other.one("SELECT count(*) FROM t") == 60
    assert other.one("PRAGMA journal_mode=wal") == "wal"


def test_a_file_that_only_looks_like_the_rest_of_a_first_transaction(folder, host):
    """A plain database with its own journal is nobody's leftovers."""
    path = folder / "a.db"
    stock(path, "CREATE TABLE t(a);")
    (folder / "a.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    before = path.read_bytes()
    assert code_of(lambda: host.open(path, encryption_key=RAW)("CREATE TABLE u(a)")) == NOTADB
    assert path.read_bytes() == before


HOT = PRELUDE + f"""
db = connect(sys.argv[1], {RAW!r})
db.execute("PRAGMA journal_mode=" + sys.argv[2])
db.execute("CREATE TABLE t(v)")
db.execute("INSERT INTO t VALUES(1)")
db.execute("PRAGMA cache_size=3")
if sys.argv[2] != "wal":
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES(2)")
os._exit(0)
"""


@pytest.mark.parametrize("left", [b"\0", b"\x5a", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"])
@pytest.mark.parametrize("mode", ["delete", "persist", "wal"])
def test_a_first_block_that_never_came(mode, left, folder, host):
    """Of a journal, or of a log: what SQLite takes for none is none, and the database goes on."""
    path = folder / "a.db"
    assert crash(HOT, path, mode, folder=folder)[1] == 0
    companion = folder / ("a.db-wal" if mode == "wal" else "a.db-journal")
    data = companion.read_bytes()
    companion.write_bytes((left * 512)[:min(512, len(data))] + data[512:])
    (folder / "a.db-shm").unlink(missing_ok=True)
    db = host.open(path, encryption_key=RAW)
    found = db.one("SELECT count(*) FROM sqlite_schema")
    assert found == (0 if mode == "wal" else 1)
    db("CREATE TABLE more(v)")
    assert db.one("PRAGMA integrity_check") == "ok"
    db.close()
    assert host.open(path, encryption_key=RAW).one("SELECT count(*) FROM sqlite_schema") == found + 1


TWO = PRELUDE + """
db = connect(sys.argv[1], sys.argv[2] or None)
db.execute("PRAGMA cache_size=3")
db.execute("ATTACH ? AS other", (sys.argv[3],))
for schema in ("main", "other"):
    db.execute(f"PRAGMA {schema}.journal_mode = {sys.argv[4]}")
    db.execute(f"CREATE TABLE {schema}.t(v)")
print("made", flush=True)
db.execute("BEGIN")
for schema in ("main", "other"):
    db.executemany(f"INSERT INTO {schema}.t VALUES(?)", [("x" * 500,)] * 40)
db.execute("COMMIT")
print("committed", flush=True)
"""


@pytest.mark.parametrize("mode, keys", [("delete", (RAW, RAW)), ("truncate", (RAW, "5f" * 32)), ("persist", ("", RAW)),
                                        ("delete", ("", RAW)), ("delete", (RAW, ""))])
def test_a_transaction_over_two_databases_killed(mode, keys, folder, host):
    """Whichever is opened first, with or without the other's key in the process: both agree."""
    ends, names = set(), ["a.db", "b.db"]
    for turn, at in enumerate(itertools.count(1, 13)):
        for file in folder.iterdir():
            file.unlink()
        target = local_uri(folder / "b.db", keys[1] or None)
        output, code = crash(TWO, folder / "a.db", keys[0], target, mode, folder=folder, at=at)
        if "made" not in output:
            continue
        rows = {}
        for name in names if turn % 2 else reversed(names):
            key = keys[names.index(name)]
            if key:
                db = host.open(folder / name, encryption_key=key)
                rows[name] = db.one("SELECT count(*) FROM t")
                db.close()
            else:  # a stock program knows no key, and must not take the super-journal from the other
                rows[name] = int(stock(folder / name, "SELECT count(*) FROM t;"))
        assert rows["a.db"] == rows["b.db"] and rows["a.db"] in (0, 40), (at, rows, output)
        assert rows["a.db"] == 40 or "committed" not in output
        ends.add(rows["a.db"])
        if code == 0:
            break
    assert ends == {0, 40}


REKEY = PRELUDE + """
db = connect(sys.argv[1], sys.argv[2])
db.execute("SELECT * FROM t").fetchall()
try:
    print("changed", db.execute("SELECT replica_rekey(?)", (sys.argv[3],)).fetchone()[0])
except sqlite3.Error as error:
    print("failed", error)
"""


def test_a_change_of_the_key_that_fails(folder, host):
    """At whichever write or sync: it has not happened, or it says that it has."""
    said = []
    for at in range(1, 7):
        path = folder / f"{at}.db"
        db = host.open(path, encryption_key=RAW)
        db("CREATE TABLE t(v)")
        db.close()
        output, code = crash(REKEY, path, RAW, "5f" * 32, folder=folder, at=at, error=errno.EIO)
        said.append(output.split()[0])
        old, new = (code_of(lambda: host.open(path, encryption_key=key)("SELECT * FROM t")) for key in (RAW, "5f" * 32))
        assert (old, new) == ((NOTADB, None) if said[-1] == "changed" else (None, NOTADB)), (at, output)
        assert code == 0, output
    # Two writes and two syncs: the first slot's decide, the second's do not.
    assert said[:4] == ["failed", "failed", "changed", "changed"]
