"""A commit whose request or answer is lost: what the user is told is true, and nothing happens twice."""
import threading
import time

import pytest
from harness.check import fails, identical, in_words, outcome, series
from harness.faults import CUT, CUT_ANSWER, CUT_INSIDE, LOSE, LOSE_ANSWER, TWICE, CutBehind, Late
from harness.host import BUSY, IOERR, READONLY, SqlError
from harness.primary import eventually
from harness.shell import stock

pytestmark = pytest.mark.usefixtures("write_path")

SEED = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE);
INSERT INTO t SELECT value, 'seed ' || value FROM generate_series(1, 100);
"""
MODES = ["eager", "optimistic"]


def commits(request):
    return request.commits


@pytest.fixture
def primary(new_primary):
    return new_primary(SEED)


@pytest.fixture
def proxy(new_fault_proxy, primary):
    return new_fault_proxy(primary.url)


@pytest.fixture(params=MODES)
def db(request, host, path, primary, proxy):
    """A replica that has written; an optimistic one has a stream of its own by now."""
    db = host.open(path, proxy.url, write_lock=request.param, timeout=2)
    for n in range(2):
        db(f"UPDATE t SET v = 'warm {n}' WHERE id = 100")
    del proxy.log[:]
    db.optimistic = request.param == "optimistic"
    return db


def one_request(proxy):
    """Was the transaction shipped in one request, the begin in it?"""
    return [entry for entry in proxy.log if entry[2]][0][1]


@pytest.mark.parametrize("fate", [LOSE_ANSWER, CUT_ANSWER])
def test_the_answer_is_lost(fate, db, primary, proxy, path):
    before = primary.hello()[1]
    done = proxy.once(commits, fate)
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    assert done.is_set() and one_request(proxy) == db.optimistic
    assert db.one("SELECT v FROM t WHERE id = 7") == "mine"
    assert primary.sql("SELECT id FROM t WHERE v = 'mine'") == [[7]]
    assert primary.hello()[1] == before + 1 + 1  # the table's page, the index's
    assert db.frame_no == before + 2
    db("UPDATE t SET v = 'next' WHERE id = 8")
    assert primary.sql("SELECT v FROM t WHERE id = 8") == [["next"]]
    identical(path, primary)


@pytest.mark.parametrize("fate", [LOSE_ANSWER, CUT_ANSWER])
def test_the_answer_to_an_insert_that_grows_is_lost(fate, db, primary, proxy, path):
    proxy.once(commits, fate)
    rows = db(f"INSERT INTO t(v) SELECT hex(randomblob(900)) FROM {series(40)} RETURNING id, v")
    assert len(rows) == 40
    assert [tuple(row) for row in primary.sql("SELECT id, v FROM t WHERE id > 100")] == rows
    db("CREATE TABLE another(x)")
    assert primary.sql("SELECT count(*) FROM another") == [[0]]
    identical(path, primary)


@pytest.mark.parametrize("fate", [LOSE_ANSWER, CUT_ANSWER])
def test_the_answer_to_a_schema_change_is_lost(fate, db, primary, proxy, path):
    """The definitions are tried at the primary first, and pages are free: nothing of that is left on them."""
    db("CREATE TABLE old(x, y UNIQUE, z UNIQUE)")
    db("INSERT INTO old(x) VALUES(zeroblob(40000))")
    db("DROP TABLE old")
    for number, sql in enumerate(["CREATE INDEX t_more ON t(id, v)", "CREATE TABLE u(x PRIMARY KEY, y UNIQUE)",
                                  "CREATE VIRTUAL TABLE f USING fts5(v)", "CREATE INDEX u_x ON u(y, x)"]):
        done = proxy.once(commits, fate)
        db(sql)
        assert done.is_set()
        assert primary.sql("PRAGMA integrity_check") == [["ok"]]
        db(f"UPDATE t SET v = 'next {number}' WHERE id = 8")
        identical(path, primary)


# What a transaction means can be told from its pages in more than one way, here and at the primary.
AMBIGUOUS = {
    "rows older than a column": [
        "INSERT INTO t VALUES(500, 'older')", "UPDATE t SET v = 'older too' WHERE id = 3", "ALTER TABLE t ADD COLUMN n INT DEFAULT 7",
        "INSERT INTO t VALUES(501, 'younger', 7)"],
    "rows older than the column before": ["UPDATE s SET v = v", "UPDATE t SET v = 'other' WHERE id = 3"],
    "a table made where one was": ["CREATE TABLE w1(y)", "DROP TABLE u", "CREATE TABLE w2(x, y)", "INSERT INTO w2 VALUES(3, 4)"],
    "a table made again": ["DROP TABLE u", "CREATE TABLE other(x)", "CREATE TABLE u(x, y)", "INSERT INTO u VALUES(1, 2), (3, 4)"],
    "a table in the place of another": ["CREATE TABLE new(x, y, z)", "INSERT INTO new SELECT *, 9 FROM u", "DROP TABLE u",
                                        "ALTER TABLE new RENAME TO u"],
    "a column dropped and added": ["ALTER TABLE u DROP COLUMN y", "ALTER TABLE u ADD COLUMN y", "UPDATE u SET y = 5"],
}


@pytest.mark.parametrize("changes", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_the_answer_to_what_can_be_told_in_two_ways_is_lost(changes, db, primary, proxy, path):
    db.script("CREATE TABLE s(id INTEGER PRIMARY KEY, v); CREATE TABLE u(x, y); INSERT INTO u VALUES(1, 2);")
    db.script("BEGIN; INSERT INTO s VALUES(1, 'older'); ALTER TABLE s ADD COLUMN n DEFAULT 'd'; COMMIT")
    done = proxy.once(commits, CUT_ANSWER)
    db.script(f"BEGIN; {'; '.join(changes)}; COMMIT")
    assert done.is_set()
    for table, in db("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        assert [tuple(row) for row in primary.sql(f"SELECT * FROM {table}")] == db(f"SELECT * FROM {table}"), table
    identical(path, primary)


def test_the_answer_to_a_schema_change_among_many_pages_is_lost(db, primary, proxy, path):
    """The primary's cache writes what the proof of the new schema has taken behind the end, although it is undone."""
    primary.script(f"""CREATE TABLE big(x);
        INSERT INTO big SELECT randomblob(9000) FROM {series(700)};
        DELETE FROM big WHERE rowid > 10;""")
    db.sync()
    done = proxy.once(commits, CUT_ANSWER)
    db("BEGIN")
    db("CREATE TABLE more(x, y)")
    db(f"INSERT INTO more SELECT value, randomblob(9000) FROM {series(400)}")
    db("COMMIT")
    assert done.is_set()
    assert primary.sql("SELECT count(*) FROM more") == [[400]]
    db("INSERT INTO more VALUES(1, 2)")
    db.sync()
    identical(path, primary)


