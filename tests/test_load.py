"""The library loads into programs of every kind and leaves everything else in them alone."""
import json
import re
import subprocess

import pytest
from harness.host import Db, replica_uri
from harness.paths import DEPS, LIB, PYTHON, SO
from harness.shell import loaded_shell, shell, sidecars

VERSION = r"\d+\.\d+\.\d+\S*"


def symbols(which):
    lines = subprocess.run(["nm", "-D", which, SO], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[-1] for line in lines]


def test_only_the_entry_point_is_exported():
    assert symbols("--defined-only") == ["sqlite3_replica_init"]


def test_no_sqlite_of_its_own_is_linked():
    assert not [name for name in symbols("--undefined-only") if name.startswith("sqlite3")]


def test_stock_shell():
    result = loaded_shell("SELECT replica_version();")
    assert re.fullmatch(VERSION + "\n", result.stdout) and not result.stderr


def test_stock_shell_opens_a_replica(primary, path):
    result = loaded_shell(f""".open "{replica_uri(path, primary.url)}"\nSELECT count(*) FROM users;\n""")
    assert (result.stdout, result.stderr) == ("200\n", "")


def test_stock_shell_attaches_a_replica(primary, path):
    result = loaded_shell(f"ATTACH '{replica_uri(path, primary.url)}' AS app;\n"
                          "SELECT count(*) FROM app.users; SELECT replica_frame_no('app');")
    assert (result.stdout, result.stderr) == (f"200\n{primary.hello()[1]}\n", "")


def test_loading_twice(primary, path):
    result = loaded_shell(f""".load {LIB}\n.open "{replica_uri(path, primary.url)}"\n.load {LIB}\n"""
                          "SELECT count(*), replica_version() <> '' FROM users;")
    assert (result.stdout, result.stderr) == ("200|1\n", "")


def test_loading_by_sql_any_number_of_times(primary, path):
    """The statement that loads is running meanwhile, and so may others be."""
    load = f"SELECT load_extension('{LIB}');\n"
    result = loaded_shell(f"""{load * 3}.open "{replica_uri(path, primary.url)}"\n{load * 2}"""
                          f"SELECT id, load_extension('{LIB}') FROM users ORDER BY id LIMIT 2;\nSELECT replica_version() <> '';\n")
    assert (result.stdout, result.stderr) == ("\n" * 5 + "1|\n2|\n1\n", "")


def test_two_sqlites_in_one_process(primary, path):
    """The second one is told so, and the first goes on."""
    program = f"""
import sqlite3, sys
sys.path.insert(0, {str(DEPS / "py")!r})
import apsw
assert apsw.sqlite_lib_version() != sqlite3.sqlite_version
def load(db):
    db.enable_load_extension(True)
    db.load_extension({LIB!r})
first = sqlite3.connect(":memory:")
load(first)
db = sqlite3.connect({replica_uri(path, primary.url)!r}, uri=True, isolation_level=None)
db.execute("UPDATE users SET name = 'before' WHERE id = 1")
for _ in range(2):
    try:
        load(apsw.Connection(":memory:"))
        print("loaded")
    except apsw.Error as error:
        print(error)
db.execute("UPDATE users SET name = 'behind' WHERE id = 2")
load(first)
sqlite3.connect({replica_uri(path, primary.url)!r}, uri=True).execute("SELECT replica_sync()").fetchall()
"""
    result = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    first, second = result.stdout.splitlines()
    assert first == second and "another SQLite of this process" in first
    assert primary.sql("SELECT name FROM users WHERE id < 3") == [["before"], ["behind"]]


def test_two_connections_load_it(host, primary, path):
    first, second = Db(host, ":memory:", False, LIB), Db(host, ":memory:", False, LIB)
    first.close()
    assert re.fullmatch(VERSION, second.one("SELECT replica_version()"))
    assert host.open(path, primary.url).one("SELECT count(*) FROM users") == 200


def test_functions_outlive_the_loading_connection(host, primary, path):
    early = host.plain(":memory:")
    host._loader.close()
    assert re.fullmatch(VERSION, early.one("SELECT replica_version()"))
    assert re.fullmatch(VERSION, host.plain(":memory:").one("SELECT replica_version()"))
    assert host.open(path, primary.url).sync()["frames_synced"] == 0


