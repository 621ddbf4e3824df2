"""Encryption at rest: what can be seen in the files, what happens to who alters them, and keys."""
import pytest
from harness.crypt import (KEY, MARK, RAW, assert_no_plaintext, clear, code_of, deleted_files, local_uri, program, run)
from harness.host import CANTOPEN, NOTADB, BUSY
from harness.shell import shell

CORRUPT = 11
MODES = ["delete", "truncate", "persist", "memory", "off", "wal"]
HEADER, CELL = 4608, 4124


def fill(db, rows=2000, table="t"):
    db(f"CREATE TABLE IF NOT EXISTS {table}(id INTEGER PRIMARY KEY, v TEXT)")
    db(f"WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
       f"INSERT INTO {table}(v) SELECT '{MARK.decode()} ' || i || hex(randomblob(40)) FROM n")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def db(host, folder):
    return host.open(folder / "a.db", encryption_key=KEY)


# --- nothing is readable ------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", [KEY, RAW])
def test_no_plaintext_in_any_file(mode, key, host, folder):
    db = host.open(folder / "a.db", encryption_key=key)
    assert db.one(f"PRAGMA journal_mode={mode}") == mode
    db("PRAGMA cache_size=20")
    fill(db)
    db("BEGIN")
    db("UPDATE t SET v = v || ' again'")  # spills: journal and database are both there
    assert_no_plaintext(folder)
    assert len(list(folder.iterdir())) >= (1 if mode in ("memory", "off") else 2)
    db("COMMIT")
    fill(db, table="u")
    db("DELETE FROM t WHERE id % 2")
    if mode != "wal":
        db("VACUUM")
    assert_no_plaintext(folder)
    db.close()
    assert_no_plaintext(folder)
    again = host.open(folder / "a.db", encryption_key=key)
    assert again.one("PRAGMA integrity_check") == "ok"
    assert again.one("SELECT count(*) FROM u WHERE v LIKE 'plaintext-marker %'") == 2000


def test_no_plaintext_in_temporary_files(host, db, folder):
    fill(db, 20_000)
    db("PRAGMA cache_size=20")
    db("PRAGMA temp_store=FILE")
    db("PRAGMA temp.cache_size=10")
    db("CREATE TEMP TABLE copy AS SELECT * FROM t")
    kept = list(deleted_files(host.pid))
    assert any(len(data) > 100_000 for data in kept) and not any(map(clear, kept))
    statements = [
        "SELECT count(*) FROM (SELECT v FROM t ORDER BY v || 'x' LIMIT -1 OFFSET 1)",
        "CREATE INDEX by_v ON t(v)",
        "UPDATE OR ABORT t SET id = id + 100000, v = v || 'y'",  # a statement journal
        "SELECT count(*) FROM (SELECT DISTINCT v || 'z' FROM t UNION SELECT v FROM copy)",
        "VACUUM",
    ]
    for statement in statements:
        rows, seen = db.start(statement), 0
        while not rows.done():
            for data in deleted_files(host.pid):
                seen = max(seen, len(data))
                assert not clear(data), statement
            assert_no_plaintext(folder)
        rows.result()
        print(f"{statement[:30]}: {seen} bytes in files without a name")
    assert db.one("SELECT count(*) FROM copy") == 20_000


def test_the_key_is_in_no_message(host, folder):
    db = host.open(folder / "a.db", encryption_key=KEY)
    fill(db, 10)
    texts = [db.one("SELECT replica_status()"), str(db("SELECT * FROM replica_databases"))]
    for key in ("another secret", RAW):
        with pytest.raises(Exception) as failed:
            host.open(folder / "a.db", encryption_key=key)("SELECT * FROM t")
        texts += [str(failed.value), host.last_error()]
    for text in texts:
        assert not any(secret in text for secret in (KEY, RAW, "another secret")), text


# --- keys -------------------------------------------------------------------------------------------

