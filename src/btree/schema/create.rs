//! CREATE TABLE, as far as rows depend on it: which columns are stored, in
//! which order, and what names a row.

use super::default::{Affinity, constant};
use super::parser::{Listed, Parser};
use super::token::{Kind, Token};
use crate::btree::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// An integer stored in it is a float (file format, section 2.1).
    pub real: bool,
    pub generated: Option<Generated>,
    /// What rows have that are older than the column; None if that is not known.
    pub default: Option<Value>,
    pub collation: String,
    /// Where its definition begins in the statement.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    Virtual,
    Stored,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    pub column: usize,
    pub collation: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TableDef {
    pub columns: Vec<Column>,
    /// The primary key; in WITHOUT ROWID tables without its repetitions.
    pub key: Vec<KeyPart>,
    /// The column that is the rowid.
    pub rowid_alias: Option<usize>,
    pub without_rowid: bool,
    pub autoincrement: bool,
    /// The column sets of UNIQUE constraints.
    pub unique: Vec<Vec<usize>>,
    /// Where ALTER TABLE puts a further column: before the table's
    /// constraints or the closing parenthesis.
    pub columns_end: usize,
}

impl TableDef {
    /// None for what is no CREATE TABLE statement of SQLite.
    pub fn parse(sql: &str) -> Option<TableDef> {
        Parser::new(sql).table()
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        let is_it = |c: &Column| c.name.eq_ignore_ascii_case(name);
        self.columns.iter().position(is_it)
    }

    /// Which column each field of a stored record is (file format, sections
    /// 2.3 and 2.4): virtual columns are not stored, WITHOUT ROWID tables
    /// have their key in front.
    pub fn fields(&self) -> Vec<usize> {
        let mut fields = Vec::new();
        if self.without_rowid {
            fields.extend(self.key.iter().map(|part| part.column));
        }
        let key_len = fields.len();
        for (i, column) in self.columns.iter().enumerate() {
            if column.generated != Some(Generated::Virtual) && !fields[..key_len].contains(&i) {
                fields.push(i);
            }
        }
        fields
    }

    /// A name for the rowid that no column has taken.
    pub fn rowid_name(&self) -> Option<&str> {
        if let Some(alias) = self.rowid_alias {
            return Some(&self.columns[alias].name);
        }
        let mut names = ["rowid", "_rowid_", "oid"].into_iter();
        names.find(|name| self.column(name).is_none())
    }
}

/// The words that end a column's type.
const CONSTRAINTS: [&str; 12] = [
    "CONSTRAINT",
    "DEFAULT",
    "NULL",
    "NOT",
    "PRIMARY",
    "UNIQUE",
    "CHECK",
    "REFERENCES",
    "COLLATE",
    "AS",
    "DEFERRABLE",
    "ON",
];

impl<'a> Parser<'a> {
    fn table(mut self) -> Option<TableDef> {
        if !self.take("CREATE") {
            return None;
        }
        let _ = self.take("TEMP") || self.take("TEMPORARY");
        if !self.take("TABLE") {
            return None;
        }
        self.object_name()?;
        if !self.take_punct("(") {
            return None;
        }
        let mut building = Building::default();
        loop {
            self.column(&mut building)?;
            building.columns_end = self.peek()?.at;
            if self.take_punct(")") {
                break;
            }
            if !self.take_punct(",") {
                return None;
            }
            let constraints = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"];
            if constraints
                .iter()
                .any(|word| self.peek().is_some_and(|t| t.is(word)))
            {
                self.table_constraints(&mut building)?;
                break;
            }
        }
        self.options(&mut building)?;
        building.finish()
    }

