"""Whose file is this? Foreign files, old copies, lost or torn companions, and writes by stock programs."""
import os
import shutil

import pytest
from harness.check import identical, in_words, open_refused, refused
from harness.host import SqlError
from harness.shell import sidecars, stock

COUNT = "SELECT count(*) FROM users"


# --- foreign files ------------------------------------------------------------------------------

def make_foreign(kind, path):
    if kind == "sqlite":
        stock(path, "CREATE TABLE mine(a); INSERT INTO mine VALUES('precious');")
    elif kind == "sqlite in wal mode":
        stock(path, "PRAGMA journal_mode=wal; CREATE TABLE mine(a); INSERT INTO mine VALUES('precious');")
    else:
        path.write_bytes({"text": b"dear diary, " * 1000, "ten bytes": b"0123456789"}[kind])
    os.utime(path, ns=(10**18, 10**18))


@pytest.mark.parametrize("kind", ["sqlite", "sqlite in wal mode", "text", "ten bytes"])
def test_a_foreign_file_is_untouched(kind, host, primary, path):
    make_foreign(kind, path)
    before = path.read_bytes()
    for _ in range(2):
        open_refused(host, path, primary.url, "app.db", ("not a replica", "not this replica", "content of its own"))
    assert (path.read_bytes(), path.stat().st_mtime_ns, sidecars(path)) == (before, 10**18, ["app.db"])


def test_a_foreign_file_in_the_replica_s_place(host, primary, path):
    """Our companion file is still there, but the database is another one."""
    host.open(path, primary.url).close()
    path.unlink()
    make_foreign("sqlite", path)
    before = path.read_bytes()
    with pytest.raises(SqlError):
        host.open(path, primary.url).sync()
    with pytest.raises(SqlError):
        host.open(path).sync()
    assert path.read_bytes() == before and stock(path, "SELECT a FROM mine;") == "precious"


def test_without_its_companion_a_replica_is_a_foreign_file(host, primary, path):
    host.open(path, primary.url).close()
    path.with_name("app.db-replica").unlink()
    before = path.read_bytes()
    open_refused(host, path, primary.url, "app.db")
    assert path.read_bytes() == before


@pytest.mark.parametrize("present", ["app.db", "nothing"])
def test_an_empty_file_is_bootstrapped(present, host, primary, path):
    if present == "app.db":
        path.touch()
    assert host.open(path, primary.url).one(COUNT) == 200
    identical(path, primary)


def test_a_deleted_database_is_bootstrapped_anew(host, primary, path):
    """Deleting the file is a user's way to start over, even if the companion stays."""
    host.open(path, primary.url).close()
    path.unlink()
    primary.sql("DELETE FROM users WHERE id = 150")
    db = host.open(path, primary.url)
    assert db.one(COUNT) == 199
    identical(path, primary)


# --- old copies and torn companions ----------------------------------------------------------------

def advance(db, primary, times=3):
    for _ in range(times):
        primary.script("UPDATE users SET name = name || '+'; INSERT INTO orders SELECT NULL, 1, randomblob(900) FROM users;")
        db.sync()


def put_back(saved, path):
    for name in ("app.db", "app.db-wal", "app.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
        if (saved / name).exists():
            shutil.copy(saved / name, path.with_name(name))


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "saved").mkdir()
    return tmp_path / "saved"


@pytest.mark.parametrize("then", ["sync", "change, then sync"])
@pytest.mark.parametrize("copied", ["db alone, closed", "db and wal, open", "db alone, open"])
def test_an_old_copy_in_the_replica_s_place(copied, then, host, primary, path, saved):
    db = host.open(path, primary.url)
    advance(db, primary)
    if "closed" in copied:
        db.close()
    names = ["app.db", "app.db-wal"] if "wal" in copied else ["app.db"]
    for name in names:
        shutil.copy(path.with_name(name), saved)
    if "closed" in copied:
        db = host.open(path)
    advance(db, primary)
    db.close()
    put_back(saved, path)
    if "change" in then:
        primary.sql("DELETE FROM orders WHERE id % 2")
    db = host.open(path)
    assert db.sync()["frame_no"] == primary.hello()[1]
    identical(path, primary)
    advance(db, primary)
    identical(path, primary)


