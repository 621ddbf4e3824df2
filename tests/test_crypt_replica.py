"""An encrypted replica of a real primary: as a plain one, but for what its files show."""
import random
import time

import pytest
from harness.crypt import KEY, RAW, assert_no_plaintext, code_of, program
from harness.host import NOTADB
from harness.shell import sidecars

MARKED = """
CREATE TABLE secret(id INTEGER PRIMARY KEY, v TEXT);
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
  INSERT INTO secret SELECT i, 'plaintext-marker ' || i || hex(randomblob(30)) FROM n;
"""


def same(db, primary):
    assert db.one("PRAGMA integrity_check") == "ok"
    query = "SELECT count(*), sum(length(v)), max(id) FROM secret"
    assert db(query) == [tuple(row) for row in primary.sql(query)]


@pytest.mark.parametrize("key", [KEY, RAW])
def test_end_to_end(key, new_host, new_primary, path):
    primary, host = new_primary(MARKED), new_host()
    db = host.open(path, primary.url, encryption_key=key)
    same(db, primary)
    assert db.status()["encrypted"] == 1
    assert_no_plaintext(path.parent)
    for _ in range(5):
        primary.sql("INSERT INTO secret(v) SELECT 'plaintext-marker ' || hex(randomblob(500)) FROM secret LIMIT 300")
        assert db.sync()["frames_synced"] > 0
        same(db, primary)
        assert_no_plaintext(path.parent)
    second = new_host().open(path, encryption_key=key)  # its primary is remembered
    same(second, primary)
    primary.sql("DELETE FROM secret WHERE id % 2")
    second.sync()
    same(db, primary)
    host.kill()
    primary.sql("UPDATE secret SET v = v || 'x' WHERE id % 3 = 0")
    third = new_host().open(path, encryption_key=key)
    third.sync()
    same(third, primary)
    assert_no_plaintext(path.parent)


def test_keys(new_host, new_primary, path):
    primary, host = new_primary(MARKED), new_host()
    db = host.open(path, primary.url, encryption_key=KEY)
    for other in (host, new_host()):
        for key in (None, "another", RAW):
            options = {"encryption_key": key} if key else {}
            assert code_of(lambda: other.open(path, primary.url, **options)("SELECT * FROM secret")) == NOTADB
            assert "encrypt" in other.last_error()
    before = sidecars(path)
    db.one("SELECT replica_rekey('the second key')")
    assert sidecars(path) == before
    primary.sql("DELETE FROM secret WHERE id > 100")
    db.sync()
    same(db, primary)
    host.close()
    host = new_host()
    assert code_of(lambda: host.open(path, primary.url, encryption_key=KEY)("SELECT * FROM secret")) == NOTADB
    same(host.open(path, primary.url, encryption_key="the second key"), primary)


def test_a_plain_replica_does_not_become_encrypted(new_host, new_primary, path):
    primary = new_primary(MARKED)
    new_host().open(path, primary.url).close()
    before = path.read_bytes()
    host = new_host()
    assert code_of(lambda: host.open(path, primary.url, encryption_key=KEY)("SELECT * FROM secret")) == NOTADB
    assert "not encrypted" in host.last_error()
    assert path.read_bytes() == before


def test_resync_and_another_history(new_host, new_primary, path):
    primary = new_primary(MARKED)
    db = new_host().open(path, primary.url, encryption_key=RAW)
    db("SELECT replica_resync()")
    same(db, primary)
    primary.kill()
    primary.start()  # another log
    primary.sql("INSERT INTO secret(v) VALUES('plaintext-marker of the new history')")
    db.sync()
    same(db, primary)
    assert_no_plaintext(path.parent)


def test_an_altered_page_is_found(new_host, new_primary, path):
    primary, host = new_primary(MARKED), new_host()
    host.open(path, primary.url, encryption_key=RAW).close()
    host.close()
    data = bytearray(path.read_bytes())
    data[4608 + 4124 * 5 + 100] ^= 1
    path.write_bytes(data)
    db = new_host().open(path, encryption_key=RAW)
    assert code_of(lambda: db("SELECT sum(length(v)) FROM secret")) == 11


def test_beside_a_plain_replica(new_host, new_primary, path):
    primary, host = new_primary(MARKED), new_host()
    plain = host.open(path.with_name("plain.db"), primary.url)
    db = host.open(path, primary.url, encryption_key=RAW)
    primary.sql("DELETE FROM secret WHERE id > 50")
    for replica in (plain, db):
        replica.sync()
        same(replica, primary)
    assert (plain.status()["encrypted"], db.status()["encrypted"]) == (0, 1)
    assert path.with_name("plain.db").read_bytes()[:15] == b"SQLite format 3"


def test_kills_of_syncs(new_host, new_primary, path):
    """60 kills of bootstraps and increments."""
    rng, primary = random.Random(4), new_primary(MARKED)
    host = new_host()
    for cycle in range(60):
        if cycle % 10 == 0:
            for file in path.parent.iterdir():
                file.unlink()
        primary.sql("UPDATE secret SET v = v || ? WHERE id % 7 = ?", f"plaintext-marker {cycle}", cycle % 7)
        process = program("""
print("ready", flush=True)
db = connect(sys.argv[1], sys.argv[2], sync_url=sys.argv[3])
while True: db.execute("SELECT replica_sync()").fetchone()
""", path, RAW, primary.url)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.12))
        process.kill()
        output, errors = process.communicate()
        assert not errors, errors
        db = host.open(path, primary.url, encryption_key=RAW)
        db.sync()
        same(db, primary)
        db.close()
        assert_no_plaintext(path.parent)


def test_writes(write_path, new_host, new_primary, path):
    """Whatever a commit keeps beside the file until the primary's pages have come is encrypted, too."""
    primary, host = new_primary(MARKED), new_host()
    undo = path.with_name(path.name + "-replica-undo")
    db = host.open(path, primary.url, encryption_key=KEY)
    db("PRAGMA cache_size = 10")
    for n in range(3):
        db("UPDATE secret SET v = 'plaintext-marker ' || id WHERE id % 7 = ?", n)
        db("INSERT INTO secret(v) SELECT 'plaintext-marker ' || hex(randomblob(500)) FROM secret LIMIT 300")
        db(f"CREATE TABLE more{n} AS SELECT * FROM secret LIMIT 50")
        assert undo.exists() == (write_path == "rows")
        assert_no_plaintext(path.parent)
    db.one("SELECT replica_rekey('the second key')")
    db("DELETE FROM secret WHERE id % 3 = 0")
    host.kill()
    assert_no_plaintext(path.parent)
    db = new_host().open(path, encryption_key="the second key")
    same(db, primary)
    db("DELETE FROM secret WHERE id % 5 = 0")
    same(db, primary)
    db.sync()
    same(db, primary)
    assert not undo.exists()
    assert_no_plaintext(path.parent)


def test_an_altered_undo_is_no_use(new_host, new_primary, path):
    primary, host = new_primary(MARKED), new_host()
    undo = path.with_name(path.name + "-replica-undo")
    db = host.open(path, primary.url, encryption_key=RAW, write_path="rows")
    db("DELETE FROM secret WHERE id % 3 = 0")
    host.kill()
    data = bytearray(undo.read_bytes())
    data[len(data) // 2] ^= 1
    undo.write_bytes(data)
    again = new_host()
    db = again.open(path, primary.url, encryption_key=RAW, write_path="rows")
    same(db, primary)
    db.sync()
    assert "undo" in again.last_error() and "again" in again.last_error()
    same(db, primary)
    assert_no_plaintext(path.parent)
