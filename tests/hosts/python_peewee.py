"""peewee, and its migrations. `uri=True` makes the URI's options count; load once, the library stays in the process.

Where pysqlite3 is installed peewee takes that instead of Python's sqlite3: load into `peewee.sqlite3`, whichever it is.
"""
import os

from peewee import Model, SqliteDatabase, TextField, sqlite3
from playhouse.migrate import SqliteMigrator, migrate
from python_steps import eight_threads, step, until_it_changes

URL = os.environ["PRIMARY"]


class Note(Model):
    text = TextField()

    class Meta:
        table_name = "notes"


def load(db):
    db.enable_load_extension(True)
    db.load_extension(os.environ["LIBREPLICA"])
    db.enable_load_extension(False)


def connect(name, options=""):
    return SqliteDatabase(f"file:{name}?vfs=replica&sync_url={URL}{options}", uri=True)


def count(db):
    with Note.bind_ctx(db):
        return Note.select().count()


def write(db, text):
    with Note.bind_ctx(db):
        Note.create(text=text)


load(sqlite3.connect(":memory:"))
app = connect("app.db")
step("open", count(app))

app.execute_sql("SELECT replica_sync()")
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

Note.bind(app)


def work(number):
    for row in range(5):
        Note.create(text=f"thread {number} row {row}")  # each thread has a connection of its own
    app.close()


eight_threads(work)
step("threads", count(app))

load(second.connection())  # once more is harmless
step("again", count(second))

migrate(SqliteMigrator(app).add_not_null("albums", "title"))  # makes the table anew
step("migrate", app.execute_sql("SELECT count(*) FROM tracks").fetchone()[0])
