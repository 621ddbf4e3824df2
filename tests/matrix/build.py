#!/usr/bin/python3
"""Compiles the SQLites of tests/harness/sqlites.py into target/deps/sqlites/NAME/, two at a time; those that are there
and were made in the same way stay. `build.py NAME…`: only these."""
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.paths import DEPS
from harness.sqlites import APSW, BUILDS, CRATE, NAMES, NPM, OLD_CRATE, check, directory

HERE = Path(__file__).parent
STAND_INS = HERE / "stand_ins.c"
SOURCES = DEPS / "sqlites/sources"
FOLDER = {CRATE: "sqlite3", OLD_CRATE: "source"}  # of a crate, where the amalgamation lies
# Unoptimised: it takes a third of the time, and is the same order of calls and locks.
FLAGS = ["-O0", "-w", "-fmax-errors=9", "-fPIC", "-shared", "-Wl,-soname,libsqlite3.so.0"]
# What Python's module and the tests want of every build. Without HAVE_USLEEP old ones wait in whole seconds.
COMMON = ["HAVE_USLEEP=1", "SQLITE_ENABLE_COLUMN_METADATA", "SQLITE_ENABLE_DESERIALIZE",
          "SQLITE_ENABLE_LOAD_EXTENSION", "SQLITE_ENABLE_FTS3", "SQLITE_ENABLE_FTS5", "SQLITE_ENABLE_RTREE",
          "SQLITE_ENABLE_JSON1", "SQLITE_ENABLE_MATH_FUNCTIONS"]
LIBRARIES = ["-lpthread", "-ldl", "-lm"]


def run(*command, **options):
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, **options)


# --- sources ---

def crate_source(crate, release):
    """Where cargo keeps the crate; a package that needs nothing else makes it fetch it."""
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))

    def found():
        return next((home / "registry/src").glob(f"*/{crate}-{release}/{FOLDER[crate]}/sqlite3.c"), None)

    if not found():
        package = SOURCES / f"{crate}-{release}"
        (package / "src").mkdir(parents=True, exist_ok=True)
        (package / "src/lib.rs").touch()
        (package / "Cargo.toml").write_text(
            f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n'
            f'[dependencies]\n{crate} = {{ version = "={release}", default-features = false }}\n')
        run("cargo", "fetch", "--target", "x86_64-unknown-linux-gnu", cwd=package)
    return found()


def npm_source(package, release):
    """The amalgamation, in older releases inside another archive, and the package's own definitions."""
    folder = SOURCES / f"{package}-{release}"
    if not folder.exists():
        fresh = folder.with_suffix(".part")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        run("npm", "pack", "--silent", f"{package}@{release}", cwd=fresh)
        unpack(next(fresh.glob("*.tgz")), fresh)
        for inner in fresh.glob("package/deps/*.tar.gz"):
            unpack(inner, inner.parent)
        fresh.rename(folder)
    own = re.findall(r"'((?:SQLITE|HAVE)_[^']+)'", (folder / "package/deps/defines.gypi").read_text())
    return next(folder.glob("package/deps/**/sqlite3.c")), own


def unpack(archive, folder):
    run("tar", "xzf", archive, "-C", folder)


# --- builds ---

def compile_one(name):
    """What was done, in words."""
    build, target = BUILDS[name], directory(name)
    if build.package == NPM:
        source, own = npm_source(build.package, build.release)
    else:
        source, own = crate_source(build.package, build.release), []
    given = [f"SQLITE_{option}" for option in build.options] + (own if build.own else [])
    common = [c for c in COMMON if c not in given]
    command = ["cc", *FLAGS, *(f"-D{d}" for d in common + given), f"-I{source.parent}", source, STAND_INS, *LIBRARIES]
    digest = hashlib.sha256(source.read_bytes() + STAND_INS.read_bytes()).hexdigest()
    stamp = json.dumps({"command": list(map(str, command)), "digest": digest})
    library, kept = target / "libsqlite3.so.0", target / "stamp"
    if library.exists() and kept.exists() and kept.read_text() == stamp:
        return f"{name}: there"
    start = time.monotonic()
    target.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    run(*command, "-o", library)
    wrapper(target, "LD_LIBRARY_PATH", target)
    check(name)
    kept.write_text(stamp)
    return f"{name}: {time.monotonic() - start:.1f} s, {library.stat().st_size / 1e6:.1f} MB, from {build.package} {build.release}"


def wrapper(target, variable, *folders):
    """Debian's Python with one more variable."""
    value = shlex.quote(":".join(map(str, folders)))
    target.mkdir(parents=True, exist_ok=True)
    script = target / "python3"
    script.write_text(f'#!/bin/sh\n{variable}={value} exec /usr/bin/python3 "$@"\n')
    script.chmod(0o755)


def apsw():
    wrapper(directory(APSW), "PYTHONPATH", HERE / "apsw", DEPS / "py")
    check(APSW)
    return f"{APSW}: from PyPI"


def make(name):
    return apsw() if name == APSW else compile_one(name)


def main(names):
    unknown = set(names) - set(NAMES)
    if unknown:
        sys.exit(f"no such build: {', '.join(sorted(unknown))}")
    os.nice(10)
    with ThreadPoolExecutor(2) as pool:
        for said in pool.map(make, names or NAMES):
            print(said, flush=True)


main(sys.argv[1:])
