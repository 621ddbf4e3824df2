"""What a connection may do: schema code nothing, a reader nothing with effects, and the authorizer is asked."""
import json

import pytest
from harness.check import identical, in_words, open_refused, refused
from harness.host import AUTH, CANTOPEN, READONLY, SqlError
from harness.shell import python, stock

# Name, arguments before the schema: all that has effects on a schema, and all that has none.
EFFECTS = {"replica_exec": "'DELETE FROM users'", "replica_config": "'timeout', 5", "replica_resync": "", "replica_freeze": "",
           "replica_rekey": "'other words'", "replica_open": "'{other}', '{{}}'", "replica_adopt": "1"}
NONE = {"replica_sync": "", "replica_status": "", "replica_frame_no": "", "replica_wait": "0, 1", "replica_last_error": "",
        "replica_version": ""}
NO_SCHEMA = ("replica_exec", "replica_open", "replica_adopt", "replica_last_error", "replica_version")


def call(name, path, schema=None):
    arguments = [{**EFFECTS, **NONE}[name].format(other=path.with_name("other.db"))]
    if schema and name not in NO_SCHEMA:
        arguments.append(repr(schema))
    return f"SELECT {name}({', '.join(a for a in arguments if a)})"


def ours(db, kind, column="name"):
    return db(f"SELECT DISTINCT {column} FROM pragma_{kind}_list WHERE name LIKE 'replica%'")


def test_nothing_of_ours_can_be_used_by_schema_code(replica, host, path):
    """Each function with each number of arguments, and each table, from a view and from a trigger."""
    functions = ours(replica, "function", "name, narg")
    tables = [name for (name,) in ours(replica, "module")]
    assert {name for name, _ in functions} == {*EFFECTS, *NONE} and tables == ["replica_databases"]
    uses = [f"SELECT {name}({', '.join(['NULL'] * abs(count))}) AS x" for name, count in functions]
    uses += [f"SELECT count(*) AS x FROM {table}" for table in tables]
    for trusted in (0, 1):
        db = host.plain(":memory:")
        db(f"PRAGMA trusted_schema = {trusted}")
        for number, use in enumerate(uses):
            db(f"CREATE TABLE t{number}(a)")
            db(f"CREATE VIEW v{number} AS {use}")
            db(f"CREATE TRIGGER g{number} AFTER INSERT ON t{number} BEGIN {use.replace(' AS x', '')}; END")
            for statement in (f"SELECT * FROM v{number}", f"INSERT INTO t{number} VALUES(1)"):
                with pytest.raises(SqlError, match="unsafe use of"):
                    db(statement)


@pytest.mark.parametrize("schema", [None, "app"])
@pytest.mark.parametrize("name", EFFECTS)
def test_a_reader_has_no_effects(name, schema, host, replica, primary, path):
    """mode=ro for the schema that is named, query_only for all; the primary, the file and the options are as before."""
    if schema and name in NO_SCHEMA:
        pytest.skip("it names no schema")
    reader = host.open(path, primary.url, mode="ro")
    if schema:
        reader = host.plain(":memory:", uri=True)
        reader("ATTACH ? AS app", f"file:{path}?vfs=replica&mode=ro")
    refused(lambda: reader(call(name, path, schema)), "reading alone", code=READONLY)
    replica("PRAGMA query_only = 1")
    refused(lambda: replica(call(name, path)), "query_only", code=READONLY)
    replica("PRAGMA query_only = 0")
    assert primary.sql("SELECT count(*) FROM users") == [[200]]
    assert host.plain(path.with_name("other.db")).one("PRAGMA journal_mode") == "delete"
    replica("INSERT INTO users(name) VALUES('still a replica')")
    identical(path, primary)


@pytest.mark.parametrize("name", NONE)
def test_a_reader_reads_and_syncs(name, host, replica, primary, path):
    reader = host.open(path, primary.url, mode="ro")
    replica("PRAGMA query_only = 1")
    for db in (reader, replica):
        assert db(call(name, path))


