"""What lies between a replica and its primary refuses a part of a write: the primary's lock is free at once."""
import time

import pytest
from harness.check import fails, identical, in_words, outcome
from harness.faults import CUT, PASS, Answer
from harness.host import READONLY
from harness.primary import eventually

pytestmark = pytest.mark.usefixtures("write_path")
LOCKS = pytest.mark.parametrize("lock", ["eager", "optimistic"])
FILL = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO t(x) SELECT randomblob(?) FROM n")


@pytest.fixture
def proxy(primary, new_fault_proxy):
    primary.script("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    return new_fault_proxy(primary.url)


def seconds_for_the_lock(primary):
    begun = time.monotonic()
    with primary.stream() as run:
        run("BEGIN IMMEDIATE")
        return time.monotonic() - begun


@LOCKS
@pytest.mark.parametrize("fate", [Answer(413), Answer(429), Answer(403), Answer(400, b"bad request"), Answer(302),
                                  Answer(503), CUT], ids=str)
def test_another_writer_gets_the_lock_at_once(fate, lock, host, path, primary, proxy):
    db = host.open(path, proxy.url, write_lock=lock)
    for n in range(2):
        db("INSERT INTO t(x) VALUES(?)", n)
    proxy.rule = lambda request: fate if request.commits else PASS
    # What the commit says is another matter: that it did not happen.
    assert outcome(lambda: db("INSERT INTO t(x) VALUES('never')"))
    assert seconds_for_the_lock(primary) < 1
    assert primary.sql("SELECT count(*) FROM t WHERE x = 'never'") == [[0]]
    proxy.rule = lambda request: PASS
    db("INSERT INTO t(x) VALUES('at last')")
    identical(path, primary)


@pytest.mark.parametrize("status", [413, 403, 429])
def test_so_it_is_where_a_part_is_refused(status, host, path, primary, proxy):
    db = host.open(path, proxy.url)
    proxy.rule = lambda request: Answer(status) if request.is_part else PASS
    db("BEGIN IMMEDIATE")
    db(FILL, 4000, 4000)
    error = outcome(lambda: db("COMMIT"))
    # Where it is only the size, it goes in smaller parts.
    assert (error is None) == (status == 413)
    assert seconds_for_the_lock(primary) < 1
    assert primary.sql("SELECT count(*) FROM t") == [[4000 if status == 413 else 0]]


def test_the_end_of_a_stream_is_tried_again(host, path, primary, proxy):
    """The request that gives the lock back meets the same fate."""
    db = host.open(path, proxy.url)
    db("INSERT INTO t(x) VALUES(1)")
    ends = []

    def rule(request):
        if request.commits:
            return Answer(429)
        if request.path == "/v3-protobuf/pipeline" and len(request.body) < 150 and not request.begins:
            ends.append(request)
            return Answer(429) if len(ends) < 3 else PASS
        return PASS

    proxy.rule = rule
    assert outcome(lambda: db("INSERT INTO t(x) VALUES('never')"))
    assert seconds_for_the_lock(primary) < 1
    assert len(ends) == 3


def at_most(limit):
    return lambda request: Answer(413, b"<html>too large</html>") if len(request.body) > limit else PASS


@LOCKS
@pytest.mark.parametrize("limit", [1 << 20, 100_000])
def test_a_limit_for_requests(limit, lock, host, path, primary, proxy):
    """As nginx has one, by default of 1 MiB."""
    db = host.open(path, proxy.url, write_lock=lock)
    proxy.rule = at_most(limit)
    db("INSERT INTO t(x) VALUES('small')")
    db(FILL, 900, 5000)
    db("BEGIN")
    db("UPDATE t SET x = randomblob(4000) WHERE id % 2")
    db("CREATE TABLE u(y)")
    db("INSERT INTO u SELECT x FROM t")
    db("COMMIT")
    assert primary.sql("SELECT count(*), sum(length(x)) FROM t") == [list(db("SELECT count(*), sum(length(x)) FROM t")[0])]
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
    assert seconds_for_the_lock(primary) < 1
    refusals = sum(isinstance(entry[-1], Answer) for entry in proxy.log)
    assert 1 <= refusals <= 8, "it is learned once"
    identical(path, primary)


def test_a_row_larger_than_the_limit(write_path, host, path, primary, proxy):
    db = host.open(path, proxy.url)
    proxy.rule = at_most(1 << 20)
    insert = lambda: db("INSERT INTO t(x) VALUES(zeroblob(1500000))")
    if write_path == "pages":
        insert()
    else:
        fails(insert, READONLY)
        in_words(host.last_error(), "413", "client_max_body_size")
        assert seconds_for_the_lock(primary) < 1
    db("INSERT INTO t(x) VALUES('and on')")
    eventually(lambda: primary.sql("SELECT count(*) FROM t") == [[1 + (write_path == "pages")]])
    identical(path, primary)
