"""The SQLites of the field that the tests can run on: which they are, where they lie, whether it is really they.

`LIBREPLICA_TEST_SQLITE=NAME` makes every program that the tests start (paths.PYTHON) run on that build; the stock
shell stays Debian's. tests/matrix/build.py compiles them.
"""
import json
import subprocess
from dataclasses import dataclass

from .paths import DEPS, python_on

CRATE, OLD_CRATE, NPM = "libsqlite3-sys", "sqlite3-src", "better-sqlite3"  # they carry the amalgamation


@dataclass(frozen=True)
class Build:
    version: str
    package: str
    release: str
    options: tuple = ()  # without SQLITE_
    own: bool = False  # besides, those with which the package builds it

    @property
    def number(self):
        return tuple(map(int, self.version.split(".")))


def crate(version, release, *options):
    return Build(version, CRATE, release, options)


def npm(version, release, own):
    return Build(version, NPM, release, own=own)


# What SQLite's own tests call Android and Apple (test/testrunner_data.tcl), as far as it is in the public source;
# an application that loads extensions has OMIT_LOAD_EXTENSION not.
ANDROID = ("DEFAULT_AUTOVACUUM=1", "SECURE_DELETE", "ENABLE_BATCH_ATOMIC_WRITE", "ENABLE_MEMORY_MANAGEMENT",
           "DEFAULT_FILE_FORMAT=4", "POWERSAFE_OVERWRITE=1", "ALLOW_ROWID_IN_VIEW", "ENABLE_BYTECODE_VTAB",
           "DEFAULT_JOURNAL_SIZE_LIMIT=1048576", "DEFAULT_LEGACY_ALTER_TABLE")
APPLE = ("ENABLE_SETLK_TIMEOUT=2", "THREADSAFE=2", "DEFAULT_PAGE_SIZE=1024", "DEFAULT_CACHE_SIZE=1000",
         "DEFAULT_CKPTFULLFSYNC=1", "ENABLE_API_ARMOR=1", "ENABLE_NORMALIZE=1", "ENABLE_SNAPSHOT=1", "ENABLE_FTS3_TOKENIZER=1", "MAX_LENGTH=2147483645", "MAX_VARIABLE_NUMBER=500000",
         "NO_SYNC=1", "OMIT_AUTORESET=1", "USE_URI=1",
         "DISABLE_PAGECACHE_OVERFLOW_STATS=1", "DEFAULT_JOURNAL_SIZE_LIMIT=32768", "DEFAULT_WAL_SYNCHRONOUS=1")
# "Recommended Compile-time Options" of SQLite's documentation, without what Python's module cannot do without.
RECOMMENDED = ("THREADSAFE=0", "DQS=0", "DEFAULT_MEMSTATUS=0", "DEFAULT_WAL_SYNCHRONOUS=1", "LIKE_DOESNT_MATCH_BLOBS",
               "MAX_EXPR_DEPTH=0", "OMIT_DEPRECATED", "OMIT_PROGRESS_CALLBACK", "OMIT_SHARED_CACHE", "USE_ALLOCA")

