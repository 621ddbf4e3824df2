"""Row changes as SQL: single cases. The random ones are in test_rows_random.py."""
import shutil
import subprocess

import pytest

from harness.paths import REPO
from harness.rows import Bridge, Refused, connect, replay


@pytest.fixture(scope="module")
def bridge():
    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "rows"], cwd=REPO, check=True)
    bridge = Bridge()
    yield bridge
    bridge.close()


@pytest.fixture
def case(bridge, tmp_path):
    def run(base, change, pragmas="", raw=None):
        """SQL before, SQL of the transaction; the statements planned."""
        a, b = tmp_path / "a.db", tmp_path / "b.db"
        a.unlink(missing_ok=True)
        db = connect(a)
        db.executescript(pragmas)
        db.executescript(base)
        db.close()
        shutil.copyfile(a, b)
        db = connect(b)
        db.executescript("PRAGMA foreign_keys=on; PRAGMA recursive_triggers=on; BEGIN;")
        for sql in change if isinstance(change, list) else [change]:
            if isinstance(sql, tuple):
                db.execute(*sql)
            else:
                for one in split(sql):
                    db.execute(one)
        db.execute("COMMIT")
        db.close()
        (plan,) = bridge.plans([a, b])
        if isinstance(plan, Refused):
            raise plan
        replay(a, plan, b, tmp_path / "c.db")
        return [s["sql"] for s in plan]
    return run


def split(script):
    """Single statements, for executescript commits first."""
    import sqlite3
    part = ""
    for piece in script.split(";"):
        part += piece + ";"
        if sqlite3.complete_statement(part):
            if part.strip(" \n;"):
                yield part
            part = ""


def rows(n, size=20):
    return f"WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{n}) SELECT i, hex(randomblob({size})) FROM n"


def test_only_what_changed(case):
    plan = case(f"CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t {rows(5000)};",
                "UPDATE t SET b='x' WHERE a=77; DELETE FROM t WHERE a=4000; INSERT INTO t VALUES(9999, NULL);")
    assert plan == ['DELETE FROM "t" WHERE "a" = ?', 'UPDATE OR ABORT "t" SET "b" = ? WHERE "a" = ?',
                    'INSERT OR ABORT INTO "t"("a", "b") VALUES(?, ?)']


def test_nothing_changed(case):
    base = f"CREATE TABLE t(a, b); INSERT INTO t {rows(500)};"
    assert case(base, "UPDATE t SET a=a; UPDATE t SET b=b||'x' WHERE a=7; UPDATE t SET b=substr(b,1,40) WHERE a=7") == []


VALUES = """INSERT INTO t VALUES(1), (NULL), (-0.0), (1.5), (9e999), (-9e999), (9223372036854775807), (''), (x''),
  ('a' || char(0) || 'b'), (CAST(x'fffe41' AS TEXT)), (CAST(x'eda080' AS TEXT)), (char(65534, 65535, 65279)), ('1'), (x'31'),
  (zeroblob(100000)), (CAST(zeroblob(70000) AS TEXT)), (4e15), (-4e15), (1e300), ('é😀')"""


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("declared", ["", "TEXT", "REAL", "INTEGER", "NUMERIC", "BLOB", "FLOAT"])
def test_values_are_exact(case, encoding, declared):
    case(f"CREATE TABLE t(v {declared}); INSERT INTO t VALUES(0);", VALUES, f"PRAGMA encoding='{encoding}';")


def test_page_sizes_and_reserved_bytes(case):
    for size in (512, 1024, 65536):
        case(f"CREATE TABLE t(a, b); INSERT INTO t {rows(900)};",
             f"UPDATE t SET b=hex(randomblob(3000)) WHERE a%7=0; DELETE FROM t WHERE a%3=0;", f"PRAGMA page_size={size};")


