//! The order of it all.

use super::ddl::Ddl;
use super::statement::Statement;
use super::{dml, quote, sequence};
use crate::btree::Decoded;
use crate::btree::schema::objects::Object;
use crate::btree::schema::shadow;
use crate::error::Result;

/// The statements for a transaction, to be run in this order, in one
/// transaction, with `PRAGMA foreign_keys=off`. Each must affect as many rows
/// as it says. The last of them fail if the schema is not what it should be.
///
/// Triggers are out of the way while rows are written, for what they did is
/// among the rows. Rows go before the schema changes and come after them; new
/// indexes come last, when all keys are unique again. Statistics are left out
/// where the primary has no table for them.
pub fn plan(decoded: &Decoded) -> Result<Vec<Statement>> {
    let change = &decoded.schema;
    let (mut deletes, mut writes) = (Vec::new(), Vec::new());
    let mut touched = Vec::new();
    for table in &decoded.tables {
        let Some(new) = &table.pair.new else { continue };
        let base = table.pair.base.as_ref();
        if new.is_named("sqlite_sequence") || (new.is_statistics() && base.is_none()) {
            continue;
        }
        let rows = dml::statements(table, &change.base, &change.new)?;
        if base.is_none() && shadow::owner(&change.new, new).is_some() {
            // What the virtual table put there when it was created.
            let all = format!("DELETE FROM {}", quote::name(&new.name));
            writes.push(Statement::definition(all));
        }
        if !table.rows.is_empty() {
            touched.extend(base.cloned());
        }
        deletes.extend(with_rowid(base.unwrap_or(new), rows.deletes));
        writes.extend(with_rowid(
            new,
            rows.updates.into_iter().chain(rows.inserts).collect(),
        ));
    }
    let mut ddl = Ddl::new(change, &touched)?;
    let mut plan = std::mem::take(&mut ddl.drop_triggers);
    plan.extend(deletes);
    plan.append(&mut ddl.drops);
    plan.append(&mut ddl.alters);
    plan.extend(sequence::create(&change.base, &change.new));
    plan.append(&mut ddl.creates);
    // Updates of one table and inserts of another cannot be in each other's way.
    plan.extend(writes);
    plan.append(&mut ddl.create_others);
    plan.extend(sequence::set(decoded));
    if let Some(version) = decoded.user_version {
        plan.push(Statement::definition(format!(
            "PRAGMA user_version = {version}"
        )));
    }
    plan.append(&mut ddl.guards);
    Ok(plan)
}

/// Statements on a table whose columns hide its rowid, between two renames.
fn with_rowid(table: &Object, mut statements: Vec<Statement>) -> Vec<Statement> {
    let Some(def) = table.def.as_ref().filter(|def| dml::hides_rowid(def)) else {
        return statements;
    };
    if statements.is_empty() {
        return statements;
    }
    let (name, hidden) = dml::HIDDEN_ROWID;
    let spelled = def.column(name).map_or(name, |i| &def.columns[i].name);
    let rename = |from: &str, to: &str| {
        let table = quote::name(&table.name);
        Statement::definition(format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"))
    };
    statements.insert(0, rename(spelled, hidden));
    statements.push(rename(hidden, spelled));
    statements
}
