#!/usr/bin/python3
"""Soak: writers at the primary, live replicas in several processes, and everything that goes wrong, for minutes or hours.

    tests/soak/run.py [--minutes 5] [--seed N]

All the time every reader sees whole transactions. At the end every replica is byte for byte what the primary is, and
memory, threads, file handles and logs are no more than they were.
"""
import argparse
import http.client
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.check import identical
from harness.host import Host, HostDied
from harness.primary import Primary, SqlFailed, eventually
from harness.proxy import Proxy
from harness.shell import shell

AWAY = (OSError, SqlFailed, http.client.HTTPException, ValueError)
SCHEMA = """
CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE b(id INTEGER PRIMARY KEY, n INTEGER);
INSERT INTO a VALUES(1, 0); INSERT INTO b VALUES(1, 0);
CREATE TABLE log(id INTEGER PRIMARY KEY, body BLOB); CREATE INDEX log_by_body ON log(body);
"""
MAX_LOG = 64 << 20  # bytes of a replica's WAL, besides what a primary that lost its log costs: all pages once more


class Soak:
    def __init__(self, directory, seed):
        self.random = random.Random(seed)
        self.directory = directory
        self.primary = Primary(directory / "primary", max_log_duration=1)
        self.primary.script(SCHEMA)
        self.proxy = Proxy(self.primary.url)
        # Two files that several processes share, and some of one process each.
        self.plan = {name: options for name, options in (
            ("shared", {"live": 1}), ("polled", {"sync_interval": 0.2}), ("own0", {"live": 1}), ("own1", {"live": 1}),
            ("own2", {"live": 1, "sync_interval": 1}))}
        self.members = [("shared", "polled", "own0"), ("shared", "polled", "own1"), ("shared", "own2")]
        self.stopping, self.errors, self.counts = threading.Event(), [], {}
        self.hosts, self.dbs = [None] * 3, [{} for _ in range(3)]
        self.locks = [threading.RLock() for _ in range(3)]
        self.resources, self.largest_log = {}, 0
        for number in range(3):
            self.start_host(number)

    def path(self, name):
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        return folder / "app.db"

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- actors ---

    def start_host(self, number):
        deadline = time.monotonic() + 60
        with self.locks[number]:
            self.hosts[number] = Host()
            for name in self.members[number]:
                while True:  # the first open needs the primary, which may be away just now
                    try:
                        db = self.hosts[number].open(self.path(name), self.proxy.url, timeout=5, **self.plan[name])
                        break
                    except Exception:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.3)
                self.dbs[number][name] = db

    def write(self):
        """Transactions of all sizes; each changes a and b together."""
        dice = random.Random(self.random.random())
        while not self.stopping.is_set():
            try:
                kind = dice.random()
                if kind < 0.7:
                    self.primary.transaction("UPDATE a SET n = n + 1", "UPDATE b SET n = n + 1",
                                             ("INSERT INTO log(body) VALUES(randomblob(?))", [dice.randrange(2000)]))
                elif kind < 0.8:
                    self.primary.transaction("UPDATE a SET n = n + 1", "UPDATE b SET n = n + 1",
                                             "INSERT INTO log(body) SELECT randomblob(1000) FROM "
                                             "generate_series(1, 200)")
                elif kind < 0.95:
                    self.primary.transaction("DELETE FROM log WHERE id % 3 = abs(random()) % 3 AND id < "
                                             "(SELECT max(id) - 2000 FROM log)",
                                             "UPDATE a SET n = n + 1", "UPDATE b SET n = n + 1")
                else:
                    self.primary.pipeline([{"type": "execute", "stmt": {
                        "sql": "INSERT INTO log(body) VALUES(randomblob(100))"}}] * 100)
                self.count("commits")
            except AWAY:
                self.count("writes while the primary was away")
                time.sleep(0.05)
            time.sleep(dice.random() * 0.02)

    def read(self, number):
        dice = random.Random(self.random.random())
        while not self.stopping.is_set():
            with self.locks[number]:
                dbs = dict(self.dbs[number])
            for name, db in dbs.items():
                try:
                    ((a, b),) = db("SELECT a.n, b.n FROM a JOIN b USING(id)")
                    assert a == b, f"half a transaction is visible in {name}: {a} {b}"
                    if dice.random() < 0.02:
                        found = db.one("PRAGMA quick_check")
                        assert found == "ok", f"{name} in process {number}: {found}"
                    status = db.status()
                    assert status["state"] in ("online", "offline")
                    self.count("reads")
                except HostDied:
                    break
            time.sleep(0.02)

    def measure(self):
        while not self.stopping.wait(0.5):
            for name in self.plan:
                try:
                    size = os.path.getsize(f"{self.path(name)}-wal")
                    limit = MAX_LOG + 3 * os.path.getsize(self.path(name))
                except FileNotFoundError:
                    continue
                self.largest_log = max(self.largest_log, size)
                assert size < limit, f"the log of {name} has {size >> 20} MiB"
            for host in self.hosts:
                try:
                    sample = self.sample(host)
                except (OSError, IndexError):
                    continue  # killed just now
                first, most = self.resources.get(host.pid, (sample, sample))
                self.resources[host.pid] = (first, tuple(map(max, most, sample)))

    @staticmethod
    def sample(host):
        process = Path(f"/proc/{host.pid}")
        return (len(os.listdir(process / "fd")), len(os.listdir(process / "task")),
                int((process / "statm").read_text().split()[1]) * 4096 >> 20)

    # --- what goes wrong ---

    def trouble(self):
        events = [self.cut, self.cut, self.silence, self.restart, self.crash, self.kill_host, self.checkpoint,
                  self.checkpoint, self.syncs, self.reconfigure]
        while not self.stopping.wait(self.random.uniform(0.2, 1.5)):
            event = self.random.choice(events)
            event()
            self.count(event.__name__)

    def cut(self):
        self.proxy.cut()

    def silence(self):
        self.proxy.silent = True
        time.sleep(self.random.uniform(0.1, 3))
        self.proxy.silent = False

    def restart(self):
        self.primary.stop()
        time.sleep(self.random.uniform(0, 1))
        self.primary.start()

    def crash(self):
        self.primary.kill()
        time.sleep(self.random.uniform(0, 0.5))
        self.primary.start()

    def kill_host(self):
        number = self.random.randrange(3)
        with self.locks[number]:
            self.hosts[number].kill()
            self.start_host(number)

    def checkpoint(self):
        mode = self.random.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        shell(f".timeout 200\nPRAGMA wal_checkpoint({mode});", self.path(self.random.choice(list(self.plan))))

    def syncs(self):
        for number in range(3):
            with self.locks[number]:
                for db in self.dbs[number].values():
                    db.start("SELECT replica_sync()").add_done_callback(lambda done: done.exception())

    def reconfigure(self):
        number = self.random.randrange(3)
        with self.locks[number]:
            for name, db in self.dbs[number].items():
                db(f"SELECT replica_config('live', {self.random.randrange(2)})")
                for option, value in self.plan[name].items():
                    db("SELECT replica_config(?, ?)", option, value)

    # --- the whole ---

    def run(self, minutes):
        readers = [lambda number=number: self.read(number) for number in range(3)]
        actors = [threading.Thread(target=self.guarded, args=(action,))
                  for action in (self.write, self.write, self.measure, self.trouble, *readers)]
        for actor in actors:
            actor.start()
        self.stopping.wait(minutes * 60)
        self.stopping.set()
        for actor in actors:
            actor.join(120)
            assert not actor.is_alive(), f"{actor} hangs"
        if self.errors:
            raise self.errors[0]
        self.check()

    def guarded(self, action):
        try:
            action()
        except BaseException as error:
            self.errors.append(error)
            self.stopping.set()

    def check(self):
        newest = self.primary.hello()[1]
        for number, dbs in enumerate(self.dbs):
            for name, db in dbs.items():
                try:
                    eventually(lambda: db.frame_no == newest, 30)
                except AssertionError:
                    raise AssertionError(f"{name} in process {number} is not at {newest}: {db.status()}") from None
                eventually(lambda: db.status()["state"] == "online", 15, what=f"{name} online: {db.status()}")
        time.sleep(1)
        for first, most in self.resources.values():
            grown = tuple(b - a for a, b in zip(first, most))
            # Three replicas: a stream, a connect that hangs, a sync, each with a socket and a thread.
            assert grown[0] < 40 and grown[1] < 25, f"handles, threads, MB: {first} at first, {most} at most"
            assert grown[2] < 150, f"handles, threads, MB: {first} at first, {most} at most"
        for host in self.hosts:
            assert host.close() == 0 and not host.stderr, host.stderr
        for name in self.plan:
            identical(self.path(name), self.primary)

    def end(self):
        self.stopping.set()
        for host in self.hosts:
            if host and host.process.poll() is None:
                host.kill()
        self.proxy.stop()
        if self.primary.process:
            self.primary.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="libreplica-soak-") as directory:
        soak = Soak(Path(directory), seed)
        try:
            soak.run(arguments.minutes)
        finally:
            soak.end()
            for what, count in sorted(soak.counts.items()):
                print(f"{count:8} {what}")
        most = tuple(map(max, *(most for _, most in soak.resources.values()), (0, 0, 0)))
        print(f"identical; at most {most[0]} handles, {most[1]} threads, {most[2]} MB in a process, "
              f"a log of {soak.largest_log >> 10} KiB")


if __name__ == "__main__":
    main()
