"""Crashes at every place: kill -9 between every two changes that are made to a replica's files, and power cuts that lose
any part of what was not synced."""
import errno
import random
import shutil

import pytest
from harness.check import identical
from harness.crash import Disk, changes, run
from harness.host import replica_uri
from harness.paths import LIB
from harness.shell import python, stock

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE acts(n INTEGER PRIMARY KEY, rows INTEGER);
CREATE TABLE data(id INTEGER PRIMARY KEY AUTOINCREMENT, act INTEGER, v BLOB);
CREATE INDEX by_v ON data(substr(v, 1, 20));
CREATE TABLE born(id); CREATE TRIGGER birth AFTER INSERT ON data BEGIN INSERT INTO born VALUES(new.id); END;
INSERT INTO data(act, v) SELECT 0, randomblob(600) FROM generate_series(1, 24);
INSERT INTO acts VALUES(0, 24);
"""
# Every kind of commit, with and without what is pulled in between, spilled pages, checkpoints, a log that begins anew.
PROGRAM = f"""
import sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
db = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None, timeout=20)
db.execute("PRAGMA cache_size = 8")
def act(*statements):
    db.execute("BEGIN IMMEDIATE")
    n = db.execute("SELECT 1 + max(n) FROM acts").fetchone()[0]
    for statement in statements:
        db.execute(statement.format(n=n))
    db.execute("INSERT INTO acts SELECT ?, count(*) FROM data", [n])
    db.execute("COMMIT")
    print(n, flush=True)
def ask(sql):
    db.execute(sql).fetchall()
act("UPDATE data SET v = randomblob(500) WHERE id % 9 = {{n}} % 9")
act("DELETE FROM data WHERE act > 0", "INSERT INTO data(act, v) SELECT {{n}}, randomblob(3000) FROM data LIMIT 3",
    "DROP TABLE IF EXISTS t", "CREATE TABLE t(x)", "DELETE FROM born", "DELETE FROM acts WHERE n < {{n}}")
