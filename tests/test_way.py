"""What lies between a replica and its primary fails for a moment, sends elsewhere, or answers itself."""
import pytest
from harness.check import identical, in_words, outcome, refused
from harness.faults import CUT, PASS, Answer

PIPELINE = "/v3-protobuf/pipeline"
PAGE = Answer(200, b"<html><title>Sign in</title><body>Please sign in to the network</body></html>",
              (("content-type", "text/html; charset=utf-8"),))
MOMENTS = pytest.mark.parametrize("fate", [Answer(502), Answer(503), Answer(504), CUT], ids=str)


@pytest.fixture
def proxy(primary, new_fault_proxy):
    return new_fault_proxy(primary.url)


def fates(proxy):
    return [entry[-1] for entry in proxy.log if entry[-1] != PASS]


@MOMENTS
@pytest.mark.parametrize("method", ["Hello", "BatchLogEntries"])
def test_one_failure_is_no_failure_of_a_sync(method, fate, host, path, primary, proxy):
    db = host.open(path, proxy.url)
    primary.sql("INSERT INTO users VALUES(1000, 'x', 'y')")
    done = proxy.once(lambda request: request.path.endswith(method), fate)
    db.sync()
    assert done.is_set() and fates(proxy) == [fate]
    identical(path, primary)


@MOMENTS
def test_nor_of_an_open(fate, host, path, primary, proxy):
    proxy.once(lambda request: True, fate)
    host.open(path, proxy.url)
    assert fates(proxy) == [fate]
    identical(path, primary)


@MOMENTS
def test_nor_of_a_snapshot(fate, host, path, peer, history, new_fault_proxy):
    peer.compacted = history.newest + 1
    proxy = new_fault_proxy(peer.url)
    proxy.once(lambda request: request.path.endswith("Snapshot"), fate)
    host.open(path, proxy.url)
    assert fates(proxy) == [fate]
    identical(path, history)


@MOMENTS
@pytest.mark.parametrize("lock", ["eager", "optimistic"])
@pytest.mark.usefixtures("write_path")
def test_nor_of_the_begin_of_a_write(lock, fate, host, path, primary, proxy):
    db = host.open(path, proxy.url, write_lock=lock)
    proxy.once(lambda request: request.begins and not request.commits, fate)
    db("INSERT INTO users(name) VALUES('x')")
    assert fates(proxy) == [fate]
    assert primary.sql("SELECT count(*) FROM users WHERE name = 'x'") == [[1]]
    identical(path, primary)


@MOMENTS
@pytest.mark.usefixtures("write_path")
def test_a_commit_is_never_tried_again_by_itself(fate, host, path, primary, proxy):
    """It is looked up, and then it is known not to be there."""
    db = host.open(path, proxy.url)
    proxy.once(lambda request: request.commits, fate)
    error = outcome(lambda: db("INSERT INTO users(name) VALUES('x')"))
    count = 1 if error is None else 0
    assert primary.sql("SELECT count(*) FROM users WHERE name = 'x'") == [[count]]
    assert len([entry for entry in proxy.log if entry[2]]) == 1 + count
    identical(path, primary)


def test_what_lasts_is_an_error_soon(host, path, primary, proxy):
    db = host.open(path, proxy.url)
    proxy.rule = lambda request: Answer(503, b"out for lunch")
    refused(db.sync, "503", "out for lunch")
    assert len(fates(proxy)) == 3


# --- elsewhere ------------------------------------------------------------------------------------

ELSEWHERE = [("http://me:s3cret@10.9.8.7:81/login?t=s3cret", "http://10.9.8.7:81"), ("/login?next=s3cret", "this host"),
             ("https://db.example.org", "https://db.example.org")]


@pytest.mark.parametrize("where, named", ELSEWHERE)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named_on_every_path(status, where, named, host, path, primary, proxy):
    db = host.open(path, proxy.url)
    for of in ("Hello", PIPELINE, "BatchLogEntries"):
        primary.sql("INSERT INTO users(name) VALUES('more')")
        proxy.rule = lambda request: Answer(status, b"", (("location", where),)) if request.path.endswith(of) else PASS
        for action in (db.sync, lambda: db("INSERT INTO users(name) VALUES('x')")):
            if outcome(action):
                in_words(host.last_error(), named, "sync_url")
                assert "s3cret" not in host.last_error()
    assert any(fates(proxy))


@pytest.mark.parametrize("of", ["Hello", "BatchLogEntries", "begin", "commit", "exec"])
@pytest.mark.parametrize("write_path", ["pages", "rows"])
def test_a_web_page_is_named_on_every_path(write_path, of, host, path, primary, proxy):
    db = host.open(path, proxy.url, write_path=write_path)
    primary.sql("INSERT INTO users(name) VALUES('more')")
    chosen = {"begin": lambda r: r.begins, "commit": lambda r: r.commits, "exec": lambda r: r.path == PIPELINE}
    choose = chosen.get(of, lambda r: r.path.endswith(of))
    proxy.rule = lambda request: PAGE if choose(request) else PASS
    if of in ("Hello", "BatchLogEntries"):
        refused(db.sync, "web page")
    elif of == "exec":
        refused(lambda: db("SELECT replica_exec('SELECT 1')"), "web page")
    else:
        if of == "commit":
            db.sync()
        assert outcome(lambda: db("INSERT INTO users(name) VALUES('never')"))
        in_words(host.last_error(), ("web page", "did not arrive"))
    proxy.rule = lambda request: PASS
    db.sync()
    assert primary.sql("SELECT count(*) FROM users WHERE name = 'never'") == [[0]]
    identical(path, primary)
