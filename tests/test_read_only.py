"""Who only reads: mode=ro, immutable, a user with read rights, a directory nobody may write to. As stock SQLite, and in words."""
import os
import time

import pytest
from harness.check import in_words, refused
from harness.crypt import KEY
from harness.host import CANTOPEN, NOTADB, READONLY, SqlError, replica_uri
from harness.primary import eventually
from harness.shell import sidecars

OWNER, OTHER = 4242, 4343
COUNT = "SELECT count(*) FROM users"
INSERT = "INSERT INTO users(name) VALUES('x')"
root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users")


@pytest.fixture
def path(tmp_path):
    """A place that other users reach, too."""
    tmp_path.chmod(0o755)
    (tmp_path / "replica").mkdir()
    return tmp_path / "replica" / "app.db"


def listing(path):
    """Names, inodes, sizes and times of our files."""
    return {p.name: (p.stat().st_ino, p.stat().st_size, p.stat().st_mtime_ns)
            for p in path.parent.iterdir() if p.name.startswith("app.db-replica")}


def stock_uri(path, **options):
    return f"file:{path}?" + "&".join(f"{k}={v}" for k, v in options.items())


def result(action):
    """Rows, or the primary result code."""
    try:
        return action()
    except SqlError as error:
        return error.code


def as_stock(new_host, path, user=None, **options):
    """The same open by stock SQLite and as a replica gives the same rows or code; the replica's connection."""
    stock = new_host(library=None, user=user)
    expected = result(lambda: stock.plain(stock_uri(path, **options), uri=True)(COUNT))
    stock.close()
    host = new_host(user=user)
    ours = result(lambda: host.plain(replica_uri(path, **options), uri=True)(COUNT))
    assert ours == expected, (ours, expected, host.last_error())
    return expected


@pytest.mark.parametrize("options", [{}, {"encryption_key": KEY}])
@pytest.mark.parametrize("open_elsewhere", [True, False])
def test_mode_ro(open_elsewhere, options, new_host, primary, path):
    writer = new_host().open(path, primary.url, **options)
    if not open_elsewhere:
        writer.host.close()
    before = listing(path)
    if not options:
        assert as_stock(new_host, path, mode="ro") == [(200,)]
    db = new_host().open(path, mode="ro", live=1, sync_interval=0.05, **options)
    assert db.one(COUNT) == 200
    assert db.frame_no == primary.hello()[1]
    time.sleep(0.3)
    status = db.status()
    assert status["sync_url"] == primary.url and status["live"] == 0 and status["sync_interval"] == 0
    assert status["bytes_sent"] == 0 and status["state"] == "offline"
    assert listing(path) == before, "something was made or written"
    assert result(lambda: db(INSERT)) == READONLY
    for call in ["replica_sync()", "replica_resync()", "replica_freeze()", "replica_exec('DELETE FROM users')",
                 "replica_config('live', '1')"]:
        refused(lambda: db(f"SELECT {call}"), "reading alone", code=READONLY)
    assert listing(path) == before


def test_it_sees_what_others_pull(new_host, primary, path):
    writer = new_host().open(path, primary.url, live=1)
    db = new_host().open(path, mode="ro")
    for _ in range(20):
        primary.sql(INSERT)
    newest = primary.hello()[1]
    assert db.one("SELECT replica_wait(?, 10)", newest) == 1
    assert db.one(COUNT) == 220 and db.frame_no == newest
    assert db.one("SELECT replica_wait(?, 0.2)", newest + 1) == 0
    eventually(lambda: db.status()["state"] == "online")
    writer("PRAGMA wal_checkpoint(TRUNCATE)")
    assert db.frame_no == newest and db.one(COUNT) == 220


def test_beside_a_writer_in_the_same_process(host, primary, path):
    db = host.open(path, primary.url)
    reader = host.open(path, mode="ro")
    primary.sql(INSERT)
    db.sync()
    assert reader.one(COUNT) == 201
    assert result(lambda: reader(INSERT)) == READONLY
    db.close()
    assert reader.one(COUNT) == 201
    db = host.open(path, primary.url)
    db(INSERT)
    assert reader.one(COUNT) == 202
    assert len(db("SELECT path FROM replica_databases")) == 1


def test_a_read_only_open_first_does_not_bind_later_ones(host, primary, path):
    host.open(path, primary.url).close()
    reader = host.open(path, mode="ro")
    assert reader.one(COUNT) == 200
    db = host.open(path, primary.url, sync_interval=0.1)
    primary.sql(INSERT)
    eventually(lambda: reader.one(COUNT) == 201)
    db(INSERT)
    assert db.sync()["frame_no"] == primary.hello()[1]


