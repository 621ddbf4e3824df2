"""Another database behind the same URL, by chance with the same schema cookie and with its tables at other pages:
connections that were open before look again, for reading and for writing."""
import pytest
from harness.check import identical

# Two tables each, the other way round.
USERS = "CREATE TABLE users(v); INSERT INTO users VALUES('user');"
ORDERS = "CREATE TABLE orders(v); INSERT INTO orders VALUES('order');"


def seen(*dbs):
    return [[db.one(f"SELECT v FROM {table}") for table in ("users", "orders")] for db in dbs]


@pytest.mark.parametrize("mmap_size", [0, 1 << 28])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_primary_is_another_one(mmap_size, checkpoint, write_path, host, new_host, path, new_primary, new_proxy):
    one, other = new_primary(USERS + ORDERS), new_primary(ORDERS + USERS)
    proxy = new_proxy(one.url)
    dbs = [host.open(path, proxy.url), host.open(path, proxy.url), new_host().open(path, proxy.url)]
    for db in dbs:
        db(f"PRAGMA mmap_size = {mmap_size}")
    assert seen(*dbs) == [["user", "order"]] * 3
    proxy.target = other.url
    proxy.cut()
    dbs[0].sync()
    if checkpoint:
        dbs[0]("PRAGMA wal_checkpoint(TRUNCATE)")
    assert dbs[0].one("PRAGMA integrity_check") == "ok"
    identical(path, other)
    assert seen(*dbs) == [["user", "order"]] * 3
    for n, db in enumerate(dbs):
        db("INSERT INTO users VALUES(?)", f"user {n}")
    assert other.sql("SELECT v FROM users") == [["user"], ["user 0"], ["user 1"], ["user 2"]]
    assert other.sql("SELECT v FROM orders") == [["order"]]
    dbs[1]("CREATE TABLE more(v)")
    dbs[2]("INSERT INTO more VALUES(1)")
    assert seen(*dbs) == [["user", "order"]] * 3
    identical(path, other)


def test_the_first_thing_afterwards_is_a_write(write_path, host, new_host, path, new_primary, new_proxy):
    """Or the begin of a transaction, which looks at no schema."""
    one, other = new_primary(USERS + ORDERS), new_primary(ORDERS + USERS)
    proxy = new_proxy(one.url)
    dbs = [host.open(path, proxy.url), new_host().open(path, proxy.url)]
    assert seen(*dbs) == [["user", "order"]] * 2
    proxy.target = other.url
    proxy.cut()
    dbs[0]("INSERT INTO users VALUES('mine')")  # finds out, and takes the other one first
    dbs[1]("BEGIN IMMEDIATE")
    dbs[1]("ROLLBACK")
    dbs[1]("INSERT INTO users VALUES('his')")
    assert other.sql("SELECT v FROM users") == [["user"], ["mine"], ["his"]]
    assert other.sql("SELECT v FROM orders") == [["order"]]
    identical(path, other)


def test_what_a_stock_program_wrote_is_thrown_away(host, new_host, path, new_primary):
    """Its tables are gone after a resync; others lie there once the primary has as many."""
    primary = new_primary(USERS)
    db, other = host.open(path, primary.url), new_host().open(path, primary.url)
    new_host(library=None).plain(path)("CREATE TABLE orders(v)")
    assert other("SELECT * FROM orders") == []
    db("SELECT replica_resync()")
    primary.script("CREATE TABLE wrong(v); INSERT INTO wrong VALUES('wrong');")
    db.sync()
    assert db("SELECT v FROM wrong") == [("wrong",)] == other("SELECT v FROM wrong")
    assert other.one("SELECT count(*) FROM sqlite_schema WHERE name = 'orders'") == 0
    identical(path, primary)
