"""What lies beside a database: its mode and owner, links, pipes and foreign files of its names, and who holds the lock."""
import fcntl
import os
import stat
import subprocess
import sys
import time

import pytest
from harness.check import identical, in_words, open_refused, refused
from harness.host import READONLY, SqlError
from harness.primary import eventually
from harness.shell import stock

OWNER, OTHER = 4242, 4343  # users that nobody else is
COUNT = "SELECT count(*) FROM users"
INSERT = "INSERT INTO users(name) VALUES('x')"
OURS = ["app.db-replica", "app.db-replica-undo", "app.db-replica-lock"]

root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users")


@pytest.fixture
def path(tmp_path):
    """A place that other users reach, too."""
    tmp_path.chmod(0o755)
    (tmp_path / "replica").mkdir()
    return tmp_path / "replica" / "app.db"


def beside(path):
    return {p.name: p.stat() for p in path.parent.iterdir() if p.name.startswith("app.db-replica")}


def mode(status):
    return stat.S_IMODE(status.st_mode)


def write_rows(db):
    """So that an undo lies there."""
    db(INSERT)


# --- mode and owner -------------------------------------------------------------------------------

@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("wanted", [0o600, 0o660, 0o644])
def test_all_of_it_has_the_database_s_mode(wanted, umask, new_host, primary, path):
    path.touch()
    path.chmod(wanted)
    db = new_host(umask=umask).open(path, primary.url, live=1, write_path="rows")
    eventually(lambda: (path.parent / "app.db-replica-lock").exists())
    # The live stream takes the undo away at once: it is looked at before that.
    db("SELECT replica_config('live', '0')")
    write_rows(db)
    found = beside(path)
    assert sorted(found) == sorted(OURS)
    assert {name: oct(mode(status)) for name, status in found.items()} == dict.fromkeys(OURS, oct(wanted))
    assert mode(path.stat()) == wanted


def test_a_mode_that_was_changed_later_is_followed(new_host, primary, path):
    """Also one that an older version made wider than the database."""
    db = new_host().open(path, primary.url)
    db.close()
    companion = path.with_name("app.db-replica")
    for database, before in [(0o600, 0o644), (0o660, 0o600)]:
        path.chmod(database)
        companion.chmod(before)
        new_host().open(path, primary.url).sync()
        assert mode(companion.stat()) == database


@root
def test_what_root_makes_is_the_database_owner_s(new_host, primary, path):
    """Root opens once, the application goes on."""
    path.touch()
    path.chmod(0o660)
    for file in (path, path.parent):
        os.chown(file, OWNER, OTHER)
    db = new_host(umask=0o077).open(path, primary.url, live=1, write_path="rows")
    eventually(lambda: (path.parent / "app.db-replica-lock").exists())
    db("SELECT replica_config('live', '0')")
    write_rows(db)
    found = beside(path)
    assert sorted(found) == sorted(OURS)
    assert {(s.st_uid, s.st_gid, mode(s)) for s in found.values()} == {(OWNER, OTHER, 0o660)}
    db.host.close()
    app = new_host(user=OWNER).open(path, live=1)
    write_rows(app)
    app.sync()
    identical(path, primary)


@root
def test_a_group_that_shares_a_database(new_host, primary, path):
    """0660 in a directory of the group's: each works with what the other has made."""
    path.parent.chmod(0o2770)
    os.chown(path.parent, OWNER, OTHER)
    path.touch()
    path.chmod(0o660)
    os.chown(path, OWNER, OTHER)
    first = new_host(user=OWNER, group=OTHER).open(path, primary.url, write_path="rows", sync_interval=0.2)
    second = new_host(user=OTHER).open(path, primary.url, write_path="rows", sync_interval=0.2)
    for _ in range(3):
        write_rows(first)
        write_rows(second)
    first.sync()
    assert first.one(COUNT) == 206
    assert {mode(s) for s in beside(path).values()} == {0o660}


# --- a first fetch that fails ---------------------------------------------------------------------

