"""replica_adopt and LIBREPLICA_ADOPT: a plain open of a file that is a replica is that replica, no other file is touched."""
import os
import subprocess
from pathlib import Path

import pytest
from harness.check import identical, in_words, refused
from harness.host import AUTH, CANTOPEN, NOTADB, SqlError
from harness.paths import LIB
from harness.shell import loaded_shell, sidecars, stock

INSERT = "INSERT INTO users(name) VALUES('adopted')"


@pytest.fixture
def known(new_host, primary, path):
    """A replica that another process has left."""
    new_host().open(path, primary.url).close()
    return path


def at_primary(primary):
    return primary.sql("SELECT count(*) FROM users WHERE name = 'adopted'") == [[1]]


@pytest.mark.parametrize("how", ["function", "environment"])
def test_a_plain_open_is_the_replica(how, new_host, primary, known):
    host = new_host(env={"LIBREPLICA_ADOPT": "1"} if how == "environment" else None)
    if how == "function":
        assert host.plain(":memory:").one("SELECT replica_adopt(1)") == 1
    db = host.plain(known)
    db(INSERT)
    assert at_primary(primary) and db.status()["commits_shipped"] == 1
    attached = host.plain(":memory:")
    attached("ATTACH ? AS app", str(known))
    assert attached.one("SELECT count(*) FROM app.users") == 201 and attached.sync("app")
    uri = host.plain(f"file:{known}?foreign_keys=1&timeout=10", uri=True)
    assert uri.one("PRAGMA foreign_keys") == 1
    with pytest.raises(SqlError) as error:
        host.plain(f"file:{known}?sync_uri=x", uri=True)
    assert error.value.code == CANTOPEN and "sync_url" in host.last_error()
    identical(known, primary)


def test_it_ends(host, primary, known):
    loader = host.plain(":memory:")
    assert [loader.one(f"SELECT replica_adopt({on})") for on in (1, 0)] == [1, 0]
    refused(host.plain(known).sync, "not a replica")
    for bad in ("2", "'yes'", "NULL", "''"):
        refused(lambda: loader(f"SELECT replica_adopt({bad})"), "replica_adopt")


def test_a_forked_child_goes_on(new_host, primary, known):
    host = new_host(env={"LIBREPLICA_ADOPT": "1"})
    assert host.fork(f"open_database({str(known)!r}, False).execute({INSERT!r})") == 0
    assert at_primary(primary)


def test_other_files_are_as_ever(new_host, tmp_path):
    host, path = new_host(env={"LIBREPLICA_ADOPT": "1"}), tmp_path / "plain.db"
    db = host.plain(path)
    db.script("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2); DELETE FROM t WHERE a = 1; VACUUM")
    assert (db.one("PRAGMA journal_mode"), db.one("PRAGMA busy_timeout")) == ("delete", 5000)
    db.close()
    assert stock(path, "SELECT a FROM t;") == "2"
    assert sidecars(path) == ["plain.db"]
    assert host.plain(":memory:").one("SELECT 1") == 1


@pytest.mark.parametrize("content", [b"", b"no identity of ours, but perhaps it was one"])
def test_a_replica_whose_identity_is_damaged_is_not_written_as_a_plain_file(content, new_host, known):
    known.with_name("app.db-replica").write_bytes(content)
    host = new_host(env={"LIBREPLICA_ADOPT": "1"})
    with pytest.raises(SqlError) as error:
        host.plain(known)
    assert error.value.code == CANTOPEN
    in_words(host.last_error(), "app.db-replica")


def test_a_frozen_replica_stays_frozen(new_host, host, primary, known):
    host.open(known)("SELECT replica_freeze()")
    frozen = new_host(env={"LIBREPLICA_ADOPT": "1"}).plain(known)
    frozen(INSERT)
    assert not at_primary(primary) and frozen.one("SELECT count(*) FROM users") == 201


@pytest.mark.parametrize("form", ["{}", " {}\n", "env:TOKEN", "file:{file}"])
def test_the_token_comes_from_the_environment(form, new_host, guarded, tmp_path, path):
    file = tmp_path / "token"
    file.write_text(guarded.token + "\n")
    new_host().open(path, guarded.url, auth_token=guarded.token).close()
    value = form.format(guarded.token, file=file)
    host = new_host(env={"LIBREPLICA_ADOPT": "1", "LIBREPLICA_AUTH_TOKEN": value, "TOKEN": guarded.token})
    host.plain(path)(INSERT)
    assert at_primary(guarded)
    with pytest.raises(SqlError) as error:
        new_host(env={"LIBREPLICA_ADOPT": "1"}).plain(path)(INSERT)
    assert error.value.code == AUTH