def test_an_overflow_page_alone(case):
    """SQLite writes over a row of the same size in place: only a page deep in the chain changes."""
    base = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t SELECT value, zeroblob(20000) FROM json_each('[1,2,3,4,5]');"
    plan = case(base, "UPDATE t SET b=CAST(zeroblob(19000) || 'x' || zeroblob(999) AS BLOB) WHERE a=3")
    assert len(plan) == 1
    base = "CREATE TABLE t(k TEXT PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t SELECT 'k'||value, zeroblob(20000) FROM json_each('[1,2,3,4,5]');"
    plan = case(base, "UPDATE t SET b=CAST(zeroblob(19000) || 'x' || zeroblob(999) AS BLOB) WHERE k='k3'")
    assert len(plan) == 1


def test_moving_keys(case):
    case("CREATE TABLE t(a INTEGER PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES(1,1,1),(2,2,2),(3,3,3); CREATE UNIQUE INDEX e ON t(abs(v)) WHERE v<>0;",
         ["UPDATE t SET u=-u", "UPDATE t SET u=CASE u WHEN -1 THEN 2 WHEN -2 THEN 1 ELSE u END, v=v+10", "UPDATE t SET v=v+100 WHERE v<>11", "UPDATE t SET v=12 WHERE v=11",
          "UPDATE t SET a=-a", "UPDATE t SET a=a+4"])
    case("CREATE TABLE t(a TEXT COLLATE NOCASE, b, PRIMARY KEY(a COLLATE BINARY, b DESC)) WITHOUT ROWID; INSERT INTO t VALUES('a',1),('A',1),('a',2);",
         "UPDATE t SET a='B' WHERE a='A' COLLATE BINARY; DELETE FROM t WHERE a='a' COLLATE BINARY AND b=1; INSERT INTO t VALUES('A',2)")


def test_triggers_do_not_fire_twice(case):
    plan = case("""CREATE TABLE t(a INTEGER PRIMARY KEY, n); CREATE TABLE log(x); INSERT INTO t VALUES(1, 0);
         CREATE TRIGGER r AFTER UPDATE ON t WHEN new.n<5 BEGIN UPDATE t SET n=n+1 WHERE a=new.a; INSERT INTO log VALUES(new.n); END;
         CREATE TRIGGER z BEFORE INSERT ON log BEGIN SELECT 1; END;
         CREATE TRIGGER other AFTER DELETE ON t BEGIN DELETE FROM log; END;""", "UPDATE t SET n=1")
    assert sum(s.startswith("DROP TRIGGER") for s in plan) == sum(s.startswith("CREATE TRIGGER") for s in plan) == 3


def test_cascades_and_replace(case):
    case("""CREATE TABLE p(a INTEGER PRIMARY KEY); CREATE TABLE c(x, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
         INSERT INTO p VALUES(1),(2),(3); INSERT INTO c VALUES('a',1),('b',2),('c',3); CREATE TABLE u(k UNIQUE ON CONFLICT REPLACE, v); INSERT INTO u VALUES(1,1),(2,2);""",
         "DELETE FROM p WHERE a=1; UPDATE p SET a=9 WHERE a=2; INSERT INTO u VALUES(1,'new'); REPLACE INTO u VALUES(2,3); INSERT INTO u VALUES(5,5) ON CONFLICT(k) DO UPDATE SET v=7;")


def test_hidden_rowids(case):
    plan = case("CREATE TABLE t(rowid, _rowid_, OID); INSERT INTO t VALUES(1,1,1),(1,1,1),(2,2,2); CREATE VIEW v AS SELECT OID FROM t;",
                ["DELETE FROM t WHERE OID=2", "INSERT INTO t VALUES(1,1,1),(3,3,3)", "UPDATE t SET rowid=8 WHERE _rowid_=3"])
    assert any("libreplica_hidden_oid" in s for s in plan)
    case("CREATE TABLE t(rowid, oid); INSERT INTO t VALUES(1,1);", "UPDATE t SET rowid=2; INSERT INTO t VALUES(3,3)")
    case("CREATE TABLE t(rowid INTEGER PRIMARY KEY, oid, _rowid_); INSERT INTO t VALUES(1,1,1);", "UPDATE t SET oid=2; INSERT INTO t VALUES(3,3,4)")


