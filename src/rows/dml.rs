//! Row changes of one table as statements.

use std::collections::HashMap;
use std::sync::Arc;

use super::quote;
use super::statement::{Effect, Statement};
use crate::btree::schema::alter::{Alter, Alteration};
use crate::btree::schema::create::TableDef;
use crate::btree::schema::index::{Unique, unique};
use crate::btree::schema::objects::{Kind, Object, Schema};
use crate::btree::schema::token::tokens;
use crate::btree::{Row, RowChange, TableRows, Value, differs};
use crate::error::{Error, Result};

/// The three kinds, in the order in which no unique key is in the way: what
/// is gone or moves goes first, what is new or has moved comes last.
#[derive(Debug, Default)]
pub struct Statements {
    /// In the terms of the old definition.
    pub deletes: Vec<Statement>,
    /// These two in the terms of the new one.
    pub updates: Vec<Statement>,
    pub inserts: Vec<Statement>,
}

/// A column to be renamed while rows are written, so that its name is the
/// rowid's again.
pub const HIDDEN_ROWID: (&str, &str) = ("oid", "libreplica_hidden_oid");

/// Whether the columns of a table have taken all names of its rowid.
pub fn hides_rowid(def: &TableDef) -> bool {
    !def.without_rowid && def.rowid_name().is_none()
}

pub fn statements(table: &TableRows, base: &Schema, new: &Schema) -> Result<Statements> {
    let mut statements = Statements::default();
    let (Some(object), false) = (&table.pair.new, table.rows.is_empty()) else {
        return Ok(statements);
    };
    let new_table = Table::of(object)?;
    let old_object = table.pair.base.as_ref().unwrap_or(object);
    let old_table = Table::of(old_object)?;
    let fixed = keys(object, base, new, old_object);
    let refilled = only_into_empty(&table.pair.alteration);
    let mut texts = Texts::default();
    for change in &table.rows {
        if let RowChange::Insert(new) | RowChange::Update { new, .. } = change {
            new_table.check(new)?;
        }
        match change {
            RowChange::Delete(row) => statements.deletes.push(old_table.delete(row, &mut texts)),
            RowChange::Insert(row) => statements.inserts.push(new_table.insert(row, &mut texts)),
            RowChange::Update { base, new } => {
                let set = changed(base, new, &table.pair.alteration.origin, new_table.def);
                let moves = refilled
                    || set
                        .iter()
                        .any(|column| fixed.as_ref().is_none_or(|keys| keys.contains(column)));
                if moves {
                    statements.deletes.push(old_table.delete(base, &mut texts));
                    statements.inserts.push(new_table.insert(new, &mut texts));
                } else {
                    statements
                        .updates
                        .push(new_table.update(new, &set, &mut texts));
                }
            }
        }
    }
    Ok(statements)
}

/// A NOT NULL column without a value can be added to an empty table alone: all
/// rows have to be gone before.
fn only_into_empty(alteration: &Alteration) -> bool {
    alteration.steps.iter().any(|step| match step {
        Alter::AddColumn(text) => tokens(text).iter().any(|token| token.is("NOT")),
        _ => false,
    })
}

/// The writable columns in which a row differs.
fn changed(base: &Row, new: &Row, origin: &[Option<usize>], def: &TableDef) -> Vec<usize> {
    let columns = origin.iter().enumerate();
    let differ = columns.filter(|(i, from)| differs(base, new, *i, **from, def));
    differ.map(|(i, _)| i).collect()
}

/// The columns that a unique key has, on either side; None if any column may
/// matter to one.
fn keys(object: &Object, base: &Schema, new: &Schema, old: &Object) -> Option<Vec<usize>> {
    let def = object.def.as_ref()?;
    let mut columns: Vec<usize> = def.unique.iter().flatten().copied().collect();
    columns.extend(def.rowid_alias);
    let indexes = base
        .on(Kind::Index, &old.name)
        .chain(new.on(Kind::Index, &object.name));
    for index in indexes {
        match unique(&index.sql) {
            Unique::No => {}
            Unique::Columns(names) => {
                for name in names {
                    columns.push(def.column(&name)?);
                }
            }
            Unique::Anything => return None,
        }
    }
    // A generated column changes with others.
    let plain = |column: &usize| def.columns[*column].generated.is_none();
    columns.iter().all(plain).then_some(columns)
}

/// Each text once: a writer prepares by its address.
#[derive(Default)]
struct Texts(HashMap<String, Arc<str>>);

impl Texts {
    fn one(&mut self, sql: String) -> Arc<str> {
        let text = self.0.entry(sql);
        text.or_insert_with_key(|sql| Arc::from(&sql[..])).clone()
    }
}