def test_an_old_copy_from_another_history(host, primary, path, saved):
    db = host.open(path, primary.url)
    db.close()
    shutil.copy(path, saved)
    primary.sql("UPDATE users SET name = 'changed'")
    primary.kill()
    primary.start()
    db = host.open(path)
    advance(db, primary)
    db.close()
    put_back(saved, path)
    host.open(path).sync()
    identical(path, primary)


def test_an_old_companion_with_the_newer_database(host, primary, path, saved):
    """Nothing says where the newer content belongs: brought up to date, or left to replica_resync."""
    db = host.open(path, primary.url)
    advance(db, primary)
    db.close()
    shutil.copy(path.with_name("app.db-replica"), saved)
    db = host.open(path)
    advance(db, primary)
    db.close()
    shutil.copy(saved / "app.db-replica", path.with_name("app.db-replica"))
    db = host.open(path)
    sync_or_resync(db)
    identical(path, primary)


def sync_or_resync(db):
    """For files whose place in history may be lost: only the way out has to be named, and to work."""
    try:
        db.sync()
    except SqlError as error:
        in_words(error.text, "replica_resync")
        db("SELECT replica_resync()")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9, "zeroed tail", "garbage tail"])
def test_a_power_cut_loses_the_end_of_the_wal(kept, new_host, primary, path):
    """What was written but not yet flushed is gone; the position must not be ahead of what is left."""
    host = new_host()
    db = host.open(path, primary.url)
    advance(db, primary, 6)
    host.kill()
    wal = path.with_name("app.db-wal")
    data = wal.read_bytes()
    assert len(data) > 100_000
    if isinstance(kept, float):
        data = data[:int(len(data) * kept)]
    else:
        half = len(data) // 2
        data = data[:half] + (bytes(len(data) - half) if "zero" in kept else os.urandom(len(data) - half))
    wal.write_bytes(data)
    path.with_name("app.db-shm").unlink()
    db = new_host().open(path)
    assert db.one("PRAGMA integrity_check") == "ok"
    db.sync()
    identical(path, primary)
    advance(db, primary, 1)
    identical(path, primary)


