"""A primary that has compacted its log gives snapshots instead: at bootstrap and at catch-up."""
import time

import pytest
from conftest import SEED
from harness.check import identical
from harness.primary import eventually


@pytest.fixture
def primary(new_primary):
    return new_primary(SEED, max_log_duration=1)


def compact(primary):
    """Commits until the log up to now is compacted."""
    offset = primary.hello()[1]

    def compacted():
        primary.sql("UPDATE users SET email = email || '+' WHERE id = 1")
        return primary.snapshot_needed(offset)

    eventually(compacted, pause=0.1, what="compaction")


def test_bootstrap_from_a_snapshot(host, primary, path):
    compact(primary)
    primary.sql("INSERT INTO users(name) VALUES('after')")
    db = host.open(path, primary.url)
    assert db.one("SELECT count(*) FROM users") == 201
    assert db.frame_no == primary.hello()[1]
    assert primary.image().rounds["snapshot"] >= 1
    identical(path, primary)


def test_catch_up_across_a_snapshot(host, primary, path):
    db = host.open(path, primary.url)
    reader = host.open(path)
    reader("BEGIN")
    before = reader("SELECT count(*) FROM users")
    primary.script("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM users; DELETE FROM users WHERE id > 150;")
    primary.script("DELETE FROM orders WHERE id % 2;")
    compact(primary)
    assert primary.snapshot_needed(db.frame_no + 1)
    assert db.sync()["frame_no"] == primary.hello()[1]
    assert reader("SELECT count(*) FROM users") == before
    reader("COMMIT")
    assert reader.one("SELECT count(*) FROM users") == 150
    identical(path, primary)


def test_several_snapshots_follow_each_other(host, primary, path):
    db = host.open(path, primary.url)
    for _ in range(3):
        primary.sql("INSERT INTO orders SELECT NULL, 1, randomblob(3000) FROM users")
        compact(primary)
    assert primary.image().rounds["snapshot"] >= 2
    db.sync()
    assert db.one("SELECT count(*) FROM orders") == 800
    fresh = path.with_name("fresh.db")
    host.open(fresh, primary.url)
    identical(path, primary)
    identical(fresh, primary)


def test_after_a_snapshot_the_log_goes_on(host, primary, path):
    compact(primary)
    db = host.open(path, primary.url)
    for i in range(20):
        before = db.frame_no
        primary.sql("UPDATE users SET name = ? WHERE id = 3", str(i))
        assert db.sync()["frames_synced"] == primary.hello()[1] - before
    identical(path, primary)


def test_a_snapshot_that_is_still_being_made(host, peer, history, path):
    """"snapshot not found" for a moment: waited for."""
    peer.compacted, refusals = history.newest + 1, 3

    def hook(method, reply):
        nonlocal refusals
        if method == "Snapshot" and refusals:
            refusals -= 1
            reply.fail(14, "snapshot not found")

    peer.hook = hook
    db = host.open(path, peer.url)
    assert db("SELECT id FROM t") == [(1,), (2,)] and refusals == 0
    identical(path, history)
    history.commit("INSERT INTO t VALUES(3, randomblob(9000))").commit("DELETE FROM t WHERE id = 1")
    peer.compacted, refusals = history.newest + 1, 2
    db.sync()
    assert refusals == 0
    identical(path, history)


def test_a_snapshot_that_covers_only_part(host, peer, history, path):
    """The first snapshot ends long before the log begins: a second one is asked for."""
    middle = history.newest + 1
    history.commit("INSERT INTO t VALUES(3, randomblob(9000))").commit("DELETE FROM t WHERE id = 1")
    end = peer.compacted = history.newest + 1
    history.commit("INSERT INTO t VALUES(4, randomblob(9000))")
    snapshot = peer._Snapshot

    def in_parts(offset, reply):
        peer.compacted = middle if offset < middle else end
        snapshot(offset, reply)
        peer.compacted = end

    peer._Snapshot = in_parts
    host.open(path, peer.url)
    assert peer.calls.count("Snapshot") == 2
    identical(path, history)


@pytest.mark.parametrize("live", [0, 1])
def test_a_replica_that_is_up_to_date_goes_on_behind_a_compaction(live, host, primary, path):
    """The checksums of the log begin anew there; nothing is fetched again."""
    db = host.open(path, primary.url, live=live)
    compactions = 0
    for _ in range(200):
        newest = primary.hello()[1]
        eventually(lambda: db.frame_no == newest or not live and db.sync())
        primary.sql("UPDATE users SET email = email || '+' WHERE id = 1")
        compactions += primary.snapshot_needed(newest) and not primary.snapshot_needed(newest + 1)
        if live:
            eventually(lambda: db.frame_no == primary.hello()[1])
        else:
            assert db.sync()["frames_synced"] < 10
        assert host.last_error() is None
        if compactions:
            break
        time.sleep(0.05)
    assert compactions
    identical(path, primary)


@pytest.mark.parametrize("own_after", [0, 3])
@pytest.mark.parametrize("live", [0, 1])
def test_own_commits_behind_a_compaction(own_after, live, host, primary, path, write_path):
    """Their checksums are not those that were computed here; that is seen, and nothing is fetched again."""
    db = host.open(path, primary.url, live=live)
    met = 0
    for _ in range(20):
        eventually(lambda: db.frame_no == primary.hello()[1] or not live and db.sync())
        time.sleep(1.05)  # then the next commit ends the log's file
        db("UPDATE users SET email = email || '+' WHERE id = 1")
        before = db.frame_no
        time.sleep(0.05)
        db("UPDATE users SET email = email || '-' WHERE id > 100")
        begun = not primary.snapshot_needed(before + 1) and primary.snapshot_needed(before)
        for n in range(own_after):
            db("INSERT INTO users(name) VALUES(?)", str(n))
        met += begun
        newest = primary.hello()[1]
        primary.sql("UPDATE users SET email = email || '!' WHERE id = 2")
        if live:
            eventually(lambda: db.frame_no == primary.hello()[1])
        else:
            assert db.sync()["frames_synced"] <= primary.hello()[1] - newest + (write_path == "rows") * 1000
        assert host.last_error() is None
        if met:
            break
    assert met
    identical(path, primary)
