"""Arguments and answers in UTF-16, and what a connection costs."""
import json

from harness.shell import python

def test_utf16(primary, path):
    """A database in UTF-16 hands its texts to functions in that form."""
    program = f"""
import json
loader.execute("PRAGMA encoding = 'UTF-16le'")
loader.execute("CREATE TABLE texts(a, b)")
words = ['', 'x', 'timeout', 'SELECT ?1', 'größer', '日本語', '🦀' * 1000, 'a' * 100001]
loader.executemany("INSERT INTO texts VALUES(?, ?)", [(w, w) for w in words])
options = {json.dumps({"sync_url": primary.url})!r}
loader.execute("INSERT INTO texts VALUES('options', ?)", (options,))
loader.execute("INSERT INTO texts VALUES('path', ?)", ({str(path)!r},))
path, = loader.execute("SELECT replica_open((SELECT b FROM texts WHERE a = 'path'), b) FROM texts WHERE a = 'options'").fetchone()
assert path == {str(path)!r}, path
for schema in words:
    try:
        loader.execute("SELECT replica_status(b) FROM texts WHERE a = ?", (schema,)).fetchall()
    except sqlite3.OperationalError as error:
        assert 'no schema' in str(error) or 'not a replica' in str(error), error
        assert not schema or schema in str(error), (schema[:20], str(error)[:60])
assert sqlite3.connect(path).execute("SELECT count(*) FROM users").fetchone() == (200,)
"""
    python(program)


def test_utf16_by_the_encoding_of_the_replica(host, new_primary, path):
    """Texts of the replica itself, as arguments of replica_exec: they arrive as they are."""
    primary = new_primary("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
                          "INSERT INTO t VALUES(1, 'größer 日本語 🦀'), (2, ''), (3, 'x');")
    db = host.open(path, primary.url)
    assert db.one("PRAGMA encoding") == "UTF-16le"
    for row in db("SELECT id, v, replica_exec('SELECT ?1, length(?2), typeof(?3)', v, v || v, NULL) FROM t"):
        assert json.loads(row[2])["rows"] == [[row[1], 2 * len(row[1]), "null"]]


def test_a_connection_leaves_nothing_behind():
    """Ten thousand of them, of any kind, with calls and with a look at the table."""
    program = """
import resource, sys
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
def use(times):
    for n in range(times):
        db = sqlite3.connect(':memory:')
        if n % 10 == 0:
            db.execute("PRAGMA encoding = 'UTF-16le'")
            db.execute("SELECT replica_version('commit'), count(*) FROM replica_databases").fetchall()
        db.close()
use(2000)
before = resident()
use(10000)
print(resident() - before)
"""
    assert int(python(program, timeout=120)) < 1_000_000
