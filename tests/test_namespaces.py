"""A primary with namespaces: the option chooses, an address never does by accident."""
import socket

import pytest
from conftest import SEED
from harness.check import identical, open_refused, same_bytes
from harness.shell import file_bytes, sidecars


@pytest.fixture
def primary(new_primary):
    primary = new_primary(enable_namespaces=True)
    for name in ("shop", "blog"):
        primary.create_namespace(name)
        primary.sql("CREATE TABLE here(name)", namespace=name)
        primary.sql("INSERT INTO here VALUES(?)", name, namespace=name)
    primary.script(SEED)
    return primary


@pytest.mark.parametrize("name", ["shop", "blog"])
def test_a_named_namespace(name, host, primary, path):
    db = host.open(path, primary.url, namespace=name)
    assert db("SELECT name FROM here") == [(name,)]
    primary.sql("INSERT INTO here VALUES('more')", namespace=name)
    assert db.sync()["frames_synced"] == 1
    same_bytes(file_bytes(path), primary.image(name).bytes())


def test_an_address_means_the_default_namespace(host, primary, path):
    assert host.open(path, primary.url).one("SELECT count(*) FROM users") == 200
    identical(path, primary)


def test_a_host_name_without_dots_means_the_default_namespace(host, primary, path):
    db = host.open(path, primary.url.replace("127.0.0.1", "localhost"))
    assert db.one("SELECT count(*) FROM users") == 200


def test_the_first_label_of_a_host_name(host, primary, path):
    """shop.localhost is this machine to every resolver that follows RFC 6761."""
    try:
        socket.getaddrinfo("shop.localhost", primary.port)
    except OSError:
        pytest.skip("this machine does not resolve shop.localhost")
    db = host.open(path, primary.url.replace("127.0.0.1", "shop.localhost"))
    assert db("SELECT name FROM here") == [("shop",)]


def test_an_unknown_namespace(host, primary, path):
    open_refused(host, path, primary.url, ("namespace", "NAMESPACE_DOESNT_EXIST"), namespace="nowhere")
    assert sidecars(path) == []


def test_namespaces_side_by_side(host, primary, path):
    dbs = {name: host.open(path.with_name(f"{name}.db"), primary.url, namespace=name) for name in ("shop", "blog")}
    primary.sql("INSERT INTO here VALUES('only here')", namespace="shop")
    assert {name: db.sync()["frames_synced"] for name, db in dbs.items()} == {"shop": 1, "blog": 0}
    assert len(dbs["shop"]("SELECT * FROM here")) == 2


def test_reopened_in_another_namespace(host, primary, path):
    """Another history: taken as one, told aloud."""
    host.open(path, primary.url, namespace="shop").close()
    db = host.open(path, primary.url, namespace="blog")
    db.sync()
    assert db("SELECT name FROM here") == [("blog",)]
    assert db.status()["last_error"]
    same_bytes(file_bytes(path), primary.image("blog").bytes())
