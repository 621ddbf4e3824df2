"""As much of Python's sqlite3 as the tests' programs use, on apsw: on the PYTHONPATH it stands for the module."""
import apsw

Row = None
sqlite_version = apsw.sqlite_lib_version()
version_info = sqlite_version_info = tuple(map(int, sqlite_version.split(".")))
threadsafety = 3


class Error(Exception):
    pass


class DatabaseError(Error):
    pass


class OperationalError(DatabaseError):
    pass


class IntegrityError(DatabaseError):
    pass


NAMES = {value: name for name, value in vars(apsw).items() if name.startswith("SQLITE_")}


def _code_name(code):
    name = apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code & 255)
    return name or "SQLITE_ERROR"


def _translated(error):
    """The same as Python's module would raise."""
    code = getattr(error, "extendedresult", 1)
    kind = {19: IntegrityError, 20: IntegrityError, 11: DatabaseError, 26: DatabaseError}.get(code & 255, OperationalError)
    text = str(error).partition(": ")[2] or str(error)
    translated = kind(text)
    translated.sqlite_errorcode, translated.sqlite_errorname = code, _code_name(code)
    return translated


class _Raising:
    """Errors of apsw leave the block as Python's."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, apsw.Error):
            raise _translated(error) from error


raising = _Raising()


class Cursor:
    def __init__(self, connection):
        self._connection, self._cursor, self.description = connection, connection._db.cursor(), None
        self.rowcount = -1

    def execute(self, sql, parameters=()):
        with raising:
            before = self._connection._db.total_changes()
            self._cursor.execute(sql, parameters)
            try:
                self.description = self._cursor.description_full
            except apsw.ExecutionCompleteError:
                self.description = None
            self.rowcount = self._connection._db.total_changes() - before
        return self

    def executemany(self, sql, rows):
        with raising:
            self._cursor.executemany(sql, rows)
        return self

    def fetchone(self):
        with raising:
            return self._cursor.fetchone()

    def fetchall(self):
        with raising:
            return self._cursor.fetchall()

    def __iter__(self):
        return self

    def __next__(self):
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def close(self):
        self._cursor.close()


class Connection:
    text_factory = str  # apsw's text is always UTF-8

    def __init__(self, target, timeout=5.0, isolation_level="", check_same_thread=True, uri=False):
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        self._implicit = isolation_level is not None
        with raising:
            self._db = apsw.Connection(str(target), flags=flags)
            self._db.set_busy_timeout(int(timeout * 1000))

    def enable_load_extension(self, on):
        self._db.enable_load_extension(on)

    def load_extension(self, path):
        with raising:
            self._db.load_extension(path)

    def cursor(self):
        return Cursor(self)

    def execute(self, sql, parameters=()):
        changes = sql.lstrip()[:7].upper().rstrip() in ("INSERT", "UPDATE", "DELETE", "REPLACE")
        if self._implicit and changes and not self.in_transaction:
            Cursor(self).execute("BEGIN")
        return Cursor(self).execute(sql, parameters)

    def executemany(self, sql, rows):
        return Cursor(self).executemany(sql, rows)

    def executescript(self, sql):
        self.commit()
        Cursor(self).execute(sql).fetchall()

    def create_function(self, name, arguments, function):
        self._db.create_scalar_function(name, function, arguments)

    @property
    def in_transaction(self):
        return self._db.in_transaction

    @property
    def total_changes(self):
        return self._db.total_changes()

    def commit(self):
        if self.in_transaction:
            Cursor(self).execute("COMMIT")

    def rollback(self):
        if self.in_transaction:
            Cursor(self).execute("ROLLBACK")

    def backup(self, target, pages=-1):
        with raising, target._db.backup("main", self._db, "main") as backup:
            while not backup.done:
                backup.step(pages)

    def interrupt(self):
        self._db.interrupt()

    def close(self):
        with raising:
            self._db.close(True)


def connect(target, *args, **options):
    return Connection(target, *args, **options)
