"""A commit of stock SQLite is a commit at the primary: whatever SQL it is, row for row, and byte for byte.

Every test runs twice: commits shipped as pages, and as rows (then the bytes are the same after the next sync).
"""
import json
import sqlite3

import pytest
from harness.check import identical, in_words, series
from harness.host import READONLY, SqlError, replica_uri
from harness.shell import loaded_shell, stock

pytestmark = pytest.mark.usefixtures("write_path")
CONSTRAINT = 19
SCHEMA = """
CREATE TABLE people(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, age INT CHECK(age >= 0),
  key TEXT NOT NULL DEFAULT (lower(hex(randomblob(8)))), made TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE pets(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE, name TEXT);
CREATE TABLE log(what TEXT, id INTEGER);
CREATE TRIGGER people_log AFTER INSERT ON people BEGIN INSERT INTO log VALUES('born', new.id); END;
CREATE INDEX pets_by_owner ON pets(owner) WHERE name IS NOT NULL;
"""


@pytest.fixture(params=["eager", "optimistic"])
def db(request, host, path, new_primary, write_path):
    primary = new_primary(SCHEMA)
    replica = host.open(path, primary.url, write_lock=request.param, foreign_keys=1)
    replica.primary, replica.path, replica.write_path = primary, path, write_path
    return replica


def same(db, *queries):
    """The primary answers as the replica does, and holds the same bytes."""
    answers = [[list(row) for row in db(query)] for query in queries]
    assert answers == [db.primary.sql(query) for query in queries]
    assert db.primary.sql("PRAGMA integrity_check") == [["ok"]]
    assert db.frame_no == db.primary.hello()[1]
    identical(db.path, db.primary)
    assert answers == [[list(row) for row in db(query)] for query in queries]
    assert db.frame_no == db.primary.hello()[1]
    assert db.status()["write_path"] in (None, db.write_path)


NO_ROWS = ("PRAGMA application_id = 1234",)


def refused_write(db, statement):
    with pytest.raises(SqlError) as caught:
        db(statement)
    assert caught.value.code == READONLY
    return db.host.last_error()


PEOPLE = "SELECT id, name, age, key, made FROM people ORDER BY id"


def test_rows_of_every_kind(db):
    db("INSERT INTO people(name, age) VALUES('ann', 30), ('bob', 40)")
    same(db, PEOPLE, "SELECT * FROM log ORDER BY id")
    db("UPDATE people SET age = age + 1 WHERE name = 'ann'")
    db("INSERT INTO people(name, age) VALUES('ann', 9) ON CONFLICT(name) DO UPDATE SET age = excluded.age")
    db("REPLACE INTO people(id, name, age) VALUES(2, 'bea', 41)")
    db("INSERT OR IGNORE INTO people(name, age) VALUES('ann', 1)")
    db("INSERT INTO pets(owner, name) SELECT id, 'pet of ' || name FROM people")
    same(db, PEOPLE, "SELECT * FROM pets ORDER BY id")
    db("DELETE FROM people WHERE name = 'bea'")
    same(db, PEOPLE, "SELECT * FROM pets ORDER BY id", "SELECT * FROM sqlite_sequence")


def test_values_of_every_type(db):
    db("CREATE TABLE v(id INTEGER PRIMARY KEY, x)")
    values = [None, 0, 1, -1, 2**63 - 1, -2**63, 0.5, -0.0, 1e308, 5e-324, "", "text", "nul\0nul", "😀", b"", b"\0\xff",
              bytes(range(256)) * 300]
    for value in values:
        db("INSERT INTO v(x) VALUES(?)", value)
    query = "SELECT id, typeof(x), quote(x), length(x) FROM v ORDER BY id"
    same(db, query)
    db("INSERT INTO v(x) VALUES(9e999), (-9e999), (CAST(x'ff80' AS TEXT))")
    same(db, "SELECT id, typeof(x), hex(x) FROM v ORDER BY id")


