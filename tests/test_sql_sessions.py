"""Runs sql/NAME.sql with the stock shell against a fresh primary and compares with sql/NAME.expected.

@LIB@ stands for the library, @URL@ for the primary, @DB@ for a path where nothing is yet. A line
`-- at the primary: SQL` is run there, by another client, when the shell has come to it.
UPDATE_EXPECTED=1 writes what came instead of comparing.
"""
import os
import subprocess

import pytest
from harness.paths import LIB, REPO

SESSIONS = sorted((REPO / "sql").glob("*.sql"))
AT_PRIMARY, MARK = "-- at the primary:", "@@ so far @@"


def run(script, primary):
    """What the shell prints on both streams, in order."""
    shell = subprocess.Popen(["sqlite3", "-batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
    output = []
    for line in script.splitlines():
        if line.startswith(AT_PRIMARY):
            shell.stdin.write(f".print {MARK}\n")
            shell.stdin.flush()
            for printed in shell.stdout:
                if printed.strip() == MARK:
                    break
                output.append(printed)
            primary.script(line[len(AT_PRIMARY):])
        else:
            shell.stdin.write(line + "\n")
    output.append(shell.communicate(timeout=60)[0])
    return "".join(output)


@pytest.mark.parametrize("session", SESSIONS, ids=[path.stem for path in SESSIONS])
def test_session(session, new_primary, path):
    primary = new_primary()
    values = {"@LIB@": LIB, "@URL@": primary.url, "@DB@": str(path)}
    script = session.read_text()
    for name, value in values.items():
        script = script.replace(name, value)
    output = run(script, primary)
    for name, value in values.items():
        output = output.replace(value, name)
    expected = session.with_suffix(".expected")
    if os.environ.get("UPDATE_EXPECTED"):
        expected.write_text(output)
    assert output == expected.read_text()
