"""What encryption costs: each library with a key against the same library without one."""
import os
import subprocess
import sys
from statistics import median

from report import lines, ratio, spread

HERE = os.path.dirname(os.path.abspath(__file__))
KEY = "5f" * 32
KINDS = ["libreplica", "SQLCipher", "SQLite3MC chacha20", "SQLite3MC aegis"]
TESTS = {"insert wal": "bulk insert, log", "insert delete": "bulk insert, rollback journal", "scan": "full scan",
         "points": "random points"}
GOALS = {"scan": 1.3, "points": 1.5, "insert wal": 1.2, "insert delete": 1.2}


class Library:
    def __init__(self, bench, kind, key):
        folder = os.path.dirname(bench.fresh(f"{kind} {'key' if key else 'plain'}"))
        command = [sys.executable, os.path.join(HERE, "crypt_client.py"), bench.library, kind,
                   os.path.join(folder, "a.db"), *([KEY] if key else [])]
        env = {**os.environ, "PYTHONPATH": os.path.join(bench.deps, "crypt"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, "it ended"
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def section(bench, rounds):
    pairs = {kind: (Library(bench, kind, False), Library(bench, kind, True)) for kind in KINDS}
    seconds = {}
    try:
        for kind, (plain, _) in pairs.items():
            print(f"{kind}: {plain('version')}")
        for round_ in range(-1, rounds):
            turn = KINDS[round_ % len(KINDS):] + KINDS[:round_ % len(KINDS)]
            for test in TESTS:
                for kind in turn:
                    # Reads are short: five times each, in turn.
                    for repeat in range(1 if test.startswith("insert") else 5):
                        for library in (0, 1) if (round_ + repeat) % 2 else (1, 0):
                            taken = float(pairs[kind][library](test))
                            if round_ >= 0:
                                seconds.setdefault((test, kind, library), []).append(taken)
    finally:
        for pair in pairs.values():
            for library in pair:
                library.close()
    for test, title in TESTS.items():
        rows = []
        for kind in KINDS:
            plain, key = seconds[test, kind, 0], seconds[test, kind, 1]
            rows.append([kind, f"{median(plain) * 1e3:.1f}", f"{median(key) * 1e3:.1f}", f"{ratio(key, plain):.3f}",
                         "{:.2f} .. {:.2f}".format(*spread([k / p for k, p in zip(key, plain)]))])
        lines(f"Encryption: {title} ({rounds} rounds)",
              ["", "ms without a key", "ms with one", "ratio", "quartiles"], rows)
        ours = ratio(seconds[test, "libreplica", 1], seconds[test, "libreplica", 0])
        bench.goals.add(f"encryption, {title}: with a key / without", ours, most=GOALS[test])
        for other in ("SQLCipher", "SQLite3MC chacha20"):
            theirs = ratio(seconds[test, other, 1], seconds[test, other, 0])
            bench.goals.add(f"encryption, {title}: the ratio / {other}'s", ours / theirs, most=1)