def test_what_returning_gave_is_what_the_primary_holds(db):
    rows = db("INSERT INTO people(name) VALUES('ann'), ('bob') RETURNING id, key, made")
    assert [list(row) for row in rows] == db.primary.sql("SELECT id, key, made FROM people ORDER BY id")
    (changed,) = db("UPDATE people SET key = hex(randomblob(16)) WHERE name = 'bob' RETURNING key")
    assert db.primary.sql("SELECT key FROM people WHERE name = 'bob'") == [[changed[0]]]
    (gone,) = db("DELETE FROM people WHERE name = 'ann' RETURNING name")
    assert gone == ("ann",) and db.primary.sql("SELECT name FROM people") == [["bob"]]
    same(db, PEOPLE)


def test_a_transaction_is_one_commit(db):
    before = db.status()["commits_shipped"]
    db("BEGIN")
    for n in range(300):
        db("INSERT INTO people(name, age) VALUES(?, ?)", f"p{n}", n)
    assert db.one("SELECT count(*) FROM people") == 300
    assert db.primary.sql("SELECT count(*) FROM people") == [[0]]
    db("UPDATE people SET age = 0 WHERE id % 2")
    db("COMMIT")
    assert db.status()["commits_shipped"] == before + 1
    same(db, PEOPLE)


def test_rollback_and_savepoints(db):
    db("INSERT INTO people(name) VALUES('kept')")
    db("BEGIN")
    db("INSERT INTO people(name) VALUES('dropped')")
    db("ROLLBACK")
    same(db, PEOPLE)
    db("SAVEPOINT outer")
    db("INSERT INTO people(name) VALUES('a')")
    db("SAVEPOINT inner")
    db("DELETE FROM people")
    db("CREATE TABLE gone(x)")
    db("ROLLBACK TO inner")
    db("INSERT INTO people(name) VALUES('b')")
    db("RELEASE outer")
    assert db("SELECT name FROM people ORDER BY id") == [("kept",), ("a",), ("b",)]
    same(db, PEOPLE)
    db("BEGIN IMMEDIATE")
    db("COMMIT")
    same(db, PEOPLE)


def test_spilled_pages_and_savepoints(db):
    """A cache of ten pages: SQLite writes pages to the log before the commit, rewrites them, and takes some back."""
    db("PRAGMA cache_size = 10")
    db("CREATE TABLE big(id INTEGER PRIMARY KEY, x)")
    for round_ in range(3):
        db("BEGIN")
        db("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
           "INSERT INTO big(x) SELECT randomblob(900) FROM n")
        db("UPDATE big SET x = randomblob(901) WHERE id % 7 = 0")
        db("SAVEPOINT s")
        db("DELETE FROM big WHERE id % 3 = 0")
        db("UPDATE big SET x = randomblob(500)")
        db("ROLLBACK TO s")
        db("UPDATE big SET x = randomblob(902) WHERE id % 5 = 0")
        db("COMMIT")
        same(db, "SELECT id, length(x) FROM big ORDER BY id")


@pytest.mark.parametrize("rows", [1, 30, 200])
@pytest.mark.parametrize("again", [2, 150, 300])
def test_a_crash_behind_spilled_pages_that_were_rolled_back(rows, again, new_host, path, new_primary):
    """SQLite (3.40, not 3.54) leaves empty frame headers behind, and its own recovery would lose the transaction."""
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, data)")
    host = new_host()
    db = host.open(path, primary.url)
    db(f"INSERT INTO t SELECT value, 0, zeroblob(3600) FROM {series(400)}")
    db("PRAGMA wal_checkpoint(TRUNCATE)")
    db("PRAGMA cache_size = 10")
    db("BEGIN")
    db("UPDATE t SET n = n + 1 WHERE id < 60")
    db("SAVEPOINT s")
    db("UPDATE t SET n = -1 WHERE id > 100")
    db("UPDATE t SET n = -2 WHERE id > 100 + ?", again)
    db("ROLLBACK TO s")
    db("UPDATE t SET n = n + 2 WHERE id > 200 AND id <= 200 + ?", rows)
    db("COMMIT")
    query = "SELECT sum(n), count(*) FROM t"
    expected = [(59 + 2 * rows, 400)]
    assert db(query) == expected
    db("UPDATE t SET n = n + 1 WHERE id = 400")
    host.kill()
    assert stock(path, query) == f"{60 + 2 * rows}|400"
    db = new_host().open(path, primary.url)
    assert db(query) == [(60 + 2 * rows, 400)]
    db("UPDATE t SET n = n - 1 WHERE id = 400")
    assert primary.sql(query) == [list(expected[0])]
    assert db.host.last_error() is None
    identical(path, primary)


