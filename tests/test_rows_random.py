"""The differential property: random schemas and transactions on stock SQLite,
decoded from their pages, replayed as SQL on a copy of the state before; then
both have the same content. A second database goes through all of it as SQL, as
a primary does: its pages, other ones, are known to have the same transactions
on them. A seed tells a case: ROWS_SEED=n ROWS_CASES=1."""
import os
import random
import shutil
import sqlite3
import subprocess
from collections import Counter

from harness.paths import REPO
from harness.random_rows import Case
from harness.rows import Bridge, Refused, apply, connect, is_sound, replay

CASES = int(os.environ.get("ROWS_CASES", 300))
STEPS = 4


def one(bridge, seed, folder):
    """A chain of transactions; why some of them were refused."""
    case = Case(random.Random(seed), folder / "live.db")
    states = [folder / "0.db"]
    shutil.copyfile(case.path, states[0])
    for i in range(1, STEPS + 1):
        case.transaction()
        states.append(folder / f"{i}.db")
        shutil.copyfile(case.path, states[-1])
    case.db.close()
    refused, mirror = [], Mirror(folder, states[0])
    for i, plan in enumerate(bridge.plans(states)):
        try:
            if isinstance(plan, Refused):
                raise plan
            if not is_sound(states[i]) or not is_sound(states[i + 1]):
                # Stock SQLite loses index entries of malformed UTF-16.
                raise Refused("unsound")
            replay(states[i], plan, states[i + 1], folder / "scratch.db")
            mirror.follow(bridge, states[i], states[i + 1], plan)
        except Refused as e:
            refused.append(str(e))
            mirror = Mirror(folder, states[i + 1])
    return refused


class Mirror:
    def __init__(self, folder, state):
        self.path, self.before, self.other = folder / "mirror.db", folder / "before.db", folder / "other.db"
        shutil.copyfile(state, self.path)

    def follow(self, bridge, base, new, plan):
        shutil.copyfile(self.path, self.before)
        apply(self.path, plan)
        assert bridge.same(base, new, self.before, self.path)
        acts = [s for s in plan if not s["sql"].startswith("SELECT")]
        assert not acts or not bridge.same(base, new, self.before, self.before)
        shutil.copyfile(self.path, self.other)
        db = connect(self.other)
        try:
            db.execute("INSERT INTO log DEFAULT VALUES")
        except sqlite3.Error:
            return
        finally:
            db.close()
        assert not bridge.same(base, new, self.before, self.other)


def test_random_transactions(tmp_path):
    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "rows"], cwd=REPO, check=True)
    first = int(os.environ.get("ROWS_SEED", random.randrange(10**9)))
    bridge, refused = Bridge(), []
    for seed in range(first, first + CASES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            refused += one(bridge, seed, folder)
        except AssertionError as e:
            raise AssertionError(f"ROWS_SEED={seed} ({folder}): {e}") from e
        shutil.rmtree(folder)
    bridge.close()
    print(f"seeds {first}..{first + CASES - 1}: {CASES * STEPS} transactions, refused: {Counter(refused)}")
    assert len(refused) * 20 < CASES * STEPS or CASES < 20, Counter(refused)
