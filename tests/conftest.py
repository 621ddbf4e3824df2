import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("harness")

from harness import sqlites
from harness.faults import FaultProxy
from harness.host import DEFAULTS, Host
from harness.keys import Signer
from harness.paths import SO, SQLD, SQLITE
from harness.peer import History, ScriptedPeer
from harness.primary import Primary
from harness.proxy import Proxy

SEED = """
CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT);
CREATE INDEX users_by_name ON users(name);
CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users(id), note BLOB);
CREATE VIEW spenders AS SELECT name, count(*) AS orders FROM users JOIN orders ON user_id = users.id GROUP BY name;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
  INSERT INTO users SELECT i, 'user ' || i, 'u' || i || '@example.org' FROM n;
INSERT INTO orders SELECT NULL, 1 + id % 50, randomblob(300) FROM users;
"""


def pytest_configure(config):
    for needed in (SO, SQLD):
        if not needed.exists():
            raise pytest.UsageError(f"{needed} is missing (tests/setup.sh, cargo build --release)")
    if SQLITE:
        sqlites.check(SQLITE)


@pytest.fixture(params=["pages", "rows"])
def write_path(request, monkeypatch):
    """A test, or with `usefixtures` all of a file, once for each way in which commits are shipped."""
    monkeypatch.setitem(DEFAULTS, "write_path", request.param)
    return request.param


@pytest.fixture
def tmp_path():
    with tempfile.TemporaryDirectory(prefix="libreplica-") as directory:
        yield Path(directory)


@pytest.fixture
def path(tmp_path):
    """Where a replica may lie, in a directory of its own."""
    (tmp_path / "replica").mkdir()
    return tmp_path / "replica" / "app.db"


def _made(make, end):
    """A fixture's body: a factory, and the end of all that it made."""
    made = []

    def new(*args, **kwargs):
        made.append(make(len(made), *args, **kwargs))
        return made[-1]

    yield new
    failures = [message for message in map(end, reversed(made)) if message]
    assert not failures, "\n".join(failures)


@pytest.fixture
def new_primary(tmp_path):
    """new_primary(seed="", **options): a fresh one each time."""

    def make(number, seed="", **options):
        primary = Primary(tmp_path / f"primary{number}", **options)
        if seed:
            primary.script(seed)
        return primary

    yield from _made(make, lambda primary: primary.process and primary.kill())


@pytest.fixture
def primary(new_primary):
    return new_primary(SEED)


@pytest.fixture
def new_host():
    """Programs; each must end cleanly and say nothing on stderr, unless `quiet = False` or it was killed."""

    def end(host):
        killed = host.process.poll() == -9
        code, text = host.close(), "".join(host.stderr[-40:])
        if not killed and code:
            return f"host ended with {code}\n{text}"
        return text if getattr(host, "quiet", True) else None

    yield from _made(lambda _, *args, **kwargs: Host(*args, **kwargs), end)


@pytest.fixture
def signer(tmp_path):
    (tmp_path / "keys").mkdir()
    return Signer(tmp_path / "keys")


@pytest.fixture
def guarded(new_primary, signer):
    """A primary that asks for tokens."""
    primary = new_primary(auth_jwt_key_file=signer.public)
    primary.token = signer.token()
    primary.script(SEED)
    return primary


@pytest.fixture
def host(new_host):
    return new_host()


@pytest.fixture
def replica(host, path, primary):
    return host.open(path, primary.url)


@pytest.fixture
def new_proxy():
    yield from _made(lambda _, *args, **kwargs: Proxy(*args, **kwargs), lambda proxy: proxy.stop())


@pytest.fixture
def new_fault_proxy():
    yield from _made(lambda _, *args, **kwargs: FaultProxy(*args, **kwargs), lambda proxy: proxy.stop())


@pytest.fixture
def history():
    return (History()
            .commit("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", "CREATE INDEX i ON t(v)")
            .commit("INSERT INTO t VALUES(1, randomblob(9000)), (2, randomblob(5000))")
            .commit("UPDATE t SET v = 'two' WHERE id = 2"))


@pytest.fixture
def new_peer():
    yield from _made(lambda _, history: ScriptedPeer(history), lambda peer: peer.stop())


@pytest.fixture
def peer(new_peer, history):
    return new_peer(history)