def test_schema_changes(db):
    for statement in (
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT DEFAULT 'x', c GENERATED ALWAYS AS (a * 2) VIRTUAL)",
        "CREATE TABLE w(a TEXT, b INT, PRIMARY KEY(b, a)) WITHOUT ROWID",
        "CREATE TABLE s(a INT, b TEXT) STRICT",
        "CREATE UNIQUE INDEX w_a ON w(a COLLATE NOCASE DESC)",
        "CREATE INDEX t_expression ON t(upper(b)) WHERE a > 1",
        "CREATE VIEW v AS SELECT a, c FROM t",
        "CREATE TRIGGER t_into_w INSTEAD OF INSERT ON v BEGIN INSERT INTO t(a) VALUES(new.a); END",
        "INSERT INTO v(a) VALUES(5)",
        "INSERT INTO w VALUES('x', 1), ('Y', 1)",
        "ALTER TABLE t ADD COLUMN d REAL DEFAULT 1.5",
        "ALTER TABLE t RENAME COLUMN b TO bb",
        "ALTER TABLE s RENAME TO strict_one",
        "ALTER TABLE strict_one DROP COLUMN b",
        "CREATE TABLE copy AS SELECT * FROM t",
        "PRAGMA user_version = 7",
        "PRAGMA application_id = 1234",
        "DROP INDEX w_a",
        "DROP TRIGGER t_into_w",
        "DROP TABLE copy",
        "REINDEX",
        "ANALYZE",
    ):
        if db.write_path == "rows" and statement in NO_ROWS:
            newest = db.primary.hello()
            in_words(refused_write(db, statement), ("replica_exec", "write_path=pages"))
            assert db.primary.hello() == newest
        else:
            db(statement)
        same(db, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2")
    same(db, "SELECT * FROM t", "SELECT * FROM w ORDER BY 1", "PRAGMA user_version", "PRAGMA application_id",
         *["SELECT * FROM sqlite_stat1 ORDER BY 1, 2"] * (db.write_path == "pages"))


@pytest.mark.parametrize("table", ["people", "log"])
def test_schema_changes_upon_free_pages(table, db):
    """The first page of an index was another one's, and has the same bytes on it: it is not new, here."""
    db("CREATE TABLE other(x)")
    db("INSERT INTO other VALUES(zeroblob(20000))")
    db("DROP TABLE other")
    for n in range(4):
        for statement in [f"CREATE INDEX one{n} ON {table}(id)", f"CREATE INDEX two{n} ON {table}(id, 1)",
                          f"DROP INDEX one{n}", f"CREATE INDEX three{n} ON {table}(id DESC)", f"DROP INDEX three{n}",
                          f"DROP INDEX two{n}", f"CREATE UNIQUE INDEX four{n} ON {table}(id, 2)",
                          f"INSERT INTO {table}(id) VALUES({n})" if table == "log" else "DELETE FROM people",
                          f"DROP INDEX four{n}", f"DELETE FROM {table}"]:
            db(statement)
            same(db, f"SELECT * FROM {table}", "SELECT name FROM sqlite_schema ORDER BY name")


def test_virtual_tables(db):
    db("CREATE VIRTUAL TABLE words USING fts5(text, tokenize = 'porter')")
    db("INSERT INTO words VALUES('running dogs'), ('a sleeping cat'), ('dogs and cats')")
    db("UPDATE words SET text = 'the dog ran' WHERE rowid = 1")
    db("DELETE FROM words WHERE rowid = 3")
    same(db, "SELECT rowid, text FROM words WHERE words MATCH 'dog'")
    db("CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1)")
    db("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
       "INSERT INTO boxes SELECT i, i, i + 1, -i, i FROM n")
    same(db, "SELECT id FROM boxes WHERE x0 BETWEEN 100 AND 120 ORDER BY id")
    db("INSERT INTO words(words) VALUES('optimize')")
    db("DROP TABLE boxes")
    same(db, "SELECT rowid, text FROM words WHERE words MATCH 'cat'", "SELECT name FROM sqlite_schema ORDER BY 1")


@pytest.mark.parametrize("statement", [
    "INSERT INTO people(name, age) VALUES('new', 1), ('taken', 2)",
    "INSERT INTO people(name, age) VALUES('x', -1)",
    "INSERT INTO people(name) VALUES(NULL)",
    "INSERT INTO pets(owner) VALUES(99)",
    "UPDATE people SET name = 'taken'",
])
def test_a_constraint_error_leaves_nothing_at_the_primary(statement, db):
    db("INSERT INTO people(name) VALUES('taken'), ('other')")
    newest = db.primary.hello()
    with pytest.raises(SqlError) as caught:
        db(statement)
    assert caught.value.code == CONSTRAINT
    assert db.primary.hello() == newest
    same(db, PEOPLE)
    # Inside a transaction the statement is undone, the rest goes on.
    db("BEGIN")
    db("INSERT INTO people(name) VALUES('before')")
    with pytest.raises(SqlError):
        db(statement)
    db("INSERT INTO people(name) VALUES('after')")
    db("COMMIT")
    assert db("SELECT name FROM people ORDER BY id") == [("taken",), ("other",), ("before",), ("after",)]
    same(db, PEOPLE)


def test_executemany_of_100000_rows(host, path, new_primary):
    """One transaction by Python's driver, longer than any lock of the primary lasts unasked."""
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, s TEXT)")
    replica = host.open(path, primary.url)
    replica("BEGIN")
    replica("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO t SELECT i, i * 7 % 1000, 'row ' || i FROM n")
    replica("COMMIT")
    query = "SELECT count(*), sum(n), sum(length(s)) FROM t"
    assert primary.sql(query) == [list(replica(query)[0])]
    identical(path, primary)


