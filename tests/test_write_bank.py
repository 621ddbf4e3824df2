"""Concurrent transfers between accounts, with crashes of every part: no money made or lost, no transfer twice."""
import random
import subprocess
import threading
import time

import pytest
from harness.check import identical
from harness.faults import CUT, CUT_ANSWER, CUT_INSIDE, PASS, Late
from harness.host import replica_uri
from harness.paths import LIB, PYTHON
from harness.primary import SqlFailed, eventually

pytestmark = pytest.mark.usefixtures("write_path")

ACCOUNTS, MONEY, SECONDS = 20, 1000, 4
SEED = f"""
CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
CREATE TABLE ledger(id TEXT PRIMARY KEY, payer INTEGER, payee INTEGER, amount INTEGER, note BLOB);
CREATE TRIGGER noted AFTER INSERT ON ledger BEGIN
  UPDATE accounts SET note = new.id WHERE id = new.payer;
END;
INSERT INTO accounts SELECT value, {MONEY}, '' FROM generate_series(1, {ACCOUNTS});
"""
TELLER = f"""
import random, sqlite3, sys, time
uri, name, immediate = sys.argv[1], sys.argv[2], sys.argv[3] == "immediate"
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({LIB!r})
rng = random.Random(name)
db = sqlite3.connect(uri, uri=True, isolation_level=None)
print("ready", flush=True)
number = 0
while True:
    number += 1
    transfer = f"{{name}}-{{number}}"
    payer, payee = rng.sample(range(1, {ACCOUNTS} + 1), 2)
    amount = rng.randrange(1, 50)
    print("try", transfer, flush=True)
    try:
        db.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
        total, = db.execute("SELECT sum(balance) FROM accounts").fetchone()
        assert total == {ACCOUNTS * MONEY}, f"a reader sees {{total}}"
        has, = db.execute("SELECT balance FROM accounts WHERE id = ?", [payer]).fetchone()
        gets, = db.execute("SELECT balance FROM accounts WHERE id = ?", [payee]).fetchone()
        db.execute("UPDATE accounts SET balance = ? WHERE id = ?", [has - amount, payer])
        db.execute("UPDATE accounts SET balance = ? WHERE id = ?", [gets + amount, payee])
        db.execute("INSERT INTO ledger VALUES(?, ?, ?, ?, randomblob(?))",
                   [transfer, payer, payee, amount, rng.randrange(400)])
        db.execute("COMMIT")
        print("done", transfer, flush=True)
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xff
        print({{5: "no", 8: "no", 10: "unknown"}}.get(code, "unexpected"), transfer, error.sqlite_errorname, error, flush=True)
        if db.in_transaction:
            db.execute("ROLLBACK")
        time.sleep(rng.uniform(0, 0.03))
    except BaseException as error:
        print("unexpected", transfer, type(error).__name__, error, flush=True)
        raise
"""


class Teller:
    """A process that transfers without end; what it was told of each is kept."""

    def __init__(self, name, uri, begin):
        self.said, self.process = [], subprocess.Popen([PYTHON, "-c", TELLER, uri, name, begin], text=True,
                                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=lambda: self.said.extend(line.split(" ", 2) for line in self.process.stdout))
        self.reader.start()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        errors = self.process.stderr.read()
        assert not errors, errors

    def told(self, what):
        return {line[1].strip() for line in self.said if line[0] == what and len(line) > 1}


class Client(threading.Thread):
    """The same over SQL, straight to the primary."""

    def __init__(self, primary, name):
        super().__init__()
        self.primary, self.name_, self.stopping, self.said = primary, name, False, []
        self.start()

    def run(self):
        rng, number = random.Random(self.name_), 0
        while not self.stopping:
            number += 1
            transfer = f"{self.name_}-{number}"
            payer, payee = rng.sample(range(1, ACCOUNTS + 1), 2)
            amount = rng.randrange(1, 50)
            try:
                with self.primary.stream() as run:
                    run("BEGIN IMMEDIATE")
                    ((has,),) = run("SELECT balance FROM accounts WHERE id = ?", payer)
                    ((gets,),) = run("SELECT balance FROM accounts WHERE id = ?", payee)
                    run("UPDATE accounts SET balance = ? WHERE id = ?", has - amount, payer)
                    run("UPDATE accounts SET balance = ? WHERE id = ?", gets + amount, payee)
                    run("INSERT INTO ledger VALUES(?, ?, ?, ?, NULL)", transfer, payer, payee, amount)
                    run("COMMIT")
                self.said.append(("done", transfer))
            except (SqlFailed, OSError, ValueError):
                self.said.append(("unknown", transfer))  # restarted, or robbed
            time.sleep(rng.uniform(0.01, 0.1))

    def end(self):
        self.stopping = True
        self.join()

    def told(self, what):
        return {transfer for said, transfer in self.said if said == what}


