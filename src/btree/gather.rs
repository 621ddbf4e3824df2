//! The rows on a set of pages, by what identifies them.

use std::collections::{BTreeMap, HashMap};

use super::corrupt;
use super::page::{BtreePage, TreeKind};
use super::record;
use super::schema::create::TableDef;
use super::value::Value;
use super::view::View;
use crate::error::Result;

/// A row as it is stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    pub rowid: i64,
    pub payload: Vec<u8>,
}

/// By rowid or by primary key, in an order that only matters for its being one.
pub type Rows = BTreeMap<Vec<u8>, Stored>;

/// Reads the rows of a table that are on these pages. Interior pages of
/// WITHOUT ROWID tables hold rows too (file format, section 2.4).
pub fn gather(
    view: &View,
    def: &TableDef,
    pages: &[u32],
    owners: &mut HashMap<u32, u32>,
) -> Result<Rows> {
    let mut rows = Rows::new();
    if pages.is_empty() {
        return Ok(rows);
    }
    let usable = view.header()?.usable;
    let expected = match def.without_rowid {
        true => TreeKind::Index,
        false => TreeKind::Table,
    };
    for &pgno in pages {
        let bytes = view.page(pgno)?;
        let page = BtreePage::parse(pgno, &bytes, usable)?;
        if page.kind != expected {
            return Err(corrupt(&format!(
                "page {pgno} is of the other kind of b-tree"
            )));
        }
        if page.kind == TreeKind::Table && !page.leaf {
            continue;
        }
        let mut last = None;
        for i in 0..page.cells {
            let cell = page.cell(i)?;
            if !def.without_rowid && last.is_some_and(|last| last >= cell.rowid) {
                return Err(corrupt(&format!("page {pgno} is out of order")));
            }
            last = Some(cell.rowid);
            let mut shared = false;
            let payload = view.payload(&cell, &mut |overflow| {
                shared |= owners.insert(overflow, pgno).is_some();
            })?;
            if shared {
                return Err(corrupt(&format!("page {pgno} shares an overflow page")));
            }
            let stored = Stored {
                rowid: cell.rowid,
                payload,
            };
            if rows.insert(key(view, def, &stored)?, stored).is_some() {
                return Err(corrupt(&format!("page {pgno} repeats a row")));
            }
        }
    }
    Ok(rows)
}

fn key(view: &View, def: &TableDef, stored: &Stored) -> Result<Vec<u8>> {
    if !def.without_rowid {
        // Negative numbers first.
        return Ok((stored.rowid ^ i64::MIN).to_be_bytes().to_vec());
    }
    let values = record::decode(&stored.payload, view.header()?.encoding)?;
    let parts = values.get(..def.key.len());
    let parts = parts.ok_or_else(|| corrupt("a row without its primary key"))?;
    let mut key = Vec::new();
    for (part, value) in def.key.iter().zip(parts) {
        typed(value.clone(), def.columns[part.column].real).write_key(&mut key);
    }
    Ok(key)
}

/// A float without a fraction is stored as an integer in columns of REAL
/// affinity (file format, section 2.1).
pub fn typed(value: Value, real: bool) -> Value {
    match value {
        Value::Int(int) if real => Value::Real(int as f64),
        value => value,
    }
}
