"""Encrypted databases: programs that use them, and what can be seen of them from outside."""
import os
import subprocess
from pathlib import Path

from .host import SqlError, replica_uri
from .paths import LIB, PYTHON

KEY, RAW = "a passphrase of several words", "0123456789abcdef" * 4
MARK = b"plaintext-marker"

PRELUDE = f"""
import os, random, sqlite3, sys, urllib.parse
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
def connect(path, key=None, **options):
    query = {{"vfs": "replica", **({{"encryption_key": key}} if key else {{}}), **options}}
    return sqlite3.connect(f"file:{{path}}?{{urllib.parse.urlencode(query, quote_via=urllib.parse.quote)}}",
                           uri=True, isolation_level=None, timeout=20)
"""


def local_uri(path, key=KEY, **options):
    return replica_uri(path, None, **({"encryption_key": key} if key else {}), **options)


def program(code, *arguments):
    """Starts a program with the library loaded and `connect` defined."""
    return subprocess.Popen([PYTHON, "-c", PRELUDE + code, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(code, *arguments):
    """Runs one to its end; what it printed."""
    process = program(code, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and not errors, errors
    return output.strip()


def code_of(call):
    """The primary result code that a call fails with, None if it does not."""
    try:
        call()
    except SqlError as error:
        return error.code
    return None


def clear(data, *more):
    """Whether bytes show a key, a database's magic, or the tests' content."""
    return [m for m in (MARK, b"SQLite format 3", KEY.encode(), RAW.encode(), bytes.fromhex(RAW), *more) if m in data]


def assert_no_plaintext(folder):
    for file in Path(folder).rglob("*"):
        if file.is_file():
            assert not clear(file.read_bytes()), file


def deleted_files(pid):
    """The content of the files that a process has open and that have no name any more."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "(deleted)" in os.readlink(fd):
                yield fd.read_bytes()
        except OSError:
            pass