@pytest.mark.parametrize("when", ["before", "midway"])
@pytest.mark.parametrize("present", [True, False])
def test_a_failed_first_fetch_leaves_what_was_there(present, when, host, primary, new_fault_proxy, path):
    if present:
        path.touch()
        path.chmod(0o600)
    primary.script("".join(f"INSERT INTO orders VALUES(NULL, 1, randomblob(900000));" for _ in range(20)))
    before = path.stat() if present else None
    proxy = new_fault_proxy(primary.url)
    part = {"before": "Hello", "midway": "LogEntries"}[when]
    proxy.rule = lambda request: "cut inside" if request.path.endswith(part) else "pass"
    with pytest.raises(SqlError):
        host.open(path, proxy.url, timeout=2)
    assert sorted(p.name for p in path.parent.iterdir()) == (["app.db"] if present else [])
    if present:
        after = path.stat()
        assert (after.st_ino, after.st_size, mode(after)) == (before.st_ino, 0, 0o600)
    assert host.open(path, primary.url).one(COUNT) == 200
    identical(path, primary)
    if present:
        assert (path.stat().st_ino, mode(path.stat())) == (before.st_ino, 0o600)


# --- links, pipes, foreign files --------------------------------------------------------------------

def put(kind, file, target):
    """Something that is not ours, under one of our names; what tells whether it was touched."""
    if kind == "link":
        target.write_bytes(b"precious " * 100)
        file.symlink_to(target)
        return target.read_bytes
    if kind == "link to nothing":
        file.symlink_to(target)
        return target.exists
    if kind == "pipe":
        os.mkfifo(file)
        return lambda: stat.S_ISFIFO(file.lstat().st_mode)
    if kind == "directory":
        file.mkdir()
        return file.is_dir
    file.write_bytes(b"dear diary, " * 1000)
    return file.read_bytes


KINDS = ["link", "link to nothing", "pipe", "directory", "foreign file"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [False, True])
def test_the_position_file_s_name_is_taken(content, kind, host, primary, path, tmp_path):
    companion = path.with_name("app.db-replica")
    if content:
        host.open(path, primary.url).close()
        companion.unlink()
    look = put(kind, companion, tmp_path / "target")
    before = look()
    for url in (primary.url, None):
        start = time.monotonic()
        open_refused(host, path, url, "app.db-replica'")
        assert time.monotonic() - start < 5 and look() == before
    assert path.exists() == content


@pytest.mark.parametrize("kind", KINDS)
def test_the_undo_s_name_is_taken(kind, host, primary, path, tmp_path):
    """A write fails in words; nothing else does."""
    look = put(kind, path.with_name("app.db-replica-undo"), tmp_path / "target")
    before = look()
    db = host.open(path, primary.url, write_path="rows")
    newest = primary.hello()
    with pytest.raises(SqlError) as caught:
        db(INSERT)
    assert caught.value.code == READONLY
    in_words(host.last_error(), "app.db-replica-undo'")
    assert look() == before and primary.hello() == newest
    db.sync()
    assert db.one(COUNT) == 200


@pytest.mark.parametrize("kind", KINDS)
def test_the_lock_s_name_is_taken(kind, host, primary, path, tmp_path):
    """It works without: more traffic, and nothing stale in silence."""
    look = put(kind, path.with_name("app.db-replica-lock"), tmp_path / "target")
    before = look()
    db = host.open(path, primary.url, sync_interval=0.1)
    primary.sql(INSERT)
    eventually(lambda: db.one(COUNT) == 201, 10)
    in_words(db.status()["last_error"], "app.db-replica-lock'")
    assert look() == before


@pytest.mark.parametrize("data, word", [(b"", "is empty"), (bytes(9000), "is empty"), (b"garbage" * 2000, "no file of this library"),
                                        (b"12345678libreplica 1\0\0\0\0" + bytes(9000), "damaged")])
def test_a_position_file_that_says_nothing_is_called_by_its_name(data, word, host, primary, path):
    host.open(path, primary.url).close()
    path.with_name("app.db-replica").write_bytes(data)
    before = path.read_bytes()
    for url in (primary.url, None):
        open_refused(host, path, url, "app.db-replica'", word)
    assert path.read_bytes() == before and path.with_name("app.db-replica").read_bytes() == data


