"""A program that uses SQLite, as a process of its own: a crash in it fails a test instead of ending the suite."""
import itertools
import json
import os
import signal
import subprocess
import threading
import urllib.parse
from concurrent.futures import Future
from pathlib import Path

from .paths import LIB, PYTHON

READONLY, BUSY, IOERR, CANTOPEN, AUTH, NOTADB = 8, 5, 10, 14, 23, 26
BUSY_SNAPSHOT = 517


class SqlError(Exception):
    """An error as SQLite reported it; `code` is the primary result code."""

    def __init__(self, text, code, kind):
        super().__init__(text)
        self.text, self.kind = text, kind
        self.extended, self.code = code, code & 0xFF if code is not None else None


DEFAULTS = {}  # options of every replica that is opened, unless told otherwise


def replica_uri(path, url=None, **options):
    """The URI that opens `path` as a replica of `url`."""
    pairs = {"vfs": "replica", **({"sync_url": url} if url else {}), **DEFAULTS, **options}
    query = "&".join(f"{k}={urllib.parse.quote(str(v), safe=':/')}" for k, v in pairs.items())
    return f"file:{urllib.parse.quote(str(path))}?{query}"


class Host:
    """`library=None`: a stock program that knows nothing of the library. `user`, `group`: numbers, where it is not root's."""

    _numbers = itertools.count()

    def __init__(self, library=LIB, env=None, cwd=None, user=None, group=None, umask=-1):
        self._tickets, self._lock, self._loader = {}, threading.Lock(), None
        self.patience = 120  # seconds for any one call
        main = Path(__file__).with_name("host_main.py")
        self.process = subprocess.Popen([PYTHON, "-X", "faulthandler", main], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
                                        env={**os.environ, **(env or {})}, umask=umask,
                                        **({} if user is None else
                                           {"user": user, "group": group or user, "extra_groups": []}))
        self.stderr = []
        self._readers = [threading.Thread(target=f, daemon=True) for f in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()
        if library:
            self._loader = Db(self, ":memory:", False, library)

    @property
    def pid(self):
        return self.process.pid

    # --- databases ---

    def open(self, path, url=None, **options):
        """A replica."""
        return Db(self, replica_uri(path, url, **options), True)

    def plain(self, target, uri=False):
        """A database opened as any program would."""
        return Db(self, str(target), uri)

    def last_error(self):
        return self._loader.one("SELECT replica_last_error()")

    # --- process ---

    def peak_mb(self):
        """The most memory it ever had resident (getrusage would count the parent's, too)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def fork(self, code):
        return self.call("fork", code=code).result()["rows"][0][0]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        """A clean end, whatever is still open."""
        if self.process.poll() is None:
            try:
                self.call("exit")
                self.process.stdin.close()
            except OSError:
                pass
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the process does not end") from None
        return self.process.returncode

    # --- messages ---

    def call(self, op, **fields):
        future = Future()
        with self._lock:
            ticket = next(self._numbers)
            self._tickets[ticket] = future
            try:
                self.process.stdin.write(json.dumps({"op": op, "ticket": ticket, **fields}) + "\n")
                self.process.stdin.flush()
            except OSError:
                pass  # _read sees the end
        if not self._readers[0].is_alive():
            self._abandon()
        return future

    def _read(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._tickets.pop(answer["ticket"])
            if "error" in answer:
                future.set_exception(SqlError(answer["error"], answer["code"], answer["kind"]))
            else:
                future.set_result(answer)
        self.process.wait()
        self._readers[1].join(5)
        self._abandon()

    def _read_errors(self):
        for line in self.process.stderr:
            self.stderr.append(line)

    def _abandon(self):
        with self._lock:
            tickets, self._tickets = self._tickets, {}
        for future in tickets.values():
            future.set_exception(HostDied(f"exit status {self.process.returncode}\n" + "".join(self.stderr[-40:])))


class HostDied(Exception):
    pass


def _value(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


class Db:
    """One connection in a host."""

    _names = itertools.count()

    def __init__(self, host, target, uri, library=None):
        self.host, self.name = host, f"c{next(self._names)}"
        host.call("open", name=self.name, target=target, uri=uri, library=library).result(host.patience)

    def start(self, sql, *args):
        """Runs a statement and does not wait for it: a future of its rows."""
        args = [{"hex": a.hex()} if isinstance(a, bytes) else a for a in args]
        call, rows = self.host.call("sql", name=self.name, sql=sql, args=args), Future()

        def done(answer):
            if answer.exception():
                rows.set_exception(answer.exception())
            else:
                self.columns = answer.result()["columns"]
                rows.set_result([tuple(_value(v) for v in row) for row in answer.result()["rows"]])

        call.add_done_callback(done)
        return rows

    def __call__(self, sql, *args):
        return self.start(sql, *args).result(self.host.patience)

    def one(self, sql, *args):
        rows = self(sql, *args)
        return rows[0][0] if rows else None

    def script(self, sql):
        self.host.call("script", name=self.name, sql=sql).result(self.host.patience)

    def interrupt(self):
        """From another thread, as sqlite3_interrupt is for."""
        self.host.call("interrupt", name=self.name).result(5)

    def progress_handler(self, seconds, steps=1000):
        """One that says so many seconds from now that it is enough."""
        self.host.call("progress", name=self.name, seconds=seconds, steps=steps).result(5)

    def close(self):
        self.host.call("close", name=self.name).result(60)

    # --- the library's functions ---

    def sync(self, schema=None):
        """replica_sync()'s answer as a dict."""
        return json.loads(self.one("SELECT replica_sync(?)", schema) if schema else self.one("SELECT replica_sync()"))

    def status(self, schema="main"):
        return json.loads(self.one("SELECT replica_status(?)", schema))

    @property
    def frame_no(self):
        return self.one("SELECT replica_frame_no()")
