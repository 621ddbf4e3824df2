"""The live stream: each commit as it happens."""
import time

from harness.primary import eventually


def lag(db, primary, count, sql="INSERT INTO users(name) VALUES('x')"):
    """Seconds from the primary's answer to a commit until the replica shows it, for each of `count` commits."""
    lags = []
    for _ in range(count):
        before = db.one("SELECT count(*) FROM users")
        primary.sql(sql)
        start = time.perf_counter()
        while db.one("SELECT count(*) FROM users") == before:
            assert time.perf_counter() - start < 10
        lags.append(time.perf_counter() - start)
        time.sleep(0.01)
    return sorted(lags)


def test_latency(host, primary, path):
    db = host.open(path, primary.url, live=1)
    eventually(lambda: db.status()["state"] == "online")
    time.sleep(0.2)
    lags = lag(db, primary, 50)
    print(f"a commit is readable after {lags[25] * 1e3:.2f} ms (median), {lags[-1] * 1e3:.2f} ms (worst of 50)")
    assert lags[25] < 0.05
    print(db.status())