def test_autoincrement(case):
    base = "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b); CREATE TABLE u(a INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE v(a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES(5,5);"
    case(base, "INSERT INTO u VALUES(NULL),(9); INSERT INTO t(b) VALUES(1); DELETE FROM t WHERE a>3;")
    case(base, "UPDATE sqlite_sequence SET seq=100; INSERT INTO sqlite_sequence VALUES('v', 7)")
    case(base, "DELETE FROM sqlite_sequence; INSERT INTO t VALUES(3,3)")
    case(base, "DROP TABLE t; CREATE TABLE w(a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO w VALUES(3)")
    case("CREATE TABLE x(a);", "CREATE TABLE w(a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO w VALUES(3)")
    case("CREATE TABLE x(a);", "CREATE TABLE w(a INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE w")
    case(base, "ALTER TABLE t RENAME TO renamed; INSERT INTO renamed(b) VALUES(1)")


GENERATED = "CREATE TABLE t(a INTEGER PRIMARY KEY, b REAL, v AS (b*2) VIRTUAL, s TEXT AS (a||'-'||b) STORED, c); CREATE UNIQUE INDEX i ON t(v); INSERT INTO t(a,b) VALUES(1,1),(2,2),(3,2.5);"


def test_generated_columns(case):
    case(GENERATED, "UPDATE t SET b=3 WHERE a=2; UPDATE t SET c=1 WHERE a=1; INSERT INTO t(b,c) VALUES(9,x'00'); UPDATE t SET b=2 WHERE a=3")


def test_strict(case):
    case("CREATE TABLE t(a INT, b REAL, c ANY, d BLOB, e TEXT) STRICT; INSERT INTO t VALUES(1,1,'1',x'',''); ",
         "INSERT INTO t VALUES(2, 5, 7, NULL, 'x'), (NULL, NULL, 5.0, x'01', '7'); UPDATE t SET b=b+1")


ALTERS = [
    "ALTER TABLE t ADD COLUMN n INT DEFAULT 5",
    "ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT (5); UPDATE t SET n=6 WHERE a=1; INSERT INTO t(a,b) VALUES(800, 'eighty'); ALTER TABLE t ADD m TEXT DEFAULT 'x,(y'",
    "INSERT INTO t(a,b) VALUES(800, 'eighty'); UPDATE t SET b='q' WHERE a=2; ALTER TABLE t ADD COLUMN n DEFAULT 'd'",
    "ALTER TABLE t RENAME COLUMN b TO bee",
    "ALTER TABLE t RENAME COLUMN b TO \"b e\"; UPDATE t SET \"b e\"=1 WHERE a=2",
    "ALTER TABLE t DROP COLUMN c",
    "ALTER TABLE t DROP COLUMN d; INSERT INTO t VALUES(800,'x','y')",
    "ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN c DEFAULT 9; UPDATE t SET d=1 WHERE a=3",
    "ALTER TABLE t RENAME TO u; UPDATE u SET b='moved' WHERE a=1",
    "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN a TO key; ALTER TABLE u DROP COLUMN d; ALTER TABLE u ADD COLUMN e AS (key+1)",
    "ALTER TABLE t RENAME COLUMN c TO tmp; ALTER TABLE t RENAME COLUMN d TO c; ALTER TABLE t RENAME COLUMN tmp TO d",
    "DROP TABLE kid; DELETE FROM t; ALTER TABLE t ADD COLUMN n NOT NULL; INSERT INTO t VALUES(1,2,3,4,5)",
    "CREATE TABLE t2(a INTEGER PRIMARY KEY, b INT, x); INSERT INTO t2 SELECT a, length(b), c FROM t; DROP TABLE kid; DROP VIEW v; DROP TABLE t; ALTER TABLE t2 RENAME TO t",
    "DROP TABLE kid; DROP VIEW v; DROP TABLE t; CREATE TABLE t(other TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES('x')",
    "DROP INDEX i; CREATE UNIQUE INDEX i ON t(b, a)",
    "DROP TRIGGER g; CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT 2; END; UPDATE t SET b='w' WHERE a=4",
    "DROP VIEW v; CREATE VIEW v AS SELECT 1 AS one",
    "CREATE TABLE made AS SELECT * FROM t; CREATE INDEX mi ON made(b) WHERE b IS NOT NULL; CREATE VIEW mv AS SELECT * FROM made",
    "ALTER TABLE kid RENAME TO child; ALTER TABLE child RENAME COLUMN ref TO reference; INSERT INTO child VALUES(1, 2)",
    "DROP VIEW v; ALTER TABLE t DROP COLUMN c; CREATE VIEW v AS SELECT a FROM t",
]


