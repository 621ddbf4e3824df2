"""What a write that cannot be says: the result codes, in words, and nothing changed on either side."""
import threading
import time

import pytest
from harness.check import identical, in_words
from harness.host import AUTH, BUSY, BUSY_SNAPSHOT, READONLY, SqlError
from harness.keys import Signer
from harness.primary import eventually
from harness.shell import python, stock
from harness.wire import Puller

pytestmark = pytest.mark.usefixtures("write_path")
WRITE = "INSERT INTO users(name) VALUES('x')"
COUNT = "SELECT count(*) FROM users"


def refused_write(db, code, *needles, sql=WRITE):
    with pytest.raises(SqlError) as caught:
        db(sql)
    assert caught.value.code == code, (caught.value, caught.value.extended, db.host.last_error())
    in_words(db.host.last_error(), *needles)
    return caught.value


class Holder:
    """A direct client that holds the primary's write lock."""

    def __init__(self, primary):
        self.primary, self.baton = primary, None
        self.ask({"type": "execute", "stmt": {"sql": "BEGIN IMMEDIATE"}})

    def ask(self, *requests):
        body = {"baton": self.baton, "requests": list(requests)}
        answer = self.primary.post(self.primary.port, "/v2/pipeline", body)
        self.baton = answer["baton"]
        assert all(result["type"] == "ok" for result in answer["results"]), answer

    def end(self, sql="ROLLBACK"):
        self.ask({"type": "execute", "stmt": {"sql": sql}}, {"type": "close"})


def test_primary_unreachable(replica, primary, path):
    primary.stop()
    before = time.monotonic()
    refused_write(replica, READONLY, "unreachable")
    refused_write(replica, READONLY, "unreachable", sql="CREATE TABLE t(x)")
    assert time.monotonic() - before < 2
    assert replica.one(COUNT) == 200
    assert replica.status()["state"] == "offline"
    replica("BEGIN")
    assert replica.one(COUNT) == 200
    refused_write(replica, READONLY, "unreachable")
    replica("ROLLBACK")
    primary.start()
    eventually(lambda: written(replica), what="a write after the primary's return")
    replica.sync()
    identical(path, primary)


def written(db):
    try:
        db(WRITE)
        return True
    except SqlError:
        return False


def test_primary_goes_away_within_a_transaction(replica, primary, path):
    replica("BEGIN")
    replica(WRITE)
    primary.stop()
    refused_write(replica, READONLY, "unreachable", sql="COMMIT")
    assert replica.one(COUNT) == 200
    primary.start()
    eventually(lambda: written(replica), what="a write after the primary's return")
    assert primary.sql(COUNT) == [[201]]
    identical(path, primary)


@pytest.mark.parametrize("timeout, most", [(0, 1.0), (400, 1.6)])
def test_primary_locked_by_another(timeout, most, replica, primary, path):
    replica(f"PRAGMA busy_timeout = {timeout}")
    holder = Holder(primary)
    before = time.monotonic()
    refused_write(replica, BUSY, "write lock")
    waited = time.monotonic() - before
    assert timeout / 1000 <= waited < most, waited
    assert replica.one(COUNT) == 200
    holder.end()
    replica(WRITE)
    assert primary.sql(COUNT) == [[201]]
    identical(path, primary)


def test_a_lock_that_is_given_back_in_time(replica, primary, path):
    holder = Holder(primary)
    threading.Timer(0.5, holder.end).start()
    replica(WRITE)
    assert primary.sql(COUNT) == [[201]]
    identical(path, primary)


def test_a_lock_that_nobody_wants_any_more_is_given_back(replica, primary, path):
    """The request that was given up is answered later: its lock must not stay."""
    replica("PRAGMA busy_timeout = 100")
    holder = Holder(primary)
    refused_write(replica, BUSY, "write lock")
    holder.end()
    before = time.monotonic()
    primary.sql("UPDATE users SET name = 'direct' WHERE id = 1")
    assert time.monotonic() - before < 2
    replica("PRAGMA busy_timeout = 5000")
    replica(WRITE)
    identical(path, primary)


def test_locally_locked(host, replica, primary, path):
    other = host.open(path, primary.url)
    other("PRAGMA busy_timeout = 100")
    replica("BEGIN IMMEDIATE")
    with pytest.raises(SqlError) as caught:
        other(WRITE)
    assert caught.value.extended == BUSY
    replica("COMMIT")
    other(WRITE)
    identical(path, primary)


