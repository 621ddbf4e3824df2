"""Options: where they may come from, what is remembered, and that a bad one is never passed over."""
import json

import pytest
from harness.check import identical, in_words, open_refused, refused
from harness.host import CANTOPEN, NOTADB, SqlError, replica_uri
from harness.shell import loaded_shell, sidecars, stock

BAD = {
    "sync_url": ["ftp://127.0.0.1/", "nonsense", "http://", "127.0.0.1:8080", "env:NO_SUCH_NAME", "file:/no/such/file",
                 "http://127.0.0.1/?other=secret-value", "https://127.0.0.1/?tls=0", ""],
    "timeout": ["-1", "soon", "nan", "1e1", "0", ""],
    "sync_interval": ["-0.5", "often", "inf", "+1", ""],
    "live": ["perhaps", "yes", "no", "2", "", "file:/etc/hostname", "env:PATH"],
    "progress": ["some", "yes"],
    "read_your_writes": ["maybe", ""],
    "write_lock": ["lazy", "Eager"],
    "write_path": ["pigeon", ""],
    "namespace": ["file:/etc/hostname", "env:PATH", ""],
    "foreign_keys": ["yes", "2", ""],
    "ca_file": ["/no/such/file.pem", "env:NO_SUCH_NAME", ""],
    "auth_token": ["env:NO_SUCH_NAME", "file:/no/such/file", "two\nlines"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_fails_the_open(name, value, host, primary, path):
    open_refused(host, path, None, name, **{"sync_url": primary.url, name: value})
    assert len(value) < 4 or value not in host.last_error() and value.split(":")[-1] not in host.last_error()
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


@pytest.mark.parametrize("name, right", [
    ("sync_uri", "sync_url"), ("syncurl", "sync_url"), ("SYNC_URL", "sync_url"), ("sync-interval", "sync_interval"),
    ("authtoken", "auth_token"), ("token", "auth_token"), ("key", "encryption_key"), ("hexkey", "encryption_key"),
    ("Live", "live"), ("write_paths", "write_path"), ("Mode", "mode"), ("foreign_key", "foreign_keys"),
    ("bogus", "sync_url, auth_token"),
])
def test_an_unknown_option_fails_the_open_and_names_the_nearest(name, right, host, primary, path):
    open_refused(host, path, primary.url, f"'{name}'", right, **{name: "secret-value"})
    assert "secret-value" not in host.last_error()
    open_refused(host, path, None, f"'{name}'", right, **{name: "secret-value"})  # a local file neither
    error = refused(lambda: host.plain(":memory:")("SELECT replica_open(?, ?)", str(path), f'{{"{name}": "secret-value"}}'),
                    f"'{name}'", *[] if right == "mode" else [right])
    assert "secret-value" not in error.text


def test_a_value_that_went_astray_is_not_repeated(host, path):
    open_refused(host, path, "http://h", **{"eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.secret": ""})
    assert "eyJ" not in host.last_error()


def test_parameters_of_sqlite_and_of_bindings_pass(host, primary, path):
    others = dict(cache="private", psow=1, modeof=path.parent, nolock=0, immutable=0, readonly_shm=0, chunksize=0,
                  _pragma="busy_timeout(5)", _journal_mode="WAL", _busy_timeout=9, **{"8_3_names": 0})
    assert host.open(path, primary.url, mode="rwc", **others).one("SELECT count(*) FROM users") == 200


def test_spellings_of_the_libsql_clients(host, primary, path):
    options = dict(syncUrl=primary.url, authToken="a.b", syncInterval=0, readYourWrites="true", encryptionKey="words")
    db = host.open(path, **options)
    assert (db.one("SELECT count(*) FROM users"), db.status()["encrypted"]) == (200, 1)
    again = path.with_name("again.db")
    host.plain(":memory:")("SELECT replica_open(?, ?)", str(again), json.dumps(options))
    assert host.plain(again).status()["sync_url"] == primary.url


@pytest.mark.parametrize("pairs", [
    {"sync_interval": 1, "syncInterval": 2}, {"auth_token": "secret-a", "authToken": "secret-b"},
    {"auth_token": "secret-a", "sync_url": "{}?authToken=secret-b"}, {"syncUrl": "http://127.0.0.1:1"},
])
def test_two_spellings_that_contradict(pairs, host, primary, path):
    pairs = {name: str(value).format(primary.url) for name, value in pairs.items()}
    name = next(iter(pairs)).replace("U", "_u")
    open_refused(host, path, None, name, "different values", **{"sync_url": primary.url, **pairs})
    assert "secret" not in host.last_error() and "127.0.0.1:1" not in host.last_error()


def test_an_option_twice(host, primary, path):
    uri = replica_uri(path, primary.url, live=0) + "&live=1"
    with pytest.raises(SqlError):
        host.plain(uri, uri=True)
    assert "live is given twice" in host.last_error()


def test_uri_and_replica_open_are_merged(host, primary, new_primary, path):
    other = new_primary("CREATE TABLE t(a);")
    loader = host.plain(":memory:")
    loader("SELECT replica_open(?, ?)", str(path), json.dumps({"sync_url": primary.url, "sync_interval": 100}))
    for uri in (f"file:{path}", replica_uri(path)):
        db = host.plain(f"{uri}{'&' if '?' in uri else '?'}foreign_keys=1&timeout=7&sync_interval=100", uri=True)
        assert (db.one("SELECT count(*) FROM users"), db.status()["sync_interval"]) == (200, 100)
        assert db.one("PRAGMA foreign_keys") == 1
        db.close()
        for wrong, name in ((f"syncUrl={other.url}", "sync_url"), ("sync_interval=7", "sync_interval"),
                            ("sync_uri=x", "sync_url"), ("live=yes", "live")):
            with pytest.raises(SqlError) as caught:
                host.plain(f"{uri}{'&' if '?' in uri else '?'}{wrong}", uri=True)
            assert caught.value.code == CANTOPEN
            in_words(host.last_error(), name)
            assert other.url not in host.last_error()
    # Another file keeps whatever it has in its URI.
    assert host.plain(f"file:{path.with_name('x.db')}?sync_uri=x", uri=True)("SELECT 1") == [(1,)]


def test_values_from_environment_and_file(new_host, guarded, tmp_path, path):
    """A secret may come with white space around it."""
    file = tmp_path / "token"
    file.write_text(f"\n {guarded.token}\r\n\n")
    host = new_host(env={"TOKEN": f"{guarded.token}\n", "NONE": ""})
    for number, value in enumerate(("env:TOKEN", f"file:{file}", f"{guarded.token}\n")):
        db = host.open(path.with_name(f"{number}.db"), guarded.url, auth_token=value)
        assert db.one("SELECT count(*) FROM users") == 200
        db("SELECT replica_config('auth_token', ?)", value)
        db.sync()
        other = path.with_name(f"json{number}.db")
        host.plain(":memory:")("SELECT replica_open(?, ?)", str(other),
                               json.dumps({"sync_url": guarded.url, "authToken": value}))
        assert host.plain(other).one("SELECT count(*) FROM users") == 200
    db = host.open(path.with_name("0.db"), guarded.url, auth_token="env:NONE")  # none is no other one
    db.sync()


@pytest.mark.parametrize("form", ["{}?authToken={}", "{}/?authToken={}%0A&tls=0", "LIBSQL{}?tls=0&authToken={}", "HTTP{}/?authToken={}"])
def test_a_token_in_the_url(form, host, guarded, path):
    """As in Turso's own strings; it is used, and neither remembered nor shown."""
    rest = guarded.url.removeprefix("http") if form[0].isupper() else guarded.url
    db = host.open(path, form.format(rest, guarded.token))
    assert db.one("SELECT count(*) FROM users") == 200
    url = db.status()["sync_url"]
    assert url.rstrip("/") == guarded.url
    db.close()
    signature = guarded.token.split(".")[2]
    for file in path.parent.iterdir():
        assert signature.encode() not in file.read_bytes(), file
    db = host.open(path, auth_token=guarded.token)
    assert db.status()["sync_url"] == url and db.sync()["frame_no"] == guarded.hello()[1]


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
