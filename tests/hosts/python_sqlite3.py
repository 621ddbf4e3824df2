"""Python's own sqlite3 (pysqlite3-binary is the same under another name).

Load once; the library stays in the process. `uri=True` makes the URI's options count. A Python that was built without
loadable extensions (pyenv's, python.org's for macOS) has no enable_load_extension: take pysqlite3-binary.
"""
import os
import sys

if "pysqlite3" in sys.argv:
    import pysqlite3 as sqlite3
else:
    import sqlite3
from python_steps import eight_threads, step, until_it_changes

URL = os.environ["PRIMARY"]


def load(db):
    db.enable_load_extension(True)
    db.load_extension(os.environ["LIBREPLICA"])
    db.enable_load_extension(False)


def connect(name, options=""):
    return sqlite3.connect(f"file:{name}?vfs=replica&sync_url={URL}{options}", uri=True)


def count(db):
    return db.execute("SELECT count(*) FROM notes").fetchone()[0]


def write(db, text):
    with db:
        db.execute("INSERT INTO notes(text) VALUES(?)", (text,))


loader = sqlite3.connect(":memory:")
load(loader)
loader.close()
app = connect("app.db")
step("open", count(app))

app.execute("SELECT replica_sync()").fetchone()
step("sync", count(app))

write(app, "written here")
step("write", count(app))

secret = connect("secret.db", "&encryption_key=env:KEY")
write(secret, "sealed here")
step("encrypted", count(secret))
secret.close()

live = connect("live.db", "&live=1")
before = count(live)
step("live", before)
until_it_changes(lambda: count(live), before)
step("seen", count(live))

second = connect("app.db")
write(second, "a second connection")
step("second", count(app))


def work(number):
    db = connect("app.db")
    for row in range(5):
        write(db, f"thread {number} row {row}")
    db.close()


eight_threads(work)
step("threads", count(app))

load(second)  # once more is harmless
step("again", count(second))