    fn column(&mut self, building: &mut Building<'a>) -> Option<()> {
        let name = self.next()?;
        let at = name.at;
        let name = name.name()?;
        let declared = self.column_type()?;
        let mut column = Column {
            name,
            real: Affinity::of(&declared) == Affinity::Real,
            generated: None,
            default: None,
            collation: "BINARY".to_string(),
            at,
        };
        let mut default = Vec::new();
        while let Some(token) = self.next() {
            if token.is_punct(",") || token.is_punct(")") {
                self.back();
                break;
            } else if token.is_punct("(") {
                self.back();
                self.skip_group()?;
            } else if token.is("CONSTRAINT") {
                self.next()?;
            } else if token.is("DEFAULT") {
                let from = self.at();
                if self.at_punct("(") {
                    self.skip_group()?;
                } else {
                    // The value may be a word that is a keyword elsewhere.
                    let _ = self.take_punct("-") || self.take_punct("+");
                    self.next()?;
                }
                default = self.since(from).to_vec();
            } else if token.is("REFERENCES") {
                self.next()?;
            } else if token.is("COLLATE") {
                column.collation = self.next()?.name()?;
            } else if token.is("AS") {
                column.generated = Some(Generated::Virtual);
                self.skip_group()?;
                if self.take("STORED") {
                    column.generated = Some(Generated::Stored);
                }
            } else if token.is("UNIQUE") {
                building.unique.push(vec![column.name.clone()]);
            } else if token.is("PRIMARY") {
                let descending = {
                    self.take("KEY");
                    !self.take("ASC") && self.take("DESC")
                };
                building.alias = !descending && declared.eq_ignore_ascii_case("INTEGER");
                building.key = Some(vec![Listed {
                    column: Some(column.name.clone()),
                    collation: None,
                }]);
            } else if token.is("AUTOINCREMENT") {
                building.autoincrement = true;
            }
        }
        building.types.push(declared);
        building.defaults.push(default);
        building.columns.push(column);
        Some(())
    }

    /// The declared type; without the GENERATED ALWAYS that SQLite's grammar
    /// reads as its end.
    fn column_type(&mut self) -> Option<String> {
        let mut words: Vec<&str> = Vec::new();
        while let Some(token) = self.peek() {
            let ends = CONSTRAINTS.iter().any(|word| token.is(word));
            if ends || matches!(token.kind, Kind::Number | Kind::Other) {
                break;
            }
            words.push(token.text);
            self.next();
        }
        if self.peek().is_some_and(|t| t.is("AS")) {
            let lower: Vec<_> = words.iter().map(|w| w.to_ascii_lowercase()).collect();
            if let [.., generated, always] = &lower[..]
                && generated == "generated"
                && always == "always"
            {
                words.truncate(words.len() - 2);
            }
        }
        let mut declared = words.join(" ");
        if self.at_punct("(") && !words.is_empty() {
            let from = self.at();
            self.skip_group()?;
            declared.extend(self.since(from).iter().map(|t| t.text));
        }
        Some(declared)
    }

    fn table_constraints(&mut self, building: &mut Building<'a>) -> Option<()> {
        loop {
            let token = self.next()?;
            if token.is_punct(")") {
                return Some(());
            } else if token.is_punct("(") {
                self.back();
                self.skip_group()?;
            } else if token.is("CONSTRAINT") || token.is("REFERENCES") {
                self.next()?;
            } else if token.is("UNIQUE") {
                let listed = self.listed(building)?;
                let columns = listed.into_iter().map(|l| l.column);
                building.unique.push(columns.collect::<Option<_>>()?);
            } else if token.is("PRIMARY") {
                self.take("KEY");
                let listed = self.listed(building)?;
                if let [
                    Listed {
                        column: Some(name), ..
                    },
                ] = &listed[..]
                {
                    let named = |c: &Column| c.name.eq_ignore_ascii_case(name);
                    let column = building.columns.iter().position(named)?;
                    building.alias = building.types[column].eq_ignore_ascii_case("INTEGER");
                }
                building.key = Some(listed);
            }
        }
    }

    fn listed(&mut self, building: &mut Building<'a>) -> Option<Vec<Listed>> {
        let (listed, autoincrement) = self.list()?;
        building.autoincrement |= autoincrement;
        Some(listed)
    }