def test_something_on_the_way_sends_the_commit_twice(db, primary, proxy, path):
    """The second answer says that there is no such stream any more."""
    done = proxy.once(commits, TWICE)
    db("UPDATE t SET v = v || '+' WHERE id = 7")
    assert done.is_set()
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [["seed 7+"]]
    db("UPDATE t SET v = v || '+' WHERE id = 7")
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [["seed 7++"]]
    identical(path, primary)


@pytest.mark.parametrize("fate", [CUT, CUT_INSIDE, LOSE])
def test_the_request_is_lost(fate, db, primary, proxy, path):
    before = primary.hello()
    proxy.once(commits, fate)
    fails(lambda: db("UPDATE t SET v = 'mine' WHERE id = 7"), READONLY)
    assert "did not arrive" in db.host.last_error()
    assert primary.hello() == before
    assert db.one("SELECT v FROM t WHERE id = 7") == "seed 7"
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [["mine"]]
    identical(path, primary)


@pytest.mark.parametrize("seconds", [2.3, 3])
def test_the_request_comes_late(seconds, db, primary, proxy, path):
    """The client has given up after 2 s, and found out what will be: never something else."""
    done = proxy.once(commits, Late(seconds))
    try:
        db("UPDATE t SET v = 'mine' WHERE id = 7")
        told = "mine"
    except SqlError as error:
        assert error.code == READONLY, error
        told = "seed 7"
    assert one_request(proxy) == db.optimistic
    assert db.one("SELECT v FROM t WHERE id = 7") == told
    assert done.wait(10)
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [[told]]
    db("UPDATE t SET v = 'next' WHERE id = 8")
    identical(path, primary)


def test_the_request_waits_for_the_lock_at_the_primary(host, path, primary, proxy):
    """Sent, and still under way when the client gives up: the optimistic transaction has yet to begin."""
    db = host.open(path, proxy.url, write_lock="optimistic", timeout=2)
    for n in range(2):
        db(f"UPDATE t SET v = 'warm {n}' WHERE id = 100")
    held = threading.Event()

    def hold():
        with primary.stream() as stream:
            stream("BEGIN IMMEDIATE")
            held.set()
            time.sleep(3.5)
            stream("ROLLBACK")

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    try:
        db("UPDATE t SET v = 'mine' WHERE id = 7")
        told = "mine"
    except SqlError as error:
        assert error.code in (READONLY, BUSY), error
        told = "seed 7"
    other.join()
    time.sleep(0.5)
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [[told]]
    assert db.one("SELECT v FROM t WHERE id = 7") == told
    db("UPDATE t SET v = 'next' WHERE id = 8")
    identical(path, primary)


