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


def test_exclusive_locking_is_an_error(replica, primary, path):
    with pytest.raises(SqlError):
        replica("PRAGMA locking_mode = exclusive")
    primary.sql("INSERT INTO users(name) VALUES('y')")
    replica.sync()
    assert stock(path, "SELECT count(*) FROM users;") == "201"
    identical(path, primary)


def test_defaults_of_a_replica_connection(primary, path):
    """foreign_keys and busy_timeout as the primary has them; both can be changed; plain connections keep theirs."""
    pragmas = "PRAGMA foreign_keys; PRAGMA busy_timeout;\n"
    result = loaded_shell(f'{pragmas}.open "{replica_uri(path, primary.url)}"\n{pragmas}'
                          f"PRAGMA foreign_keys = 0; PRAGMA busy_timeout = 7;\n{pragmas}"
                          f".open {path.with_name('plain.db')}\n{pragmas}")
    assert not result.stderr
    assert result.stdout.split() == ["0", "0", "1", "5000", "7", "0", "7", "0", "0"]


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