ASKING = """
asked, deny = [], lambda *asked: False
def authorizer(action, one, two, schema, inner):
    if action != sqlite3.SQLITE_SELECT: asked.append((action, one, schema))
    return VERDICT if deny(action, schema) else sqlite3.SQLITE_OK
def outcome(sql):
    asked.clear()
    try:
        return db.execute(sql).fetchall() and 0
    except sqlite3.Error as error:
        return error.sqlite_errorcode & 255
"""


@pytest.mark.parametrize("verdict", ["sqlite3.SQLITE_DENY", "sqlite3.SQLITE_IGNORE"])
@pytest.mark.parametrize("name", [name for name in EFFECTS if name != "replica_rekey"])
def test_the_authorizer_is_asked(name, verdict, primary, path):
    """As for an UPDATE of the database that is named; nothing has happened where it says no."""
    ignored = verdict.endswith("IGNORE")  # of an UPDATE's columns SQLite does not tell; of all that writes it does
    program = ASKING.replace("VERDICT", verdict) + f"""
db = open_replica({str(path)!r}, {primary.url!r})
db.execute("ATTACH ':memory:' AS other")
db.set_authorizer(authorizer)
writes = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_CREATE_TABLE) if {ignored} else (sqlite3.SQLITE_UPDATE,)
deny = lambda action, schema: action in writes and schema == 'main'
print(outcome({call(name, path)!r}))
deny = lambda action, schema: action == sqlite3.SQLITE_PRAGMA
print(outcome({call(name, path)!r}))
deny = lambda action, schema: action == sqlite3.SQLITE_UPDATE and schema == 'other'
db.execute("SELECT replica_config('timeout', 5)").fetchall()
print((sqlite3.SQLITE_UPDATE, 'sqlite_master', 'main') in asked)
"""
    assert python(program).split() == [str(AUTH), str(AUTH), "True"]
    assert primary.sql("SELECT count(*) FROM users") == [[200]]
    assert stock(path, "SELECT count(*) FROM users;") == "200"
    python(f"open_replica({str(path)!r}).execute('INSERT INTO users(name) VALUES(1)')")
    identical(path, primary)


def test_the_authorizer_of_an_empty_database_and_of_a_key(primary, path, tmp_path):
    """rekey on a local file; the schema need not hold a table to be asked about."""
    program = ASKING.replace("VERDICT", "sqlite3.SQLITE_DENY") + f"""
path = {str(path)!r}
db = open_replica(path, encryption_key='words')
db.set_authorizer(authorizer)
deny = lambda action, schema: action == sqlite3.SQLITE_UPDATE
print(outcome("SELECT replica_rekey('other')"))
deny = lambda action, schema: False
db.execute("CREATE TABLE t(a)")
print(outcome("SELECT replica_rekey('other')"))
db.close()
print(open_replica(path, encryption_key='other').execute("SELECT count(*) FROM t").fetchall())
"""
    assert python(program).split() == [str(AUTH), "0", "[(0,)]"]


def test_resync_repairs_a_schema_that_cannot_be_read(replica, primary, path):
    """What can be asked about it then is asked; the way out stays open."""
    stock(path, "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE TABLE users(' WHERE name = 'users';"
                "PRAGMA schema_version = 9999;")
    with pytest.raises(SqlError, match="malformed"):
        replica("SELECT count(*) FROM users")
    replica("SELECT replica_resync()")
    assert replica.one("SELECT count(*) FROM users") == 200
    identical(path, primary)


# --- replica_open touches nothing that is another's ------------------------------------------------------

def test_replica_open_leaves_other_databases_alone(host, primary, path):
    options = json.dumps({"sync_url": primary.url})
    loader = host.plain(":memory:")
    existing, empty, folder = (path.with_name(name) for name in ("existing.db", "empty.db", "folder.db"))
    plain = host.plain(existing)
    plain("CREATE TABLE t(a)")
    open_and_empty = host.plain(empty)
    folder.mkdir()
    for path_, why in ((existing, "neither a replica nor encrypted"), (empty, "is open"), (folder, "is no file")):
        refused(lambda: loader("SELECT replica_open(?, ?)", str(path_), options), str(path_), why)
    for path_, options_ in ((existing, "{}"), (existing, '{"encryption_key": "words"}')):
        refused(lambda: loader("SELECT replica_open(?, ?)", str(path_), options_), str(path_))
    open_and_empty("CREATE TABLE t(a)")
    for path_ in (existing, empty):
        again = host.plain(path_)
        again("INSERT INTO t VALUES(1)")
        assert again.one("PRAGMA journal_mode") == "delete"