def test_the_key_comes_from_the_environment(new_host, primary, path):
    new_host().open(path, primary.url, encryption_key="words").close()
    host = new_host(env={"LIBREPLICA_ADOPT": "1", "LIBREPLICA_ENCRYPTION_KEY": "words"})
    db = host.plain(path)
    db(INSERT)
    assert at_primary(primary) and db.status()["encrypted"] == 1
    for key in ({}, {"LIBREPLICA_ENCRYPTION_KEY": "others"}):
        other = new_host(env={"LIBREPLICA_ADOPT": "1", **key})
        with pytest.raises(SqlError) as error:
            other.plain(path)("SELECT count(*) FROM users")
        assert error.value.code == NOTADB


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o622])
def test_no_token_where_others_may_have_written_the_address(mode, new_host, guarded, path):
    new_host().open(path, guarded.url, auth_token=guarded.token).close()
    beside = path.with_name("app.db-replica")
    beside.chmod(mode)
    adopting = new_host(env={"LIBREPLICA_ADOPT": "1", "LIBREPLICA_AUTH_TOKEN": guarded.token})
    for host, opens in ((adopting, lambda: adopting.plain(path)),
                        (adopting, lambda: adopting.open(path, auth_token=guarded.token))):
        with pytest.raises(SqlError) as error:
            opens()
        assert error.value.code == CANTOPEN
        in_words(host.last_error(), "others may write", "sync_url")
    assert adopting.open(path, guarded.url, auth_token=guarded.token).sync()
    assert new_host().open(path).one("SELECT count(*) FROM users") == 200  # no token, no risk


def test_no_token_where_another_user_owns_the_file(new_host, guarded, path):
    """Also where all of it is that user's, so that what lies there may be read."""
    new_host().open(path, guarded.url, auth_token=guarded.token).close()
    for file in path.parent.iterdir():
        os.chown(file, 65534, 65534)
    host = new_host()
    with pytest.raises(SqlError):
        host.open(path, auth_token=guarded.token)
    in_words(host.last_error(), "others may write", "sync_url")
    assert host.open(path, guarded.url, auth_token=guarded.token).sync()


def test_loaded_too_late(primary, known):
    """A program that opens first and then loads: it cannot be helped, and must not write to nobody."""
    environment = {**os.environ, "LIBREPLICA_ADOPT": "1"}
    late = f"import sqlite3\ndb = sqlite3.connect({str(known)!r})\ndb.enable_load_extension(True)\n" \
           f"db.load_extension({LIB!r})\ndb.execute({INSERT!r})\ndb.commit()"
    result = subprocess.run(["/usr/bin/python3", "-c", late], env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "opened before libreplica was loaded" in result.stderr
    assert primary.sql("SELECT count(*) FROM users") == [[200]]
    assert stock(known, "SELECT count(*) FROM users;") == "200"


def test_a_python_program_that_can_only_load(new_host, guarded, tmp_path, path):
    """bindings/adopt.py, as README has it for sqlite-utils, datasette and litecli: it loads before the program opens."""
    new_host().open(path, guarded.url, auth_token=guarded.token).close()
    (tmp_path / "insert.py").write_text("import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\n"
                                        "db.execute(sys.argv[2])\ndb.commit()\nassert __name__ == '__main__'")
    environment = {**os.environ, "LIBREPLICA": LIB, "LIBREPLICA_AUTH_TOKEN": guarded.token, "PYTHONPATH": str(tmp_path)}
    tool = Path(__file__).parent.parent / "bindings" / "adopt.py"
    result = subprocess.run(["/usr/bin/python3", tool, "insert", path, INSERT], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert at_primary(guarded)


def test_the_shell_with_nothing_but_a_load(primary, known):
    result = loaded_shell(f".open {known}\n{INSERT};\nSELECT count(*) FROM users;", env={"LIBREPLICA_ADOPT": "1"})
    assert (result.stdout, result.stderr) == ("201\n", "")
    assert at_primary(primary)


def test_a_wrong_value_fails_the_load():
    result = loaded_shell("SELECT 1;", env={"LIBREPLICA_ADOPT": "yes"})
    assert "LIBREPLICA_ADOPT must be 0 or 1" in result.stderr