def test_wrong_key_no_key_key_for_a_plain_file(new_host, folder):
    host = new_host()
    path, plain = folder / "a.db", folder / "plain.db"
    db = host.open(path, encryption_key=KEY)
    fill(db, 10)
    shell("CREATE TABLE t(a); INSERT INTO t VALUES(1);", plain)
    before = path.read_bytes(), plain.read_bytes()

    def check(program):
        for target, key in ((path, "another"), (path, RAW), (path, None), (plain, KEY), (plain, RAW)):
            assert code_of(lambda: program.open(target, **({"encryption_key": key} if key else {}))
                           ("SELECT * FROM t")) == NOTADB, (target, key)
            assert "encrypt" in program.last_error()
        assert code_of(lambda: program.plain(path)("SELECT * FROM t")) == NOTADB

    check(host)  # while another connection has the right key
    db.close()
    check(host)
    check(new_host())
    assert (path.read_bytes(), plain.read_bytes()) == before
    assert new_host().open(path, encryption_key=KEY).one("SELECT count(*) FROM t") == 10


def test_a_raw_key_in_either_case(new_host, folder):
    fill(new_host().open(folder / "a.db", encryption_key=RAW), 10)
    assert new_host().open(folder / "a.db", encryption_key=RAW.upper()).one("SELECT count(*) FROM t") == 10


def test_keys_from_environment_and_replica_open(new_host, folder):
    host = new_host(env={"THE_KEY": KEY})
    fill(host.open(folder / "a.db", encryption_key="env:THE_KEY"), 10)
    other = new_host()
    other.plain(":memory:")("SELECT replica_open(?, ?)", str(folder / "a.db"), f'{{"encryption_key": "{KEY}"}}')
    plain = other.plain(folder / "a.db")
    assert plain.one("SELECT count(*) FROM t") == 10
    plain("SELECT replica_rekey('another key')")
    plain.close()
    assert other.plain(folder / "a.db").one("SELECT count(*) FROM t") == 10
    assert code_of(lambda: host.open(folder / "a.db", encryption_key="env:THE_KEY")("SELECT * FROM t")) == NOTADB


def test_status_of_a_local_database(db, folder):
    fill(db, 1)
    status = db.status()
    assert (status["path"], status["encrypted"], status["state"]) == (str(folder / "a.db"), 1, "local")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_rekey(mode, new_host, folder):
    path, host = folder / "a.db", new_host()
    db, reader = host.open(path, encryption_key=KEY), new_host().open(path, encryption_key=KEY)
    db(f"PRAGMA journal_mode={mode}")
    fill(db)
    assert reader.one("SELECT count(*) FROM t") == 2000
    size = path.stat().st_size
    before = path.read_bytes()
    assert db.one("SELECT replica_rekey('the second key')") == str(path)
    assert path.stat().st_size == size
    assert path.read_bytes()[HEADER:] == before[HEADER:]  # not one page is written
    fill(db)
    assert reader.one("SELECT count(*) FROM t") == 4000  # open connections go on
    for program in (host, new_host()):
        assert code_of(lambda: program.open(path, encryption_key=KEY)("SELECT * FROM t")) == NOTADB
        assert program.open(path, encryption_key="the second key").one("SELECT count(*) FROM t") == 4000
    assert db.one("SELECT replica_rekey(?, 'main')", RAW) == str(path)
    assert new_host().open(path, encryption_key=RAW).one("SELECT count(*) FROM t") == 4000
    assert db.one("PRAGMA integrity_check") == "ok"
    assert_no_plaintext(folder)


def test_rekey_refusals(host, db, folder):
    fill(db, 10)
    plain = host.open(folder / "plain.db")
    plain("CREATE TABLE t(a)")
    for connection, key in ((plain, "k"), (db, ""), (host.plain(":memory:"), "k"), (db, None)):
        assert code_of(lambda: connection("SELECT replica_rekey(?)", key)) == 1
    other = host.open(folder / "a.db", encryption_key=KEY)
    other("BEGIN IMMEDIATE")
    assert code_of(lambda: db("SELECT replica_rekey('k')")) == BUSY
    other("ROLLBACK")
    db("SELECT replica_rekey('k')")


