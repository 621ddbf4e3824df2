//! The counters of AUTOINCREMENT. Inserting rows moves them at the primary,
//! so they are set last, and as a whole for the tables that were touched.

use super::statement::{Effect, Statement};
use crate::btree::schema::objects::{Kind, Schema};
use crate::btree::{Decoded, Row, RowChange, Value};

const NAME: &str = "sqlite_sequence";
const SCRATCH: &str = "libreplica_scratch_sequence";

/// Makes the table, which no statement can create, if no definition that is
/// yet to come does.
pub fn create(base: &Schema, new: &Schema) -> Vec<Statement> {
    let has = |schema: &Schema| schema.find(Kind::Table, NAME).is_some();
    if has(base) || !has(new) {
        return Vec::new();
    }
    let scratch = format!("CREATE TABLE {SCRATCH}(a INTEGER PRIMARY KEY AUTOINCREMENT)");
    vec![
        Statement::definition(scratch),
        Statement::definition(format!("DROP TABLE {SCRATCH}")),
    ]
}

pub fn set(decoded: &Decoded) -> Vec<Statement> {
    let Some(rows) = &decoded.sequence else {
        return Vec::new();
    };
    let (mut names, mut rowids) = (Vec::new(), Vec::new());
    for table in &decoded.tables {
        for object in [&table.pair.base, &table.pair.new].into_iter().flatten() {
            if object.def.as_ref().is_some_and(|def| def.autoincrement) {
                names.push(object.name.clone());
            }
            if object.is_named(NAME) {
                rowids.extend(table.rows.iter().flat_map(touched));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    rowids.sort_unstable();
    rowids.dedup();
    let mut statements = Vec::new();
    for name in &names {
        let sql = "DELETE FROM sqlite_sequence WHERE name = ?";
        statements.push(Statement::new(
            sql,
            vec![Value::Text(name.clone())],
            Effect::Any,
        ));
    }
    for rowid in &rowids {
        let sql = "DELETE FROM sqlite_sequence WHERE rowid = ?";
        statements.push(Statement::new(sql, vec![Value::Int(*rowid)], Effect::Any));
    }
    let concerns = |row: &&Row| {
        let name = row.values[0].as_ref().and_then(Value::as_text);
        rowids.contains(&row.rowid) || names.iter().any(|n| Some(&n[..]) == name)
    };
    for row in rows.iter().filter(concerns) {
        let sql = "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES(?, ?, ?)";
        let mut args = vec![Value::Int(row.rowid)];
        args.extend(row.values.iter().map(|v| v.clone().unwrap_or(Value::Null)));
        statements.push(Statement::new(sql, args, Effect::Rows(1)));
    }
    statements
}

fn touched(change: &RowChange) -> [i64; 2] {
    match change {
        RowChange::Insert(row) | RowChange::Delete(row) => [row.rowid; 2],
        RowChange::Update { base, new } => [base.rowid, new.rowid],
    }
}
