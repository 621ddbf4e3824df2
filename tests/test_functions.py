"""The SQL surface: shapes, arguments, errors, and that data can never call it."""
import json
import time

import pytest
from harness.check import in_words, open_refused, refused
from harness.faults import LOSE, PASS
from harness.host import SqlError

STATUS = ["path", "sync_url", "write_path", "frame_no", "primary_frame_no", "state", "last_sync", "last_error",
          "encrypted", "sync_interval", "live", "frames_applied", "commits_shipped", "bytes_received", "bytes_sent",
          "offline_since"]
CALLS = ["replica_sync()", "replica_status()", "replica_frame_no()", "replica_wait(0, 0)", "replica_config('timeout', 5)",
         "replica_resync()", "replica_last_error()", "replica_open('x.db', '{}')", "replica_version()"]


# --- only a program may call them ----------------------------------------------------------------

@pytest.mark.parametrize("call", CALLS)
def test_a_view_that_came_with_the_data_cannot_call(call, replica, primary):
    primary.sql(f"CREATE VIEW trap AS SELECT {call} AS x")
    replica.sync()
    with pytest.raises(SqlError, match="unsafe use of"):
        replica("SELECT * FROM trap")
    assert replica(f"SELECT {call}")


@pytest.mark.parametrize("call", CALLS)
def test_a_trigger_cannot_call(call, host, path):
    db = host.plain(path)
    db.script(f"CREATE TABLE t(a); CREATE TRIGGER trap AFTER INSERT ON t BEGIN SELECT {call}; END")
    with pytest.raises(SqlError, match="unsafe use of"):
        db("INSERT INTO t VALUES(1)")


# --- replica_sync, replica_status, replica_frame_no --------------------------------------------------

def test_sync_answers_json(replica, primary):
    newest = primary.hello()[1]
    assert replica.one("SELECT replica_sync()") == f'{{"frame_no":{newest},"frames_synced":0}}'
    assert replica.one("SELECT json_type(replica_sync('main'), '$.frames_synced')") == "integer"


def test_status(replica, primary, path):
    primary.sql("INSERT INTO users(name) VALUES('x')")
    before, start = replica.frame_no, int(time.time())
    replica.sync()
    status = replica.status()
    assert sorted(status) == sorted(STATUS)
    newest = primary.hello()[1]
    assert {k: status[k] for k in ("path", "sync_url", "frame_no", "primary_frame_no", "state", "last_error")} == {
        "path": str(path), "sync_url": primary.url, "frame_no": newest, "primary_frame_no": newest, "state": "online",
        "last_error": None}
    assert start <= status["last_sync"] <= time.time() + 1
    assert not status["encrypted"] and not status["live"] and status["sync_interval"] == 0
    assert status["frames_applied"] >= newest - before and status["commits_shipped"] == 0
    assert status["bytes_received"] > 4096 and status["bytes_sent"] > 0
    later = replica.sync() and replica.status()
    assert later["bytes_sent"] > status["bytes_sent"] and later["frames_applied"] == status["frames_applied"]


def test_databases_lists_every_open_replica(host, new_primary, primary, tmp_path, path):
    db = host.open(path, primary.url)
    db("SELECT * FROM replica_databases LIMIT 0")
    assert db.columns == STATUS
    other_primary = new_primary("CREATE TABLE t(a);")
    other = host.open(tmp_path / "other.db", other_primary.url)
    assert sorted(db("SELECT path, sync_url FROM replica_databases")) == sorted(
        [(str(path), primary.url), (str(tmp_path / "other.db"), other_primary.url)])
    (row,) = db("SELECT * FROM replica_databases WHERE path = ?", str(path))
    status = db.status()
    assert dict(zip(STATUS, row)) == {**status, "encrypted": row[8], "live": row[10]}
    assert (bool(row[8]), bool(row[10])) == (status["encrypted"], status["live"]) == (False, False)
    assert other.one("SELECT count(*) FROM replica_databases") == 2
    other.close()
    assert db("SELECT path FROM replica_databases") == [(str(path),)]


def test_databases_is_empty_without_a_replica(host):
    assert host.plain(":memory:")("SELECT * FROM replica_databases") == []


def test_databases_is_read_only(replica):
    with pytest.raises(SqlError):
        replica("DELETE FROM replica_databases")


# --- wrong place -------------------------------------------------------------------------------------

