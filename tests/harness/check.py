"""Assertions that several files share."""
import threading

import pytest

from .host import CANTOPEN, DEFAULTS, SqlError
from .shell import file_bytes, integrity, python, sidecars
from .wire import PAGE

STOCK_PHRASES = {"SQL logic error", "disk I/O error", "unable to open database file", "not an error", "unknown error",
                 "attempt to write a readonly database", "database disk image is malformed", "database is locked",
                 "authorization denied", "file is not a database"}


def in_words(text, *needles):
    """A sentence of our own, not one of SQLite's stock phrases, that has every needle (any of a tuple) in it."""
    assert text and text not in STOCK_PHRASES and len(text) > 15, f"no words: {text!r}"
    for needle in needles:
        options = needle if isinstance(needle, tuple) else (needle,)
        assert any(option.lower() in text.lower() for option in options), f"{options} not in {text!r}"


def refused(action, *needles, code=None):
    """The action fails, in words; the error."""
    with pytest.raises(SqlError) as caught:
        action()
    in_words(caught.value.text, *needles)
    assert code is None or caught.value.code == code, caught.value
    return caught.value


def open_refused(host, path, url=None, *needles, **options):
    """The open fails with CANTOPEN, says why, and leaves the directory as it was."""
    before = {name: (path.parent / name).lstat() for name in sidecars(path)}
    with pytest.raises(SqlError) as caught:
        host.open(path, url, **options)
    assert caught.value.code == CANTOPEN, caught.value
    in_words(host.last_error(), *needles)
    after = {name: (path.parent / name).lstat() for name in sidecars(path)}
    assert sorted(before) == sorted(after)
    for name, stat in before.items():
        assert (stat.st_mtime_ns, stat.st_size) == (after[name].st_mtime_ns, after[name].st_size), name


def same_bytes(actual, expected):
    if actual != expected:
        pages = range(max(len(actual), len(expected)) // PAGE)
        different = [n + 1 for n in pages if actual[n * PAGE:(n + 1) * PAGE] != expected[n * PAGE:(n + 1) * PAGE]]
        raise AssertionError(f"{len(actual) // PAGE} pages, expected {len(expected) // PAGE}; "
                             f"{len(different)} differ: {different[:20]}")


def identical(path, source):
    """The file, checkpointed, is byte for byte what the primary (or a history) holds.

    Where commits are shipped as rows, that is so after the next sync; another process does it here.
    """
    assert integrity(path) == "ok"
    if DEFAULTS.get("write_path") == "rows":
        python(f"open_replica({str(path)!r}).execute('SELECT replica_sync()').fetchall()")
        assert integrity(path) == "ok"
    same_bytes(file_bytes(path), source.image().bytes())


def outcome(action):
    """The SQL error it ends in, or None."""
    try:
        action()
    except SqlError as error:
        return error


def fails(action, *codes):
    """It ends in an error with one of these primary result codes; the error."""
    error = outcome(action)
    assert error is not None, f"no error where one of {codes} was due"
    assert error.code in codes, (error.code, error)
    return error


def series(count):
    """A table expression for both sides: stock SQLite has no generate_series."""
    return f"(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {count}) SELECT value FROM n)"


def together(*actions):
    """Runs the actions at the same time; re-raises what one of them raised."""
    errors = []

    def run(action):
        try:
            action()
        except BaseException as error:
            errors.append(error)

    actors = [threading.Thread(target=run, args=(action,)) for action in actions]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join(120)
        assert not actor.is_alive(), "something hangs"
    if errors:
        raise errors[0]