@pytest.mark.parametrize("rows", [300, 800, 3000])
def test_the_log_goes_on_behind_a_large_transaction(rows, host, path, new_primary, write_path):
    """More pages than the primary's cache holds come to its log in an order of its own."""
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, data); CREATE TABLE u(x); INSERT INTO u VALUES(0)")
    replica = host.open(path, primary.url)
    for statement in [f"INSERT INTO t SELECT value, randomblob(3600) FROM {series(rows)}",
                      "UPDATE t SET data = randomblob(3600)", "UPDATE t SET data = x'' WHERE id % 3 = 0",
                      "DELETE FROM t WHERE id % 2", "DELETE FROM t"]:
        replica(statement)
        assert replica.frame_no == primary.hello()[1]
        primary.sql("UPDATE u SET x = x + 1")
        synced = replica.sync()["frames_synced"]
        assert synced == 1 or write_path == "rows"  # then the primary's own pages had still to come
        assert host.last_error() is None
    identical(path, primary)


def test_nothing_to_say_ships_nothing(db):
    db("INSERT INTO people(name) VALUES('a')")
    newest = db.primary.hello()
    db("UPDATE people SET age = age")
    db("DELETE FROM people WHERE name = 'nobody'")
    assert db.primary.hello() == newest
    same(db, PEOPLE)


