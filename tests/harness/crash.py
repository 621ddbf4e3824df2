"""Crashes at chosen places: a program that dies between two changes to its files, and what a power cut leaves of them."""
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .paths import PYTHON, REPO

SECTOR = 512


def shim():
    """The preloaded library, built on first use."""
    source, built = Path(__file__).with_name("crashpoints.c"), REPO / "target/deps/crashpoints.so"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        built.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
    return str(built)


def run(program, *arguments, folder, at=None, error=None, log=None):
    """Runs a program; what it printed, and its exit code. Instead of making change number `at` in the folder it dies, or has
    this error."""
    env = {**os.environ, "LD_PRELOAD": shim(), "CRASH_FOLDER": f"{folder}"}
    given = {"CRASH_AT": at, "CRASH_ERROR": error, "CRASH_LOG": log}
    env.update({name: str(value) for name, value in given.items() if value is not None})
    done = subprocess.run([PYTHON, "-c", program, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=120)
    assert not done.stderr, done.stderr
    return done.stdout, done.returncode


@dataclass
class File:
    """A file's content on the disk, and what was changed since it was synced."""
    data: bytes = b""
    pending: list = field(default_factory=list)

    def after(self, choose):
        """What a power cut leaves: `choose` says of each change, and of each sector of a write, whether it came that far."""
        data = bytearray(self.data)
        for kind, offset, content in self.pending:
            if kind == "size":
                if choose():
                    data[offset:] = b"" if offset <= len(data) else bytes(offset - len(data))
                continue
            for start in range(0, len(content), SECTOR):
                part = content[start:start + SECTOR]
                if choose():
                    data.extend(bytes(max(0, offset + start - len(data))))
                    data[offset + start:offset + start + len(part)] = part
        return bytes(data)

    def sync(self):
        self.data, self.pending = self.after(lambda: True), []


class Disk:
    """A folder, change by change."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.names = {str(path): File(path.read_bytes()) for path in Path(folder).iterdir()}
        self.durable, self.pending = dict(self.names), []

    def make(self, kind, path, offset, content):
        if kind == "sync" and path == self.folder:
            self._settle(len(self.pending))
        elif kind == "sync":
            self.names[path].sync()
            # Syncing a new file makes its name durable, and with it every earlier change of names.
            self._settle(max([n + 1 for n, (name, file) in enumerate(self.pending) if name == path and file], default=0))
        elif kind == "create":
            self.names[path] = File()
            self.pending.append((path, self.names[path]))
        elif kind == "unlink":
            if self.names.pop(path, None):
                self.pending.append((path, None))
        else:
            self.names[path].pending.append((kind, offset, content))

    def _settle(self, count):
        for path, file in self.pending[:count]:
            self._name(self.durable, path, file)
        del self.pending[:count]

    @staticmethod
    def _name(names, path, file):
        names[path] = file
        if file is None:
            del names[path]

    def cut(self, folder, rng, share):
        """Writes what a power cut leaves now; `share` of what was not synced has come to the disk."""
        names = dict(self.durable)
        kept = round(share * len(self.pending)) if share in (0, 1) else rng.randint(0, len(self.pending))
        for path, file in self.pending[:kept]:
            self._name(names, path, file)
        for path, file in names.items():
            Path(folder, Path(path).name).write_bytes(file.after(lambda: rng.random() < share))


def changes(log):
    """The changes of a CRASH_LOG: (kind, path, offset, content)."""
    data, at = Path(log).read_bytes(), 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, path, offset, length = data[at:end].decode().split(" ")
        at = end + 1 + (int(length) if kind == "write" else 0)
        yield kind, path, int(offset), data[end + 1:at]