@pytest.mark.parametrize("change", ALTERS)
@pytest.mark.parametrize("pragmas", ["", "PRAGMA auto_vacuum=full;"])
def test_schema_changes(case, change, pragmas):
    case(f"""CREATE TABLE before(x); CREATE TABLE t(a INTEGER PRIMARY KEY, b, c, d);
         INSERT INTO t(a, b) {rows(300)}; CREATE INDEX i ON t(b);
         CREATE TABLE kid(x, ref REFERENCES t(a)); INSERT INTO kid VALUES(1, 1);
         CREATE VIEW v AS SELECT a, b FROM t; CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET b=new.b||'!' WHERE a=new.a; END;
         CREATE TABLE after(y); INSERT INTO after VALUES(1);""", change, pragmas)


def test_a_reference_to_a_table_that_is_gone_by_its_new_name(case):
    """Only dropping and adding the columns explains the definition, in which nothing else differs."""
    case("CREATE TABLE log(a PRIMARY KEY); CREATE TABLE t(a, b REFERENCES \"log\", c DEFAULT 'd', d); INSERT INTO t VALUES(1, NULL, 'c', 2), (2, NULL, NULL, 3);",
         "ALTER TABLE log RENAME TO new; DROP TABLE new")


PLAIN = ["", "DEFAULT 7", "DEFAULT -007", "DEFAULT (+5)", "DEFAULT 5000000000", "DEFAULT -9223372036854775808", "DEFAULT 1.5", "DEFAULT -1.50",
         "DEFAULT 0.1", "DEFAULT 0.0", "DEFAULT 1.0", "DEFAULT 1e3", "DEFAULT 123456789012.345", "DEFAULT ''", "DEFAULT 'it''s'", "DEFAULT word",
         "DEFAULT 'words, 5'", "DEFAULT \"two words\"", "DEFAULT x'00fF'", "DEFAULT NULL", "DEFAULT (NULL)"]
NOT_PLAIN = ["DEFAULT 0x10", "DEFAULT -0.0", "DEFAULT 1e300", "DEFAULT 0.12345678901234567", "DEFAULT 9223372036854775808"]


@pytest.mark.parametrize("declared", ["", "INT", "TEXT", "REAL", "BLOB", "NUMERIC", "BOOLEAN"])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_rows_older_than_a_column(case, declared, encoding):
    """What they are read with is not what an INSERT would put there; the primary gets it all the same, or nothing."""
    base = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'old');"
    change = "INSERT INTO t VALUES(2, 'new'); UPDATE t SET b = 'older' WHERE a = 1; ALTER TABLE t ADD COLUMN c {} {}"
    more = ["DEFAULT TRUE", "DEFAULT false"] if declared not in ("TEXT", "REAL") else []
    texts = ["DEFAULT ' 5'", "DEFAULT '1e3'", "DEFAULT '-'"] if declared in ("", "TEXT", "BLOB") else []
    for default in PLAIN + more + texts:
        case(base, change.format(declared, default), f"PRAGMA encoding='{encoding}';")
    for default in NOT_PLAIN:
        with pytest.raises(Refused, match="added column c, whose default is no plain constant"):
            case(base, change.format(declared, default))
        case(base, "ALTER TABLE t ADD COLUMN c DEFAULT 0x10; INSERT INTO t(a, b) VALUES(2, 'younger')")


