"""Everything at once: an encrypted replica that is written to, kept live, by several processes."""
from harness.primary import eventually
from harness.shell import sidecars

KEY = "correct horse battery staple"


def test_an_encrypted_live_replica_is_written_to(host, new_host, path, primary):
    db = host.open(path, primary.url, encryption_key=KEY, live=1)
    other = new_host().open(path, encryption_key=KEY)
    db("INSERT INTO users(name) VALUES('plainly visible')")
    db("CREATE TABLE secrets AS SELECT 'plainly visible ' || id AS text FROM users")
    assert primary.sql("SELECT count(*) FROM secrets") == [[201]]
    other("BEGIN")
    other("UPDATE secrets SET text = text || '!' WHERE rowid % 2")
    other("INSERT INTO secrets SELECT text FROM secrets")
    other("COMMIT")
    assert primary.sql("SELECT count(*) FROM secrets") == [[402]]
    primary.sql("INSERT INTO secrets VALUES('plainly visible, from there')")
    eventually(lambda: db.one("SELECT count(*) FROM secrets") == 403)
    assert other.one("SELECT count(*) FROM secrets") == 403
    for name in sidecars(path):
        content = path.with_name(name).read_bytes()
        assert b"plainly visible" not in content and b"SQLite format 3" not in content, name
    db("SELECT replica_rekey('another key')")
    db("INSERT INTO secrets VALUES('after')")
    other("INSERT INTO secrets VALUES('after, too')")
    db.close()
    other.close()
    again = host.open(path, encryption_key="another key")
    assert again.one("SELECT count(*) FROM secrets") == 405
    assert again.one("PRAGMA integrity_check") == "ok"
    again("DELETE FROM secrets WHERE rowid % 3 = 0")
    assert primary.sql("SELECT count(*) FROM secrets") == [[again.one("SELECT count(*) FROM secrets")]]
    rows = again("SELECT rowid, text FROM secrets ORDER BY rowid")
    assert [list(row) for row in rows] == primary.sql("SELECT rowid, text FROM secrets ORDER BY rowid")