@pytest.mark.parametrize("theirs", ["UPDATE t SET v = 'theirs' WHERE id = 9", "UPDATE t SET v = 'theirs' WHERE id = 7",
                                    "INSERT INTO t(v) SELECT randomblob(3000) FROM generate_series(1, 20)"])
def test_another_client_commits_right_after(theirs, db, primary, proxy, path):
    proxy.once(commits, CUT_ANSWER, after=lambda: primary.sql(theirs))
    db("UPDATE t SET v = 'mine' WHERE id = 7")
    expected = [tuple(row) for row in primary.sql("SELECT v FROM t WHERE id = 7")]
    assert db("SELECT v FROM t WHERE id = 7") == expected
    db.sync()
    identical(path, primary)


def test_another_client_commits_instead(db, primary, proxy, path):
    """The request never arrived, and the first commit behind the base is somebody else's, on the same row."""
    proxy.once(commits, CUT, after=lambda: primary.sql("UPDATE t SET v = 'theirs' WHERE id = 7"))
    fails(lambda: db("UPDATE t SET v = 'mine' WHERE id = 7"), READONLY)
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [["theirs"]]
    db("UPDATE t SET v = v || ' and mine' WHERE id = 7")
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [["theirs and mine"]]
    identical(path, primary)


@pytest.mark.parametrize("fate", [CUT_ANSWER, CUT])
def test_the_log_is_compacted_before_it_is_looked_up(fate, host, path, new_primary, new_fault_proxy):
    """What was right behind the base is only part of a snapshot by then: yes, no, or unknown; never the wrong one."""
    primary = new_primary(SEED, max_log_duration=1)
    proxy = new_fault_proxy(primary.url)
    db = host.open(path, proxy.url, timeout=2)
    base = db.frame_no

    def compact():
        deadline = time.monotonic() + 20
        while not primary.snapshot_needed(base + 1):
            primary.sql("UPDATE t SET v = ? WHERE id = 50", str(time.monotonic()))
            time.sleep(0.1)
            assert time.monotonic() < deadline

    proxy.once(commits, fate, after=compact)
    try:
        db("UPDATE t SET v = 'mine' WHERE id = 7")
        told = {"mine"}
    except SqlError as error:
        assert error.code in (READONLY, IOERR), error
        told = {"seed 7"} if error.code == READONLY else {"seed 7", "mine"}
    there = primary.sql("SELECT v FROM t WHERE id = 7")[0][0]
    assert there in told
    db.sync()
    assert db.one("SELECT v FROM t WHERE id = 7") == there
    identical(path, primary)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_primary_is_killed_at_that_moment(moment, db, primary, proxy, path):
    """It comes back with another log: nobody can tell any more, and nothing is made up."""
    def crash():
        primary.kill()
        primary.start()

    if moment == "before":
        proxy.once(commits, CUT, before=crash)
    else:
        proxy.once(commits, CUT_ANSWER, after=crash)
    error = outcome(lambda: db("UPDATE t SET v = 'mine' WHERE id = 7"))
    there = primary.sql("SELECT v FROM t WHERE id = 7")[0][0]
    if error is None:
        assert there == "mine"
    elif error.code == READONLY:
        assert there == "seed 7"
    else:
        assert error.code in (IOERR, BUSY), error
        if error.code == BUSY:
            assert there == "seed 7"
    db.sync()
    assert db.one("SELECT v FROM t WHERE id = 7") == there
    db("UPDATE t SET v = 'next' WHERE id = 8")
    assert primary.sql("SELECT v FROM t WHERE id = 8") == [["next"]]
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    identical(path, primary)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_primary_is_restarted_at_that_moment(moment, db, primary, proxy, path):
    """Cleanly: its log goes on, so the outcome is known."""
    if moment == "before":
        proxy.once(commits, CUT, before=primary.restart)
    else:
        proxy.once(commits, CUT_ANSWER, after=primary.restart)
    error = outcome(lambda: db("UPDATE t SET v = 'mine' WHERE id = 7"))
    there = primary.sql("SELECT v FROM t WHERE id = 7")[0][0]
    assert (error is None) == (there == "mine")
    assert error is None if moment == "after" else error is None or error.code in (READONLY, BUSY)
    assert db.one("SELECT v FROM t WHERE id = 7") == there
    db("UPDATE t SET v = 'next' WHERE id = 8")
    identical(path, primary)


