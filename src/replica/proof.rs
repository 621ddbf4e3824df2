//! Proof, before a new schema is shipped as pages, that the primary can parse
//! it: a definition with a function, collation or module that it lacks would
//! break the database there for everybody. The statements are run in a
//! savepoint that is rolled back, and touch no table that has rows.

use std::collections::HashSet;

use crate::btree::schema::objects::{Kind, Object, Schema};
use crate::btree::schema::shadow;
use crate::btree::schema::token::{Token, tokens};

const TWIN: &str = "libreplica_proof_";

/// Statements that fail if the primary does not understand what is new in `new`.
pub fn statements(base: &Schema, new: &Schema) -> Vec<String> {
    let mut proof = Proof {
        base,
        new,
        made: HashSet::new(),
        statements: Vec::new(),
    };
    for kind in [Kind::Table, Kind::View, Kind::Index, Kind::Trigger] {
        for object in new.of(kind) {
            if is_new(base, object) && shadow::owner(new, object).is_none() {
                proof.prove(object);
            }
        }
    }
    proof.statements
}

fn is_new(base: &Schema, object: &Object) -> bool {
    let known = base.find(object.kind, &object.name);
    let same = known.is_some_and(|known| known.sql == object.sql);
    !same && !object.sql.is_empty() && !object.is_reserved()
}

struct Proof<'a> {
    base: &'a Schema,
    new: &'a Schema,
    /// Tables made for the proof, by the names they have in the new schema.
    made: HashSet<String>,
    statements: Vec<String>,
}

impl Proof<'_> {
    fn prove(&mut self, object: &Object) {
        let name = self.free_name(&object.name);
        let table = match object.kind {
            Kind::Table | Kind::View => {
                self.made.insert(object.name.to_ascii_lowercase());
                None
            }
            // Over a twin without rows: the real table may be large.
            Kind::Index => Some(self.twin(&object.table)),
            // Nothing is looked up but that the table exists.
            Kind::Trigger if self.made.contains(&object.table.to_ascii_lowercase()) => {
                Some(self.free_name(&object.table))
            }
            Kind::Trigger => None,
        };
        self.statements
            .push(renamed(object, &name, table.as_deref()));
    }

    /// The object's own name, or another one where the primary has that already.
    fn free_name(&self, name: &str) -> String {
        let taken = self.base.objects.iter().any(|o| o.is_named(name));
        if taken {
            format!("{TWIN}{name}")
        } else {
            name.to_string()
        }
    }

    fn twin(&mut self, table: &str) -> String {
        let name = self.free_name(table);
        if self.made.insert(table.to_ascii_lowercase())
            && let Some(object) = self.new.find(Kind::Table, table)
        {
            self.statements.push(renamed(object, &name, None));
        }
        name
    }
}

/// A definition under another name, and on another table.
fn renamed(object: &Object, name: &str, table: Option<&str>) -> String {
    let words = tokens(&object.sql);
    let kind = words.iter().position(|word| {
        ["TABLE", "INDEX", "VIEW", "TRIGGER"]
            .iter()
            .any(|kind| word.is(kind))
    });
    let Some(at) = kind.map(|at| at + 1).filter(|at| *at < words.len()) else {
        return object.sql.clone();
    };
    let on = words[at..].iter().position(|word| word.is("ON"));
    let target = on.and_then(|on| words.get(at + on + 1));
    let mut sql = String::new();
    let mut from = 0;
    let mut put = |token: &Token, name: &str| {
        sql.push_str(&object.sql[from..token.at]);
        sql.push_str(&quoted(name));
        from = token.at + token.text.len();
    };
    put(&words[at], name);
    if let (Some(token), Some(table)) = (target, table) {
        put(token, table);
    }
    sql.push_str(&object.sql[from..]);
    sql
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::Value;

    fn schema(rows: &[(&str, &str, &str, i64, &str)]) -> Schema {
        let text = |s: &str| Value::Text(s.to_string());
        let row = |(kind, name, table, root, sql): &(&str, &str, &str, i64, &str)| {
            vec![
                text(kind),
                text(name),
                text(table),
                Value::Int(*root),
                text(sql),
            ]
        };
        Schema::read(rows.iter().map(row).collect()).unwrap()
    }

    const T: (&str, &str, &str, i64, &str) = ("table", "t", "t", 2, "CREATE TABLE t(a, b)");

    #[test]
    fn what_did_not_change_needs_no_proof() {
        assert!(statements(&schema(&[T]), &schema(&[T])).is_empty());
        assert!(statements(&schema(&[T]), &schema(&[])).is_empty());
    }

    #[test]
    fn new_objects_as_they_are() {
        let view = ("view", "v", "v", 0, "CREATE VIEW v AS SELECT f(a) FROM t");
        let index = ("index", "i", "t", 3, "CREATE INDEX i ON t(f(a))");
        let trigger = (
            "trigger",
            "g",
            "t",
            0,
            "CREATE TRIGGER g AFTER UPDATE OF a ON t BEGIN SELECT 1; END",
        );
        assert_eq!(
            statements(&schema(&[]), &schema(&[T, index, view, trigger])),
            [
                "CREATE TABLE \"t\"(a, b)",
                "CREATE VIEW \"v\" AS SELECT f(a) FROM t",
                "CREATE INDEX \"i\" ON \"t\"(f(a))",
                "CREATE TRIGGER \"g\" AFTER UPDATE OF a ON \"t\" BEGIN SELECT 1; END",
            ]
        );
    }

    #[test]
    fn an_index_on_a_table_with_rows_is_made_on_a_twin() {
        let index = ("index", "i", "t", 3, "CREATE UNIQUE INDEX i ON [t] (f(a))");
        assert_eq!(
            statements(&schema(&[T]), &schema(&[T, index])),
            [
                "CREATE TABLE \"libreplica_proof_t\"(a, b)",
                "CREATE UNIQUE INDEX \"i\" ON \"libreplica_proof_t\" (f(a))",
            ]
        );
        let trigger = (
            "trigger",
            "g",
            "t",
            0,
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        );
        assert_eq!(
            statements(&schema(&[T]), &schema(&[T, trigger])),
            ["CREATE TRIGGER \"g\" AFTER INSERT ON t BEGIN SELECT 1; END"]
        );
    }

    #[test]
    fn a_changed_table_under_another_name() {
        let changed = (
            "table",
            "t",
            "t",
            2,
            "CREATE TABLE t(a, b, \"c\" DEFAULT 'CREATE TABLE t')",
        );
        assert_eq!(
            statements(&schema(&[T]), &schema(&[changed])),
            ["CREATE TABLE \"libreplica_proof_t\"(a, b, \"c\" DEFAULT 'CREATE TABLE t')"]
        );
        let renamed = (
            "table",
            "new \"t\"",
            "new \"t\"",
            2,
            "CREATE TABLE \"new \"\"t\"\"\"(a, b)",
        );
        assert_eq!(
            statements(&schema(&[T]), &schema(&[renamed])),
            ["CREATE TABLE \"new \"\"t\"\"\"(a, b)"]
        );
    }
}
