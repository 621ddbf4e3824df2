"""Runs a Python program with every replica adopted: the library is loaded before the program opens anything.

    python3 bindings/adopt.py sqlite_utils insert app.db users users.json

LIBREPLICA names the library where it does not lie beside this file or in target/release; LIBREPLICA_AUTH_TOKEN and
LIBREPLICA_ENCRYPTION_KEY are the secrets, if there are any.
"""
import os
import pathlib
import runpy
import sqlite3
import sys

here = pathlib.Path(__file__).resolve().parent
places = [here, here.parent / "target" / "release"]
library = os.environ.get("LIBREPLICA") or next(p / "libreplica" for p in places if (p / "libreplica.so").exists())

os.environ["LIBREPLICA_ADOPT"] = "1"
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(str(library))

del sys.argv[0]
sys.path[0] = ""
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
