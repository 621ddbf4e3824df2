"""Memory stays bounded however much comes in. LIBREPLICA_BIG=1: a gigabyte instead of 300 MB."""
import os
import time

import pytest
from harness.check import same_bytes
from harness.shell import integrity

MEGABYTES = 1024 if os.environ.get("LIBREPLICA_BIG") else 300
LIMIT = 100


def fill(primary, megabytes, at_once):
    """Rows of a megabyte and a bit; zeros mostly, for speed."""
    primary.sql("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, noise, zeros)")
    for done in range(0, megabytes, at_once):
        primary.sql("INSERT INTO big SELECT NULL, randomblob(1000), zeroblob(1000000) FROM generate_series(1, ?)",
                    min(at_once, megabytes - done))


def equal_to_the_stopped_primary(path, primary):
    """The data file itself, checkpointed by a stock shell; quicker than pulling it once more."""
    primary.stop()
    assert integrity(primary.data_file()) == "ok"  # the shell closes last and checkpoints
    with open(path, "rb") as ours, open(primary.data_file(), "rb") as theirs:
        while True:
            a, b = ours.read(1 << 24), theirs.read(1 << 24)
            same_bytes(a, b)
            if not a:
                return


@pytest.mark.parametrize("options, at_once", [({}, 20), ({"max_log_size": 5000}, MEGABYTES)],
                         ids=["compacted log", "one transaction"])
def test_bootstrap(options, at_once, host, new_primary, path):
    primary = new_primary(**options)
    fill(primary, MEGABYTES, at_once)
    assert options or primary.snapshot_needed()
    before, start = host.peak_mb(), time.perf_counter()
    db = host.open(path, primary.url)
    taken = time.perf_counter() - start
    assert db.frame_no == primary.hello()[1]
    print(f"{path.stat().st_size / 1e6 + path.with_name('app.db-wal').stat().st_size / 1e6:.0f} MB in {taken:.1f} s, "
          f"peak {host.peak_mb():.0f} MB, {before:.0f} MB before")
    assert host.peak_mb() < LIMIT
    db.close()
    equal_to_the_stopped_primary(path, primary)


@pytest.mark.parametrize("options, at_once", [({}, 20), ({"max_log_size": 5000}, MEGABYTES)],
                         ids=["compacted log", "one transaction"])
def test_catch_up(options, at_once, host, new_primary, path):
    primary = new_primary("CREATE TABLE t(a);", **options)
    db = host.open(path, primary.url)
    fill(primary, MEGABYTES, at_once)
    start = time.perf_counter()
    frames = db.sync()["frames_synced"]
    taken = time.perf_counter() - start
    print(f"{frames} frames in {taken:.1f} s, peak {host.peak_mb():.0f} MB")
    assert host.peak_mb() < LIMIT
    db.close()
    equal_to_the_stopped_primary(path, primary)
