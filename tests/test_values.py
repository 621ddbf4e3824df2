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


def test_a_blob_for_a_text_on_a_utf16_connection():
    """A text that was cast stays UTF-16 inside: the length of the blob is another than the text's."""
    python("""
loader.execute("PRAGMA encoding = 'UTF-16le'")
for text in ('z', 'z' * 1000, 'größer' * 100):
    for call in ("SELECT replica_status(CAST(? AS BLOB))", "SELECT replica_config('timeout', 5, CAST(? AS BLOB))"):
        try:
            loader.execute(call, (text,)).fetchall()
        except sqlite3.OperationalError as error:
            assert str(error).endswith(f": no schema '{text}' on this connection"), error
        else:
            assert False, "no error"
""")


def test_no_memory():
    """Each allocation fails once: an error, and nothing worse."""
    program = """
import os
outcomes = set()
for limit in range(300_000, 5_000_000, 50_000):
    child = os.fork()
    if child == 0:
        loader.execute("PRAGMA encoding = 'UTF-16le'").fetchall()
        loader.execute(f"PRAGMA hard_heap_limit = {limit}").fetchall()
        for argument in (b'z\\0' * 500_000, 'z' * 500_000):
            try:
                loader.execute("SELECT replica_status(?)", (argument,)).fetchall()
            except MemoryError:
                pass
            except sqlite3.Error as error:
                assert 'memory' in str(error) or 'no schema' in str(error) or 'too big' in str(error), error
        os._exit(0)
    outcomes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(outcomes)
"""
    assert python(program) == "{0}\n"


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
