"""The differential property: random schemas and transactions on stock SQLite,
decoded from their pages, replayed as SQL on a copy of the state before; then
both have the same content. A seed tells a case: ROWS_SEED=n ROWS_CASES=1."""
import os
import random
import shutil
import subprocess
from collections import Counter

from harness.paths import REPO
from harness.random_rows import Case
from harness.rows import Bridge, Refused, is_sound, replay

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
    refused = []
    for i, plan in enumerate(bridge.plans(states)):
        try:
            if isinstance(plan, Refused):
                raise plan
            if not is_sound(states[i]) or not is_sound(states[i + 1]):
                # Stock SQLite loses index entries of malformed UTF-16.
                raise Refused("unsound")
            replay(states[i], plan, states[i + 1], folder / "scratch.db")
        except Refused as e:
            refused.append(str(e))
    return refused


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