def test_replica_open_of_what_is_its_own(host, primary, path):
    """A file yet to be made, an empty one that nobody has open, a replica, open or not, an encrypted database."""
    loader = host.plain(":memory:")

    def register(path_, **options):
        loader("SELECT replica_open(?, ?)", str(path_), json.dumps(options))
        return host.plain(path_)

    empty = path.with_name("empty.db")
    empty.touch(0o600)
    assert register(empty, sync_url=primary.url).one("SELECT count(*) FROM users") == 200
    db = register(path, sync_url=primary.url)
    assert register(path, sync_url=primary.url, live=True).status()["live"] == 1
    refused(lambda: register(path, sync_url="http://127.0.0.1:1"), "sync_url", "open")
    db.close()
    local = path.with_name("local.db")
    host.open(local, encryption_key="words")("CREATE TABLE t(a)")
    assert register(local, encryption_key="words").one("SELECT count(*) FROM t") == 0


# --- what several connections share ----------------------------------------------------------------------

@pytest.mark.parametrize("name, first, second", [
    ("namespace", None, "other"), ("namespace", "default", "other"), ("ca_file", None, "/etc/hostname"), ("auth_token", "secret.one", "secret.two"),
])
def test_a_second_open_that_contradicts(name, first, second, host, primary, path, monkeypatch):
    monkeypatch.setattr("harness.host.DEFAULTS", {})
    given = {name: first} if first else {}
    db = host.open(path, primary.url, **given)
    open_refused(host, path, primary.url, f"another {name}", **{name: second})
    assert "secret" not in host.last_error()
    open_refused(host, path, None, f"another {name}", **{name: second})
    # What is left out, or said again, is as it is.
    assert host.open(path, primary.url, **given).sync() and host.open(path).sync()
    assert db.sync()
    db.close()


def test_how_commits_travel_is_what_was_said_last(host, primary, path, monkeypatch):
    monkeypatch.setattr("harness.host.DEFAULTS", {})
    db = host.open(path, primary.url)
    db("UPDATE users SET name = 'as pages' WHERE id = 1")
    assert db.status()["write_path"] == "pages"
    other = host.open(path, write_path="rows", write_lock="optimistic", timeout=11, read_your_writes=0)
    host.open(path)
    db("UPDATE users SET name = 'as rows' WHERE id = 1")
    assert db.status()["write_path"] == "rows"
    assert other.one("SELECT name FROM users WHERE id = 1") == "as pages"
    other.sync()
    assert other.one("SELECT name FROM users WHERE id = 1") == "as rows"


def test_a_second_open_with_another_primary(host, primary, new_primary, path):
    other = new_primary("CREATE TABLE t(a);")
    db = host.open(path, primary.url)
    open_refused(host, path, other.url, "another sync_url")
    assert primary.url not in host.last_error() and other.url not in host.last_error()
    assert host.open(path, primary.url + "/").one("SELECT count(*) FROM users") == 200
    assert db.sync()


def test_a_renewed_token(host, guarded, signer, path):
    """It is changed for all, by word; an open that gives the new one then agrees, one that gives the old one does not."""
    old, new = guarded.token, signer.token("rw", 7200)
    db = host.open(path, guarded.url, auth_token=old)
    with pytest.raises(SqlError) as error:
        host.open(path, guarded.url, auth_token=new)
    assert error.value.code == CANTOPEN
    in_words(host.last_error(), "auth_token", "replica_config('auth_token'")
    db("SELECT replica_config('auth_token', ?)", new)
    assert host.open(path, guarded.url, auth_token=new).sync()
    with pytest.raises(SqlError):
        host.open(path, guarded.url, auth_token=old)
    assert db.sync()