BIG = f"INSERT INTO big SELECT value, randomblob(3600) FROM {series(5000)}"


@pytest.mark.parametrize("part, fate", [("commit", CUT_ANSWER), ("commit", CUT), ("first part", CUT_ANSWER)])
def test_a_transaction_of_several_requests(part, fate, host, path, primary, proxy):
    """5,000 pages, spilled here (a small cache) and there, on their way in two requests."""
    primary.sql("CREATE TABLE big(id INTEGER PRIMARY KEY, data)")
    db = host.open(path, proxy.url, timeout=20)
    db("PRAGMA cache_size = 50")
    before = primary.hello()
    is_part = commits if part == "commit" else lambda request: request.is_part
    done = proxy.once(is_part, fate)
    if part == "commit" and fate != CUT:
        db(BIG)
        assert primary.sql("SELECT count(*) FROM big") == [[5000]]
    else:
        fails(lambda: db(BIG), READONLY)
        assert primary.hello() == before
        assert db.one("SELECT count(*) FROM big") == 0
        db("INSERT INTO big VALUES(1, 'small')")
    assert done.is_set()
    assert primary.sql("SELECT sum(id), sum(length(data)) FROM big") == [list(row) for row in db(
        "SELECT sum(id), sum(length(data)) FROM big")]
    db.sync()
    identical(path, primary)


def true_to_the_user(db, proxy, statement, seconds, count):
    """The connection ends while the primary may be at it: whatever it makes of that, the user hears of it."""
    before = count()
    done = proxy.once(commits, CutBehind(seconds))
    error = outcome(lambda: db(statement))
    assert done.wait(20)
    assert error is None or error.code == READONLY, (seconds, db.host.last_error())
    assert count() == before + (error is None), (seconds, db.host.last_error())


def test_the_connection_ends_while_the_primary_commits(db, primary, proxy, path):
    def count():
        return primary.sql("SELECT count(*) FROM t")[0][0]

    for n in range(60):
        true_to_the_user(db, proxy, f"INSERT INTO t(v) VALUES('mine {n}')", n / 10_000, count)
    time.sleep(0.5)
    db.sync()
    assert db.one("SELECT count(*) FROM t") == count()
    identical(path, primary)


def test_the_connection_ends_while_the_primary_commits_a_large_transaction(host, path, primary, proxy):
    primary.sql("CREATE TABLE big(n, data)")
    db = host.open(path, proxy.url, timeout=20)

    def count():
        return primary.sql("SELECT count(DISTINCT n) FROM big")[0][0]

    for n in range(24):
        statement = f"INSERT INTO big SELECT {n}, randomblob(3600) FROM {series(1600)}"
        true_to_the_user(db, proxy, statement, n / 200, count)
        db("DELETE FROM big")
        db(f"INSERT INTO big VALUES({n}, 'here')")
    db.sync()
    identical(path, primary)


def test_a_crash_while_the_answer_is_awaited(new_host, path, primary, proxy):
    """The process dies between request and answer: the next one has what the primary has."""
    for n, fate in enumerate([LOSE_ANSWER, LOSE]):
        host = new_host()
        db = host.open(path, proxy.url, timeout=10)
        db("UPDATE t SET v = 'warm' WHERE id = 100")
        seen = threading.Event()
        proxy.once(commits, fate, before=seen.set)
        db.start(f"UPDATE t SET v = 'mine {n}' WHERE id = 7")
        assert seen.wait(5)
        time.sleep(0.3)
        host.kill()
        proxy.rule = lambda request: "pass"
        eventually(lambda: primary.sql("SELECT 1"))
        db = new_host().open(path, proxy.url)
        assert db.one("SELECT v FROM t WHERE id = 7") in ("seed 7", "mine 0")
        db.sync()
        assert primary.sql("SELECT v FROM t WHERE id = 7") == [["mine 0"]]
        assert db.one("SELECT v FROM t WHERE id = 7") == "mine 0"
        identical(path, primary)


