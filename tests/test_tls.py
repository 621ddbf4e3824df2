"""https and libsql:// with certificates that are checked."""
import pytest
from harness.check import identical, open_refused, refused
from harness.keys import Authority
from harness.shell import sidecars


@pytest.fixture
def authority(tmp_path):
    (tmp_path / "keys").mkdir()
    return Authority(tmp_path / "keys")


@pytest.fixture
def front(new_proxy, authority, primary):
    """A TLS front of the primary, with a certificate for localhost."""
    return new_proxy(primary.url, tls=authority.pair)


@pytest.mark.parametrize("scheme", ["https", "libsql"])
def test_with_the_authority_s_file(scheme, front, authority, host, primary, path):
    url = front.url.replace("https", scheme)
    db = host.open(path, url, ca_file=authority.ca)
    assert db.one("SELECT count(*) FROM users") == 200
    primary.sql("INSERT INTO users(name) VALUES('x')")
    assert db.sync()["frames_synced"] > 0
    assert db.status()["sync_url"] == url
    identical(path, primary)


def test_an_address_in_the_certificate(front, authority, host, path):
    db = host.open(path, front.url.replace("localhost", "127.0.0.1"), ca_file=authority.ca)
    assert db.one("SELECT count(*) FROM users") == 200


def test_without_the_file_the_certificate_is_refused(front, host, path):
    open_refused(host, path, front.url, "certificate")
    assert sidecars(path) == [] and not front.requests


def test_with_another_authority_s_file(front, host, path, tmp_path):
    (tmp_path / "others").mkdir()
    open_refused(host, path, front.url, "certificate", ca_file=Authority(tmp_path / "others", "somebody else").ca)
    assert not front.requests


def test_a_certificate_for_another_name(primary, new_proxy, host, path, tmp_path):
    (tmp_path / "keys").mkdir()
    authority = Authority(tmp_path / "keys", server="DNS:elsewhere.example")
    front = new_proxy(primary.url, tls=authority.pair)
    open_refused(host, path, front.url, "certificate", ("name", "localhost"), ca_file=authority.ca)
    assert not front.requests


def test_the_authority_is_needed_at_each_open(front, authority, host, path):
    """What is remembered is the URL; trust is the program's to give."""
    host.open(path, front.url, ca_file=authority.ca).close()
    db = host.open(path)
    assert db.one("SELECT count(*) FROM users") == 200
    refused(db.sync, "certificate")


def test_a_file_without_certificates(front, host, path, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing here\n")
    open_refused(host, path, front.url, "ca_file", ca_file=empty)


def test_https_to_a_port_without_tls(primary, host, path):
    words = ("tls", "ssl", "handshake", "certificate", "message")
    open_refused(host, path, primary.url.replace("http", "https"), words, timeout=3)


def test_http_to_a_port_with_tls(front, host, path):
    open_refused(host, path, front.url.replace("https", "http"), str(front.port), timeout=3)
