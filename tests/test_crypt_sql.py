"""All of SQLite on an encrypted database: modes, page sizes, VACUUM, backup, ATTACH, many connections and processes."""
import pytest
from harness.crypt import KEY, RAW, assert_no_plaintext, code_of, local_uri, program, run
from harness.host import BUSY
from harness.shell import stock

MODES = ["delete", "truncate", "persist", "memory", "off", "wal"]
SIZES = [512, 1024, 2048, 4096, 8192, 16384, 65536]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def fill(db, rows=1500):
    db("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
    db("CREATE INDEX by_v ON t(substr(v, 20))")
    db(f"WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
       "INSERT INTO t(v) SELECT 'plaintext-marker ' || i || hex(randomblob(40)) FROM n")


def content(db):
    assert db.one("PRAGMA integrity_check") == "ok"
    return db("SELECT * FROM t")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_modes_and_page_sizes(mode, size, new_host, folder):
    path, host = folder / "a.db", new_host()
    db = host.open(path, encryption_key=RAW)
    db(f"PRAGMA page_size={size}")
    assert db.one(f"PRAGMA journal_mode={mode}") == mode
    db("PRAGMA cache_size=8")
    fill(db)
    before = content(db)
    if mode != "off":
        db("BEGIN")
        db("UPDATE t SET v = v || ' changed'")
        db("SAVEPOINT s")
        db("DELETE FROM t WHERE id % 3")
        db("ROLLBACK TO s")
        db("ROLLBACK")
        assert content(db) == before
    db("DELETE FROM t WHERE id > 100")
    if mode != "wal":
        db("VACUUM")
    else:
        db("VACUUM")
        db("PRAGMA wal_checkpoint(TRUNCATE)")
    assert db.one("PRAGMA page_size") == size
    assert_no_plaintext(folder)
    host.close()
    db = new_host().open(path, encryption_key=RAW)
    assert content(db) == before[:100]
    assert db.one("PRAGMA page_size") == size


def test_through_all_modes(new_host, folder):
    host = new_host()
    db = host.open(folder / "a.db", encryption_key=RAW)
    fill(db)
    before = content(db)
    for mode in [*MODES, *reversed(MODES), "wal", "delete", "wal"]:
        assert db.one(f"PRAGMA journal_mode={mode}") == mode
        db("BEGIN")
        db("UPDATE t SET v = upper(v) WHERE id % 5 = 0")
        if mode != "off":
            db("ROLLBACK")
            assert content(db) == before
        else:
            db("COMMIT")
            before = content(db)
    db("PRAGMA locking_mode=exclusive")
    db("DELETE FROM t WHERE id = 1")
    other = new_host().open(folder / "a.db", encryption_key=RAW)
    other("PRAGMA busy_timeout=0")
    assert code_of(lambda: other("SELECT * FROM t")) == BUSY
    host.close()
    assert content(other) == before[1:]


def test_vacuum_into_larger_pages_and_auto_vacuum(new_host, folder):
    db = new_host().open(folder / "a.db", encryption_key=RAW)
    db("PRAGMA page_size=1024")
    fill(db)
    before = content(db)
    for size in (4096, 65536, 1024, 8192):
        db(f"PRAGMA page_size={size}")
        db("PRAGMA auto_vacuum=full")
        db("VACUUM")
        assert db.one("PRAGMA page_size") == size
        assert content(db) == before
    pages = db.one("PRAGMA page_count")
    db("DELETE FROM t WHERE id % 2")
    assert db.one("PRAGMA page_count") < pages
    assert db.one("PRAGMA integrity_check") == "ok"


def test_pages_smaller_than_the_cells(new_host, folder):
    """The page size can only shrink to that of the cells; what a backup makes smaller nevertheless works."""
    db = new_host().open(folder / "a.db", encryption_key=RAW)
    fill(db)
    db("PRAGMA page_size=1024")
    assert code_of(lambda: db("VACUUM")) == 8
    assert db.one("PRAGMA page_size") == 4096
    run("""
source = connect(sys.argv[1])
source.execute("PRAGMA page_size=1024")
source.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
source.executemany("INSERT INTO t(v) VALUES(?)", [("x" * 300,)] * 999)
source.backup(connect(sys.argv[2], sys.argv[3]))
""", folder / "small.db", folder / "a.db", RAW)
    # Who has had it open does not know that a write is of whole cells: a power cut would take the neighbours along.
    assert db.one("SELECT count(*) FROM t") == 999
    assert code_of(lambda: db("UPDATE t SET v = 1")) == 8
    assert "anew" in db.host.last_error()
    db = new_host().open(folder / "a.db", encryption_key=RAW)
    assert db.one("PRAGMA page_size") == 1024
    db("UPDATE t SET v = v || 'y' WHERE id % 2")
    assert db.one("PRAGMA integrity_check") == "ok"
    assert code_of(lambda: db("PRAGMA journal_mode=wal")) == 1
    assert new_host().open(folder / "a.db", encryption_key=RAW)("SELECT length(v), count(*) FROM t GROUP BY 1") == \
        [(300, 499), (301, 500)]


@pytest.mark.parametrize("source, target", [(None, RAW), (RAW, None), (RAW, KEY), (RAW, RAW)])
def test_backup_and_vacuum_into(source, target, new_host, folder):
    options = {"encryption_key": source} if source else {}
    db = new_host().open(folder / "a.db", **options)
    fill(db)
    before = content(db)
    copied = run("""
source, target = connect(sys.argv[1], sys.argv[3]), connect(sys.argv[2], sys.argv[4])
source.backup(target, pages=7)
print(target.execute("PRAGMA integrity_check").fetchone()[0])
""", folder / "a.db", folder / "b.db", source or "", target or "")
    assert copied == "ok"
    db(f"VACUUM INTO '{local_uri(folder / 'c.db', target)}'")
    for name in ("b.db", "c.db"):
        if target:
            assert content(new_host().open(folder / name, encryption_key=target)) == before
            assert b"SQLite format" not in (folder / name).read_bytes()[:16]
            assert b"plaintext" not in (folder / name).read_bytes()
        else:
            assert stock(folder / name, "PRAGMA integrity_check; SELECT count(*) FROM t;") == "ok\n1500"


def test_backup_into_memory_and_back(folder):
    assert run("""
a, memory, b = connect(sys.argv[1], "one"), sqlite3.connect(":memory:"), connect(sys.argv[2], "two")
a.execute("CREATE TABLE t AS SELECT 'x' v")
a.backup(memory)
memory.backup(b)
print(b.execute("SELECT v FROM t").fetchone()[0])
""", folder / "a.db", folder / "b.db") == "x"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_attach_both(mode, new_host, folder):
    host = new_host()
    db = host.open(folder / "main.db", encryption_key=KEY)
    db(f"PRAGMA journal_mode={mode}")
    db(f"ATTACH '{local_uri(folder / 'other.db', RAW)}' AS other")
    db(f"ATTACH '{local_uri(folder / 'plain.db', None)}' AS plain")
    for schema in ("main", "other", "plain"):
        db(f"PRAGMA {schema}.journal_mode={mode}")
        db(f"CREATE TABLE {schema}.t(v)")
    db("BEGIN")  # one transaction of three files: a super-journal
    for schema in ("main", "other", "plain"):
        db(f"INSERT INTO {schema}.t VALUES('in {schema}')")
    db("COMMIT")
    db("INSERT INTO plain.t SELECT v FROM other.t")
    db("SELECT replica_rekey('third key', 'other')")
    host.close()
    assert stock(folder / "plain.db", "SELECT * FROM t;") == "in plain\nin other"
    assert new_host().open(folder / "main.db", encryption_key=KEY)("SELECT * FROM t") == [("in main",)]
    assert new_host().open(folder / "other.db", encryption_key="third key")("SELECT * FROM t") == [("in other",)]
    # An encrypted file beside a plain main database.
    db = new_host().open(folder / "plain.db")
    db(f"ATTACH '{local_uri(folder / 'main.db')}' AS secret")
    assert db("SELECT v FROM secret.t UNION ALL SELECT v FROM t") == [("in main",), ("in plain",), ("in other",)]


WRITER = """
db = connect(sys.argv[1], sys.argv[2])
for i in range(int(sys.argv[4])):
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE counter SET n = n + 1")
            db.execute("INSERT INTO log VALUES(?, ?)", (sys.argv[3], os.urandom(400)))
            db.execute("COMMIT")
            break
        except sqlite3.OperationalError as error:
            assert "locked" in str(error), error
            if db.in_transaction: db.execute("ROLLBACK")
    n, rows = db.execute("SELECT n, (SELECT count(*) FROM log) FROM counter").fetchone()
    assert n == rows, (n, rows)
print("done")
"""


@pytest.mark.parametrize("mode", ["delete", "persist", "truncate", "wal"])
def test_many_processes_and_connections(mode, new_host, folder):
    path = folder / "a.db"
    db = new_host().open(path, encryption_key=KEY)
    db(f"PRAGMA journal_mode={mode}")
    db("CREATE TABLE counter(n)")
    db("INSERT INTO counter VALUES(0)")
    db("CREATE TABLE log(who, data)")
    writers = [program(WRITER, path, KEY, name, 60) for name in "abcd"]
    readers = [db.host.open(path, encryption_key=KEY) for _ in range(4)]
    while any(writer.poll() is None for writer in writers):
        for reader in readers:
            try:
                ((n, rows),) = reader("SELECT n, (SELECT count(*) FROM log) FROM counter")
                assert n == rows
            except Exception as error:
                assert getattr(error, "code", None) == BUSY, error
    for writer in writers:
        output, errors = writer.communicate(timeout=60)
        assert output == "done\n" and not errors, errors
    assert db.one("SELECT n FROM counter") == 240
    assert db.one("PRAGMA integrity_check") == "ok"
    assert_no_plaintext(folder)


def test_processes_that_create_it_at_once(folder):
    for round_ in range(12):
        path = folder / f"{round_}.db"
        writers = [program("""
db = connect(sys.argv[1], sys.argv[2])
db.execute("PRAGMA busy_timeout=20000")
for i in range(5):
    db.execute("CREATE TABLE IF NOT EXISTS t(v)")
    db.execute("INSERT INTO t VALUES(1)")
print("done")
""", path, RAW) for _ in range(3)]
        for writer in writers:
            output, errors = writer.communicate(timeout=60)
            assert output == "done\n" and not errors, errors
        assert run("print(connect(sys.argv[1], sys.argv[2]).execute('SELECT count(*) FROM t').fetchone()[0])",
                   path, RAW) == "15"


def test_a_read_only_file(new_host, folder):
    path = folder / "a.db"
    fill(new_host().open(path, encryption_key=RAW))
    db = new_host().open(path, encryption_key=RAW, mode="ro")
    assert db.one("SELECT count(*) FROM t") == 1500
    assert code_of(lambda: db("DELETE FROM t")) == 8
    db = new_host().open(path, encryption_key=RAW, immutable=1)
    assert db.one("SELECT count(*) FROM t") == 1500


def test_without_powersafe_overwrite(new_host, folder):
    """SQLite then pads and splits what it writes to the log."""
    for mode in ("delete", "wal"):
        path, host = folder / f"{mode}.db", new_host()
        db = host.open(path, encryption_key=RAW, psow=0)
        db(f"PRAGMA journal_mode={mode}")
        db("PRAGMA synchronous=full")
        fill(db)
        for i in range(20):
            db("INSERT INTO t(v) VALUES(hex(randomblob(900)))")
        before = content(db)
        host.kill()
        assert content(new_host().open(path, encryption_key=RAW, psow=0)) == before