@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "one bit"])
def test_a_torn_companion(damage, host, primary, path):
    """Repaired or refused in words, never believed."""
    db = host.open(path, primary.url)
    advance(db, primary, 1)
    db.close()
    companion = path.with_name("app.db-replica")
    data = bytearray(companion.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 0x10
    companion.write_bytes({"empty": b"", "half": data[:len(data) // 2], "garbage": os.urandom(len(data))}.get(damage, data))
    primary.sql("UPDATE users SET name = 'x' WHERE id = 7")
    before = path.read_bytes()
    try:
        db = host.open(path, primary.url)
    except SqlError as error:
        assert error.code == 14 and "app.db" in host.last_error()
        assert path.read_bytes() == before
        return
    sync_or_resync(db)
    identical(path, primary)


def test_a_replica_that_was_moved(host, primary, path, tmp_path):
    host.open(path, primary.url).close()
    moved = tmp_path / "moved.db"
    for suffix in ("", "-replica"):
        path.with_name(path.name + suffix).rename(str(moved) + suffix)
    db = host.open(moved)
    primary.sql("DELETE FROM users WHERE id = 150")
    db.sync()
    assert db.one(COUNT) == 199
    identical(moved, primary)


# --- writes by stock programs ----------------------------------------------------------------------

WRITES = {
    "insert": "INSERT INTO users(name) VALUES('local');",
    "update of one value": "UPDATE users SET name = 'local' WHERE id = 3;",
    "schema": "CREATE TABLE local(a);",
    "vacuum": "VACUUM;",
    "user_version": "PRAGMA user_version = 5;",
    "many": "DELETE FROM orders; INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM users;",
}


@pytest.mark.parametrize("primary_moves", [False, True])
@pytest.mark.parametrize("when", ["open", "closed"])
@pytest.mark.parametrize("what", WRITES)
def test_a_local_write_is_noticed(what, when, primary_moves, host, primary, path):
    db = host.open(path, primary.url)
    advance(db, primary, 1)
    if when == "closed":
        db.close()
    stock(path, WRITES[what])
    if primary_moves:
        primary.sql("UPDATE users SET email = 'moved' WHERE id = 9")
    newest = primary.hello()
    if when == "closed":
        db = host.open(path)
    for _ in range(2):
        refused(db.sync, "replica_resync")
    assert "replica_resync" in db.status()["last_error"]
    assert primary.hello() == newest, "something was shipped"
    assert db.one("PRAGMA integrity_check") == "ok" and db.one(COUNT) >= 200
    if what == "insert":
        assert db.one("SELECT count(*) FROM users WHERE name = 'local'") == 1
    db("SELECT replica_resync()")
    assert db.sync()["frames_synced"] == 0
    identical(path, primary)
    advance(db, primary, 1)
    identical(path, primary)


@pytest.mark.parametrize("mode", ["delete", "persist"])
def test_a_local_change_of_the_journal_mode(mode, host, primary, path):
    """Changes the file's header: the replica is no longer the primary's bytes."""
    host.open(path, primary.url).close()
    assert stock(path, f"PRAGMA journal_mode={mode}; UPDATE users SET name = name;") == mode
    assert (mode == "persist") == path.with_name(f"{path.name}-journal").exists()
    db = host.open(path)
    refused(db.sync, "replica_resync")
    assert db.one(COUNT) == 200
    db("SELECT replica_resync()")
    identical(path, primary)


def test_a_local_write_between_two_syncs_of_another_process(new_host, primary, path):
    first, second = (new_host().open(path, primary.url) for _ in range(2))
    advance(first, primary, 1)
    stock(path, WRITES["insert"])
    for db in (first, second):
        refused(db.sync, "replica_resync")
    second("SELECT replica_resync()")
    first.sync()
    identical(path, primary)


def test_a_local_write_that_was_rolled_back_is_none(host, primary, path):
    db = host.open(path, primary.url)
    stock(path, "PRAGMA cache_size = 1; BEGIN; UPDATE orders SET note = randomblob(2000); ROLLBACK;")
    advance(db, primary, 1)
    identical(path, primary)


STOCK_READS = [
    "SELECT count(*) FROM users;",
    "PRAGMA integrity_check;",
    "PRAGMA wal_checkpoint(PASSIVE);",
    "PRAGMA wal_checkpoint(TRUNCATE);",
    "PRAGMA wal_checkpoint(RESTART);",
    "BEGIN IMMEDIATE; SELECT count(*) FROM users; COMMIT;",
    "PRAGMA journal_mode=wal;",
]


def test_reading_and_checkpointing_is_no_false_alarm(new_host, primary, path):
    """By stock shells: beside us, without us, first to open, last to close."""
    for i in range(4):
        host = new_host()
        db = host.open(path, primary.url)
        for statement in STOCK_READS:
            primary.sql("UPDATE users SET name = name || '-' WHERE id % 3 = 0")
            stock(path, statement)
            db.sync()
            stock(path, statement)
            assert db.sync()["frames_synced"] == 0
        lingering = new_host(library=None).plain(path)
        lingering(COUNT)
        if i % 2:
            host.kill()
        else:
            db.close()
        lingering("PRAGMA wal_checkpoint(FULL)")
        lingering.close()
        stock(path, STOCK_READS[i])
        identical(path, primary)


def test_a_stock_program_recovers_the_wal_after_a_kill(new_host, primary, path):
    """The first to open after a crash is a stock shell: it rebuilds the wal-index from our frames."""
    for i in range(6):
        host = new_host()
        db = host.open(path, primary.url)
        advance(db, primary, 2)
        expected = db("SELECT count(*), max(name) FROM users")
        host.kill()
        if i % 2:
            path.with_name("app.db-shm").unlink()
        assert stock(path, "SELECT count(*), max(name) FROM users;") == "|".join(map(str, expected[0]))
        new_host().open(path).sync()
    identical(path, primary)
