"""Makes rows-base.db and rows-new.db, the two states that tests/rows_fuzz.rs starts from."""
import random
import sqlite3
from pathlib import Path

here = Path(__file__).parent
r = random.Random(1)
for name in ("rows-base.db", "rows-new.db"):
    (here / name).unlink(missing_ok=True)
db = sqlite3.connect(here / "rows-base.db", isolation_level=None)
db.executescript("""
PRAGMA page_size=512; PRAGMA auto_vacuum=2; PRAGMA journal_mode=delete;
CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT, c REAL, v AS (b||'!'), s INT AS (length(b)) STORED);
CREATE UNIQUE INDEX i ON t(b) WHERE c IS NOT NULL;
CREATE TABLE w(k TEXT COLLATE NOCASE, n INT, x BLOB, PRIMARY KEY(n DESC, k)) WITHOUT ROWID;
CREATE TABLE big(x, y); CREATE TABLE gone(x UNIQUE);
CREATE VIRTUAL TABLE f USING fts5(a, b);
CREATE TRIGGER g AFTER INSERT ON big BEGIN UPDATE t SET c=c+1 WHERE a=new.y; END;
CREATE VIEW z AS SELECT a, b FROM t;
""")
db.execute("BEGIN")
for i in range(160):
    db.execute("INSERT INTO t(b, c) VALUES(?, ?)", (f"text {i} " + "x" * r.randint(0, 60), i / 2))
    db.execute("INSERT INTO w VALUES(?, ?, ?)", (f"key{i}", i % 7, r.randbytes(r.choice([0, 20, 200]))))
for i in range(12):
    db.execute("INSERT INTO big VALUES(?, ?)", (r.randbytes(r.choice([100, 600, 2500])), i))
    db.execute("INSERT INTO gone VALUES(?)", (r.randbytes(90),))
    db.execute("INSERT INTO f VALUES(?, ?)", (f"word{i} more", "again"))
db.execute("COMMIT")
db.execute("VACUUM")
db.execute("VACUUM INTO ?", (str(here / "rows-new.db"),))
db.close()
db = sqlite3.connect(here / "rows-new.db", isolation_level=None)
db.execute("BEGIN")
for sql in """
UPDATE t SET b=b||'y' WHERE a%9=0; DELETE FROM t WHERE a BETWEEN 40 AND 60; INSERT INTO t(b) VALUES('new');
UPDATE w SET x=zeroblob(300) WHERE n=3; DELETE FROM w WHERE k='key5'; INSERT INTO w VALUES('n', 99, NULL);
UPDATE big SET x=CAST(substr(x, 1, 2490)||zeroblob(10) AS BLOB) WHERE length(x)=2500;
INSERT INTO big VALUES(zeroblob(1500), 7); DROP TABLE gone; ALTER TABLE t ADD COLUMN d DEFAULT 5;
CREATE TABLE made(a, b); INSERT INTO made SELECT a, b FROM t LIMIT 30; CREATE INDEX m ON made(b);
INSERT INTO f VALUES('fresh', 'words'); ALTER TABLE big RENAME COLUMN y TO yy; PRAGMA user_version=4
""".split(";"):
    db.execute(sql)
db.execute("COMMIT")
db.close()