ask("SELECT replica_sync()")
act("DELETE FROM data WHERE act > 0 AND id % 2 = {{n}} % 2")
ask("PRAGMA wal_checkpoint(PASSIVE)")
act("UPDATE data SET v = randomblob(900) WHERE id % 7 = {{n}} % 7")
ask("SELECT replica_sync()")
ask("PRAGMA wal_checkpoint(TRUNCATE)")
act("UPDATE data SET v = randomblob(900) WHERE id % 5 = {{n}} % 5")
print("end", flush=True)
"""
# The rows are those of the last act.
SOUND = "PRAGMA integrity_check; SELECT (SELECT rows FROM acts ORDER BY n DESC LIMIT 1) = count(*) FROM data; SELECT max(n) FROM acts;"


def sound(path):
    ok, whole, n = stock(path, SOUND).split("\n")
    assert (ok, whole) == ("ok", "1"), (ok, whole, n)
    return int(n)


def copied(path, folder):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*-shm"))
    return folder / path.name


@pytest.mark.parametrize("lock, step", [("eager", 1), ("optimistic", 3)])
def test_kills_between_every_two_changes(lock, step, new_primary, new_fault_proxy, path, tmp_path):
    primary = new_primary(SEED)
    proxy = new_fault_proxy(primary.url)
    uri = replica_uri(path, proxy.url, write_lock=lock)
    python(f"open_replica({str(path)!r}, {proxy.url!r}).close()")
    in_between, here, there_before = 0, 0, 0
    for at in range(1, 1000, step):
        output, code = run(PROGRAM, uri, folder=path.parent, at=at)
        said = output.split()
        if code == 0:
            assert said[-1] == "end"
            break
        said = list(map(int, filter(str.isdigit, said)))
        ((there,),) = primary.sql("SELECT max(n) FROM acts")
        before, here = here, sound(copied(path, tmp_path / "copy"))
        assert max([before, *said]) <= here <= there, (at, before, said, here, there)
        assert there <= max([there_before, *said]) + 1
        in_between += there_before < there > here
        there_before = there
        proxy.close_streams()  # what the dead one had open holds the lock for 5 s
        if step > 1:  # else what is to be pulled grows as fast as the place moves on
            python(f"open_replica({str(path)!r}).execute('SELECT replica_sync()').fetchall()")
            here = there
    print(f"{at} places, {in_between} between the primary's commit and the local one")
    assert at > 100 and in_between > 0
    identical(path, primary)


def test_power_cuts(new_primary, path, tmp_path):
    primary, rng = new_primary(SEED), random.Random(5)
    uri, log = replica_uri(path, primary.url), tmp_path / "changes"
    python(f"open_replica({str(path)!r}, {primary.url!r}).close()")
    disk = Disk(path.parent)
    output, code = run(PROGRAM, uri, folder=path.parent, log=log)
    assert (code, output.split()[-1]) == (0, "end")
    identical(path, primary)
    whole = path.read_bytes()
    folder, cuts, again = tmp_path / "cut", 0, 0
    for kind, name, offset, content in changes(log):
        disk.make(kind, name, offset, content)
        for share in [0, 1, rng.choice([0.2, 0.5, 0.8])]:
            if rng.random() < 0.8:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            disk.cut(folder, rng, share)
            cut = folder / path.name
            n = sound(copied(cut, tmp_path / "copy"))
            said = python(f"db = open_replica({str(cut)!r}, {primary.url!r})\n"
                          "print(db.execute('SELECT replica_frame_no()').fetchone()[0])\n"
                          "db.execute('SELECT replica_sync()').fetchall()\n"
                          "print(db.execute('SELECT replica_last_error()').fetchone()[0])").split("\n")
            assert said[1] == "None" or "undo" in said[1], (kind, name, n, said)
            again += said[1] != "None"
            identical(cut, primary)
            assert cut.read_bytes() == whole
            cuts += 1
    print(f"{cuts} power cuts, {again} after which everything was fetched again")
    assert cuts > 60


FAILING = PROGRAM.split("act(\"UPDATE")[0] + """
for statements in [
    ["UPDATE data SET v = randomblob(500) WHERE id % 9 = {n} % 9"],
    ["DELETE FROM data WHERE act > 0", "INSERT INTO data(act, v) SELECT {n}, randomblob(3000) FROM data LIMIT 3", "CREATE TABLE t{n}(x)"],
    ["DELETE FROM data WHERE act > 0", "DROP TABLE t{n}"],
    ["UPDATE born SET id = id"],
]:
    n = db.execute("SELECT max(n) FROM acts").fetchone()[0]
    try:
        act(*(s.replace("t{n}", "t") for s in statements))
    except sqlite3.OperationalError as error:
        print("error", error.sqlite_errorcode & 255, "of", n + 1, flush=True)
        if db.in_transaction:
            db.execute("ROLLBACK")
        if error.sqlite_errorcode & 255 == 10:
            ask("SELECT replica_sync()")
        db.execute("DROP TABLE IF EXISTS t") if "DROP" in statements[-1] else None
print("end", flush=True)
"""
FULL = 13


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["no space", "I/O error"])
def test_one_write_fails(error, new_primary, path):
    """At every place: a full disk is told before the primary has the commit, and whatever fails afterwards is put right."""
    primary = new_primary(SEED)
    uri = replica_uri(path, primary.url)
    python(f"open_replica({str(path)!r}, {primary.url!r}).close()")
    codes = set()
    for at in range(1, 400, 1 if error == errno.ENOSPC else 4):
        try:
            output, code = run(FAILING, uri, folder=path.parent, at=at, error=error)
        except AssertionError as failed:  # at the open, or in the words of the program's own
            output, code = str(failed), 1
            assert "unable to open" in output or "disk" in output, output
        ((there,),) = primary.sql("SELECT max(n) FROM acts")
        assert sound(path) <= there
        for line in output.splitlines():
            if line.startswith("error"):
                _, number, _, n = line.split()
                codes.add(int(number))
                if int(number) == FULL:  # unless a later act has taken that number
                    assert there < int(n) or n in output.splitlines(), (at, output, there)
        python(f"open_replica({str(path)!r}).execute('SELECT replica_sync()').fetchall()")
        identical(path, primary)
        if "error" not in output and code == 0 and at > 150:
            break
    assert codes, "nothing failed"