def test_a_crash_where_the_log_has_the_page_of_the_commit_already(write_path, new_host, path, primary, proxy):
    """The log begins anew over its old frames. A commit frame of which only the header is new is whole if the page that
    lies there is the same by chance: no such commit may come to life before the primary has it."""
    host = new_host()
    db = host.open(path, proxy.url, timeout=10)
    db("PRAGMA wal_checkpoint(TRUNCATE)")
    db("UPDATE t SET v = 'b' WHERE id = 7")
    db("UPDATE t SET v = 'a' WHERE id = 7")
    db("PRAGMA wal_checkpoint(PASSIVE)")  # the next write begins the log anew
    seen = threading.Event()
    proxy.once(commits, LOSE, before=seen.set)
    db.start("UPDATE t SET v = 'b' WHERE id = 7")
    assert seen.wait(5)
    time.sleep(0.1)
    host.kill()
    proxy.rule = lambda request: "pass"
    assert primary.sql("SELECT v FROM t WHERE id = 7") == [["a"]]
    assert stock(path, "SELECT v FROM t WHERE id = 7") == "a"
    db = new_host().open(path, proxy.url, timeout=10)
    assert db.one("SELECT v FROM t WHERE id = 7") == "a"
    synced = db.sync()["frames_synced"]
    assert synced == 0 or write_path == "rows"  # then the primary's own pages had still to come
    identical(path, primary)


def test_the_log_cannot_be_read_any_more_after_that(db, primary, proxy, path):
    """The outcome was found out, and then the pull that it called for fails: the replica is behind, and knows it."""
    looked = []

    def rule(request):
        if request.commits and not looked:
            looked.append("commit")
            return CUT_ANSWER
        if "BatchLogEntries" in request.path and looked:
            looked.append("log")
            return CUT if len(looked) > 2 else "pass"
        return "pass"

    proxy.rule = rule
    db("INSERT INTO t(v) VALUES('mine')")
    assert len(looked) > 2
    assert db.one("SELECT count(*) FROM t WHERE v = 'mine'") == 1
    assert primary.sql("SELECT count(*) FROM t WHERE v = 'mine'") == [[1]]
    fails(lambda: db("INSERT INTO t(v) VALUES('next')"), READONLY)
    proxy.rule = lambda request: "pass"
    db("INSERT INTO t(v) VALUES('next')")
    assert primary.sql("SELECT v FROM t WHERE id > 100") == [["mine"], ["next"]]
    identical(path, primary)


def test_another_replica_has_done_the_same_before(host, new_host, path, primary, proxy):
    """Refused, and the answer lost: the equal commit in the log is too old to be this one."""
    db = host.open(path, proxy.url, write_lock="optimistic", timeout=2)
    other = new_host().open(path.with_name("other.db"), primary.url)
    more, length = "UPDATE t SET v = v || '+' WHERE id = 7", "SELECT length(v) - length('seed 7') FROM t WHERE id = 7"
    db(more)
    db(more)
    other.sync()
    other(more)
    time.sleep(0.05)
    done = proxy.once(commits, CUT_ANSWER)
    fails(lambda: db(more), IOERR)
    assert done.is_set()
    in_words(host.last_error(), "unknown", "equal commit", "another replica")
    assert primary.sql(length) == [[3]]
    db.sync()
    assert db.one(length) == 3
    db(more)
    assert primary.sql(length) == [[4]]
    identical(path, primary)


def test_another_replica_has_done_the_same_with_the_lock_taken_back(host, new_host, path, primary, proxy):
    """Eager: what the lock has kept away until then may come after it."""
    db = host.open(path, proxy.url, timeout=10)
    other = new_host().open(path.with_name("other.db"), primary.url, timeout=20)
    more, length = "UPDATE t SET v = v || '+' WHERE id = 7", "SELECT length(v) - length('seed 7') FROM t WHERE id = 7"
    db("BEGIN IMMEDIATE")
    db(more)
    other(more)  # waits until the primary takes the lock back, after 5 s
    time.sleep(0.05)
    done = proxy.once(commits, CUT_ANSWER)
    fails(lambda: db("COMMIT"), IOERR)
    assert done.is_set()
    in_words(host.last_error(), "unknown", "equal commit", "another replica")
    outcome(lambda: db("ROLLBACK"))
    db.sync()
    assert primary.sql(length) == [[1]] == [[db.one(length)]]
    db(more)
    assert primary.sql(length) == [[2]]
    identical(path, primary)


def test_another_replica_does_the_same_at_that_moment(db, new_host, path, primary, proxy):
    """Its commit is, to the byte, what ours would have been, and is not taken for ours."""
    more, length = "UPDATE t SET v = v || '+' WHERE id = 7", "SELECT length(v) - length('seed 7') FROM t WHERE id = 7"
    other = new_host().open(path.with_name("other.db"), primary.url)
    db(more)
    other.sync()
    done = proxy.once(commits, CUT, before=lambda: other.start(more).result(20))
    error = outcome(lambda: db(more))
    assert done.wait(20)
    assert error is None or error.code in (READONLY, BUSY)
    db.sync()
    assert primary.sql(length) == [[2 + (error is None)]] == [[db.one(length)]]
    identical(path, primary)