TOO_OLD = "3.34.0"
BUILDS = {
    TOO_OLD: npm("3.34.0", "7.1.2", own=False),
    "3.34.1": Build("3.34.1", OLD_CRATE, "0.3.0"),
    "3.35.4-setlk1": crate("3.35.4", "0.22.2", "ENABLE_SETLK_TIMEOUT=1"),
    "3.37.0-exclusive": crate("3.37.0", "0.23.2", "DEFAULT_LOCKING_MODE=1"),
    "3.38.2-pages": crate("3.38.2", "0.24.2", "DEFAULT_PAGE_SIZE=8192", "DEFAULT_AUTOVACUUM=1", "OMIT_SHARED_CACHE"),
    "3.39.2-android": crate("3.39.2", "0.25.2", *ANDROID),
    "3.41.2-setlk1": crate("3.41.2", "0.26.0", "ENABLE_SETLK_TIMEOUT=1", "ENABLE_STAT4", "ENABLE_DBPAGE_VTAB"),
    "3.44.0-recommended": crate("3.44.0", "0.27.0", *RECOMMENDED),
    "3.45.0-atomic": crate("3.45.0", "0.28.0", "ENABLE_ATOMIC_WRITE", "ENABLE_BATCH_ATOMIC_WRITE", "THREADSAFE=1"),
    "3.46.0-armor": crate("3.46.0", "0.30.1", "ENABLE_API_ARMOR", "ENABLE_STAT4", "SECURE_DELETE",
                          "ENABLE_UNLOCK_NOTIFY"),
    "3.47.2-better": npm("3.47.2", "11.7.0", own=True),
    "3.48.0-nommap": crate("3.48.0", "0.31.0", "MAX_MMAP_SIZE=0", "ENABLE_DBPAGE_VTAB", "DEFAULT_WAL_SYNCHRONOUS=1",
                           "TEMP_STORE=3"),
    "3.49.2-setlk1": crate("3.49.2", "0.34.0", "ENABLE_SETLK_TIMEOUT=1", "THREADSAFE=2"),
    "3.50.2-setlk2": crate("3.50.2", "0.35.0", "ENABLE_SETLK_TIMEOUT=2"),
    "3.51.3-apple": crate("3.51.3", "0.37.0", *APPLE),
    "3.53.2-mmap": crate("3.53.2", "0.38.2", "THREADSAFE=2", "DEFAULT_MMAP_SIZE=268435456", "ENABLE_PREUPDATE_HOOK",
                         "ENABLE_SESSION"),
    "3.54.1-better": npm("3.54.1", "13.2.0", own=True),
    "3.54.1": crate("3.54.1", "0.40.0"),
    "3.54.1-setlk1": crate("3.54.1", "0.40.0", "ENABLE_SETLK_TIMEOUT=1", "DEFAULT_PAGE_SIZE=8192"),
}
APSW = "apsw"  # its wheel has a SQLite of its own; tests/matrix/apsw/sqlite3.py stands for Python's module
NAMES = [*BUILDS, APSW]


def directory(name):
    return DEPS / "sqlites" / name


LOOK = """
import json, sqlite3
db = sqlite3.connect(":memory:")
maps = open("/proc/self/maps").read().split()
print(json.dumps({
    "version": db.execute("SELECT sqlite_version()").fetchone()[0],
    "options": [row[0] for row in db.execute("PRAGMA compile_options")],
    "files": sorted({m for m in maps if "libsqlite3.so" in m or "/apsw/" in m}),
}))
"""


def look(name):
    """What a program that runs on this build finds there."""
    done = subprocess.run([python_on(name), "-c", LOOK], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return json.loads(done.stdout)


def check(name):
    """That programs run on this build and on no other SQLite."""
    found = look(name)
    options, files = found["options"], found["files"]
    if name == APSW:
        assert files and all("/apsw/" in f for f in files), files
        assert "ENABLE_SETLK_TIMEOUT" in options, f"apsw is built another way now: {options}"
        return
    assert files == [str(directory(name) / "libsqlite3.so.0")], files
    assert found["version"] == BUILDS[name].version, f"{name} is {found['version']}"
    lacking = [o for o in BUILDS[name].options if not reported(o, options)]
    assert not lacking, f"{name} is not built with {lacking}: {options}"


# What `PRAGMA compile_options` does not tell, in any version or in older ones.
UNTOLD = {"ENABLE_SETLK_TIMEOUT=1", "ENABLE_SETLK_TIMEOUT=2",  # told since 3.54
          "POWERSAFE_OVERWRITE=1", "ALLOW_ROWID_IN_VIEW", "DEFAULT_LEGACY_ALTER_TABLE"}


def reported(option, options):
    """Whether the option is among those that SQLite reports; some it reports without a value, some never."""
    return option in options or option.removesuffix("=1") in options or option in UNTOLD