def test_an_empty_primary_is_initialised(host, path, new_primary):
    primary = new_primary()
    replica = host.open(path, primary.url)
    replica("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    replica("INSERT INTO t(x) VALUES('first')")
    assert primary.sql("SELECT * FROM t") == [[1, "first"]]
    assert primary.sql("SELECT name FROM sqlite_schema") == [["t"]]
    identical(path, primary)


def test_the_mix_of_local_and_foreign_writes_is_identical(db):
    for n in range(30):
        db("INSERT INTO people(name, age) VALUES(?, ?)", f"here {n}", n)
        db.primary.sql("INSERT INTO people(name, age) VALUES(?, ?)", f"there {n}", n)
        if n % 3 == 0:
            db.primary.sql(f"CREATE TABLE t{n}(x)")
        if n % 4 == 0:
            db.sync()
        elif n % 4 == 1:
            assert db.one("SELECT count(*) FROM people") >= 2 * n + 1
        db.sync() if n % 5 else None
        try:
            db("UPDATE people SET age = age + 1 WHERE id % 3 = ?", n % 3)
        except SqlError as error:
            assert "snapshot" in error.text.lower() or error.extended == 517, error
            db.sync()
            db("UPDATE people SET age = age + 1 WHERE id % 3 = ?", n % 3)
    db.sync()
    same(db, PEOPLE)


def test_attached_replicas_and_plain_databases(host, tmp_path, new_primary):
    one, two = new_primary("CREATE TABLE t(x)"), new_primary("CREATE TABLE t(x)")
    replica = host.open(tmp_path / "one.db", one.url)
    replica("ATTACH ? AS two", replica_uri(tmp_path / "two.db", two.url))
    replica("ATTACH ? AS plain", str(tmp_path / "plain.db"))
    replica("CREATE TABLE plain.t(x)")
    replica("BEGIN")
    for schema in ("main", "two", "plain"):
        replica(f"INSERT INTO {schema}.t VALUES('{schema}')")
    replica("COMMIT")
    assert one.sql("SELECT x FROM t") == [["main"]] and two.sql("SELECT x FROM t") == [["two"]]
    assert replica.one("SELECT x FROM plain.t") == "plain"
    replica("INSERT INTO two.t SELECT x FROM main.t")
    assert two.sql("SELECT count(*) FROM t") == [[2]]
    identical(tmp_path / "one.db", one)
    identical(tmp_path / "two.db", two)


def test_other_connections_of_the_process_see_it_at_once(host, new_host, path, new_primary):
    primary = new_primary("CREATE TABLE t(x)")
    writer, reader, elsewhere = host.open(path, primary.url), host.open(path, primary.url), new_host().open(path)
    for n in range(5):
        writer("INSERT INTO t VALUES(?)", n)
        assert reader.one("SELECT count(*) FROM t") == elsewhere.one("SELECT count(*) FROM t") == n + 1
    elsewhere("INSERT INTO t VALUES('from there')")
    assert writer.one("SELECT count(*) FROM t") == 6
    identical(path, primary)


def test_the_shell(path, primary):
    result = loaded_shell(f'.open "{replica_uri(path, primary.url)}"\n'
                          "INSERT INTO users(name) VALUES('from the shell') RETURNING id;\n"
                          "BEGIN;\nUPDATE users SET email = name;\nCOMMIT;\n"
                          "SELECT changes(), last_insert_rowid();\n")
    assert (result.stdout, result.stderr) == ("201\n201|201\n", "")
    assert primary.sql("SELECT name, email FROM users WHERE id = 201") == [["from the shell", "from the shell"]]
    identical(path, primary)


def test_checkpoints_and_the_log_of_a_writing_replica(host, path, new_primary, write_path):
    """The log stays bounded, and a checkpoint by a connection costs no second look at the content."""
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    replica = host.open(path, primary.url)
    for _ in range(60):
        replica("INSERT INTO t(x) SELECT randomblob(60000) FROM (VALUES(1), (2), (3), (4))")
    assert path.with_name(path.name + "-wal").stat().st_size < 24 << 20
    if write_path == "rows":
        replica.sync()
    assert json.loads(replica.one("SELECT replica_sync()"))["frames_synced"] == 0
    identical(path, primary)


def test_a_backup_taken_meanwhile_is_whole(host, path, tmp_path, primary):
    replica = host.open(path, primary.url)
    replica("INSERT INTO users(name) VALUES('x')")
    source, copy = sqlite3.connect(path), sqlite3.connect(tmp_path / "copy.db")
    source.backup(copy)
    assert copy.execute("SELECT count(*) FROM users").fetchone() == (201,)
    source.close()
    copy.close()
