"""A primary whose database has auto_vacuum on: pages move about, and what is freed goes."""
import random
import sqlite3

import pytest
from harness.check import fails, identical, in_words
from harness.host import READONLY
from harness.primary import Primary

LOCKS = pytest.mark.parametrize("lock", ["eager", "optimistic"])
SEED = """
CREATE TABLE t(id INTEGER PRIMARY KEY, x);
CREATE INDEX t_x ON t(substr(x, 1, 20));
CREATE TABLE u(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID;
CREATE TABLE late(id INTEGER PRIMARY KEY, x REFERENCES t(id) ON DELETE CASCADE);
CREATE INDEX late_x ON late(x);
"""
FILL = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO t(x) SELECT randomblob(?) FROM n")


@pytest.fixture
def vacuumed(tmp_path):
    """vacuumed(mode): a primary that was given such a database; no SQL there can make one."""
    made = []

    def new(mode):
        directory = tmp_path / f"vacuumed{len(made)}"
        (directory / "dbs" / "default").mkdir(parents=True)
        db = sqlite3.connect(directory / "dbs" / "default" / "data")
        db.executescript(f"PRAGMA auto_vacuum={mode}; PRAGMA journal_mode=wal; {SEED}")
        db.close()
        made.append(Primary(directory))
        assert made[-1].sql("PRAGMA auto_vacuum") == [[{"FULL": 1, "INCREMENTAL": 2}[mode]]]
        return made[-1]

    yield new
    for primary in made:
        if primary.process:
            primary.kill()


def same(db, primary, path):
    tables = [row[0] for row in db("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for query in ("SELECT type, name, sql FROM sqlite_schema", *(f"SELECT * FROM {table}" for table in tables)):
        assert sorted(map(repr, map(list, db(query)))) == sorted(map(repr, primary.sql(query))), query
    assert primary.sql("PRAGMA integrity_check") == [["ok"]] and db.one("PRAGMA integrity_check") == "ok"
    db.sync()
    identical(path, primary)


@LOCKS
@pytest.mark.parametrize("path_", ["auto", "rows"])
@pytest.mark.parametrize("mode", ["FULL", "INCREMENTAL"])
def test_whatever_the_size_becomes(mode, path_, lock, host, path, vacuumed):
    primary = vacuumed(mode)
    db = host.open(path, primary.url, write_path=path_, write_lock=lock)
    for step in (lambda: db(FILL, 300, 3000), lambda: db("DELETE FROM t WHERE id % 3 = 0"),
                 lambda: db("INSERT INTO late SELECT id, id FROM t"), lambda: db("DELETE FROM t WHERE id > 100"),
                 lambda: db("INSERT INTO u SELECT id, x FROM t"), lambda: db("DROP TABLE u"),
                 lambda: db("CREATE TABLE u(a, b)"), lambda: db("DROP INDEX t_x"), lambda: db("DELETE FROM t")):
        before = db.one("PRAGMA page_count")
        step()
        if mode == "FULL":
            assert db.one("PRAGMA freelist_count") == 0
        same(db, primary, path)
    if mode == "FULL":
        assert db.one("PRAGMA page_count") < 20 <= before + 20


@pytest.mark.parametrize("mode", ["FULL", "INCREMENTAL"])
@pytest.mark.parametrize("lock", ["eager", "optimistic"])
@pytest.mark.parametrize("seed", range(3))
def test_several_commits_before_a_pull(seed, lock, mode, host, path, vacuumed):
    """Each of another size, larger and smaller than what the primary's pages were."""
    primary, dice = vacuumed(mode), random.Random(seed)
    db = host.open(path, primary.url, write_lock=lock)
    for n in range(60):
        choice = dice.randrange(8)
        if choice < 3:
            db(FILL, dice.randrange(1, 60), dice.randrange(1, 9000))
        elif choice < 5:
            db("DELETE FROM t WHERE id % ? = 0", dice.randrange(1, 4))
        elif choice == 5:
            db("BEGIN")
            db("SELECT count(*) FROM t")
            db("DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT 20)")
            db(FILL, 5, 5000)
            db("COMMIT")
        elif choice == 6:
            db(f"CREATE TABLE n{n} AS SELECT x FROM t LIMIT 30")
            db(f"DROP TABLE n{n}")
        else:
            db("SELECT replica_sync()")
        if dice.randrange(10) == 0:
            db("PRAGMA wal_checkpoint")
    same(db, primary, path)


def test_others_shrink_it_meanwhile(host, path, vacuumed):
    primary = vacuumed("FULL")
    db = host.open(path, primary.url)
    db(FILL, 200, 3000)
    primary.sql("DELETE FROM t WHERE id > 20")
    db("INSERT INTO t(x) VALUES('x')")
    db("DELETE FROM t WHERE id < 20")
    same(db, primary, path)


def test_what_a_reader_sees_with_read_your_writes_off(host, path, vacuumed):
    primary = vacuumed("FULL")
    db = host.open(path, primary.url, read_your_writes=0)
    db(FILL, 200, 3000)
    db.sync()
    pages = db.one("PRAGMA page_count")
    db("DELETE FROM t WHERE id > 20")
    assert db.one("SELECT count(*) FROM t") == 200 and db.one("PRAGMA page_count") == pages
    assert db.one("PRAGMA integrity_check") == "ok"
    db.sync()
    assert db.one("SELECT count(*) FROM t") == 20
    same(db, primary, path)


@pytest.mark.parametrize("statement", ["DELETE FROM t", "DROP TABLE t"])
def test_pages_alone_are_refused_in_words(statement, host, path, vacuumed):
    primary = vacuumed("FULL")
    other = host.open(path.with_name("other.db"), primary.url)
    other(FILL, 200, 3000)
    db = host.open(path, primary.url, write_path="pages")
    newest = primary.hello()
    fails(lambda: db(statement), READONLY)
    in_words(host.last_error(), "shrinks", "write_path=auto")
    fails(lambda: db(FILL, 200, 3000), READONLY)
    in_words(host.last_error(), "auto_vacuum", "write_path=auto")
    assert primary.hello() == newest
    db("UPDATE t SET x = 'y' WHERE id = 1")
    identical(path, primary)


@pytest.mark.parametrize("statement", ["VACUUM", "PRAGMA incremental_vacuum"])
@pytest.mark.parametrize("path_", ["auto", "rows"])
def test_what_only_shrinks_is_refused_in_words(path_, statement, host, path, vacuumed):
    primary = vacuumed("INCREMENTAL")
    db = host.open(path, primary.url, write_path=path_)
    db(FILL, 200, 3000)
    db("DELETE FROM t WHERE id > 20")
    db.sync()
    newest = primary.hello()
    fails(lambda: db.script(statement), READONLY)
    in_words(host.last_error(), "only shrinks")
    assert primary.hello() == newest
    db("INSERT INTO t(x) VALUES('x')")
    same(db, primary, path)


def test_kills_between_a_commit_that_shrinks_and_the_pull(new_host, path, vacuumed):
    """What was cut off comes back from what is kept beside the file."""
    primary = vacuumed("FULL")
    for n in range(4):
        host = new_host()
        db = host.open(path, primary.url)
        db(FILL, 200, 3000)
        db("DELETE FROM t WHERE id % 4 > 0")
        if n % 2:
            db("PRAGMA wal_checkpoint(TRUNCATE)")
        host.kill()
        identical_after = new_host().open(path, primary.url)
        same(identical_after, primary, path)
