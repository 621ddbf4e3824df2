"""What lies beside an encrypted replica is believed only if its key proves it; no public hash decides what is equal."""
import os
import struct

import pytest
from harness.check import identical, in_words, refused
from harness.crypt import KEY
from harness.host import CANTOPEN, READONLY, SqlError
from harness.shell import file_bytes, stock
from harness.xxh3 import colliding, xxh3

COUNT = "SELECT count(*) FROM users"
INSERT = "INSERT INTO users(name) VALUES('x')"
IDENTITY, RECORD = 4096, 256
SEALED_SEED = 0x32646C73


def companion(path, suffix="-replica"):
    return path.with_name(path.name + suffix)


def same(db, primary):
    query = "SELECT count(*), sum(length(name)), max(name) FROM users"
    assert db.one("PRAGMA integrity_check") == "ok"
    assert db(query) == [tuple(row) for row in primary.sql(query)]


# --- collisions -----------------------------------------------------------------------------------

def test_pages_with_one_hash_are_two_pages(write_path, host, new_primary, path):
    """Whoever chooses blobs can make them: an acknowledged UPDATE has to be at the primary all the same."""
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES(1, zeroblob(489 + 4092));")
    db = host.open(path, primary.url)
    mark = b"here it lies".ljust(4092, b"#")
    db("UPDATE t SET v = zeroblob(489) || ? WHERE id = 1", mark)
    db.sync()
    data = file_bytes(path)
    [pgno] = [n // 4096 + 1 for n in range(0, len(data), 4096) if data[n + 4:n + 16] == b"here it lies"]
    for page in colliding(pgno):
        db("UPDATE t SET v = CAST(zeroblob(489) || ? AS BLOB) WHERE id = 1", page[4:])
        db.sync()
        assert file_bytes(path)[(pgno - 1) * 4096:pgno * 4096] == page, "not where it was expected"
        assert db.one("SELECT substr(v, 490) FROM t") == page[4:]
        [[theirs]] = primary.sql("SELECT hex(substr(v, 490)) FROM t")
        assert bytes.fromhex(theirs) == page[4:], "acknowledged, and not at the primary"
    identical(path, primary)


def test_a_local_write_of_a_page_with_the_same_hash_is_noticed(host, new_primary, path):
    primary = new_primary("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES(1, zeroblob(489 + 4092));")
    db = host.open(path, primary.url)
    mark = b"here it lies".ljust(4092, b"#")
    db("UPDATE t SET v = CAST(zeroblob(489) || ? AS BLOB) WHERE id = 1", mark)
    db.sync()
    data = file_bytes(path)
    [pgno] = [n // 4096 + 1 for n in range(0, len(data), 4096) if data[n + 4:n + 16] == b"here it lies"]
    one, two = colliding(pgno)
    db("UPDATE t SET v = CAST(zeroblob(489) || ? AS BLOB) WHERE id = 1", one[4:])
    db.sync()
    file_bytes(path)
    db.close()
    stock(path, f"UPDATE t SET v = CAST(zeroblob(489) || x'{two[4:].hex()}' AS BLOB) WHERE id = 1;")
    refused(host.open(path).sync, "replica_resync")


# --- identity and records of an encrypted replica -----------------------------------------------------

@pytest.fixture
def made(new_host, primary, path):
    """An encrypted replica that nobody has open."""
    db = new_host().open(path, primary.url, encryption_key=KEY)
    db(INSERT)
    db.sync()
    db.host.close()
    return companion(path)


def elsewhere(new_host, other, tmp_path, **options):
    """The position file of another replica, of another primary."""
    (tmp_path / "elsewhere").mkdir()
    there = tmp_path / "elsewhere" / "app.db"
    db = new_host().open(there, other.url, **options)
    db.sync()
    db.host.close()
    return companion(there).read_bytes()


@pytest.mark.parametrize("theirs", [{}, {"encryption_key": KEY}])
@pytest.mark.parametrize("size", [2 * IDENTITY, None])
def test_a_copy_from_elsewhere(size, theirs, made, new_host, primary, new_primary, new_proxy, path, tmp_path):
    """Neither token nor commits go where somebody else's file says."""
    evil = new_primary("CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT)")
    proxy = new_proxy(evil.url)
    class Address: url = proxy.url
    bytes_ = elsewhere(new_host, Address, tmp_path, **theirs)
    before = len(proxy.requests)
    made.write_bytes(bytes_[:size] + (made.read_bytes()[size:] if size else b""))
    host = new_host()
    for options in ({}, {"mode": "ro"}, {"auth_token": "S3CRET"}):
        with pytest.raises(SqlError) as caught:
            host.open(path, encryption_key=KEY, **options)
        assert caught.value.code == CANTOPEN
        in_words(host.last_error(), "app.db-replica'", "not proved", "sync_url")
    db = host.open(path, primary.url, encryption_key=KEY, auth_token="S3CRET")
    assert db.one(COUNT) == 201
    refused(db.sync, "replica_resync")
    with pytest.raises(SqlError):
        db(INSERT)
    db("SELECT replica_resync()")
    db(INSERT)
    db.sync()
    same(db, primary)
    assert len(proxy.requests) == before, "somebody else's primary was asked"
    db.host.close()
    same(new_host().open(path, encryption_key=KEY), primary)


def records(data):
    """Slots with a record: (offset, seq)."""
    for at in range(2 * IDENTITY, len(data), RECORD):
        seed = SEALED_SEED
        if any(data[at:at + RECORD]):
            assert xxh3(data[at + 8:at + RECORD], seed) == struct.unpack_from("<Q", data, at)[0], "not what a reader computes"
            yield at, struct.unpack_from("<Q", data, at + 8)[0]


def test_an_edited_frame_number(made, new_host, primary, path):
    """Another client's update, which this replica has not pulled, must not be overwritten as if it had."""
    primary.sql("UPDATE users SET email = 'theirs' WHERE id = 7")
    newest = primary.hello()[1]
    data = bytearray(made.read_bytes())
    for at, _ in list(records(data)):
        struct.pack_into("<Q", data, at + 16, newest)
        data[at + 32] &= ~1  # the frame's checksum is not known
        struct.pack_into("<Q", data, at, xxh3(bytes(data[at + 8:at + RECORD]), SEALED_SEED))
    made.write_bytes(data)
    host = new_host()
    for url in (None, primary.url):
        try:
            db = host.open(path, url, encryption_key=KEY, write_path="pages")
        except SqlError:
            continue
        with pytest.raises(SqlError):
            db("UPDATE users SET name = 'mine' WHERE id = 7")
    assert primary.sql("SELECT email FROM users WHERE id = 7") == [["theirs"]]


def test_records_of_before_are_true_or_of_no_use(made, new_host, primary, path):
    """An older file of the same replica: it says where older contents were, and nothing else."""
    saved = made.read_bytes()
    db = new_host().open(path, encryption_key=KEY)
    primary.sql("UPDATE users SET email = 'theirs' WHERE id = 7")
    db.sync()
    db.host.close()
    made.write_bytes(saved)
    db = new_host().open(path, encryption_key=KEY)
    try:
        db("UPDATE users SET name = 'mine' WHERE id = 7")
    except SqlError:
        db("SELECT replica_resync()")
    db.sync()
    same(db, primary)
    assert primary.sql("SELECT email FROM users WHERE id = 7") == [["theirs"]]


def plain_identity(url, generation, magic=b"libreplica 2\0\0\0\0"):
    body = magic + struct.pack("<QHH", generation, len(url), 0) + url
    body = body.ljust(IDENTITY - 8, b"\0")
    return struct.pack("<Q", xxh3(body)) + body


def test_an_open_replica_is_not_cut_loose_by_a_forged_file(new_host, primary, path):
    """A mark of a freeze that nobody with the key has made: nothing is written that is not at the primary."""
    host = new_host()
    db = host.open(path, primary.url, encryption_key=KEY)
    db(INSERT)
    with open(companion(path), "r+b") as file:
        file.write(plain_identity(b"", 1000) + plain_identity(b"", 1001))
    companion(path).unlink()
    newest = primary.hello()
    with pytest.raises(SqlError) as caught:
        db(INSERT)
    assert caught.value.code == READONLY and primary.hello() == newest
    in_words(host.last_error(), "app.db-replica'", "gone")
    assert db.one(COUNT) == 201


def test_the_cells_of_an_older_undo_are_no_use(new_host, primary, path):
    """All sealed with the same key, and not what the record says."""
    db = new_host().open(path, primary.url, encryption_key=KEY, write_path="rows")
    undo = companion(path, "-replica-undo")
    db("UPDATE users SET name = 'first' WHERE id < 40")
    saved = undo.read_bytes()
    db.sync()
    db("UPDATE users SET name = 'second' WHERE id < 40")
    db.host.kill()
    now = bytearray(undo.read_bytes())
    now[len(now) // 2:] = saved[len(now) // 2:len(now)]
    assert bytes(now) != undo.read_bytes()
    undo.write_bytes(now)
    primary.sql(INSERT)
    db = new_host().open(path, encryption_key=KEY)
    db.sync()
    same(db, primary)


# --- a remembered address ------------------------------------------------------------------------------

@pytest.mark.parametrize("what", ["mode", "owner"])
def test_no_token_for_an_address_that_others_may_have_written(what, new_host, guarded, path):
    token = guarded.token
    new_host().open(path, guarded.url, auth_token=token).host.close()
    if what == "mode":
        companion(path).chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(companion(path), 4343, 4343)
        os.chown(path, 4343, 4343)
    else:
        pytest.skip("needs root")
    host = new_host()
    for _ in range(2):
        with pytest.raises(SqlError) as caught:
            host.open(path, auth_token=token)
        assert caught.value.code == CANTOPEN
        in_words(host.last_error(), "app.db-replica'", "auth_token", "sync_url")
        assert token not in host.last_error()
    db = host.open(path, guarded.url, auth_token=token)
    db(INSERT)
    db.sync()
    same(db, guarded)


def test_a_token_for_an_address_of_one_s_own(new_host, guarded, path):
    new_host().open(path, guarded.url, auth_token=guarded.token).host.close()
    db = new_host().open(path, auth_token=guarded.token)
    db(INSERT)
    same(db, guarded)


# --- files of the first version ---------------------------------------------------------------------------

def first_version(path):
    """The position file as it was before files had a key."""
    data = bytearray(companion(path).read_bytes())
    content = file_bytes(path)
    digest = sum(xxh3(page, n) for n, page in enumerate((content[i:i + 4096] for i in range(0, len(content), 4096)), 1)
                 if any(page)) & (1 << 64) - 1
    for copy in (0, IDENTITY):
        if any(data[copy:copy + IDENTITY]):
            data[copy + 8:copy + 24] = b"libreplica 1\0\0\0\0"
            data[copy + 4031:copy + IDENTITY] = bytes(IDENTITY - 4031)
            struct.pack_into("<Q", data, copy, xxh3(bytes(data[copy + 8:copy + IDENTITY])))
    newest = max((struct.unpack_from("<Q", data, at + 8)[0], at) for at in range(2 * IDENTITY, len(data), RECORD))[1]
    for at in range(2 * IDENTITY, len(data), RECORD):
        if at != newest:
            data[at:at + RECORD] = bytes(min(RECORD, len(data) - at))
    data[newest + 32] &= ~(4 | 8)  # found by its content alone
    data[newest + 224:newest + RECORD] = bytes(32)
    struct.pack_into("<Q", data, newest + 40, digest)
    struct.pack_into("<Q", data, newest, xxh3(bytes(data[newest + 8:newest + RECORD])))
    companion(path).write_bytes(data)


def test_a_plain_file_of_the_first_version_is_taken_over(new_host, primary, path):
    db = new_host().open(path, primary.url)
    db(INSERT)
    newest = db.sync()["frame_no"]
    db.host.close()
    first_version(path)
    db = new_host().open(path, mode="ro")
    assert db.one(COUNT) == 201 and b"libreplica 1" in companion(path).read_bytes()
    db.close()
    db = new_host().open(path)
    assert db.sync() == {"frame_no": newest, "frames_synced": 0}
    assert b"libreplica 2" in companion(path).read_bytes()
    primary.sql(INSERT)
    db.sync()
    db(INSERT)
    db.sync()
    identical(path, primary)
    db.host.close()
    db = new_host().open(path)
    assert db.sync()["frames_synced"] == 0
    db.close()
    stock(path, "UPDATE users SET name = 'local' WHERE id = 3;")
    refused(new_host().open(path).sync, "replica_resync")


def test_an_encrypted_file_of_the_first_version_is_not_believed(made, new_host, primary, path):
    made.write_bytes(plain_identity(primary.url.encode(), 1, b"libreplica 1\0\0\0\0") + bytes(IDENTITY + 1024 * RECORD))
    host = new_host()
    with pytest.raises(SqlError):
        host.open(path, encryption_key=KEY)
    in_words(host.last_error(), "not proved", "sync_url")
    db = host.open(path, primary.url, encryption_key=KEY)
    assert db.one(COUNT) == 201
    db("SELECT replica_resync()")
    same(db, primary)


def test_every_file_has_a_key_of_its_own(new_host, primary, path, tmp_path):
    seeds = set()
    for n in range(3):
        there = tmp_path / f"{n}.db"
        new_host().open(there, primary.url).host.close()
        data = companion(there).read_bytes()
        seeds |= {data[copy + 4032:copy + 4064] for copy in (0, IDENTITY) if any(data[copy:copy + IDENTITY])}
    assert len(seeds) == 3 and all(any(seed) for seed in seeds)