def test_rekey_before_anything_is_written(new_host, folder):
    db = new_host().open(folder / "a.db", encryption_key=KEY)
    db("SELECT replica_rekey('the second key')")
    fill(db, 10)
    assert new_host().open(folder / "a.db", encryption_key="the second key").one("SELECT count(*) FROM t") == 10


# --- alterations ------------------------------------------------------------------------------------

def read_all(host, path, key=KEY):
    db = host.open(path, encryption_key=key)
    try:
        return db("SELECT sum(length(v)), count(*) FROM t"), db.one("PRAGMA integrity_check")
    finally:
        db.close()


def test_a_flipped_bit_anywhere_is_found(new_host, folder):
    path, host = folder / "a.db", new_host()
    db = host.open(path, encryption_key=RAW)
    fill(db, 500)
    whole = read_all(host, path, RAW)
    db.close()
    original = path.read_bytes()
    pages = (len(original) - HEADER) // CELL
    assert pages > 10 and HEADER + pages * CELL == len(original)
    places = {f"page {page}, {name}": HEADER + page * CELL + at for page in (0, 1, 2, 5, pages - 1)
              for name, at in (("nonce", 0), ("nonce", 11), ("body", 12), ("body", 99), ("body", 4107), ("tag", 4108), ("tag", 4123))}
    for name, at in places.items():
        path.write_bytes(original[:at] + bytes([original[at] ^ 16]) + original[at + 1:])
        assert code_of(lambda: read_all(host, path, RAW)) == CORRUPT, name
    # The header is there twice: one copy may be lost, both may not.
    for at in (0, 16, 17, 18, 19, 20, 24, 36, 52, 68, 80, 111, 112, 127, 200, 479, 480, 511):
        one = bytearray(original)
        one[at] ^= 16
        path.write_bytes(one)
        assert read_all(host, path, RAW) == whole, at
        one[4096 + at] ^= 16
        path.write_bytes(one)
        assert code_of(lambda: read_all(host, path, RAW)) == NOTADB, at
    path.write_bytes(original)
    assert read_all(host, path, RAW) == whole


def test_swapped_foreign_and_missing_pages(new_host, folder):
    host, path, other = new_host(), folder / "a.db", folder / "b.db"
    for target in (path, other):
        fill(host.open(target, encryption_key=RAW), 500)
    host.close()
    host = new_host()
    original, foreign = path.read_bytes(), other.read_bytes()

    def cell(data, page):
        return data[HEADER + page * CELL:HEADER + (page + 1) * CELL]

    def with_page(page, content):
        return original[:HEADER + page * CELL] + content + original[HEADER + (page + 1) * CELL:]

    altered = {
        "swapped": with_page(3, cell(original, 4)),
        "another file's": with_page(3, cell(foreign, 3)),
        "zeros": with_page(3, bytes(CELL)),
        "another file's header": foreign[:HEADER] + original[HEADER:],
        "a page is missing": original[:-CELL],
        "half a page is missing": original[:-CELL // 2],
        "one byte is missing": original[:-1],
        "all but one page are missing": original[:HEADER + CELL],
        "all pages are missing": original[:HEADER],
        "the header is cut": original[:HEADER - 1],
        "most of the header is missing": original[:100],
        "a page is inserted": with_page(3, cell(original, 3) * 2),
    }
    for name, data in altered.items():
        path.write_bytes(data)
        assert code_of(lambda: read_all(host, path, RAW)) in (CORRUPT, NOTADB), name
    path.write_bytes(original)
    assert read_all(host, path, RAW)[1] == "ok"


def crashed_with_a_log(folder, synchronous, commits=5):
    """A database whose log has commits, of a process that is no more."""
    path = folder / "a.db"
    run(f"""
db = connect(sys.argv[1], {RAW!r})
db.execute("PRAGMA journal_mode=wal")
db.execute("PRAGMA synchronous={synchronous}")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
for i in range({commits}):
    db.execute("INSERT INTO t(v) VALUES(?)", (f"{MARK.decode()} {{i}}" * 30,))
os._exit(0)""", path)
    return path, folder / "a.db-wal"


FRAME = 56 + CELL


@pytest.mark.parametrize("synchronous, found", [("full", True), ("normal", False)])
def test_an_altered_log_is_found_where_it_can_be(synchronous, found, new_host, folder):
    """Where each commit was synced, a later one proves it; elsewhere it may be what a power cut leaves."""
    path, wal = crashed_with_a_log(folder, synchronous)
    database, original = path.read_bytes(), wal.read_bytes()
    assert (len(original) - 92) // FRAME == 5
    for frame in range(4):
        begin = 92 + frame * FRAME
        for at in (begin, begin + 12, begin + 30, begin + 55, begin + 56, begin + 68, begin + 3000, begin + FRAME - 1):
            path.write_bytes(database)
            wal.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1:])
            (folder / "a.db-shm").unlink(missing_ok=True)
            host = new_host()
            if found:  # frame 5 was written after a sync of all before it
                assert code_of(lambda: read_all(host, path, RAW)) == CORRUPT, (frame, at)
            else:
                assert code_of(lambda: read_all(host, path, RAW)) in (None, CORRUPT)
            host.kill()
    path.write_bytes(database)
    wal.write_bytes(original)
    (folder / "a.db-shm").unlink(missing_ok=True)
    assert read_all(new_host(), path, RAW)[0][0][1] == 5


