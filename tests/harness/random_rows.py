"""Random schemas and random transactions, from a seed."""
import sqlite3

from harness.rows import connect, quoted

TYPES = ["", "INT", "INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC", "VARCHAR(9)", "DOUBLE"]
DEFAULTS = [f"DEFAULT {value}" for value in ["7", "-007", "(+5)", "1.5", "-0.25", "0.1", "1.0", "1e3", "5000000000", "0x10", "'d'",
                                              "' 5'", "'1e3'", "''", "x'00fF'", "NULL", "TRUE", "word", "(NULL)", "('it''s')"]]
WORDS = ["a", "b", "Ab", "aB", "", "zz", "x y", "é", "0", "1", "-5", "1e3", "nan"]


class Case:
    def __init__(self, rng, path):
        self.rng, self.path = rng, path
        self.serial = 0
        self.db = connect(path)
        # SQLite's own would not come back with the seed.
        self.db.create_function("random", 0, lambda: rng.getrandbits(64) - 2**63)
        self.db.create_function("randomblob", 1, rng.randbytes)
        pick = rng.choice
        self.run(f"PRAGMA page_size={pick([512, 512, 1024, 4096, 4096])}")
        encoding = pick(["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"])
        self.run(f"PRAGMA encoding='{encoding}'")
        self.utf8 = encoding == "UTF-8"
        # Stock SQLite loses index entries of malformed UTF-16.
        self.malformed = 0.05 if self.utf8 else 0
        self.run(f"PRAGMA auto_vacuum={pick([0, 0, 1, 2])}")
        self.run(f"PRAGMA foreign_keys={pick(['on', 'off'])}")
        self.run(f"PRAGMA recursive_triggers={pick(['on', 'off'])}")
        self.run("CREATE TABLE log(what, n)")
        for _ in range(rng.randint(1, 5)):
            self.table()
        for _ in range(rng.randint(0, 6)):
            self.something_else()
        for _ in range(rng.randint(0, 60)):
            self.write()
        if rng.random() < 0.3:
            self.fill()

    # Statements that fail are part of the game.
    def run(self, sql, args=()):
        try:
            self.db.execute(sql, args)
            return True
        except (sqlite3.Error, OverflowError) as e:
            self.failed = e
            return False

    def name(self, head):
        self.serial += 1
        return f"{head}{self.serial}" if self.rng.random() < 0.9 else f"{head} '\"{self.serial}"

    def value(self):
        r, k = self.rng, self.rng.random()
        if k < 0.1:
            return None
        if k < 0.4:
            return r.choice([0, 1, -1, 2, 3, 7, 127, 128, -129, 40000, 2**31, -2**40, 2**62, 2**63 - 1, -2**63])
        if k < 0.5:
            return r.choice([0.5, 1.0, -0.0, 1e300, float("inf"), float("-inf"), 3.0, 2.0**60, 0.1])
        if k < 0.75:
            return r.choice(WORDS) + r.choice(["", "", "!", "\0x"])
        if k < 0.8:
            return r.choice("xyzé") * r.choice([10, 100, 480, 2000, 9000])
        if k < 0.95:
            return bytes(r.randrange(256) for _ in range(r.choice([0, 1, 3, 8, 40])))
        return r.randbytes(r.choice([400, 500, 1000, 4000, 4090, 20000]))

    def objects(self, kind):
        rows = self.db.execute("SELECT name FROM sqlite_schema WHERE type=? AND name NOT LIKE 'sqlite_%'", (kind,))
        return [r[0].decode(errors="replace") for r in rows]

    def tables(self):
        """Those that may be written: no shadow tables."""
        every = self.objects("table")
        virtual = [r[0].decode(errors="replace") for r in self.db.execute("SELECT name FROM sqlite_schema WHERE rootpage=0 AND type='table'")]
        return [t for t in every if not any(t.startswith(v + "_") for v in virtual)] or ["none"]

    def columns(self, table, hidden=()):
        info = self.db.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
        return [r[1].decode(errors="replace") for r in info if r[6] == 0]

    def table(self):
        r, name = self.rng, self.name("t")
        columns = [f"c{i}" for i in range(r.randint(1, 6))]
        if r.random() < 0.15:
            columns[0] = r.choice(["rowid", "oid", "_rowid_"])
        if r.random() < 0.05:
            columns = ["rowid", "oid", "_rowid_"] + columns[1:]
        strict = r.random() < 0.1
        kinds = ["INT", "TEXT", "REAL", "BLOB", "ANY", "INTEGER"] if strict else TYPES
        defs, tail, options = [], [], []
        form = r.random()
        without = form < 0.3
        for i, c in enumerate(columns):
            d = f"{c} {r.choice(kinds)}"
            if r.random() < 0.2:
                d += f" COLLATE {r.choice(['NOCASE', 'RTRIM', 'binary'])}"
            if r.random() < 0.2:
                d += f" DEFAULT {r.choice(['5', chr(39) + 'd' + chr(39), '(1+1)', '-1.5', 'NULL'])}"
            if r.random() < 0.1 and i:
                d += r.choice([" UNIQUE", " UNIQUE ON CONFLICT REPLACE", " UNIQUE ON CONFLICT IGNORE"])
            if r.random() < 0.05:
                d += f" REFERENCES {quoted(r.choice(self.tables()))} ON DELETE {r.choice(['CASCADE', 'SET NULL'])} ON UPDATE CASCADE"
            defs.append(d)
        if without:
            key = r.sample(columns, r.randint(1, min(3, len(columns))))
            if r.random() < 0.1:
                key.append(key[0])
            parts = [k + r.choice(["", " DESC", " COLLATE NOCASE", " COLLATE BINARY", " COLLATE RTRIM DESC"]) for k in key]
            tail.append(f"PRIMARY KEY({', '.join(parts)})")
            options.append("WITHOUT ROWID")
        elif form < 0.6:
            defs[0] = columns[0] + r.choice([" INTEGER PRIMARY KEY", " INTEGER PRIMARY KEY AUTOINCREMENT", " INTEGER PRIMARY KEY DESC", " INT PRIMARY KEY", " INTEGER PRIMARY KEY ON CONFLICT REPLACE"])
        elif form < 0.7:
            tail.append(f"PRIMARY KEY({', '.join(r.sample(columns, min(2, len(columns))))})")
        if r.random() < 0.2:
            tail.append(f"UNIQUE({r.choice(columns)}, {r.choice(columns)})")
        if r.random() < 0.25:
            form = r.choice(["g{} AS ({}||'x') {}", "g{} INT GENERATED ALWAYS AS (length({})) {}"])
            if strict:
                form = "g{} INT AS (length({})) {}"
            defs.insert(r.randint(0, len(defs)), form.format(self.serial, r.choice(columns), r.choice(["", "STORED", "VIRTUAL"])))
        if r.random() < 0.1:
            tail.append(f"CHECK({columns[0]} IS NOT 'never, (')")
        if strict:
            options.append("STRICT")
        space = r.choice(["", " ", "\n  -- note\n"])
        self.run(f"CREATE TABLE {quoted(name) if not name.isalnum() else name}({', '.join(defs + tail)}{space}) {', '.join(options)}")

    def index(self):
        r, t = self.rng, self.rng.choice(self.tables())
        columns = self.columns(t)
        if not columns:
            return
        # In UTF-16, stock SQLite has two minds about a blob that is taken for text.
        texts = ["lower({})", "{}||'x'"] if self.utf8 else ["typeof({})"]
        what = [r.choice(["{}", "{} DESC", "{} COLLATE NOCASE", *texts]).format(quoted(c)) for c in r.sample(columns, min(len(columns), r.randint(1, 2)))]
        where = r.choice(["", "", f" WHERE {quoted(r.choice(columns))} IS NOT NULL"])
        self.run(f"CREATE {r.choice(['', 'UNIQUE '])}INDEX {quoted(self.name('i'))} ON {quoted(t)}({', '.join(what)}){where}")

    def trigger(self):
        r = self.rng
        t, u = r.choice(self.tables()), r.choice(self.tables())
        columns = self.columns(u)
        if not columns:
            return
        c = quoted(r.choice(columns))
        what = r.choice(["INSERT", "UPDATE", "DELETE"])
        body = r.choice([
            f"INSERT INTO log VALUES('{what}', (SELECT count(*) FROM log))",
            f"UPDATE {quoted(u)} SET {c}=random() WHERE {c} IS NULL",
            f"DELETE FROM {quoted(u)} WHERE {c}=1",
            f"INSERT OR IGNORE INTO {quoted(u)}({c}) VALUES(abs(random())%100)",
        ])
        self.run(f"CREATE TRIGGER {quoted(self.name('g'))} {r.choice(['BEFORE', 'AFTER'])} {what} ON {quoted(t)} WHEN (SELECT count(*) FROM log)<200 BEGIN {body}; END")

    def virtual(self):
        r, name = self.rng, self.name("v")
        self.run(r.choice([
            f"CREATE VIRTUAL TABLE {quoted(name)} USING fts5(a, b{r.choice(['', ', prefix=2', ', detail=none'])})",
            f"CREATE VIRTUAL TABLE {quoted(name)} USING rtree(id, a, b)",
            f"CREATE VIRTUAL TABLE {quoted(name)} USING fts4(a, b)",
        ]))

    def view(self):
        t = self.rng.choice(self.tables())
        columns = self.columns(t)
        if columns:
            self.run(f"CREATE VIEW {quoted(self.name('w'))} AS SELECT {quoted(self.rng.choice(columns))} AS z FROM {quoted(t)}")

    def something_else(self):
        self.rng.choice([self.index, self.index, self.trigger, self.trigger, self.virtual, self.view])()

    def write(self):
        r, t = self.rng, self.rng.choice(self.tables())
        columns = self.columns(t)
        if not columns:
            return
        name, k = quoted(t), r.random()
        if k < 0.5:
            some = r.sample(columns, r.randint(1, len(columns))) if r.random() < 0.3 else columns
            values = [self.value() for _ in some]
            marks = ["?" if r.random() >= self.malformed else f"CAST(x'{r.randbytes(5).hex()}' AS TEXT)" for _ in some]
            values = [v for v, m in zip(values, marks) if m == "?"]
            verb = r.choice(["INSERT", "INSERT", "REPLACE", "INSERT OR IGNORE"])
            self.run(f"{verb} INTO {name}({', '.join(map(quoted, some))}) VALUES({', '.join(marks)})", values)
        elif k < 0.75:
            c, d = quoted(r.choice(columns)), quoted(r.choice(columns))
            what = r.choice(["?", "?", f"{c}+1", f"-{c}", f"{c}||'y'", f"upper({c})", d, "zeroblob(3000)"])
            args = [self.value()] if what == "?" else []
            where = r.choice([f"{d} IS NOT NULL AND {d}<1000", f"{d} = (SELECT {d} FROM {name} LIMIT 1 OFFSET {r.randint(0, 20)})", "random()%4=0", f"typeof({d})='text'"])
            self.run(f"UPDATE {r.choice(['', 'OR REPLACE ', 'OR IGNORE '])}{name} SET {c}={what} WHERE {where}", args)
        elif k < 0.85:
            d = quoted(r.choice(columns))
            self.run(f"DELETE FROM {name} WHERE {r.choice(['random()%5=0', f'{d} IS NULL', f'{d}=1', 'random()%2=0'])}")
        elif k < 0.9:
            self.run(f"UPDATE {name} SET rowid=rowid+? WHERE random()%3=0", (r.choice([1, -7, 1000, 2**40]),))
        elif k < 0.94:
            c = quoted(r.choice(columns))
            # In place: the same size, another byte far behind.
            self.run(f"UPDATE {name} SET {c}=CAST(substr({c},1,length({c})-1)||'#' AS BLOB) WHERE typeof({c})='blob' AND length({c})>400")
        elif k < 0.97:
            c = quoted(columns[0])
            self.run(f"INSERT INTO {name}({c}) VALUES(?) ON CONFLICT DO UPDATE SET {c}=?", (self.value(), self.value()))
        else:
            self.run(f"UPDATE sqlite_sequence SET seq=seq+{r.randint(-3, 30)}")

    def fill(self):
        t = self.rng.choice(self.tables())
        columns = self.columns(t)
        if columns:
            values = ", ".join(self.rng.choice(["i", "hex(randomblob(20))", "random()", "NULL", "zeroblob(i%700)"]) for _ in columns)
            n = self.rng.choice([50, 400, 2000])
            self.run(f"INSERT OR IGNORE INTO {quoted(t)}({', '.join(map(quoted, columns))}) WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{n}) SELECT {values} FROM n")

    def alter(self):
        r, t = self.rng, self.rng.choice(self.tables())
        columns = self.columns(t) or ["none"]
        c, name = quoted(r.choice(columns)), quoted(t)
        self.serial += 1
        new = self.rng.choice([f"n{self.serial}", f'"n {self.serial}"'])
        self.run(r.choice([
            f"ALTER TABLE {name} ADD COLUMN {new} {r.choice(TYPES)} {r.choice(['', *DEFAULTS, 'NOT NULL DEFAULT (3)', 'AS (5)', 'COLLATE NOCASE'])}",
            f"ALTER TABLE {name} ADD COLUMN {new}",
            f"ALTER TABLE {name} DROP COLUMN {c}",
            f"ALTER TABLE {name} RENAME COLUMN {c} TO {new}",
            f"ALTER TABLE {name} RENAME TO {new}",
        ]))

    def schema(self):
        r, k = self.rng, self.rng.random()
        if k < 0.4:
            return self.alter()
        if k < 0.6:
            return self.something_else()
        if k < 0.75:
            return self.table()
        kind = r.choice(["table", "index", "trigger", "view"])
        names = self.tables() if kind == "table" else self.objects(kind)
        names = [n for n in names if n != "log"]
        if names:
            self.run(f"DROP {kind.upper()} {quoted(r.choice(names))}")

    def transaction(self):
        r = self.rng
        self.run("BEGIN")
        ddl = r.random() < 0.4
        for _ in range(r.choice([1, 1, 3, 10, 40])):
            if ddl and r.random() < 0.4:
                self.schema()
            else:
                self.write()
        if r.random() < 0.1:
            self.fill()
        if r.random() < 0.05:
            self.run(f"PRAGMA user_version={r.randint(-9, 9)}")
        if r.random() < 0.1:
            self.run("PRAGMA incremental_vacuum")
        if not self.run("COMMIT"):
            self.run("ROLLBACK")
            return False
        return True