def test_views_on_views(case):
    case("CREATE TABLE t(a, b); CREATE TABLE u(a); CREATE VIEW v AS SELECT a FROM u; CREATE VIEW w AS SELECT a FROM v; CREATE TRIGGER g INSTEAD OF INSERT ON w BEGIN SELECT 1; END;",
         "ALTER TABLE t RENAME COLUMN a TO z; DROP VIEW v; CREATE VIEW v AS SELECT a, 1 AS one FROM u")
    case("CREATE TABLE t(a, b); CREATE VIEW v AS SELECT b FROM t; CREATE INDEX i ON t(b);",
         "DROP VIEW v; DROP INDEX i; ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN c; CREATE TABLE q(b); CREATE VIEW v AS SELECT b FROM q")


VIRTUAL = "CREATE VIRTUAL TABLE f USING fts5(a, b); INSERT INTO f VALUES('one two','three'),('four','five six'); CREATE VIRTUAL TABLE r USING rtree(id,x0,x1); INSERT INTO r VALUES(1,0,1),(2,5,6); CREATE VIRTUAL TABLE g USING fts4(z); INSERT INTO g VALUES('q');"


@pytest.mark.parametrize("change", [
    "INSERT INTO f VALUES('seven','eight'); DELETE FROM f WHERE rowid=1; UPDATE f SET a='x' WHERE rowid=2; DELETE FROM r WHERE id=1; INSERT INTO r VALUES(9,1,2); INSERT INTO g VALUES('w')",
    "INSERT INTO f(f) VALUES('optimize'); INSERT INTO f(f, rank) VALUES('pgsz', 100)",
    "CREATE VIRTUAL TABLE n USING fts5(x, prefix='2 3'); INSERT INTO n VALUES('alpha beta'); CREATE VIRTUAL TABLE m USING rtree(i, a, b, c, d); INSERT INTO m VALUES(1,1,2,3,4)",
    "DROP TABLE f; DROP TABLE r; DROP TABLE g",
    "DROP TABLE f; CREATE VIRTUAL TABLE f USING fts5(a, b, c); INSERT INTO f VALUES('x','y','z')",
    "DROP TABLE r; CREATE VIRTUAL TABLE r USING rtree(id,x0,x1); INSERT INTO r VALUES(7,7,8)",
    "ALTER TABLE f RENAME TO found; INSERT INTO found VALUES('q','r'); ALTER TABLE r RENAME TO tree",
    "CREATE TABLE f_mine(a); INSERT INTO f_mine VALUES(1)",
])
def test_virtual_tables(case, change):
    case(VIRTUAL, change)


def test_user_version(case):
    assert case("CREATE TABLE t(a);", "PRAGMA user_version=-7") == ["PRAGMA user_version = -7"]


@pytest.mark.parametrize("change, word", [
    ("PRAGMA application_id=5", "application_id"),
    (["PRAGMA writable_schema=on", "UPDATE sqlite_schema SET sql='CREATE TABLE t(a CHECK(a))' WHERE name='t'"], "ALTER"),
    (["PRAGMA writable_schema=on", "UPDATE sqlite_schema SET sql='CREATE TABLE t(a INT)' WHERE name='t'"], "ALTER"),
])
def test_refusals(case, change, word):
    with pytest.raises(Refused, match=word):
        case("CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1);", change)


def test_statistics_are_plain_rows(case):
    base = f"CREATE TABLE t(a, b); CREATE INDEX i ON t(b); CREATE INDEX j ON t(a); INSERT INTO t {rows(50)}; ANALYZE;"
    case(base, "DELETE FROM t WHERE a>9; ANALYZE")
    case(base, "DROP INDEX i; UPDATE t SET b=1 WHERE a=1")