struct Table<'a> {
    object: &'a Object,
    def: &'a TableDef,
    rowid: &'a str,
    name: String,
}

impl<'a> Table<'a> {
    fn of(object: &'a Object) -> Result<Table<'a>> {
        let def = object.def.as_ref().ok_or_else(|| {
            Error::ReadOnly(format!(
                "the definition of table {} is not understood",
                object.name
            ))
        })?;
        Ok(Table {
            object,
            def,
            rowid: def.rowid_name().unwrap_or(HIDDEN_ROWID.0),
            name: quote::name(&object.name),
        })
    }

    /// There a row is written once the column is there: what this one is read
    /// with here has to be known.
    fn check(&self, row: &Row) -> Result<()> {
        let mut columns = row.values.iter().zip(&self.def.columns);
        match columns.find(|(value, column)| value.is_none() && column.generated.is_none()) {
            None => Ok(()),
            Some((_, column)) => Err(Error::ReadOnly(format!(
                "a row of table {} was written before ALTER TABLE added column {}, whose default is no plain constant",
                self.object.name, column.name
            ))),
        }
    }

    fn column(&self, column: usize) -> String {
        let name = &self.def.columns[column].name;
        if hides_rowid(self.def) && name.eq_ignore_ascii_case(HIDDEN_ROWID.0) {
            return quote::name(HIDDEN_ROWID.1);
        }
        quote::name(name)
    }

    /// ABORT overrides the conflict clauses of the definition: no row may be
    /// replaced, and none left out, without an error.
    fn insert(&self, row: &Row, texts: &mut Texts) -> Statement {
        let (mut columns, mut marks, mut args) = (Vec::new(), Vec::new(), Vec::new());
        if !self.def.without_rowid && self.def.rowid_alias.is_none() {
            columns.push(self.rowid.to_string());
            marks.push("?");
            args.push(Value::Int(row.rowid));
        }
        for (i, value) in row.values.iter().enumerate() {
            if let (Some(value), None) = (value, self.def.columns[i].generated) {
                let (mark, arg) = quote::value(value);
                columns.push(self.column(i));
                marks.push(mark);
                args.extend(arg);
            }
        }
        let sql = format!(
            "INSERT OR ABORT INTO {}({}) VALUES({})",
            self.name,
            columns.join(", "),
            marks.join(", ")
        );
        Statement::new(texts.one(sql), args, Effect::Rows(1))
    }

    fn update(&self, row: &Row, set: &[usize], texts: &mut Texts) -> Statement {
        let (mut assignments, mut args) = (Vec::new(), Vec::new());
        for &i in set {
            let (mark, arg) = quote::value(row.values[i].as_ref().unwrap_or(&Value::Null));
            assignments.push(format!("{} = {mark}", self.column(i)));
            args.extend(arg);
        }
        let condition = self.condition(row, &mut args);
        let assignments = assignments.join(", ");
        let sql = format!(
            "UPDATE OR ABORT {} SET {assignments} WHERE {condition}",
            self.name
        );
        Statement::new(texts.one(sql), args, Effect::Rows(1))
    }

    fn delete(&self, row: &Row, texts: &mut Texts) -> Statement {
        let mut args = Vec::new();
        let condition = self.condition(row, &mut args);
        let sql = format!("DELETE FROM {} WHERE {condition}", self.name);
        let mut statement = Statement::new(texts.one(sql), args, Effect::Rows(1));
        if self.object.is_reserved() {
            // Dropping a table or an index deletes its rows of statistics.
            statement.effect = Effect::Any;
        }
        statement
    }

    /// What is true of this row alone.
    fn condition(&self, row: &Row, args: &mut Vec<Value>) -> String {
        if !self.def.without_rowid {
            args.push(Value::Int(row.rowid));
            let rowid = match self.def.rowid_alias {
                Some(alias) => self.column(alias),
                None => self.rowid.to_string(),
            };
            return format!("{rowid} = ?");
        }
        let part = |part: &crate::btree::schema::create::KeyPart| {
            let null = Value::Null;
            let value = row.values[part.column].as_ref().unwrap_or(&null);
            let (mark, arg) = quote::value(value);
            args.extend(arg);
            // By the key's own collation: another may know rows as equal that
            // the key does not, and cannot use its index.
            let own = &self.def.columns[part.column].collation;
            let collate = match own.eq_ignore_ascii_case(&part.collation) {
                true => String::new(),
                false => format!(" COLLATE {}", quote::name(&part.collation)),
            };
            format!("{}{collate} = {mark}", self.column(part.column))
        };
        let parts: Vec<String> = self.def.key.iter().map(part).collect();
        parts.join(" AND ")
    }
}
