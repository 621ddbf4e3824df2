//! Stored rows of both states to typed changes.

use super::corrupt;
use super::gather::{Rows, Stored, typed};
use super::record;
use super::schema::alter::Alteration;
use super::schema::create::TableDef;
use super::value::{Encoding, Value};
use crate::error::Result;

/// A row in the terms of its table's definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// 0 in WITHOUT ROWID tables.
    pub rowid: i64,
    /// One for each column. None: not stored, since the column is virtual, or
    /// younger than the row and its default not known.
    pub values: Vec<Option<Value>>,
}

/// Base rows are in the terms of the old definition, new ones in those of the new.
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    Insert(Row),
    Update { base: Row, new: Row },
    Delete(Row),
}

impl Row {
    pub fn read(def: &TableDef, stored: &Stored, encoding: Encoding) -> Result<Row> {
        Row::new(
            def,
            stored.rowid,
            record::decode(&stored.payload, encoding)?,
        )
    }

    pub fn new(def: &TableDef, rowid: i64, record: Vec<Value>) -> Result<Row> {
        let fields = def.fields();
        if record.len() > fields.len() {
            return Err(corrupt("a row with more values than its table has columns"));
        }
        let mut values = vec![None; def.columns.len()];
        let mut record = record.into_iter();
        for i in fields {
            let column = &def.columns[i];
            values[i] = match record.next() {
                Some(value) => Some(typed(value, column.real)),
                None if def.rowid_alias == Some(i) => None,
                None => column.default.clone(),
            };
        }
        if let Some(alias) = def.rowid_alias {
            // Stored as NULL (file format, section 2.3).
            if !matches!(values[alias], Some(Value::Null)) {
                return Err(corrupt("a row that has its rowid twice"));
            }
            values[alias] = Some(Value::Int(rowid));
        }
        Ok(Row { rowid, values })
    }
}

pub fn diff(
    base: (Option<&TableDef>, &Rows),
    new: (&TableDef, &Rows),
    alteration: &Alteration,
    encoding: Encoding,
) -> Result<Vec<RowChange>> {
    let (base_def, base_rows) = base;
    let (new_def, new_rows) = new;
    let base_def = base_def.unwrap_or(new_def);
    // Columns that were dropped and added again are others, be they defined alike.
    let mut origin = alteration.origin.iter().enumerate();
    let same_columns = base_def == new_def && origin.all(|(i, from)| *from == Some(i));
    let mut changes = Vec::new();
    for (key, old) in base_rows {
        let Some(stored) = new_rows.get(key) else {
            let row = Row::read(base_def, old, encoding)?;
            changes.push(RowChange::Delete(row));
            continue;
        };
        if same_columns && old == stored {
            continue;
        }
        let base = Row::read(base_def, old, encoding)?;
        let new = Row::read(new_def, stored, encoding)?;
        if is_changed(&base, &new, new_def, alteration) {
            changes.push(RowChange::Update { base, new });
        }
    }
    for (_, stored) in new_rows
        .iter()
        .filter(|(key, _)| !base_rows.contains_key(*key))
    {
        changes.push(RowChange::Insert(Row::read(new_def, stored, encoding)?));
    }
    Ok(changes)
}

/// Whether a column that can be written differs.
fn is_changed(base: &Row, new: &Row, def: &TableDef, alteration: &Alteration) -> bool {
    let mut columns = alteration.origin.iter().enumerate();
    columns.any(|(i, from)| differs(base, new, i, *from, def))
}

/// Whether a column, of the base row's `from` if it is not new, differs.
pub fn differs(base: &Row, new: &Row, column: usize, from: Option<usize>, def: &TableDef) -> bool {
    let (value, definition) = (&new.values[column], &def.columns[column]);
    let old = match from {
        Some(from) => &base.values[from],
        None => &definition.default,
    };
    definition.generated.is_none() && old != value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn def(sql: &str) -> TableDef {
        TableDef::parse(sql).unwrap()
    }

    #[test]
    fn a_row_in_its_tables_terms() {
        let t = def("CREATE TABLE t(a INTEGER PRIMARY KEY, v AS (1), r REAL, s AS (2) STORED, d)");
        use Value::*;
        let row = Row::new(&t, 7, vec![Null, Int(3), Int(2)]).unwrap();
        let expected = vec![
            Some(Int(7)),
            None,
            Some(Real(3.0)),
            Some(Int(2)),
            Some(Null),
        ];
        assert_eq!(row.values, expected);
        assert!(Row::new(&t, 7, vec![Int(7)]).is_err());
        assert!(Row::new(&t, 7, vec![]).is_err());
        assert!(Row::new(&t, 7, vec![Null; 5]).is_err());
        let t = def("CREATE TABLE t(a, b REAL, PRIMARY KEY(b)) WITHOUT ROWID");
        let row = Row::new(&t, 0, vec![Int(1), Null]).unwrap();
        assert_eq!(row.values, [Some(Null), Some(Real(1.0))]);
    }
}
