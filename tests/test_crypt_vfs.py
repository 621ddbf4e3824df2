"""Encrypted databases and other VFSs: the library's inner one is its own, those of others stand on top; shared caches."""
import pytest
from harness import topvfs
from harness.crypt import KEY, RAW, assert_no_plaintext, code_of, local_uri, program, run
from harness.host import CANTOPEN
from harness.host import replica_uri

MODES = ["delete", "truncate", "persist", "wal"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def fill(db):
    db("CREATE TABLE t(v)")
    db("INSERT INTO t VALUES('plaintext-marker')")


def test_the_inner_vfs_opens_for_nobody_else(host, folder):
    path = folder / "a.db"
    db = host.open(path, encryption_key=KEY)
    fill(db)
    fill(host.plain(folder / "plain.db"))
    for target in (path, folder / "plain.db", folder / "new.db"):
        assert code_of(lambda: host.plain(f"file:{target}?vfs=replica-crypt", uri=True)("SELECT * FROM t")) == CANTOPEN
        assert "vfs=replica" in host.last_error()
        assert code_of(lambda: db(f"ATTACH 'file:{target}?vfs=replica-crypt' AS other")) == CANTOPEN
        assert code_of(lambda: db(f"VACUUM INTO 'file:{target}2?vfs=replica-crypt'")) == CANTOPEN
    assert not (folder / "new.db").exists()
    assert db("SELECT v FROM t") == [("plaintext-marker",)]


def test_who_has_the_file_open_without_its_key_does_not_change_it(host, folder):
    path = folder / "a.db"
    db = host.open(path, encryption_key=KEY)
    fill(db)
    stock = host.plain(f"file:{path}?vfs=unix", uri=True)
    assert code_of(lambda: stock("SELECT replica_rekey('mine')")) == 1
    db.close()
    assert host.open(path, encryption_key=KEY)("SELECT v FROM t") == [("plaintext-marker",)]


@pytest.mark.parametrize("mode", MODES)
def test_a_vfs_on_top(mode, folder):
    """With names of its own for logs and journals, and nothing readable in front of them."""
    told = run(topvfs.PROGRAM + """
top("one", "replica")
top("two", "one")
def open_(path, vfs):
    db = connect(path, sys.argv[2], vfs=vfs)
    assert db.execute("PRAGMA journal_mode=" + sys.argv[3]).fetchone()[0] == sys.argv[3]
    db.execute("PRAGMA cache_size=5")
    return db
for vfs in ("one", "two", "replica"):
    db, other = open_(sys.argv[1], vfs), open_(sys.argv[1], vfs)
    db.execute("CREATE TABLE IF NOT EXISTS t(v)")
    for _ in range(3):
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES(?)", [("plaintext-marker" * 50,)] * 300)
        db.execute("ROLLBACK")
        db.execute("INSERT INTO t VALUES('plaintext-marker')")
        other.execute("INSERT INTO t VALUES('plaintext-marker')")
    db.execute("PRAGMA temp_store=file")
    db.execute("CREATE TEMP TABLE copy AS SELECT * FROM t")
    db.execute("ATTACH ? AS more", (f"file:{sys.argv[1]}2?vfs={vfs}&encryption_key={sys.argv[2]}",))
    db.execute("CREATE TABLE IF NOT EXISTS more.t(v)")
    db.execute("BEGIN"); db.execute("INSERT INTO more.t VALUES(1)"); db.execute("INSERT INTO t VALUES(1)"); db.execute("COMMIT")
    if sys.argv[3] != "wal": db.execute("VACUUM")
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    other.close(); db.close()
print(open_(sys.argv[1], "replica").execute("SELECT count(*) FROM t").fetchone()[0])
""", folder / "a.db", RAW, mode, topvfs.built())
    assert told == "21"
    assert_no_plaintext(folder)


def test_a_vfs_on_top_of_a_replica(primary, path):
    """Its log is watched as ever: what is written there is at the primary."""
    told = run(topvfs.PROGRAM + """
top("one", "replica")
dbs = [sqlite3.connect(sys.argv[1].replace("vfs=replica", "vfs=" + vfs), uri=True, isolation_level=None) for vfs in ("one", "one", "replica")]
for n, db in enumerate(dbs):
    db.execute("PRAGMA busy_timeout=5000")
    db.execute("INSERT INTO users(name) VALUES(?)", (f"by {n}",))
print([db.execute("SELECT count(*) FROM users WHERE name LIKE 'by _'").fetchone()[0] for db in dbs])
""", replica_uri(path, primary.url), topvfs.built())
    assert told == "[3, 3, 3]"
    assert primary.sql("SELECT count(*) FROM users WHERE name LIKE 'by _'") == [[3]]


def test_a_vfs_on_top_that_sends_temporary_files_elsewhere(folder):
    """An encrypted database may be attached where they come to us, and nowhere else."""
    told = run(topvfs.PROGRAM + """
top("ours", "replica")
top("theirs", "unix")
connect(sys.argv[1], sys.argv[2]).execute("CREATE TABLE IF NOT EXISTS t(v)")
for main in (f"file:{sys.argv[1]}.plain?vfs=ours", f"file:{sys.argv[1]}.plain?vfs=theirs", f"file:{sys.argv[1]}.plain", ":memory:"):
    db = sqlite3.connect(main, uri=True)
    db.execute("CREATE TABLE IF NOT EXISTS p(v)")
    try:
        db.execute("ATTACH ? AS secret", (f"file:{sys.argv[1]}?vfs=replica&encryption_key={sys.argv[2]}",))
        print("attached", end=" ")
    except sqlite3.OperationalError as error:
        print("refused", end=" ")
""", folder / "a.db", RAW, topvfs.built())
    assert told == "attached refused refused refused"


def test_threads_that_share_a_cache(folder):
    """Each opens, works, attaches, closes: nobody waits for anybody for ever."""
    code = """
import ctypes, ctypes.util, threading
lib = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
assert lib.sqlite3_enable_shared_cache(1) == 0
connect(sys.argv[1], sys.argv[2]).execute("CREATE TABLE t(v)")
def work(n):
    for i in range(60):
        db = connect(sys.argv[1], sys.argv[2], cache="shared")
        for _ in range(50):
            try:
                db.execute("INSERT INTO t VALUES(?)", (n,))
                db.execute("SELECT count(*) FROM t").fetchall()
                break
            except sqlite3.OperationalError as error:
                assert "locked" in str(error), error
        db.close()
threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
print("done" if not any(thread.is_alive() for thread in threads) else "they hang", flush=True)
os._exit(0)
"""
    process = program(code, folder / "a.db", RAW)
    output, errors = process.communicate(timeout=100)
    assert output == "done\n" and not errors, (output, errors)


def test_vacuum_into_smaller_pages(host, folder):
    db = host.open(folder / "a.db", encryption_key=RAW)
    db("CREATE TABLE t AS SELECT hex(randomblob(900)) AS v FROM (WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n "
       "WHERE i < 50) SELECT i FROM n)")
    db("PRAGMA page_size=1024")
    assert code_of(lambda: db("VACUUM")) == 8
    assert "VACUUM INTO" in host.last_error()
    assert db.one("PRAGMA page_size") == 4096 and db.one("PRAGMA integrity_check") == "ok"
    db(f"VACUUM INTO '{local_uri(folder / 'small.db', RAW)}'")
    small = host.open(folder / "small.db", encryption_key=RAW)
    assert (small.one("PRAGMA page_size"), small.one("SELECT count(*) FROM t")) == (1024, 50)
    assert small.one("PRAGMA journal_mode=wal") == "wal"
    db("PRAGMA page_size=4096")
    db("VACUUM")
    assert db.one("SELECT count(*) FROM t") == 50
