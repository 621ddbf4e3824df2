"""A VFS on top of ours, for programs of `harness.crypt`."""
import subprocess
from pathlib import Path

from .paths import REPO


def built():
    """The extension without its suffix, built on first use."""
    source, made = Path(__file__).with_name("topvfs.c"), REPO / "target/deps/topvfs.so"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, source], check=True)
    return str(made.with_suffix(""))


# On top: `top("trace", "replica")` makes vfs=trace.
PROGRAM = """
def top(name, below):
    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    db.load_extension(sys.argv[-1])
    assert db.execute("SELECT topvfs(?, ?)", (name, below)).fetchone()[0] == 0
    kept.append(db)
kept = []
"""