BY_SCHEMA = ["replica_sync({})", "replica_status({})", "replica_frame_no({})", "replica_wait(0, 0, {})",
             "replica_config('timeout', 5, {})", "replica_resync({})"]


@pytest.mark.parametrize("call", BY_SCHEMA)
def test_unknown_schema(call, replica):
    refused(lambda: replica(f"SELECT {call.format(repr('nowhere'))}"), "nowhere")


@pytest.mark.parametrize("call", [call for call in BY_SCHEMA if "frame_no" not in call])
@pytest.mark.parametrize("schema", ["main", "temp", "plain"])
def test_a_database_that_is_no_replica(call, schema, host, path):
    db = host.plain(":memory:")
    db("ATTACH ? AS plain", str(path))
    db("CREATE TABLE plain.t(a)")
    db("CREATE TEMP TABLE u(a)")
    refused(lambda: db(f"SELECT {call.format(repr(schema))}"), schema, "replica")


def test_schema_names_are_those_of_the_connection(host, primary, path):
    """Upper and lower case as in SQL; main is the default."""
    db = host.open(path, primary.url)
    assert json.loads(db.one("SELECT replica_status('MAIN')"))["path"] == str(path)
    assert db.one("SELECT replica_frame_no('main') = replica_frame_no()") == 1


@pytest.mark.parametrize("call", [
    "replica_sync(1, 2)", "replica_wait(1)", "replica_config('timeout')", "replica_open('x')",
    "replica_last_error(1)", "replica_status(1, 2)",
])
def test_wrong_number_of_arguments(call, replica):
    with pytest.raises(SqlError, match="wrong number of arguments"):
        replica(f"SELECT {call}")


# --- replica_wait ------------------------------------------------------------------------------------

def test_wait(replica, primary):
    now = replica.frame_no
    assert replica.one("SELECT replica_wait(?, 0)", now) == 1
    assert replica.one("SELECT replica_wait(0, 5)") == 1
    start = time.monotonic()
    assert replica.one("SELECT replica_wait(?, 0.3)", now + 1) == 0
    assert 0.25 < time.monotonic() - start < 3
    primary.sql("INSERT INTO users(name) VALUES('x')")
    assert replica.one("SELECT replica_wait(?, 5)", primary.hello()[1]) == 1
    assert replica.one("SELECT count(*) FROM users") == 201


def test_wait_ends_in_time_where_nothing_answers(host, path, primary, new_fault_proxy):
    proxy = new_fault_proxy(primary.url)
    db = host.open(path, proxy.url, timeout=6)
    now = db.frame_no
    primary.sql("INSERT INTO users(name) VALUES('x')")
    proxy.rule = lambda request: LOSE
    start = time.monotonic()
    assert db.one("SELECT replica_wait(?, 0.5)", now + 1) == 0
    assert 0.45 < time.monotonic() - start < 3
    proxy.rule = lambda request: PASS
    assert db.one("SELECT replica_wait(?, 20)", now + 1) == 1
    assert db.one("SELECT count(*) FROM users") == 201


def test_wait_until_the_commit_comes(replica, primary):
    waiting = replica.start("SELECT replica_wait(?, 20)", replica.frame_no + 1)
    time.sleep(0.3)
    assert not waiting.done()
    primary.sql("INSERT INTO users(name) VALUES('x')")
    start = time.monotonic()
    assert waiting.result(20) == [(1,)]
    print(f"noticed after {(time.monotonic() - start) * 1e3:.0f} ms")
    assert time.monotonic() - start < 3
    assert replica.one("SELECT count(*) FROM users") == 201


def test_wait_carries_a_position_to_another_replica(host, new_host, primary, path):
    first, second = host.open(path, primary.url), new_host().open(path.with_name("b.db"), primary.url)
    primary.sql("INSERT INTO users(name) VALUES('x')")
    first.sync()
    assert second.one("SELECT replica_wait(?, 5)", first.frame_no) == 1
    assert second.one("SELECT count(*) FROM users") == 201


def test_wait_with_the_primary_away(replica, primary):
    frame_no = replica.frame_no
    primary.stop()
    assert replica.one("SELECT replica_wait(?, 1)", frame_no) == 1
    start = time.monotonic()
    try:
        assert replica.one("SELECT replica_wait(?, 0.5)", frame_no + 1) == 0
    except SqlError as error:
        in_words(error.text)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("arguments", ["'x', 1", "1, 'x'", "1, -1", "NULL, 1", "1, NULL", "1, 9e999", "x'00', 1"])
