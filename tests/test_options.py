"""Options: where they may come from, what is remembered, and that a bad one is never passed over."""
import pytest
from harness.check import identical, open_refused, refused
from harness.host import NOTADB, SqlError, replica_uri
from harness.shell import loaded_shell, sidecars, stock

BAD = {
    "sync_url": ["ftp://127.0.0.1/", "nonsense", "http://", "127.0.0.1:8080", "env:NO_SUCH_NAME", "file:/no/such/file"],
    "timeout": ["-1", "soon", "nan"],
    "sync_interval": ["-0.5", "often", "inf"],
    "live": ["perhaps"],
    "progress": ["some"],
    "read_your_writes": ["maybe"],
    "write_lock": ["lazy"],
    "write_path": ["pigeon"],
    "ca_file": ["/no/such/file.pem"],
    "auth_token": ["env:NO_SUCH_NAME", "file:/no/such/file", "two\nlines"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_fails_the_open(name, value, host, primary, path):
    open_refused(host, path, None, name, **{"sync_url": primary.url, name: value})
    assert host.open(path, primary.url).one("SELECT count(*) FROM users") == 200


def test_encryption_key_is_never_ignored(host, primary, path):
    """Neither for a replica that exists nor for a local file."""
    host.open(path, primary.url).close()
    for target, url in ((path, primary.url), (path, None)):
        with pytest.raises(SqlError) as refused:
            host.open(target, url, encryption_key="secret words")
        assert refused.value.code == NOTADB
        assert "encryption_key" in host.last_error()
    local = path.with_name("local.db")
    host.open(local, encryption_key="secret words")("CREATE TABLE t(a)")
    assert b"SQLite" not in local.read_bytes()
    assert "secret words" not in host.last_error()


def test_unknown_parameters_are_ignored_as_sqlite_does(host, primary, path):
    db = host.open(path, primary.url, sync_uri="http://127.0.0.1:1", colour="blue")
    assert db.status()["sync_url"] == primary.url


def test_values_from_environment_and_file(new_host, primary, tmp_path, path):
    file = tmp_path / "url.txt"
    file.write_text(primary.url + "\n")
    host = new_host(env={"THE_PRIMARY": primary.url, "THE_TIMEOUT": "7"})
    first = host.open(path, "env:THE_PRIMARY", timeout="env:THE_TIMEOUT")
    second = host.open(path.with_name("b.db"), f"file:{file}")
    for db in (first, second):
        assert (db.one("SELECT count(*) FROM users"), db.status()["sync_url"]) == (200, primary.url)


def test_sync_url_is_remembered(new_host, primary, path):
    host = new_host()
    host.open(path, primary.url).close()
    primary.sql("UPDATE users SET name = 'x' WHERE id = 1")
    for program in (host, new_host()):
        db = program.open(path)
        assert db.status()["sync_url"] == primary.url
        assert db.sync()["frame_no"] == primary.hello()[1]
        assert db.one("SELECT name FROM users WHERE id = 1") == "x"


def test_a_primary_that_moved(host, primary, new_proxy, path):
    host.open(path, primary.url).close()
    primary.sql("UPDATE users SET name = 'x' WHERE id = 1")
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url)
    assert db.sync()["frames_synced"] >= 1 and proxy.requests
    db.close()
    assert host.open(path).status()["sync_url"] == proxy.url
    identical(path, primary)


def test_strange_path(host, primary, tmp_path):
    path = tmp_path / "a b%20c?d#é.db"
    db = host.open(path, primary.url)
    assert db.one("SELECT count(*) FROM users") == 200
    assert db.status()["path"] == str(path)
    assert path.exists() and (tmp_path / (path.name + "-replica")).exists()


def test_relative_path(new_host, primary, path):
    host = new_host(cwd=path.parent)
    assert host.open("app.db", primary.url).one("SELECT count(*) FROM users") == 200
    assert host.plain(":memory:").one("SELECT path FROM replica_databases") == str(path)


def test_without_sync_url_a_plain_file_stays_plain(host, path):
    db = host.open(path)
    db.script("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2); DELETE FROM t WHERE a = 1; VACUUM")
    assert db("SELECT a FROM t") == [(2,)]
    assert (db.one("PRAGMA journal_mode"), db.one("PRAGMA foreign_keys")) == ("delete", 0)
    assert db.one("PRAGMA journal_mode = wal") == "wal"
    db("INSERT INTO t VALUES(3)")
    refused(db.sync, ("not a replica", "no replica", "sync_url"))
    db.close()
    assert sidecars(path) == ["app.db"]
    assert stock(path, "SELECT sum(a) FROM t;") == "5"


def test_progress_only_where_asked(primary, path):
    def open_it(name, **options):
        uri = replica_uri(path.with_name(name), primary.url, **options)
        return loaded_shell(f'.open "{uri}"\nSELECT count(*) FROM users;')

    silent, asked = open_it("a.db"), open_it("b.db", progress=1)
    assert (silent.stdout, silent.stderr) == ("200\n", "")
    assert asked.stdout == "200\n" and asked.stderr