def test_a_checkpoint_torn_anywhere_is_repaired(new_host, folder):
    """What is in the log may be anything in the database file."""
    path, wal = crashed_with_a_log(folder, "full", commits=60)
    database, log = path.read_bytes(), wal.read_bytes()
    pages = (len(database) - HEADER) // CELL
    assert pages == 2  # page 1 and the table's root are in both, its other pages in the log alone
    for page in range(pages):
        for length in (1, 100, CELL // 2, CELL - 1):
            begin = HEADER + page * CELL
            path.write_bytes(database[:begin] + b"\x55" * length + database[begin + length:])
            wal.write_bytes(log)
            (folder / "a.db-shm").unlink(missing_ok=True)
            db = new_host().open(path, encryption_key=RAW)
            assert db.one("SELECT count(*) FROM t") == 60
            assert db.one("PRAGMA integrity_check") == "ok"
            db.close()  # a checkpoint over it
            assert read_all(new_host(), path, RAW)[1] == "ok"


def test_an_altered_log_is_found_while_it_is_in_use(new_host, folder):
    host, path = new_host(), folder / "a.db"
    db = host.open(path, encryption_key=RAW)
    db("PRAGMA journal_mode=wal")
    db("PRAGMA wal_autocheckpoint=0")
    fill(db, 500)
    reader = new_host().open(path, encryption_key=RAW)
    reader("SELECT count(*) FROM sqlite_schema")
    original = (folder / "a.db-wal").read_bytes()
    at = len(original) - FRAME // 2
    with open(folder / "a.db-wal", "r+b") as file:
        file.seek(at)
        file.write(bytes([original[at] ^ 1]))
    assert code_of(lambda: reader("SELECT sum(length(v)) FROM t")) == CORRUPT
    assert "log" in reader.host.last_error()


def test_a_log_with_another_header_is_none(new_host, folder):
    """As SQLite has it: who can write the file can as well delete it."""
    path, wal = crashed_with_a_log(folder, "full")
    data = bytearray(wal.read_bytes())
    data[60] ^= 1
    wal.write_bytes(data)
    assert read_all(new_host(), path, RAW) == ([(None, 0)], "ok")


WITH_A_LOG = f"""
db = connect(sys.argv[1], {RAW!r})
db.execute("PRAGMA journal_mode=wal")
db.execute("PRAGMA wal_autocheckpoint=0")
for table in "ab":
    db.execute(f"CREATE TABLE {{table}}(id INTEGER PRIMARY KEY, v)")
    db.execute(f"INSERT INTO {{table}} VALUES(1, 'of {{table}}')")
print(*(page for page, in db.execute("SELECT rootpage FROM sqlite_schema ORDER BY name")), flush=True)
sys.stdin.read()
"""


def test_an_edited_wal_index_swaps_no_tables(new_host, folder):
    """Page numbers exchanged in a live -shm, and the hash table after them: the pages of the log know better."""
    path, shm = folder / "a.db", folder / "a.db-shm"
    process = program(WITH_A_LOG, path)
    first, second = map(int, process.stdout.readline().split())
    data = bytearray(shm.read_bytes())
    frames = int.from_bytes(data[16:20], "little")
    pages = [int.from_bytes(data[136 + 4 * n:140 + 4 * n], "little") for n in range(frames)]
    assert first in pages and second in pages
    swapped = [{first: second, second: first}.get(page, page) for page in pages]
    slots = [0] * 8192
    for frame, page in enumerate(swapped, 1):
        data[132 + 4 * frame:136 + 4 * frame] = page.to_bytes(4, "little")
        at = page * 383 % 8192
        while slots[at]:
            at = (at + 1) % 8192
        slots[at] = frame
    data[16384:32768] = b"".join(slot.to_bytes(2, "little") for slot in slots)
    with open(shm, "r+b") as file:
        file.write(data)
    reader = new_host().open(path, encryption_key=RAW)
    assert reader.one("SELECT count(*) FROM sqlite_schema") == 2
    for table in "ab":
        assert code_of(lambda: reader(f"SELECT v FROM {table}")) == CORRUPT
    code = code_of(lambda: reader("PRAGMA wal_checkpoint(TRUNCATE)"))
    assert code == CORRUPT, "the swap is sealed in"
    process.kill()
    process.communicate()
    reader.host.kill()
    shm.unlink()
    db = new_host().open(path, encryption_key=RAW)
    assert [db.one(f"SELECT v FROM {table}") for table in "ab"] == ["of a", "of b"]


@pytest.mark.parametrize("size", [4096, 16384])
def test_a_file_that_was_cut_beside_a_log_reads_as_no_zeros(size, new_host, folder):
    path = folder / "a.db"
    run(f"""
db = connect(sys.argv[1], {RAW!r})
db.execute("PRAGMA page_size={size}")
db.execute("PRAGMA journal_mode=wal")
db.execute("CREATE TABLE t(v)")
db.execute("INSERT INTO t VALUES(zeroblob(1000000))")
db.execute("UPDATE t SET v = CAST(replace(hex(v), '0', 'x') AS BLOB)")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
db.execute("CREATE TABLE u(v)")
os._exit(0)""", path)
    whole, log = path.read_bytes(), (folder / "a.db-wal").read_bytes()
    per_page = size // 4096
    pages = (len(whole) - HEADER) // CELL // per_page
    for cut in (HEADER + CELL * per_page * (pages - 1), HEADER + CELL * per_page * 20, HEADER + CELL * (per_page * 20 + per_page // 2)):
        path.write_bytes(whole[:cut])
        (folder / "a.db-wal").write_bytes(log)
        (folder / "a.db-shm").unlink(missing_ok=True)
        host = new_host()
        db = host.open(path, encryption_key=RAW)
        assert code_of(lambda: db("SELECT * FROM t")) == CORRUPT
        host.kill()


# --- a SQLite without the key ---------------------------------------------------------------------------

def test_a_stock_shell_harms_nothing_of_a_hot_log(new_host, folder):
    path, wal = crashed_with_a_log(folder, "full")
    before = path.read_bytes(), wal.read_bytes()
    for sql in ("SELECT * FROM t;", "PRAGMA wal_checkpoint(TRUNCATE);", "CREATE TABLE x(a);"):
        result = shell(sql, path)
        assert "unable to open" in result.stderr or "not a database" in result.stderr, result
        assert (path.read_bytes(), wal.read_bytes()) == before
    host = new_host()
    assert code_of(lambda: host.open(path)("SELECT * FROM t")) == NOTADB
    assert (path.read_bytes(), wal.read_bytes()) == before
    assert read_all(host, path, RAW)[0][0][1] == 5


def test_a_stock_shell_harms_nothing_of_a_hot_journal(new_host, folder):
    path = folder / "a.db"
    run(f"""
db = connect(sys.argv[1], {RAW!r})
db.execute("PRAGMA journal_mode=delete")
db.execute("PRAGMA cache_size=5")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
db.executemany("INSERT INTO t(v) VALUES(?)", [("a" * 500,)] * 1000)
db.execute("BEGIN")
db.execute("UPDATE t SET v = ?", ("b" * 600,))
os._exit(0)""", path)
    journal = folder / "a.db-journal"
    before = path.read_bytes(), journal.read_bytes()
    assert len(before[1]) > 10_000
    for sql in ("SELECT * FROM t;", "CREATE TABLE x(a);"):
        assert "not a database" in shell(sql, path).stderr
        assert (path.read_bytes(), journal.read_bytes()) == before
    # An altered journal is no reason to leave half a transaction behind.
    for at in (600, 5000, len(before[1]) // 2):
        journal.write_bytes(before[1][:at] + bytes([before[1][at] ^ 1]) + before[1][at + 1:])
        assert code_of(lambda: read_all(new_host(), path, RAW)) == CORRUPT
        path.write_bytes(before[0])
    # Pages that the crash tore while they were written are restored, page 1 as well.
    torn = bytearray(before[0])
    for page in range(2, 50):
        torn[HEADER + page * CELL + 2000:HEADER + page * CELL + 2600] = bytes(600)
    path.write_bytes(torn)
    journal.write_bytes(before[1])
    db = new_host().open(path, encryption_key=RAW)
    assert db("SELECT DISTINCT substr(v, 1, 1), length(v), count(*) FROM t") == [("a", 500, 1000)]
    assert db.one("PRAGMA integrity_check") == "ok"


# --- temporary files of other connections ---------------------------------------------------------------

def test_attach_where_temporary_files_would_be_plain(host, folder):
    fill(host.open(folder / "a.db", encryption_key=KEY), 10)
    stock = host.plain(folder / "stock.db", uri=True)
    attach = f"ATTACH '{local_uri(folder / 'a.db')}' AS secret"
    assert code_of(lambda: stock(attach)) == CANTOPEN
    assert "vfs=replica" in host.last_error()
    for main in (f"file:{folder}/stock.db?vfs=replica", "file::memory:?vfs=replica"):
        db = host.plain(main, uri=True)
        db(attach)
        assert db.one("SELECT count(*) FROM secret.t") == 10


def test_attach_after_a_temporary_file_was_plain(new_host, folder):
    fill(new_host().open(folder / "a.db", encryption_key=KEY), 10)
    db = new_host().plain(f"file:{folder}/stock.db?vfs=replica", uri=True)
    db("PRAGMA temp_store=FILE")
    db("PRAGMA temp.cache_size=10")
    db("CREATE TEMP TABLE big AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
       "SELECT i, hex(randomblob(50)) FROM n")
    assert code_of(lambda: db(f"ATTACH '{local_uri(folder / 'a.db')}' AS secret")) == CANTOPEN
    assert "temporary" in db.host.last_error()


def test_memory_mapping_shows_nothing(db, folder):
    fill(db, 1000)
    db("PRAGMA mmap_size=100000000")
    assert db.one("SELECT count(*) FROM t WHERE v LIKE 'plaintext-marker%'") == 1000
    assert str(folder / "a.db") not in open(f"/proc/{db.host.pid}/maps").read().replace("a.db-shm", "")
