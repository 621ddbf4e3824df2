"""The differential check of logical decoding, on stock SQLite alone.

Two states of a database go to the `rows` example; what it answers runs on a
copy of the first, which then has to have the content of the second."""
import json
import re
import shutil
import sqlite3
import struct
import subprocess

from harness.paths import REPO

BRIDGE = REPO / "target/release/examples/rows"


class Refused(Exception):
    pass


class Bridge:
    def __init__(self):
        self.process = subprocess.Popen([BRIDGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def plans(self, paths):
        """One answer per pair of neighbours: a list of statements, or Refused."""
        self.process.stdin.write("\t".join(map(str, paths)) + "\n")
        self.process.stdin.flush()
        answers, statements = [], []
        while len(answers) < len(paths) - 1:
            line = self.process.stdout.readline()
            assert line, "the bridge is gone"
            line = json.loads(line)
            assert "error" not in line, line
            if "refused" in line:
                answers.append(Refused(line["refused"]))
            elif "done" in line:
                answers.append(statements)
                statements = []
            else:
                statements.append(line)
        return answers

    def same(self, base, new, other_base, other_new):
        """Whether the second transaction does what the first does."""
        self.process.stdin.write("\t".join(map(str, ["=", base, new, other_base, other_new])) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["same"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def argument(arg):
    if arg is None:
        return None
    (kind, text), = arg.items()
    if kind == "int":
        return int(text)
    if kind == "real":
        return struct.unpack(">d", bytes.fromhex(text))[0]
    return bytes.fromhex(text) if kind == "blob" else text


def connect(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.text_factory = bytes
    return db


def apply(path, statements):
    """As a primary runs them: one transaction, each with its expected effect."""
    db = connect(path)
    db.execute("PRAGMA foreign_keys=off")
    db.execute("BEGIN IMMEDIATE")
    try:
        for s in statements:
            run(db, s)
        db.execute("COMMIT")
    except AssertionError as e:
        # A column renamed to and fro: ALTER repairs wrong quotes on its way, and the guard sees it.
        if "integer overflow" in str(e) and any("libreplica_hidden_oid" in s["sql"] for s in statements):
            raise Refused("hidden rowid") from e
        raise
    finally:
        db.close()


def run(db, s):
    try:
        affected = db.execute(s["sql"], [argument(a) for a in s["args"]]).rowcount
    except sqlite3.Error as e:
        if str(e).startswith(("error in view", "error in trigger")):
            # ALTER wants every view and trigger to make sense, whoever broke them.
            raise Refused(str(e)[:14]) from e
        raise AssertionError(f"{e}: {s}") from e
    assert s["affected"] in (None, affected), (affected, s)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def content(path):
    """Schema texts and, per table, every row with its rowid."""
    db = connect(path)
    text = lambda v: v.decode(errors="replace") if v is not None else None
    schema = [tuple(map(text, r)) for r in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")]
    tables = {}
    for kind, name, _, sql in schema:
        if kind != "table" or sql.upper().startswith("CREATE VIRTUAL"):
            continue
        info = [(text(r[1]), r[6]) for r in db.execute(f"PRAGMA table_xinfo({quoted(name)})")]
        names = [column for column, _ in info]
        free = [r for r in ("rowid", "_rowid_", "oid") if r not in map(str.lower, names)]
        tail = sql[sql.rindex(")"):].upper()
        wanted = [f"hex({quoted(c)}), typeof({quoted(c)}), {quoted(c)}" for c in names]
        if free and "WITHOUT" not in tail:
            wanted.insert(0, free[0])
        rows = db.execute(f"SELECT {', '.join(wanted)} FROM {quoted(name)}").fetchall()
        tables[name] = sorted(map(repr, rows))
    versions = [db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("user_version", "application_id")]
    check = db.execute("PRAGMA integrity_check").fetchall()
    db.close()
    virtual = [name for _, name, _, sql in schema if sql and sql.startswith("CREATE VIRTUAL")]
    shadow = lambda name: any(name.startswith(v + "_") for v in virtual)
    schema = [(*r[:3], re.sub("^CREATE TABLE ('[^']*'|\"[^\"]*\")", "", r[3]) if r[0] == "table" and shadow(r[1]) else r[3]) for r in schema]
    return sorted(map(repr, schema)), tables, versions, check


def differences(a, b):
    if a[0] != b[0]:
        return [f"- {x}" for x in a[0] if x not in b[0]] + [f"+ {x}" for x in b[0] if x not in a[0]]
    for name in a[1]:
        if a[1][name] != b[1][name]:
            return [f"table {name}", *[f"- {x[:300]}" for x in a[1][name] if x not in b[1][name]][:5],
                    *[f"+ {x[:300]}" for x in b[1][name] if x not in a[1][name]][:5]]
    return [] if a[2:] == b[2:] else [repr(a[2:]), repr(b[2:])]


def is_sound(path):
    db = connect(path)
    check = db.execute("PRAGMA integrity_check").fetchall()
    db.close()
    return check == [(b"ok",)]


def replay(base, statements, new, scratch):
    """Applies to a copy of `base`, and compares with `new`."""
    shutil.copyfile(base, scratch)
    apply(scratch, statements)
    found = differences(content(new), content(scratch))
    assert not found, "\n".join(found)