@root
@pytest.mark.parametrize("name", OURS)
def test_a_stranger_s_file_is_not_used(name, new_host, primary, path):
    """In a directory that everybody can write to, somebody was there first."""
    path.parent.chmod(0o1777)
    planted = path.with_name(name)
    planted.touch()
    planted.chmod(0o666)
    os.chown(planted, OTHER, OTHER)
    host = new_host(user=OWNER)
    if name == "app.db-replica":
        open_refused(host, path, primary.url, "another user", name)
    else:
        db = host.open(path, primary.url, write_path="rows", sync_interval=0.1)
        if name == "app.db-replica-undo":
            with pytest.raises(SqlError):
                db(INSERT)
            in_words(host.last_error(), "another user")
        else:
            eventually(lambda: db.status()["last_error"])
            in_words(db.status()["last_error"], "another user")
    assert planted.read_bytes() == b""


# --- the lock ---------------------------------------------------------------------------------------

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], sys.argv[3])
fcntl.flock(file, getattr(fcntl, sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def hold():
    """Another program that has the lock, as whoever can read the file can."""
    held = []

    def start(path, how, user=None):
        as_user = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        held.append(subprocess.Popen([sys.executable, "-c", HOLD, path, how, "r"], stdout=subprocess.PIPE, text=True, **as_user))
        assert held[-1].stdout.readline() == "held\n"

    yield start
    for process in held:
        process.kill()
        process.wait()


@root
@pytest.mark.parametrize("how", ["LOCK_EX", "LOCK_SH"])
@pytest.mark.parametrize("options", [{"live": 1}, {"sync_interval": 0.2}])
def test_a_stranger_s_lock_stops_nothing_in_silence(options, how, new_host, primary, path, hold):
    lock = path.with_name("app.db-replica-lock")
    first = new_host().open(path, primary.url, **options)
    eventually(lock.exists)
    first.host.close()
    path.chmod(0o644)
    lock.chmod(0o644)
    hold(lock, how, OTHER)
    db = new_host().open(path, **options)
    primary.sql(INSERT)
    eventually(lambda: db.one(COUNT) == 201, 30)
    in_words(eventually(lambda: db.status()["last_error"], 20), "app.db-replica-lock'", "syncs for itself")
    primary.sql(INSERT)
    eventually(lambda: db.one(COUNT) == 202, 10)


def test_a_stopped_process_holds_up_nobody_for_ever(new_host, primary, path):
    """SIGSTOP, a suspended container: it has the lock and does not go on."""
    first = new_host().open(path, primary.url, live=1)
    eventually(lambda: first.status()["state"] == "online")
    second = new_host().open(path, live=1)
    primary.sql(INSERT)
    eventually(lambda: second.one(COUNT) == 201)
    assert second.status()["last_error"] is None
    os.kill(first.host.pid, 19)
    try:
        primary.sql(INSERT)
        eventually(lambda: second.one(COUNT) == 202, 30)
        in_words(second.status()["last_error"], "syncs for itself")
    finally:
        os.kill(first.host.pid, 18)


def test_one_of_two_that_work_is_enough(new_host, primary, new_proxy, path):
    """Whoever holds the lock goes on saying so, also while nothing happens: the other one asks nobody."""
    proxy = new_proxy(primary.url)
    first = new_host().open(path, proxy.url, live=1)
    eventually(lambda: first.status()["state"] == "online")
    second = new_host().open(path, live=1)
    time.sleep(18)
    sent = second.status()["bytes_sent"]
    time.sleep(4)
    assert second.status()["bytes_sent"] == sent and second.status()["last_error"] is None


def test_files_are_not_left_to_programs_that_are_started(host, primary, path):
    db = host.open(path, primary.url, live=1, write_path="rows")
    eventually(lambda: path.with_name("app.db-replica-lock").exists())
    write_rows(db)
    ours = [fd for fd in os.listdir(f"/proc/{host.pid}/fd")
            if "app.db-replica" in os.readlink(f"/proc/{host.pid}/fd/{fd}")]
    assert ours
    for fd in ours:
        flags = int(open(f"/proc/{host.pid}/fdinfo/{fd}").read().split("flags:")[1].split()[0], 8)
        assert flags & os.O_CLOEXEC
