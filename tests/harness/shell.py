"""The stock sqlite3 shell, and what a stock shell sees of a file."""
import os
import subprocess
import time
from pathlib import Path

from .paths import LIB, PYTHON


def shell(script, *arguments, env=None, cwd=None, timeout=60):
    """Runs `sqlite3 -batch ARGUMENTS` with the script on stdin."""
    return subprocess.run(["sqlite3", "-batch", *map(str, arguments)], input=script, capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, cwd=cwd, timeout=timeout)


def loaded_shell(script, **options):
    return shell(f".load {LIB}\n{script}", **options)


def stock(path, sql):
    """What a stock shell answers; it must not complain."""
    result = shell(f".timeout 10000\n{sql}", path)
    assert result.returncode == 0 and not result.stderr, (result.stdout, result.stderr)
    return result.stdout.rstrip("\n")


def integrity(path):
    return stock(path, "PRAGMA integrity_check;")


def file_bytes(path):
    """The database file as it is after a stock shell checkpointed it."""
    for _ in range(50):  # a checkpoint of somebody else is waited for by no busy handler
        if stock(path, "PRAGMA wal_checkpoint(TRUNCATE);").startswith("0|"):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("checkpoint blocked")
    return Path(path).read_bytes()


def sidecars(path):
    """Everything that lies beside (and at) a database path."""
    path = Path(path)
    return sorted(p.name for p in path.parent.iterdir() if p.name.startswith(path.name))


PRELUDE = f"""
import sqlite3
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
def open_replica(path, url=None, **options):
    query = ''.join(f'&{{k}}={{v}}' for k, v in dict(sync_url=url, **DEFAULTS | options).items() if v is not None)
    return sqlite3.connect(f'file:{{path}}?vfs=replica{{query}}', uri=True, isolation_level=None)
"""


def python(program, timeout=60):
    """What a program under Debian's Python prints that has `open_replica`; it must not complain."""
    from .host import DEFAULTS
    result = subprocess.run([PYTHON, "-c", f"DEFAULTS = {DEFAULTS!r}{PRELUDE}{program}"], capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0 and not result.stderr, (result.stdout, result.stderr)
    return result.stdout
