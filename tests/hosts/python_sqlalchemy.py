"""SQLAlchemy, and alembic's batch mode. Load once before the engine; `uri=true` in the URL.

SQLAlchemy takes `timeout` out of the URL for itself: to give it to the replica, use replica_open() and a plain URL.
"""
import os
import sqlite3

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import String, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from python_steps import eight_threads, step, until_it_changes

URL = os.environ["PRIMARY"]


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Track(Base):
    __tablename__ = "tracks"
    id: Mapped[int] = mapped_column(primary_key=True)
    album_id: Mapped[int]


def load(db):
    db.enable_load_extension(True)
    db.load_extension(os.environ["LIBREPLICA"])
    db.enable_load_extension(False)


def connect(name, options=""):
    return create_engine(f"sqlite:///file:{name}?vfs=replica&sync_url={URL}{options}&uri=true")


def count(engine, kind=Note):
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(kind))


def write(engine, words):
    with Session(engine) as session, session.begin():
        session.add(Note(text=words))


load(sqlite3.connect(":memory:"))
app = connect("app.db")
step("open", count(app))

with app.connect() as db:
    db.execute(text("SELECT replica_sync()"))
step("sync", count(app))

write(app, "written here")
step("write", count(app))

secret = connect("secret.db", "&encryption_key=env:KEY")
write(secret, "sealed here")
step("encrypted", count(secret))
secret.dispose()

live = connect("live.db", "&live=1")
before = count(live)
step("live", before)
until_it_changes(lambda: count(live), before)
step("seen", count(live))

second = connect("app.db")
write(second, "a second connection")
step("second", count(app))


def work(number):
    for row in range(5):
        write(app, f"thread {number} row {row}")  # each thread has a connection of the pool's


eight_threads(work)
step("threads", count(app))

with second.connect() as db:
    load(db.connection.driver_connection)  # once more is harmless
step("again", count(second))

with app.begin() as db:
    with Operations(MigrationContext.configure(db)).batch_alter_table("albums") as albums:
        albums.alter_column("title", existing_type=String(), nullable=False)  # makes the table anew
step("migrate", count(app, Track))