def check_books(rows, accounts):
    """The balances are what the ledger says, each transfer once (its id is unique)."""
    balance = dict.fromkeys(range(1, ACCOUNTS + 1), MONEY)
    for _, payer, payee, amount in rows:
        balance[payer] -= amount
        balance[payee] += amount
    assert dict(accounts) == balance, "an update was lost"
    assert sum(balance.values()) == ACCOUNTS * MONEY


FAULTS = ["none", "kills", "restarts", "cuts"]


@pytest.mark.parametrize("write_lock", ["eager", "optimistic"])
@pytest.mark.parametrize("fault", FAULTS)
def test_transfers(fault, write_lock, new_primary, new_fault_proxy, new_host, tmp_path):
    rng = random.Random(f"{fault} {write_lock}")
    primary = new_primary(SEED)
    proxy = new_fault_proxy(primary.url)
    url = proxy.url if fault == "cuts" else primary.url
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    for path in (one, two):
        db = new_host().open(path, url)
        db.host.close()
    names = iter(range(1000))

    def teller(place):
        path, begin = [(one, "immediate"), (one, "deferred"), (two, "deferred"), (two, "immediate")][place]
        uri = replica_uri(path, url, write_lock=write_lock, timeout=1)
        return Teller(f"{place}.{next(names)}", uri, begin)

    staff = [teller(place) for place in range(3)]
    everybody = [*staff, Client(primary, "client")]
    begun, least = time.monotonic(), 10 if fault == "cuts" else 30

    def rule(request):
        if (request.begins or request.commits) and rng.random() < 0.08:
            return rng.choice([CUT, CUT_INSIDE, CUT_ANSWER, CUT_ANSWER, Late(0.3), Late(1.2)])
        if rng.random() < 0.01:
            return rng.choice([CUT, CUT_ANSWER])
        return PASS

    def transfers():
        return sum(len(member.told("done")) for member in everybody)

    if fault == "cuts":
        proxy.rule = rule
    try:
        # A lock whose owner was killed is the primary's for 5 s: then it takes longer.
        while (passed := time.monotonic() - begun) < SECONDS or transfers() < least:
            assert passed < 60, f"{transfers()} transfers in a minute"
            time.sleep(rng.uniform(0.2, 0.8))
            if fault == "kills":
                place = rng.randrange(3)
                staff[place].end()
                staff[place] = teller(place)
                everybody.append(staff[place])
            elif fault == "restarts":
                time.sleep(0.5)
                primary.restart()
    finally:
        for member in everybody:
            member.end()
    proxy.rule = lambda request: PASS

    time.sleep(0.2)
    ledger = primary.sql("SELECT id, payer, payee, amount FROM ledger")
    ids = {row[0] for row in ledger}
    check_books(ledger, primary.sql("SELECT id, balance FROM accounts"))
    counts = {}
    for member in everybody:
        for said in member.said:
            assert said[0] != "unexpected", said
        done, no = member.told("done"), member.told("no")
        assert done <= ids, f"acknowledged and not there: {done - ids}"
        assert not no & ids, f"refused and there: {no & ids}"
        for said in ("done", "no", "unknown"):
            counts[said] = counts.get(said, 0) + len(member.told(said))
    print(fault, write_lock, counts)
    if fault in ("none", "kills"):
        assert counts["unknown"] == 0
    for path in (one, two):
        db = new_host().open(path, primary.url)
        eventually(lambda: db.sync()["frame_no"] == primary.hello()[1])
        check_books(db("SELECT id, payer, payee, amount FROM ledger"), db("SELECT id, balance FROM accounts"))
        identical(path, primary)
    assert primary.sql("PRAGMA integrity_check") == [["ok"]]
