"""What would break a replica is refused in words; settings and other databases work as ever."""
import pytest
from harness.check import identical
from harness.host import SqlError, replica_uri
from harness.shell import loaded_shell, stock


def test_other_databases_of_the_connection_are_written_as_ever(replica, primary, path):
    plain = path.with_name("plain.db")
    replica("ATTACH ? AS plain", str(plain))
    replica("CREATE TABLE plain.t AS SELECT * FROM users")
    replica("CREATE TEMP TABLE u AS SELECT * FROM users")
    replica("BEGIN")
    replica("DELETE FROM plain.t WHERE id > 10")
    replica("DELETE FROM temp.u WHERE id > 20")
    replica("COMMIT")
    assert replica("SELECT (SELECT count(*) FROM plain.t), (SELECT count(*) FROM temp.u)") == [(10, 20)]
    replica("DETACH plain")
    assert stock(plain, "SELECT count(*) FROM t;") == "10"
    identical(path, primary)


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "memory", "off", "wal"])
def test_journal_mode_is_wal(mode, replica, primary, path):
    assert replica.one(f"PRAGMA journal_mode = {mode}") == "wal"
    assert replica.one("PRAGMA journal_mode") == "wal"
    primary.sql("INSERT INTO users(name) VALUES('y')")
    replica.sync()
    identical(path, primary)


def test_locking_mode_is_normal(replica, primary, path):
    assert replica.one("PRAGMA locking_mode = exclusive") == "normal"
    primary.sql("INSERT INTO users(name) VALUES('y')")
    replica.sync()
    assert stock(path, "SELECT count(*) FROM users;") == "201"
    identical(path, primary)


@pytest.mark.parametrize("asked, has", [({}, "0"), ({"foreign_keys": 1}, "1"), ({"foreign_keys": 0}, "0")])
def test_defaults_of_a_replica_connection(asked, has, primary, path):
    """foreign_keys is the host's own unless asked for; plain connections keep theirs."""
    pragmas = "PRAGMA foreign_keys; PRAGMA busy_timeout;\n"
    result = loaded_shell(f'{pragmas}.open "{replica_uri(path, primary.url, **asked)}"\n{pragmas}'
                          f"PRAGMA foreign_keys = 1; PRAGMA busy_timeout = 7;\n{pragmas}"
                          f".open {path.with_name('plain.db')}\n{pragmas}")
    assert not result.stderr
    assert result.stdout.split() == ["0", "0", has, "5000", "7", "1", "7", "0", "0"]


def test_foreign_keys_by_replica_open(host, primary, path):
    options = f'{{"sync_url": "{primary.url}", "foreign_keys": true}}'
    host.plain(":memory:")("SELECT replica_open(?, ?)", str(path), options)
    assert host.plain(path).one("PRAGMA foreign_keys") == 1
    assert host.plain(path.with_name("other.db")).one("PRAGMA foreign_keys") == 0


@pytest.mark.usefixtures("write_path")
@pytest.mark.parametrize("enforced, left", [(0, 3), (1, 0)])
def test_a_table_rebuild_keeps_child_rows(enforced, left, host, new_primary, path):
    """As alembic's batch_alter_table, peewee and others do; with foreign_keys=1 the cascade is the user's own wish."""
    primary = new_primary("CREATE TABLE parent(id INTEGER PRIMARY KEY, a);"
                          "CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id) ON DELETE CASCADE);"
                          "INSERT INTO parent VALUES(1, 'x'), (2, 'y'); INSERT INTO child VALUES(1, 1), (2, 1), (3, 2);")
    db = host.open(path, primary.url, **({"foreign_keys": 1} if enforced else {}))
    for statement in ("BEGIN", "CREATE TABLE _new(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b)",
                      "INSERT INTO _new(id, a) SELECT id, a FROM parent", "DROP TABLE parent",
                      "ALTER TABLE _new RENAME TO parent", "COMMIT"):
        db(statement)
    assert db.one("SELECT count(*) FROM child") == left
    assert primary.sql("SELECT count(*) FROM child") == [[left]]
    if enforced:
        with pytest.raises(SqlError, match="FOREIGN KEY"):
            db("INSERT INTO child VALUES(9, 9)")
    identical(path, primary)


def test_query_only_and_other_settings_still_work(replica):
    replica("PRAGMA query_only = 1")
    replica("PRAGMA mmap_size = 10000000")
    replica("PRAGMA cache_size = 10")
    assert replica.one("SELECT count(*) FROM users") == 200
    assert replica.sync()["frames_synced"] == 0


def test_mode_ro(host, replica, primary, path):
    """A connection that may not write the file still reads what others pull."""
    reader = host.open(path, primary.url, mode="ro")
    primary.sql("INSERT INTO users(name) VALUES('y')")
    replica.sync()
    assert reader.one("SELECT count(*) FROM users") == 201
