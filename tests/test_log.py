"""What the library says and where: SQLite's log, a file, stderr; and what it never says."""
import json
import re
import time

import pytest
from harness.check import in_words, refused
from harness.host import AUTH
from harness.primary import eventually
from harness.shell import loaded_shell

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z libreplica\[\d+\] (error|warn |info |debug) .+\n")
INSERT = "INSERT INTO users(name) VALUES('x')"


def test_nothing_is_said_unasked(new_host, primary, path):
    host = new_host()
    db = host.open(path, primary.url, live=1)
    primary.stop()
    eventually(lambda: db.status()["state"] == "offline")
    assert host.close() == 0 and host.stderr == []


@pytest.mark.parametrize("level, expected", [("", {"warn ", "info "}), ("debug:", {"warn ", "info ", "debug"}),
                                             ("warn:", {"warn "}), ("error:", set())])
@pytest.mark.parametrize("target", ["file", "stderr"])
def test_levels_and_targets(target, level, expected, new_host, primary, tmp_path, path):
    file = tmp_path / "log.txt"
    host = new_host(env={"LIBREPLICA_LOG": level + (str(file) if target == "file" else "stderr")})
    host.quiet = False
    db = host.open(path, primary.url, live=1)
    eventually(lambda: db.status()["state"] == "online")
    primary.restart()
    eventually(lambda: db.status()["state"] == "offline" or db.status()["last_sync"])
    primary.stop()
    eventually(lambda: db.status()["state"] == "offline")
    primary.start()
    eventually(lambda: db.status()["state"] == "online")
    assert host.close() == 0
    lines = open(file).readlines() if target == "file" else host.stderr
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert {LINE.fullmatch(line)[1] for line in lines} == expected
    assert all(str(path) in line for line in lines)
    if target == "file":
        assert host.stderr == []


def test_an_outage_is_one_line(new_host, primary, tmp_path, path):
    file = tmp_path / "log.txt"
    host = new_host(env={"LIBREPLICA_LOG": str(file)})
    db = host.open(path, primary.url, live=1)
    eventually(lambda: db.status()["state"] == "online")
    primary.stop()
    time.sleep(3)
    primary.start()
    eventually(lambda: db.status()["state"] == "online")
    assert 2 <= len(open(file).readlines()) <= 6


def test_a_log_that_cannot_be_written_fails_nothing(new_host, primary, path):
    host = new_host(env={"LIBREPLICA_LOG": "/no/such/directory/log"})
    db = host.open(path, primary.url, live=1)
    assert db.sync()["frame_no"] == primary.hello()[1]


# --- secrets -------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{"live": 1}, {"sync_interval": 0.05}])
def test_a_token_is_rotated_under_background_work(options, new_host, guarded, signer, tmp_path, path):
    """rw, ro, expired, garbage: each is taken at once or refused in words, and none shows up anywhere."""
    file = tmp_path / "log.txt"
    host = new_host(env={"LIBREPLICA_LOG": f"debug:{file}"})
    good = [signer.token("rw"), signer.token("ro", 7200)]
    bad = [signer.token(lives=-3600), "garbage-9bd31f04", good[0][:-9] + "AAAAAAAAA"]
    db, texts = host.open(path, guarded.url, auth_token=good[0], **options), []

    def current():
        guarded.sql(INSERT)
        newest = guarded.hello()[1]
        eventually(lambda: db.frame_no == newest, 5)

    def listen():
        texts.extend([json.dumps(db.status()), str(host.last_error()), str(db("SELECT * FROM replica_databases"))])

    current()
    for token in bad:
        db("SELECT replica_config('auth_token', ?)", token)
        error = eventually(lambda: db.status()["last_error"], 5)
        in_words(error, "refused access")
        texts.append(refused(db.sync, code=AUTH).text)
        listen()
        for token in good:
            db("SELECT replica_config('auth_token', ?)", token)
            start = time.perf_counter()
            current()
            assert time.perf_counter() - start < 2
            eventually(lambda: db.status()["last_error"] is None)
            listen()
    assert host.close() == 0
    said = "".join(texts) + open(file).read() + "".join(host.stderr)
    assert "refused access" in open(file).read()
    for token in good + bad:
        for part in token.split("."):
            assert len(part) < 12 or part not in said.replace(good[0].split(".")[0], ""), part
    for beside in path.parent.iterdir():
        content = beside.read_bytes()
        for token in good + bad:
            assert token.encode() not in content, beside


def test_sqlites_own_log_gets_warnings(guarded, signer, path):
    """A host's SQLITE_CONFIG_LOG, here the shell's, sees failures and no token."""
    token = signer.token()
    uri = f"file:{path}?vfs=replica&sync_url={guarded.url}&auth_token=env:TOKEN"
    result = loaded_shell(f'.log stderr\n.open "{uri}"\nSELECT 1;', env={"TOKEN": token[:-9] + "A" * 9})
    assert "libreplica" in result.stderr and "refused access" in result.stderr, result.stderr
    assert token.split(".")[2][:40] not in result.stderr
