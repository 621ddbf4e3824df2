"""Databases that grow: over a full freelist, past the primary's value limit, by 100 MB at a time."""
import pytest
from harness.check import identical
from harness.host import SqlError

pytestmark = pytest.mark.usefixtures("write_path")
FILL = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO t(x) SELECT randomblob(?) FROM n")


@pytest.fixture
def db(host, path, new_primary):
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE INDEX t_x ON t(substr(x, 1, 20))")
    replica = host.open(path, primary.url)
    replica.primary, replica.path = primary, path
    return replica


def same(db):
    query = "SELECT count(*), coalesce(sum(length(x)), 0) FROM t"
    assert [list(db(query)[0])] == db.primary.sql(query)
    assert db.primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(db.path, db.primary)


@pytest.mark.parametrize("pages", [1, 2, 3, 7, 8, 9, 50, 1099, 1100, 1101, 1150, 1200])
def test_by_so_many_pages(pages, db):
    before = db.one("PRAGMA page_count")
    db("INSERT INTO t(x) VALUES(zeroblob(?))", 4092 * pages)
    assert 0 <= db.one("PRAGMA page_count") - before - pages <= 2
    assert db.primary.sql("PRAGMA page_count") == [[db.one("PRAGMA page_count")]]
    same(db)


def test_no_value_that_the_primary_could_not_read(db):
    """The primary's limit is the connection's: 5,000,000 bytes."""
    with pytest.raises(SqlError, match="too big"):
        db("INSERT INTO t(x) VALUES(zeroblob(5000001))")
    db("INSERT INTO t(x) VALUES(zeroblob(4999000))")
    same(db)


def test_over_a_freelist(db):
    """Delete half, then grow by thousands of pages."""
    db(FILL, 4000, 2000)
    db("DELETE FROM t WHERE id BETWEEN 1000 AND 3000")
    assert db.one("PRAGMA freelist_count") > 300
    same(db)
    db(FILL, 9000, 2000)
    same(db)
    db("BEGIN")
    db("DELETE FROM t WHERE id % 3 = 0")
    db(FILL, 6000, 1900)
    db("COMMIT")
    same(db)


def test_one_page_at_a_time_with_a_full_schema(db):
    """The pages of sqlite_schema are full, so that one more object splits them: growth stays exact."""
    for n in range(120):
        db(f"CREATE TABLE table_with_a_rather_long_name_{n:04}(column_number_one TEXT, column_number_two TEXT)")
    same(db)
    for n in range(60):
        db("INSERT INTO t(x) VALUES(zeroblob(4000))")
        if n % 20 == 0:
            db.primary.sql(f"CREATE VIEW v{n} AS SELECT 1 AS {'x' * (5 + 7 * n)}")
            db.sync()
    same(db)


def test_a_transaction_of_100_mb(host, db, write_path):
    db(FILL, 26000, 4000)
    assert db.one("PRAGMA page_count") > 25000
    # As rows, all that changed is in memory once.
    assert host.peak_mb() < (200 if write_path == "pages" else 400)
    same(db)
    db("UPDATE t SET x = randomblob(3999)")
    same(db)


@pytest.mark.parametrize("length", [60, 150, 470])
def test_by_one_page_at_a_time_however_full_the_schema_is(length, db):
    """Nobody else writes, so no transaction has to be begun again. Every fill of the schema's last page comes by."""
    for n in range(60):
        db("BEGIN")
        db("SELECT count(*) FROM t")
        db("INSERT INTO t(x) VALUES(zeroblob(4092 - 20))")
        db(f"CREATE VIEW view{n:03} AS SELECT '{'x' * (length + n % 7)}'")
        db("COMMIT")
        db("BEGIN")
        db("SELECT count(*) FROM t")
        db("INSERT INTO t(x) VALUES(zeroblob(4092))")
        db("COMMIT")
    same(db)