@pytest.mark.parametrize("lock", ["eager", "optimistic"])
def test_a_stale_replica(lock, host, path, primary):
    """A statement of its own succeeds by itself; read, then write is BUSY_SNAPSHOT; no update is lost."""
    db = host.open(path, primary.url, write_lock=lock)
    db("UPDATE users SET email = 'mine' WHERE id = 1")  # an optimistic one has its stream now
    primary.sql("UPDATE users SET name = 'theirs' WHERE id = 1")
    db("BEGIN")
    assert db.one("SELECT name FROM users WHERE id = 1") == "user 1"
    with pytest.raises(SqlError) as caught:
        db("UPDATE users SET name = name || '!' WHERE id = 1")
        db("COMMIT")
    assert caught.value.extended == BUSY_SNAPSHOT
    if lock == "eager":
        db("ROLLBACK")
    db("UPDATE users SET name = name || '!' WHERE id = 1")
    assert primary.sql("SELECT name, email FROM users WHERE id = 1") == [["theirs!", "mine"]]
    primary.sql("UPDATE users SET name = 'again' WHERE id = 1")
    db("UPDATE users SET name = name || '?' WHERE id = 1")
    assert primary.sql("SELECT name FROM users WHERE id = 1") == [["again?"]]
    identical(path, primary)


def test_tokens(host, path, tmp_path, new_primary):
    signer = Signer(tmp_path)
    primary = new_primary(auth_jwt_key_file=signer.public)
    primary.token = signer.token()
    primary.script("CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT)")
    newest = primary.hello()
    reader = host.open(path, primary.url, auth_token=signer.token("ro"))
    refused_write(reader, AUTH, ("permission", "forbidden", "write"))
    reader("SELECT replica_config('auth_token', ?)", signer.token(lives=-3600))
    refused_write(reader, AUTH, "expired")
    reader("SELECT replica_config('auth_token', 'garbage')")
    refused_write(reader, AUTH)
    assert reader.one(COUNT) == 0 and primary.hello() == newest
    reader("SELECT replica_config('auth_token', ?)", signer.token())
    reader(WRITE)
    assert primary.sql(COUNT) == [[1]]


def test_writes_blocked_at_the_primary(host, path, new_primary):
    primary = new_primary(enable_namespaces=True)
    primary.script("CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT)")
    replica = host.open(path, primary.url, namespace="default")
    config = {"block_reads": False, "block_writes": True, "block_reason": "over quota"}
    primary.post(primary.admin_port, "/v1/namespaces/default/config", config)
    refused_write(replica, AUTH, "over quota")
    assert replica.one(COUNT) == 0
    primary.post(primary.admin_port, "/v1/namespaces/default/config", {**config, "block_writes": False})
    replica(WRITE)
    assert primary.sql(COUNT) == [[1]]


def test_a_primary_that_takes_no_pages(host, path, primary, new_proxy):
    proxy = new_proxy(primary.url)
    proxy.rewrite = lambda data: data.replace(b"sqlite_dbpage", b"sqlite_nopage")
    replica = host.open(path, proxy.url, write_path="pages")
    newest = primary.hello()
    refused_write(replica, READONLY, "replica_exec")
    assert primary.hello() == newest
    assert replica.one("SELECT replica_exec(?, 'y') ->> 'affected_rows'", "INSERT INTO users(name) VALUES(?)") == 1
    assert replica.one(COUNT) == 201
    identical(path, primary)


def test_what_shrinks_the_database(replica, primary, path):
    replica("DELETE FROM orders")
    newest = primary.hello()
    refused_write(replica, READONLY, "shrinks", sql="VACUUM")
    assert primary.hello() == newest
    replica(WRITE)
    identical(path, primary)


def test_another_primary_under_the_same_url(replica, primary, path):
    """The history is another one: never shipped to, however its frames are numbered."""
    replica(WRITE)
    replica("BEGIN")
    replica(WRITE)
    primary.wipe()
    primary.script("CREATE TABLE other(x)")
    with pytest.raises(SqlError):
        replica("COMMIT")
    assert primary.sql("SELECT name FROM sqlite_schema") == [["other"]]
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    with pytest.raises(SqlError):
        replica(WRITE)
    replica.sync()
    assert replica("SELECT name FROM sqlite_schema") == [("other",)]
    replica("INSERT INTO other VALUES(1)")
    identical(path, primary)


