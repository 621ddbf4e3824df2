"""kill -9 of a process that commits rows and reconciles, at random moments: no commit lost, none half, none invented."""
import random
import subprocess
import time
from pathlib import Path

import pytest
from harness.check import identical
from harness.host import DEFAULTS, replica_uri
from harness.paths import LIB, PYTHON
from harness.shell import python, shell

KILLS = 60  # of each kind
PROGRAM = f"""
import random, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
db = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None)
rng = random.Random(int(sys.argv[2]))
n = db.execute("SELECT n FROM first").fetchone()[0]
print("ready", n, flush=True)
while True:
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE first SET n = n + 1")
    what = rng.randrange(6)
    if what == 0:
        db.execute("INSERT INTO filler SELECT NULL, randomblob(1500) FROM filler LIMIT 60")
    elif what == 1:
        db.execute("DELETE FROM filler WHERE id % 17 = ?", [rng.randrange(17)])
    elif what == 2:
        db.execute("UPDATE filler SET data = randomblob(700) WHERE id % 7 = ?", [rng.randrange(7)])
    elif what == 3:
        db.execute(f"CREATE TABLE IF NOT EXISTS t{{rng.randrange(5)}} AS SELECT * FROM filler LIMIT 20")
    elif what == 4:
        db.execute(f"DROP TABLE IF EXISTS t{{rng.randrange(5)}}")
    db.execute("UPDATE last SET n = n + 1")
    db.execute("COMMIT")
    n += 1
    print(n, flush=True)
    if rng.random() < 0.4:
        db.execute("SELECT replica_sync()").fetchall()
"""
SEED = """
CREATE TABLE first(n); INSERT INTO first VALUES(0);
CREATE TABLE filler(id INTEGER PRIMARY KEY AUTOINCREMENT, data); CREATE INDEX by_data ON filler(substr(data, 1, 9));
INSERT INTO filler SELECT NULL, randomblob(900) FROM generate_series(1, 400);
CREATE TABLE births(id); CREATE TRIGGER born AFTER INSERT ON filler BEGIN INSERT INTO births VALUES(new.id); END;
CREATE TABLE last(n); INSERT INTO last VALUES(0);
"""
SOUND = "PRAGMA integrity_check; SELECT first.n, last.n FROM first, last;"


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    monkeypatch.setitem(DEFAULTS, "write_path", "rows")


def sound(path):
    """What a stock shell finds: an intact database at one of the commits, its number."""
    result = shell(f".timeout 10000\n{SOUND}", path)
    assert result.stdout.startswith("ok\n") and not result.stderr, (result.stdout, result.stderr)
    first, last = result.stdout.split("\n")[1].split("|")
    assert first == last, "half a transaction"
    return int(first)


def tables(path):
    names = shell("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1;", path).stdout.split()
    return names, shell(".mode quote\n" + "".join(f"SELECT '{name}', rowid, * FROM {name} ORDER BY 2;" for name in names), path).stdout


def same_rows(path, primary, tmp_path):
    """Row for row what the primary has, with nothing reconciled by anybody."""
    copy = tmp_path / "primary.db"
    copy.write_bytes(primary.image().bytes())
    assert tables(path) == tables(copy)
    for file in tmp_path.glob("primary.db*"):
        file.unlink()


@pytest.mark.parametrize("live, lock", [(0, "eager"), (1, "eager"), (0, "optimistic")])
def test_kills(live, lock, new_primary, new_fault_proxy, tmp_path):
    rng = random.Random(30 + live)
    primary = new_primary(SEED)
    proxy, path = new_fault_proxy(primary.url), tmp_path / "app.db"
    url = primary.url if live else proxy.url  # an endless stream does not pass it
    uri = replica_uri(path, url, live=live, write_lock=lock)
    python(f"open_replica({str(path)!r}, {url!r}).close()")
    acknowledged, pending, unanswered = 0, 0, 0
    for kill in range(5 * KILLS):
        if kill >= KILLS and pending > 5:
            break
        program = subprocess.Popen([PYTHON, "-c", PROGRAM, uri, str(kill)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = program.stdout.readline()
        assert line.startswith("ready"), program.stderr.read()
        assert int(line.split()[1]) >= acknowledged
        time.sleep(rng.uniform(0, 0.35))
        program.kill()
        output, errors = program.communicate()
        assert not errors, errors
        proxy.close_streams()  # what the dead one had open holds the lock for 5 s
        acknowledged = max([acknowledged, *map(int, output.split())])
        here, ((there,),) = sound(path), primary.sql("SELECT n FROM first")
        assert acknowledged <= here <= there <= acknowledged + 1, (acknowledged, here, there)
        undo = Path(f"{path}-replica-undo").exists()
        pending += undo
        unanswered += here < there
        if here == there:
            same_rows(path, primary, tmp_path)
        acknowledged = there  # whoever opens it next sees to that
        if rng.random() < 0.5:
            identical(path, primary)
            assert sound(path) == there
        else:
            python(f"open_replica({str(path)!r}).execute('SELECT replica_sync()').fetchall()") if here < there else None
    print(f"{kill} kills, {pending} with an undo, {unanswered} with a commit that was not here yet, {there} commits")
    assert pending > 5
    identical(path, primary)
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