    fn options(&mut self, building: &mut Building<'a>) -> Option<()> {
        while let Some(token) = self.next() {
            if token.is("WITHOUT") {
                building.without_rowid = self.next()?.is("ROWID");
            } else if token.is("STRICT") {
                building.strict = true;
            } else if !token.is_punct(",") && !token.is_punct(";") {
                // An option of another SQLite may change what a row is.
                return None;
            }
        }
        Some(())
    }
}

#[derive(Default)]
struct Building<'a> {
    columns: Vec<Column>,
    types: Vec<String>,
    defaults: Vec<Vec<Token<'a>>>,
    key: Option<Vec<Listed>>,
    /// The key is one column of type INTEGER, as an alias of the rowid has to be.
    alias: bool,
    unique: Vec<Vec<String>>,
    autoincrement: bool,
    without_rowid: bool,
    strict: bool,
    columns_end: usize,
}

impl Building<'_> {
    fn finish(mut self) -> Option<TableDef> {
        self.find_defaults();
        let position = |name: &str| {
            let named = |c: &Column| c.name.eq_ignore_ascii_case(name);
            self.columns.iter().position(named)
        };
        let mut key: Vec<KeyPart> = Vec::new();
        for listed in self.key.iter().flatten() {
            let column = position(listed.column.as_deref()?)?;
            let stated = listed.collation.clone();
            let collation = stated.unwrap_or_else(|| self.columns[column].collation.clone());
            let again =
                |p: &KeyPart| p.column == column && p.collation.eq_ignore_ascii_case(&collation);
            if !(self.without_rowid && key.iter().any(again)) {
                key.push(KeyPart { column, collation });
            }
        }
        if self.without_rowid && key.is_empty() {
            return None;
        }
        let alias = self.alias && !self.without_rowid;
        let mut unique = Vec::new();
        for names in &self.unique {
            unique.push(names.iter().map(|n| position(n)).collect::<Option<_>>()?);
        }
        if !key.is_empty() && !alias {
            unique.push(key.iter().map(|part| part.column).collect());
        }
        Some(TableDef {
            rowid_alias: if alias {
                Some(key.first()?.column)
            } else {
                None
            },
            columns: self.columns,
            key,
            without_rowid: self.without_rowid,
            autoincrement: self.autoincrement,
            unique,
            columns_end: self.columns_end,
        })
    }

    fn find_defaults(&mut self) {
        let definitions = self.columns.iter_mut().zip(&self.types).zip(&self.defaults);
        for ((column, declared), default) in definitions {
            // In a STRICT table any value stays as it is.
            let affinity = match self.strict && declared.eq_ignore_ascii_case("ANY") {
                true => Affinity::Blob,
                false => Affinity::of(declared),
            };
            if column.generated.is_none() {
                column.default = constant(default, affinity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn def(sql: &str) -> TableDef {
        TableDef::parse(sql).unwrap_or_else(|| panic!("{sql}"))
    }

    fn alias(columns: &str) -> Option<usize> {
        def(&format!("CREATE TABLE t({columns})")).rowid_alias
    }

    #[test]
    fn rowid_aliases() {
        assert_eq!(alias("a INTEGER PRIMARY KEY"), Some(0));
        assert_eq!(alias("b, a integer PRIMARY KEY ASC AUTOINCREMENT"), Some(1));
        assert_eq!(alias("a INTEGER PRIMARY KEY DESC"), None);
        assert_eq!(alias("b, a INTEGER, PRIMARY KEY(a DESC)"), Some(1));
        assert_eq!(alias("a INTEGER, CONSTRAINT k PRIMARY KEY ('a')"), Some(0));
        assert_eq!(alias("a INT PRIMARY KEY"), None);
        assert_eq!(alias("a INTEGER(5) PRIMARY KEY"), None);
        assert_eq!(alias("a \"INTEGER\" PRIMARY KEY"), None);
        assert_eq!(alias("a INTEGER, b, PRIMARY KEY(a, b)"), None);
        assert_eq!(
            alias("a INTEGER NOT NULL DEFAULT -5 CHECK(a > 0) PRIMARY KEY"),
            Some(0)
        );
        let sql = "CREATE TABLE t(a INTEGER PRIMARY KEY) WITHOUT ROWID";
        assert_eq!(def(sql).rowid_alias, None);
    }

    #[test]
    fn columns_of_all_kinds() {
        let t = def("CREATE TABLE \"t t\"( -- c
            'a' VARCHAR(10) COLLATE nocase, [b c] DOUBLE PRECISION DEFAULT (max(1, 2)),
            c INT GENERATED ALWAYS AS (a || ')') STORED UNIQUE, generated always,
            d AS (1) VIRTUAL, e REAL GENERATED ALWAYS AS (2), f FLOATING POINT NOT NULL,
            \"g\"\"\" decimal(10, 2) DEFAULT unique REFERENCES \"check\"(x) ON DELETE SET NULL
            , CHECK (a <> 'x, y'), UNIQUE (a, f), FOREIGN KEY (a) REFERENCES u(b)
            CONSTRAINT z UNIQUE (f)) STRICT");
        let names: Vec<_> = t.columns.iter().map(|c| &c.name[..]).collect();
        assert_eq!(names, ["a", "b c", "c", "generated", "d", "e", "f", "g\""]);
        let real: Vec<_> = t.columns.iter().map(|c| c.real).collect();
        // FLOATING POINT has INT in it, and so is an integer.
        assert_eq!(real, [false, true, false, false, false, true, false, false]);
        use Generated::*;
        let generated: Vec<_> = t.columns.iter().map(|c| c.generated).collect();
        let expected = [
            None,
            None,
            Some(Stored),
            None,
            Some(Virtual),
            Some(Virtual),
            None,
            None,
        ];
        assert_eq!(generated, expected);
        assert_eq!(t.columns[0].collation, "nocase");
        assert_eq!(t.unique, [vec![2], vec![0, 6], vec![6]]);
        assert_eq!(t.fields(), [0, 1, 2, 3, 6, 7]);
    }

    #[test]
    fn without_rowid_keys_come_first_and_once() {
        let t = def(
            "CREATE TABLE t(a, b TEXT COLLATE NOCASE, c, d AS (a) STORED, e,
             PRIMARY KEY(c, b COLLATE binary DESC, c, b, e)) WITHOUT ROWID, STRICT",
        );
        let key: Vec<_> = t.key.iter().map(|k| (k.column, &k.collation[..])).collect();
        assert_eq!(
            key,
            [(2, "BINARY"), (1, "binary"), (1, "NOCASE"), (4, "BINARY")]
        );
        assert_eq!(t.fields(), [2, 1, 1, 4, 0, 3]);
        assert!(t.without_rowid && t.rowid_alias.is_none());
    }

    #[test]
    fn names_of_the_rowid() {
        assert_eq!(def("CREATE TABLE t(a)").rowid_name(), Some("rowid"));
        assert_eq!(
            def("CREATE TABLE t(ROWID, oid)").rowid_name(),
            Some("_rowid_")
        );
        assert_eq!(
            def("CREATE TABLE t(rowid, oid, _rowid_)").rowid_name(),
            None
        );
        let sql = "CREATE TABLE t(rowid, oid, _rowid_ INTEGER PRIMARY KEY)";
        assert_eq!(def(sql).rowid_name(), Some("_rowid_"));
    }

    #[test]
    fn what_is_no_table_is_none() {
        for sql in [
            "",
            "CREATE",
            "CREATE TABLE",
            "CREATE TABLE t",
            "CREATE TABLE t(",
            "CREATE TABLE t(a",
            "CREATE TABLE t(a,",
            "CREATE TABLE t(a, PRIMARY KEY(a",
            "CREATE TABLE t(a) WITHOUT ROWID",
            "CREATE TABLE t(a) RANDOM ROWID",
            "CREATE TABLE t(a, PRIMARY KEY(b))",
            "CREATE TABLE t(a DEFAULT (1)",
            "CREATE VIRTUAL TABLE t USING x(a)",
            "CREATE TABLE t AS SELECT 1",
        ] {
            assert_eq!(TableDef::parse(sql), None, "{sql}");
        }
    }
}
