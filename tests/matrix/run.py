#!/usr/bin/python3
"""The core of the suite (core.py) on every SQLite (harness/sqlites.py), two at a time. `run.py NAME…`: on these."""
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
from harness.sqlites import NAMES, TOO_OLD
from matrix.core import core_of

HERE = [name for name in NAMES if name != TOO_OLD]  # that one only refuses to be loaded: test_hosts_core.py
COUNT = re.compile(r"(\d+) (passed|failed|errors?)")


def run(name):
    """The seconds it took, what pytest said, and how many tests passed and failed."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", *core_of(name)]
    done = subprocess.run(command, cwd=TESTS, env={**os.environ, "LIBREPLICA_TEST_SQLITE": name}, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    last = (done.stdout.splitlines() or [""])[-1]
    counts = {what.rstrip("s"): int(count) for count, what in COUNT.findall(last)}
    passed, failed = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
    if done.returncode and not failed:
        failed = 1  # it did not come so far as to count
    return time.monotonic() - start, done.stdout, passed, failed


def main(names):
    unknown = set(names) - set(HERE)
    if unknown:
        sys.exit(f"no such SQLite: {', '.join(sorted(unknown))}; there are {', '.join(HERE)}")
    names = names or HERE
    total_passed = total_failed = 0
    with ThreadPoolExecutor(2) as pool:
        for name, (seconds, said, passed, failed) in zip(names, pool.map(run, names)):
            total_passed, total_failed = total_passed + passed, total_failed + failed
            if failed:
                print(said)
            print(f"{name}: {passed} of {passed + failed} in {seconds:.0f} s", flush=True)
    print(f"{total_passed} passed, {total_failed} failed")
    sys.exit(bool(total_failed or not total_passed))


main(sys.argv[1:])
