"""kill -9 at random moments of a sync, 200 times: always a sound database, never a position ahead of it."""
import random
import subprocess
import time
from pathlib import Path

from harness.check import identical
from harness.host import replica_uri
from harness.paths import LIB, PYTHON
from harness.shell import shell, stock

PROGRAM = f"""
import sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
print("ready", flush=True)
db = sqlite3.connect(sys.argv[1], uri=True)
for _ in range(int(sys.argv[2])):
    db.execute("SELECT replica_sync()").fetchall()
    db.execute("SELECT count(*) FROM filler").fetchall()
print("done", flush=True)
sys.stdin.read()
"""
SEED = """
CREATE TABLE first(n); INSERT INTO first VALUES(1);
CREATE TABLE filler(id INTEGER PRIMARY KEY, data); CREATE INDEX by_data ON filler(substr(data, 1, 9));
INSERT INTO filler SELECT NULL, randomblob(900) FROM generate_series(1, {rows});
CREATE TABLE last(n); INSERT INTO last VALUES(1);
"""
SOUND = "PRAGMA integrity_check; SELECT max(n), min(n) FROM (SELECT n FROM first UNION ALL SELECT n FROM last);"


def start(uri, syncs):
    program = subprocess.Popen([PYTHON, "-c", PROGRAM, uri, str(syncs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "ready\n", program.stderr.read()
    return program


def end(program):
    program.kill()
    output, errors = program.communicate()
    assert not errors, errors
    return "done" in output


def check_sound(path):
    """A stock shell finds an intact database at one of the primary's commits, or none yet."""
    if not path.exists() or path.stat().st_size == 0 and not Path(f"{path}-wal").exists():
        return
    result = shell(f".timeout 10000\n{SOUND}", path)
    if "no such table" in result.stderr and result.stdout == "ok\n":  # the bootstrap had not committed
        assert stock(path, "SELECT count(*) FROM sqlite_schema;") == "0"
        return
    assert result.stdout.startswith("ok\n") and not result.stderr, (result.stdout, result.stderr)
    low, high = result.stdout.split("\n")[1].split("|")
    assert low == high, "half a transaction"


def change(primary, rng):
    """One transaction that touches many pages; its number stands in the first table and in the last."""
    primary.transaction("UPDATE first SET n = n + 1",
                        ("UPDATE filler SET data = randomblob(900) WHERE id % 7 = ?", [rng.randrange(7)]),
                        rng.choice(["INSERT INTO filler SELECT NULL, randomblob(2000) FROM generate_series(1, 150)",
                                    "DELETE FROM filler WHERE id % 13 = 0",
                                    "UPDATE filler SET data = NULL WHERE id % 11 = 0"]),
                        "UPDATE last SET n = n + 1")


def test_200_kills(new_primary, new_proxy, tmp_path):
    """Of bootstraps, increments, and the change to another history; checked after each, identical in the end."""
    rng = random.Random(20)
    primary = new_primary(SEED.format(rows=4000))
    path, fresh = tmp_path / "app.db", tmp_path / "fresh.db"
    finished = {"bootstrap": [], "increment": [], "another history": []}

    def whole(target):
        """A sync that nobody kills: the seconds it took."""
        program, begin = start(replica_uri(target, primary.url), 1), time.perf_counter()
        assert program.stdout.readline() == "done\n", program.stderr.read()
        taken = time.perf_counter() - begin
        end(program)
        return taken

    bootstrap = whole(path)
    change(primary, rng)
    increment = whole(path)
    print(f"bootstrap {bootstrap * 1e3:.0f} ms, increment {increment * 1e3:.0f} ms")
    for cycle in range(200):
        kind = "another history" if cycle % 20 == 3 else "bootstrap" if cycle % 4 == 0 else "increment"
        target, longest = path, 1.3 * increment
        if kind == "bootstrap":
            target, longest = fresh, 1.2 * bootstrap
            if rng.random() < 0.7:  # else on top of what the last kill left
                for file in tmp_path.glob("fresh.db*"):
                    file.unlink()
        elif kind == "increment":
            for _ in range(rng.randrange(1, 4)):
                change(primary, rng)
        else:
            primary.kill()
            primary.start()
            change(primary, rng)
            longest = 1.2 * (bootstrap + increment)
        program = start(replica_uri(target, primary.url), 1)
        time.sleep(rng.uniform(0, longest))
        finished[kind].append(end(program))
        check_sound(target)
        if cycle % 25 == 24:
            for file in (path, fresh):
                whole(file)
                identical(file, primary)
    for kind, done in finished.items():
        print(f"{kind}: {len(done)} kills, {sum(done)} after the end of the sync")
        assert sum(done) < len(done) or kind == "another history"
    for file in (path, fresh):
        whole(file)
        identical(file, primary)


def test_kills_between_many_small_syncs(new_primary, tmp_path):
    """A process that syncs without end beside a writing primary, killed 20 times; checkpoints fall in between."""
    rng = random.Random(21)
    primary = new_primary(SEED.format(rows=2000))
    path = tmp_path / "app.db"
    for _ in range(20):
        program = start(replica_uri(path, primary.url), 10**6)
        until = time.monotonic() + rng.uniform(0.1, 0.6)
        while time.monotonic() < until:
            change(primary, rng)
        assert end(program) is False
        check_sound(path)
    program = start(replica_uri(path, primary.url), 1)
    assert program.stdout.readline() == "done\n", program.stderr.read()
    end(program)
    identical(path, primary)


def test_others_go_on_when_a_syncing_process_is_killed(new_host, new_primary, tmp_path):
    rng = random.Random(22)
    primary = new_primary(SEED.format(rows=2000))
    path = tmp_path / "app.db"
    survivor, reader = new_host().open(path, primary.url), new_host(library=None).plain(path)
    for _ in range(15):
        change(primary, rng)
        program = start(replica_uri(path, primary.url), 10**6)
        time.sleep(rng.uniform(0, 0.05))
        end(program)
        ((first, last),) = reader("SELECT first.n, last.n FROM first, last")
        assert first == last
        survivor.sync()
        assert reader("SELECT n FROM first") == [tuple(row) for row in primary.sql("SELECT n FROM first")]
        assert reader.one("PRAGMA integrity_check") == "ok"
    identical(path, primary)