def test_wait_refuses(arguments, replica):
    refused(lambda: replica(f"SELECT replica_wait({arguments})"))


# --- replica_config ----------------------------------------------------------------------------------

@pytest.mark.parametrize("name, value", [
    ("timeout", "-1"), ("timeout", "'soon'"), ("timeout", "NULL"),
    ("sync_interval", "-0.5"), ("sync_interval", "'often'"), ("live", "'perhaps'"), ("live", "7"),
    ("auth_token", "'two' || char(10) || 'lines'"), ("auth_token", "'env:NO_SUCH_NAME'"),
])
def test_config_refuses_bad_values(name, value, replica):
    before = replica.status()
    refused(lambda: replica(f"SELECT replica_config('{name}', {value})"), (name, "value"))
    after = replica.status()
    assert [after[k] for k in ("sync_interval", "live")] == [before[k] for k in ("sync_interval", "live")]
    replica.sync()


@pytest.mark.parametrize("name", ["colour", "sync_url", "namespace", "encryption_key", "", "Timeout "])
def test_config_refuses_other_names(name, replica):
    refused(lambda: replica("SELECT replica_config(?, '1')", name), "replica_config")


def test_config_changes(replica):
    for name, value in (("sync_interval", 0), ("live", 0), ("timeout", 2.5), ("auth_token", "anything")):
        replica("SELECT replica_config(?, ?)", name, value)
    assert (replica.status()["sync_interval"], replica.status()["live"]) == (0, 0)
    replica.sync()


def test_config_timeout(host, primary, new_proxy, path):
    proxy = new_proxy(primary.url)
    db = host.open(path, proxy.url, timeout=60)
    db("SELECT replica_config('timeout', 0.5)")
    proxy.silent = True
    start = time.monotonic()
    refused(db.sync)
    assert time.monotonic() - start < 5


# --- replica_open ------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    "", "no json", "[]", "1", None, '{"sync_url": 5}', '{"sync_url": "ftp://x"}', '{"timeout": -1}', '{"colour": "blue"}',
    '{"encryption_key": ""}',
])
def test_open_refuses(options, host, path):
    db = host.plain(":memory:")
    refused(lambda: db("SELECT replica_open(?, ?)", str(path), options))
    plain = host.plain(path)
    plain("CREATE TABLE t(a)")
    assert plain.one("PRAGMA journal_mode") == "delete"


@pytest.mark.parametrize("path", [None, "", ":memory:"])
def test_open_refuses_paths(path, host, primary):
    refused(lambda: host.plain(":memory:")("SELECT replica_open(?, ?)", path, json.dumps({"sync_url": primary.url})))


def test_open_takes_all_options(host, primary, path):
    options = {"sync_url": primary.url, "auth_token": "t", "sync_interval": 0, "live": 0, "read_your_writes": 1,
               "write_lock": "optimistic", "write_path": "pages", "timeout": 2.5, "progress": 0}
    host.plain(":memory:")("SELECT replica_open(?, ?)", str(path), json.dumps(options))
    assert host.plain(path).one("SELECT count(*) FROM users") == 200
    db = host.plain(":memory:")
    db("ATTACH ? AS app", str(path))
    assert db.one("SELECT count(*) FROM app.users") == 200


# --- replica_last_error and secrets -----------------------------------------------------------------------

def test_last_error(host, primary, path):
    assert host.last_error() is None
    db = host.open(path, primary.url)
    assert host.last_error() is None
    primary.stop()
    error = refused(db.sync)
    assert error.text.endswith(db.status()["last_error"]) and host.last_error() in error.text
    open_refused(host, path.with_name("b.db"), primary.url, str(primary.port))


def test_secrets_are_in_no_error_and_no_status(host, primary, path):
    token = "the-secret.token"
    db = host.open(path, primary.url, auth_token=token)
    primary.stop()
    error = refused(db.sync)
    url = f"http://user:{token}@127.0.0.1:{primary.port}/"
    with pytest.raises(SqlError):
        host.open(path.with_name("b.db"), url)
    for text in (error.text, json.dumps(db.status()), host.last_error(), "".join(host.stderr)):
        assert token not in text
    for file in path.parent.iterdir():
        assert token.encode() not in file.read_bytes(), file