def test_an_unrelated_file_is_untouched(tmp_path):
    script = """
.open {path}
.vfsname
PRAGMA foreign_keys; PRAGMA busy_timeout; PRAGMA journal_mode; PRAGMA locking_mode=exclusive;
CREATE TABLE t(a); INSERT INTO t VALUES(1); DELETE FROM t; VACUUM; PRAGMA journal_mode=wal; PRAGMA journal_mode=delete;
INSERT INTO t VALUES(2); SELECT * FROM t;
"""
    stock_path, path = tmp_path / "stock.db", tmp_path / "loaded.db"
    expected, actual = shell(script.format(path=stock_path)), loaded_shell(script.format(path=path))
    assert (actual.stdout, actual.stderr) == (expected.stdout, expected.stderr)
    assert path.read_bytes() == stock_path.read_bytes()
    assert sidecars(path) == ["loaded.db"]


def test_python_attaches_two_replicas(host, new_primary, tmp_path):
    primaries = [new_primary(f"CREATE TABLE t(a); INSERT INTO t VALUES({n});") for n in (1, 2)]
    db = host.plain(":memory:", uri=True)
    for name, primary in zip("ab", primaries):
        db("ATTACH ? AS " + name, replica_uri(tmp_path / f"{name}.db", primary.url))
    assert db("SELECT a.t.a, b.t.a FROM a.t, b.t") == [(1, 2)]
    primaries[1].sql("INSERT INTO t VALUES(3)")
    assert (db.sync("a")["frames_synced"], db.sync("b")["frames_synced"]) == (0, 1)
    assert db("SELECT count(*) FROM a.t UNION ALL SELECT count(*) FROM b.t") == [(1,), (2,)]
    assert [db.status(name)["sync_url"] for name in "ab"] == [primary.url for primary in primaries]
    db("DETACH a")
    assert db.one("SELECT count(*) FROM replica_databases") == 1


def test_current_sqlite_in_apsw(primary, path):
    program = f"""
import apsw, json
loader = apsw.Connection(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
db = apsw.Connection({replica_uri(path, primary.url)!r}, flags=flags)
print(json.dumps([apsw.sqlite_lib_version(), db.execute("SELECT count(*) FROM users").get,
                  json.loads(db.execute("SELECT replica_sync()").get), db.execute("PRAGMA integrity_check").get]))
"""
    for _ in range(2):
        result = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, timeout=60,
                                env={"PYTHONPATH": str(DEPS / "py")})
        assert result.returncode == 0 and not result.stderr, result.stderr
        version, count, sync, check = json.loads(result.stdout)
        assert tuple(map(int, version.split("."))) > (3, 45)
        assert (count, sync["frame_no"], check) == (200, primary.hello()[1], "ok")
        primary.sql("UPDATE users SET name = 'x' WHERE id = 1")


def test_better_sqlite3(primary, path):
    program = """
const Database = require('better-sqlite3');
const [lib, path, url] = process.argv.slice(1);
new Database(':memory:').loadExtension(lib).prepare('SELECT replica_open(?, ?)').get(path, JSON.stringify({sync_url: url}));
const db = new Database(path), one = (sql) => db.prepare(sql).pluck().get();
const name = "SELECT name FROM users WHERE id = 1";
console.log(JSON.stringify([one(name), JSON.parse(one('SELECT replica_sync()')), one(name), one('PRAGMA integrity_check')]));
"""
    names = []
    for name in ("first", "second"):
        result = subprocess.run(["node", "-e", program, LIB, path, primary.url], capture_output=True, text=True,
                                cwd=DEPS, timeout=60)
        assert result.returncode == 0 and not result.stderr, result.stderr
        before, sync, after, check = json.loads(result.stdout)
        assert (sync["frame_no"], check) == (primary.hello()[1], "ok")
        names += [before, after]
        primary.sql("UPDATE users SET name = ? WHERE id = 1", name)
    assert names == ["user 1", "user 1", "user 1", "first"]


def test_replica_open_then_a_plain_open(host, primary, path):
    loader = host.plain(":memory:")
    options = json.dumps({"sync_url": primary.url, "timeout": 5})
    assert loader.one("SELECT replica_open(?, ?)", str(path), options) == str(path)
    db = host.plain(path)
    assert db.one("SELECT count(*) FROM users") == 200
    assert db.status()["sync_url"] == primary.url
    other = host.plain(path.with_name("other.db"))
    other.script("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    assert sidecars(path.with_name("other.db")) == ["other.db"]


@pytest.mark.parametrize("ends", ["closes", "just ends"])
def test_a_program_ends_cleanly(ends, primary, path):
    program = f"""
import sqlite3
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension({LIB!r})
replica = sqlite3.connect({replica_uri(path, primary.url)!r}, uri=True)
replica.execute("SELECT replica_sync()").fetchall()
rows = replica.execute("SELECT * FROM users")
rows.fetchone()
if {ends == "closes"}:
    rows.close(); replica.close(); db.close()
"""
    result = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
