#!/usr/bin/python3
"""Power cuts in random transactions over encrypted databases: afterwards everything is there that was committed, and nothing
half. Each seed is run by stock SQLite, too, without a key: what holds there has to hold here.

    tests/crypt_crash/run.py [--seeds 0-500] [--cuts 12] [--jobs 2]
"""
import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import schedule  # noqa: E402
from harness.crash import shim  # noqa: E402
from harness.paths import LIB, PYTHON  # noqa: E402
from power import replay  # noqa: E402

LOADED = []


class Wrong(AssertionError):
    pass


def record(folder, seed, library, log):
    """Runs the program; what each transaction leaves in each database."""
    env = {**os.environ, "LD_PRELOAD": shim(), "CRASH_FOLDER": str(folder), "CRASH_LOG": str(log)}
    command = [PYTHON, schedule.__file__, folder, str(seed), *([library] if library else [])]
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=120)
    if done.returncode or done.stderr:
        raise Wrong(f"seed {seed}: the program failed: {done.stderr}")
    lines = (line.split("|") for line in done.stdout.splitlines())
    return {int(n): states for n, *states in lines}


def find(target):
    """What a database holds after a crash, and that it can be written to; or the error."""
    db = None
    try:
        db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=5)
        found = schedule.state(db)
        sound = db.execute("PRAGMA integrity_check").fetchone()[0]
        db.execute("CREATE TABLE after(x)")
        return found if sound == "ok" else sound
    except sqlite3.Error as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if db:
            db.close()


def outcome(folder, files, plan, keyed, order):
    for path, data in files.items():
        Path(folder, Path(path).name).write_bytes(data)
    found = {name: find(schedule.uri(Path(folder, name), plan, (name in plan.keyed) if keyed else None)) for name in order}
    return [found[name] for name in plan.names]


def check(seed, cuts, library, folder):
    """All cuts of one seed; answers how many and where transactions were."""
    plan, rng = schedule.Plan(seed), random.Random(f"cuts {seed} {bool(library)}")
    work, log = folder / "work", folder / "log"
    work.mkdir()
    states = {0: ["0 empty"] * len(plan.names), **record(work, seed, library, log)}
    total = sum(1 for _ in replay(log, work))
    begin = next((number for number, _, disk in replay(log, work) if disk.names), total)
    chosen = sorted(rng.choices(range(begin, total + 1), k=cuts))
    done = 0
    for number, acknowledged, disk in replay(log, work):
        for _ in range(chosen.count(number)):
            share, trash = rng.choice([0, 0.3, 0.7, 1]), rng.choice([0, 0.5, 1])
            files = disk.left(rng, share, trash, plan.psow)
            shutil.rmtree(work)  # where it was: journals name each other
            work.mkdir()
            order = rng.sample(plan.names, len(plan.names))
            found = outcome(work, files, plan, library, order)
            allowed = [states[n] for n in (acknowledged, acknowledged + 1) if n in states]
            if plan.mode == "wal":  # each file for itself
                good = all(any(state == one[i] for one in allowed) for i, state in enumerate(found))
            else:
                good = found in allowed
            if not good:
                if keep := os.environ.get("CRYPT_CRASH_KEEP"):
                    for path, data in files.items():
                        Path(keep, Path(path).name).write_bytes(data)
                raise Wrong(f"{'key' if library else 'stock'}: seed {seed}, {vars(plan)}, change {number} of {total}, share {share}, "
                            f"trash {trash}, opened {order}: {found} is none of {allowed}")
            done += 1
    return done


def one_seed(seed, cuts, library=LIB):
    if library and not LOADED:
        LOADED.append(schedule.load(library))
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    counts = []
    for lib in (None, library):
        with tempfile.TemporaryDirectory(prefix="crypt-crash-", dir=base) as folder:
            counts.append(check(seed, cuts, lib, Path(folder)))
    return counts


def attempt(seed, cuts):
    try:
        return seed, one_seed(seed, cuts), None
    except Wrong as wrong:
        return seed, [0, 0], str(wrong)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0-400")
    parser.add_argument("--cuts", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    stock = keyed = 0
    wrong = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for _, (plain, encrypted), text in pool.map(attempt, seeds, [args.cuts] * len(seeds)):
            stock, keyed = stock + plain, keyed + encrypted
            if text:
                wrong.append(text)
                print(text, flush=True)
    print(f"{len(seeds)} seeds, power cuts: {stock} of stock SQLite, {keyed} with a key; {len(wrong)} seeds went wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
