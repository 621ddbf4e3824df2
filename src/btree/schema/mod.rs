//! What the `sqlite_schema` table says.

pub mod objects;
pub mod shadow;
pub mod token;

use std::collections::HashSet;

use self::objects::Schema;
use super::page::{BtreePage, TreeKind};
use super::view::{Pages, Side, View};
use super::{corrupt, record};
use crate::error::Result;

/// The root page of `sqlite_schema`.
const ROOT: u32 = 1;

/// A schema, and the pages it stands on.
pub struct SchemaPages {
    pub schema: Schema,
    pub pages: HashSet<u32>,
}

impl SchemaPages {
    /// Reads the whole of `sqlite_schema` (file format, section 2.6).
    pub fn read(pages: &dyn Pages, side: Side) -> Result<SchemaPages> {
        let view = View::open(pages, side)?;
        let (mut rows, mut seen, mut work) = (Vec::new(), HashSet::new(), vec![ROOT]);
        while let Some(pgno) = work.pop() {
            if !seen.insert(pgno) {
                return Err(corrupt(&format!("page {pgno} has two parents")));
            }
            let bytes = view.page(pgno)?;
            let page = BtreePage::parse(pgno, &bytes, view.header.usable)?;
            if page.kind != TreeKind::Table {
                return Err(corrupt(&format!("page {pgno} is no part of a table")));
            }
            if !page.leaf {
                // The last one pushed is the next one read.
                work.extend(page.children()?.into_iter().rev());
                continue;
            }
            for i in 0..page.cells {
                let payload = view.payload(&page.cell(i)?, &mut |pgno| {
                    seen.insert(pgno);
                })?;
                rows.push(record::decode(&payload, view.header.encoding)?);
            }
        }
        Ok(SchemaPages {
            schema: Schema::read(rows)?,
            pages: seen,
        })
    }
}