def test_nothing_is_fetched_for_a_reader(host, primary, path):
    for name in (None, "empty"):
        if name:
            path.touch()
        before = sidecars(path)
        with pytest.raises(SqlError) as caught:
            host.open(path, primary.url, mode="ro")
        assert caught.value.code == CANTOPEN
        in_words(host.last_error(), "no content yet")
        assert sidecars(path) == before


def test_another_primary_s_url_is_refused(host, primary, path):
    host.open(path, primary.url).close()
    with pytest.raises(SqlError):
        host.open(path, "http://127.0.0.1:9", mode="ro")
    in_words(host.last_error(), "is a replica of another", "sync_url")
    assert host.open(path, primary.url, mode="ro").one(COUNT) == 200


@pytest.mark.parametrize("option", ["immutable", "nolock"])
@pytest.mark.parametrize("more", [{}, {"mode": "ro"}])
@pytest.mark.parametrize("open_elsewhere", [True, False])
def test_without_locks_is_refused(open_elsewhere, more, option, new_host, primary, path):
    writer = new_host().open(path, primary.url)
    if not open_elsewhere:
        writer.host.close()
    host = new_host()
    before = listing(path)
    with pytest.raises(SqlError) as caught:
        host.open(path, **{option: 1}, **more)
    assert caught.value.code == CANTOPEN
    in_words(host.last_error(), option, "mode=ro")
    assert listing(path) == before
    assert host.open(path, **{option: 0}, **more).one(COUNT) == 200


def test_an_immutable_file_that_is_no_replica(host, primary, path):
    db = host.open(path, primary.url)
    copy = path.with_name("copy.db")
    db("VACUUM INTO ?", str(copy))
    assert host.open(copy, immutable=1).one(COUNT) == 200


# --- rights ------------------------------------------------------------------------------------------

def hand_over(path, database=0o644, folder=0o755):
    """To an owner; others may read."""
    for file in path.parent.iterdir():
        os.chown(file, OWNER, OWNER)
        file.chmod(database)
    os.chown(path.parent, OWNER, OWNER)
    path.parent.chmod(folder)


@root
@pytest.mark.parametrize("options", [{}, {"encryption_key": KEY}])
def test_a_user_with_read_rights_only(options, new_host, primary, path):
    """While the owner has it open; and afterwards exactly as far as stock SQLite can."""
    new_host().open(path, primary.url, **options).host.close()
    hand_over(path)
    owner = new_host(user=OWNER).open(path, primary.url, **options)
    assert owner.one(COUNT) == 200
    before = listing(path)
    host = new_host(user=OTHER)
    db = host.open(path, **options)
    assert db.one(COUNT) == 200 and db.frame_no == primary.hello()[1]
    assert result(lambda: db(INSERT)) == READONLY
    refused(db.sync, "reading alone")
    if not options:
        assert as_stock(new_host, path, OTHER) == [(200,)]
        assert as_stock(new_host, path, OTHER, mode="ro") == [(200,)]
    assert listing(path) == before
    owner(INSERT)
    assert db.one(COUNT) == 201 and db.one("SELECT replica_wait(?, 5)", primary.hello()[1]) == 1
    db.close()
    owner.host.close()
    if not options:
        as_stock(new_host, path, OTHER)
        as_stock(new_host, path, OTHER, mode="ro")


@root
def test_a_directory_that_nobody_may_write_to(new_host, primary, path):
    """With a log that is there, stock SQLite reads and writes; so do we, without the lock."""
    keeper = new_host().open(path, primary.url)
    keeper.one(COUNT)
    keeper(INSERT)
    hand_over(path, folder=0o555)
    for user in (OWNER, OTHER):
        as_stock(new_host, path, user)
        as_stock(new_host, path, user, mode="ro")
    db = new_host(user=OWNER).open(path, sync_interval=0.1, write_path="pages")
    primary.sql(INSERT)
    eventually(lambda: db.one(COUNT) == 202)
    in_words(db.status()["last_error"], "app.db-replica-lock'")
    db(INSERT)
    assert db.one(COUNT) == 203


@root
def test_a_position_file_that_cannot_be_read_is_named(new_host, primary, path):
    new_host().open(path, primary.url).host.close()
    hand_over(path)
    path.with_name("app.db-replica").chmod(0o600)
    host = new_host(user=OTHER)
    with pytest.raises(SqlError) as caught:
        host.open(path)
    assert caught.value.code == CANTOPEN
    in_words(host.last_error(), "app.db-replica'", "ermission denied")


def test_a_wrong_key(new_host, primary, path):
    new_host().open(path, primary.url, encryption_key=KEY).host.close()
    for options in ({"encryption_key": "another"}, {}):
        host = new_host()
        assert result(lambda: host.open(path, mode="ro", **options)(COUNT)) == NOTADB
