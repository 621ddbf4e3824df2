"""apsw. URIs need SQLITE_OPEN_URI among the flags; load once, the library stays in the process.

Its wheels carry a SQLite of their own, which is not the one of Python's sqlite3: use one of the two in a process.
"""
import os

import apsw
from python_steps import eight_threads, step, until_it_changes

URL = os.environ["PRIMARY"]
FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI


def load(db):
    db.enable_load_extension(True)
    db.load_extension(os.environ["LIBREPLICA"])
    db.enable_load_extension(False)


def connect(name, options=""):
    return apsw.Connection(f"file:{name}?vfs=replica&sync_url={URL}{options}", flags=FLAGS)


def count(db):
    return db.execute("SELECT count(*) FROM notes").get


def write(db, text):
    with db:
        db.execute("INSERT INTO notes(text) VALUES(?)", (text,))


loader = apsw.Connection(":memory:")
load(loader)
loader.close()
app = connect("app.db")
step("open", count(app))

app.execute("SELECT replica_sync()").get
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