def test_the_same_frame_number_of_another_history(replica, primary, path):
    """After kill -9 the primary numbers its frames anew; at the very number of the replica it is another state."""
    for n in range(40):
        replica("UPDATE users SET name = ? WHERE id = 1", str(n))
    frame_no = replica.frame_no
    primary.kill()
    primary.start()
    assert primary.hello()[1] < frame_no
    n = 0
    while primary.hello()[1] < frame_no:
        n += 1
        primary.sql("UPDATE users SET email = ? WHERE id = 2", str(n))
    if primary.hello()[1] != frame_no:
        pytest.skip("the frame number was passed over")
    replica("UPDATE users SET name = 'last' WHERE id = 1")
    assert primary.sql("SELECT name, email FROM users WHERE id IN (1, 2)") == [["last", "u1@example.org"], ["user 2", str(n)]]
    assert replica("SELECT email FROM users WHERE id = 2") == [(str(n),)]
    identical(path, primary)


def test_a_local_write_is_not_built_upon(replica, primary, path):
    """A stock process wrote to the file: a write through the replica says so, and nothing of it reaches the primary."""
    newest = primary.hello()
    stock(path, "UPDATE users SET name = 'sneaky' WHERE id = 5;")
    refused_write(replica, READONLY, "replica_resync")
    assert primary.hello() == newest
    replica("SELECT replica_resync()")
    replica(WRITE)
    assert replica.one("SELECT name FROM users WHERE id = 5") == "user 5"
    identical(path, primary)


def test_functions_inside_a_write_transaction(replica, primary, path):
    replica("BEGIN IMMEDIATE")
    before = time.monotonic()
    for call in ("replica_sync()", "replica_resync()", "replica_exec('SELECT 1')", "replica_freeze()"):
        with pytest.raises(SqlError) as caught:
            replica(f"SELECT {call}")
        in_words(caught.value.text, "commit")
    assert time.monotonic() - before < 1
    replica(WRITE)
    replica("COMMIT")
    identical(path, primary)


def test_nothing_of_a_failed_commit_is_in_the_log(replica, primary):
    """What the primary refuses is nowhere: its log ends where it did."""
    newest = primary.hello()[1]
    replica("BEGIN")
    replica(WRITE)
    replica("ROLLBACK")
    puller = Puller(primary.url)
    puller.hello()
    assert puller.batch(newest + 1) == []
    puller.close()


@pytest.mark.parametrize("statement", [
    "CREATE INDEX i ON users(upside_down(name))",
    "CREATE TABLE t(a, b AS (upside_down(a)))",
    "CREATE TABLE t(a CHECK(upside_down(a) > 1))",
    "CREATE TABLE t(a TEXT COLLATE backwards PRIMARY KEY)",
    "CREATE INDEX i ON users(name COLLATE backwards)",
    "ALTER TABLE users ADD COLUMN more AS (upside_down(name))",
    "CREATE VIRTUAL TABLE v USING local_module",
])
def test_a_schema_that_the_primary_does_not_understand(statement, path, primary):
    """Functions, collations and modules of this program's own: refused, and the primary unhurt."""
    newest = primary.hello()
    program = f"""
db = open_replica({str(path)!r}, {primary.url!r})
db.create_function('upside_down', 1, lambda x: str(x)[::-1], deterministic=True)
db.create_collation('backwards', lambda a, b: (a < b) - (a > b))
try:
    db.execute({statement!r})
    print('done')
except sqlite3.Error as error:
    print(getattr(error, 'sqlite_errorname', error), db.execute('SELECT replica_last_error()').fetchone()[0])
print(db.execute('SELECT count(*) FROM users').fetchone()[0], db.execute("PRAGMA integrity_check").fetchone()[0])
db.execute("INSERT INTO users(name) VALUES('after')")
"""
    answer, rest = python(program).split("\n", 1)
    if "local_module" not in statement:
        assert answer.startswith("SQLITE_READONLY"), answer
        in_words(answer, "understand")
    assert rest.strip() == "200 ok"
    assert primary.hello()[1] > newest[1] and primary.sql(COUNT) == [[201]]
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(path, primary)
