"""Tokens: which are taken, which are refused in words, how they come in, and that they never come out."""
import json

import pytest
from harness.check import identical, in_words, refused
from harness.host import AUTH, SqlError
from harness.shell import sidecars


@pytest.fixture
def primary(guarded):
    return guarded


@pytest.mark.parametrize("access", ["ro", "rw"])
def test_a_token_pulls(access, host, primary, signer, path):
    db = host.open(path, primary.url, auth_token=signer.token(access))
    primary.sql("INSERT INTO users(name) VALUES('x')")
    assert db.sync()["frames_synced"] > 0
    identical(path, primary)


BAD = {
    "none": (lambda signer: None, ("authorization", "token")),
    "expired": (lambda signer: signer.token(lives=-3600), "expired"),
    "garbage": (lambda signer: "garbage", "invalid"),
    "signature changed": (lambda signer: signer.token()[:-8] + "AAAAAAAA", "invalid"),
}


@pytest.mark.parametrize("which", BAD)
def test_a_bad_token_at_the_first_open(which, host, primary, signer, path):
    make, words = BAD[which]
    token = make(signer)
    with pytest.raises(SqlError) as caught:
        host.open(path, primary.url, **({"auth_token": token} if token else {}))
    assert caught.value.code in (AUTH, 14)
    in_words(host.last_error(), words)
    assert sidecars(path) == [] and (not token or len(token) < 10 or token not in host.last_error())


@pytest.mark.parametrize("which", BAD)
def test_a_bad_token_at_a_sync(which, host, primary, signer, path):
    host.open(path, primary.url, auth_token=signer.token()).close()
    make, words = BAD[which]
    token = make(signer)
    db = host.open(path, primary.url, **({"auth_token": token} if token else {}))
    assert db.one("SELECT count(*) FROM users") == 200
    error = refused(db.sync, words, code=AUTH)
    assert error.text.endswith(db.status()["last_error"])


def test_a_token_is_rotated_while_open(host, primary, signer, path):
    db = host.open(path, primary.url, auth_token=signer.token())
    for bad in ("garbage", signer.token(lives=-3600)):
        db("SELECT replica_config('auth_token', ?)", bad)
        refused(db.sync, code=AUTH)
        primary.sql("INSERT INTO users(name) VALUES('x')")
        db("SELECT replica_config('auth_token', ?)", signer.token("ro"))
        assert db.sync()["frames_synced"] > 0
    assert db.status()["last_error"] is None
    identical(path, primary)


def test_a_token_from_environment_and_file(new_host, primary, signer, tmp_path, path):
    file = tmp_path / "token"
    file.write_text(signer.token() + "\n")
    host = new_host(env={"MY_TOKEN": signer.token("ro")})
    for number, value in enumerate(("env:MY_TOKEN", f"file:{file}")):
        db = host.open(path.with_name(f"{number}.db"), primary.url, auth_token=value)
        db("SELECT replica_config('auth_token', ?)", value)
        db.sync()
        identical(path.with_name(f"{number}.db"), primary)


def test_a_token_is_never_remembered(host, primary, signer, path):
    token = signer.token()
    db = host.open(path, primary.url, auth_token=token)
    db.sync()
    said = json.dumps(db.status()) + str(db("SELECT * FROM replica_databases"))
    db.close()
    for file in path.parent.iterdir():
        content = file.read_bytes()
        assert token.encode() not in content and token.split(".")[2].encode() not in content, file
    db = host.open(path)
    refused(db.sync, code=AUTH)
    for text in (said, host.last_error(), json.dumps(db.status()), "".join(host.stderr)):
        assert token not in text and token.split(".")[2] not in text


def test_a_token_of_one_replica_is_not_sent_for_another(host, primary, signer, path):
    """Two files of one primary in one program."""
    host.open(path, primary.url, auth_token=signer.token())
    other = path.with_name("other.db")
    with pytest.raises(SqlError):
        host.open(other, primary.url)
    assert sidecars(other) == []
