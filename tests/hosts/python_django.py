"""Django. NAME is a `file:` URI; load once, before the first connection. Without `transaction_mode` IMMEDIATE, what
reads and then writes in atomic() often ends in "database is locked"."""
import os
import sqlite3

import django
from django.conf import settings
from python_steps import eight_threads, step, until_it_changes

URL = os.environ["PRIMARY"]


def load(db):
    db.enable_load_extension(True)
    db.load_extension(os.environ["LIBREPLICA"])


def database(name, options=""):
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": f"file:{name}?vfs=replica&sync_url={URL}{options}",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"}}


load(sqlite3.connect(":memory:"))
settings.configure(DATABASES={
    "default": database("app.db"),
    "secret": database("secret.db", "&encryption_key=env:KEY"),
    "live": database("live.db", "&live=1"),
    "second": database("app.db"),
})
django.setup()

from django.db import connection, connections, models, transaction  # noqa: E402 (settings come first)


class Note(models.Model):
    text = models.TextField()

    class Meta:
        app_label, db_table = "host", "notes"


class Album(models.Model):
    title = models.TextField(null=True)

    class Meta:
        app_label, db_table = "host", "albums"


class Track(models.Model):
    album = models.ForeignKey(Album, models.CASCADE)

    class Meta:
        app_label, db_table = "host", "tracks"


def count(using="default"):
    return Note.objects.using(using).count()


step("open", count())

with connection.cursor() as cursor:
    cursor.execute("SELECT replica_sync()")
step("sync", count())

Note.objects.create(text="written here")
step("write", count())

Note.objects.using("secret").create(text="sealed here")
step("encrypted", count("secret"))

before = count("live")
step("live", before)
until_it_changes(lambda: count("live"), before)
step("seen", count("live"))

Note.objects.using("second").create(text="a second connection")
step("second", count())


def work(number):
    for row in range(5):
        with transaction.atomic():
            Note.objects.count()
            Note.objects.create(text=f"thread {number} row {row}")
    connection.close()


eight_threads(work)
step("threads", count())

load(connections["second"].connection)  # once more is harmless
step("again", count("second"))

title = models.TextField()
title.set_attributes_from_name("title")
with connection.schema_editor() as editor:
    editor.alter_field(Album, Album._meta.get_field("title"), title)  # makes the table anew
step("migrate", Track.objects.count())
