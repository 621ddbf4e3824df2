//! What is known of one state of the database.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::corrupt;
use super::layout::{Layout, Root, Slot, read};
use super::page::{BtreePage, TreeKind};
use super::record;
use super::schema::objects::{Kind, Object, Schema};
use super::value::Value;
use super::view::{Pages, Side, View};
use crate::error::Result;

pub const SCHEMA_ROOT: Root = Root {
    pgno: 1,
    kind: TreeKind::Table,
};

/// The rows of a small table, and every page they are on.
#[derive(Debug, Default, Clone)]
pub struct Scan {
    pub rows: Vec<(i64, Vec<Value>)>,
    pub pages: HashSet<u32>,
}

#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(super) schema: Arc<Schema>,
    pub(super) schema_scan: Arc<Scan>,
    pub(super) layout: Layout,
    /// Overflow pages and the b-tree page their chain begins at, as far as
    /// they were met. Only a hint: what it says is looked up before use.
    pub(super) owners: HashMap<u32, u32>,
}

/// What leads from one state to the next.
#[derive(Debug)]
pub struct Step {
    pub(super) schema: Arc<Schema>,
    pub(super) schema_scan: Arc<Scan>,
    pub(super) released: Vec<u32>,
    pub(super) placed: Vec<(u32, Slot)>,
    pub(super) owners: Vec<(u32, u32)>,
    pub(super) size: u32,
}

impl Known {
    /// Reads the schema and the interior pages of the base state.
    pub fn load(pages: &dyn Pages) -> Result<Known> {
        let view = View::open(pages, Side::Base)?;
        if view.header.is_none() {
            return Ok(Known::default());
        }
        let scan = scan(&view, SCHEMA_ROOT)?;
        let schema = read_schema(&scan)?;
        let mut roots = vec![SCHEMA_ROOT];
        for object in schema.objects.iter().filter(|o| o.root != 0) {
            roots.push(root_of(&view, object)?);
        }
        Ok(Known {
            layout: Layout::load(&view, &roots)?,
            schema: Arc::new(schema),
            schema_scan: Arc::new(scan),
            owners: HashMap::new(),
        })
    }

    /// Brings it to the state that a transaction led to.
    pub fn advance(&mut self, step: Step) -> Result<()> {
        for pgno in step.released {
            self.layout.release(pgno);
        }
        for (pgno, slot) in step.placed {
            self.layout.claim(pgno, slot, step.size)?;
            self.owners.remove(&pgno);
        }
        self.owners.extend(step.owners);
        self.schema = step.schema;
        self.schema_scan = step.schema_scan;
        Ok(())
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Whether both know the same of the pages.
    pub fn agrees(&self, other: &Known) -> bool {
        self.layout == other.layout && self.schema_scan.rows == other.schema_scan.rows
    }
}

/// A schema, and the pages it stands on.
pub struct SchemaPages {
    pub schema: Schema,
    pub pages: HashSet<u32>,
}

impl SchemaPages {
    pub fn read(pages: &dyn Pages, side: Side) -> Result<SchemaPages> {
        let scan = scan(&View::open(pages, side)?, SCHEMA_ROOT)?;
        Ok(SchemaPages {
            schema: read_schema(&scan)?,
            pages: scan.pages,
        })
    }
}

pub fn read_schema(scan: &Scan) -> Result<Schema> {
    Schema::read(scan.rows.iter().map(|(_, row)| row.clone()).collect())
}

/// An object's b-tree. The page itself says which kind it is; a table whose
/// definition says otherwise is damaged.
pub fn root_of(view: &View, object: &Object) -> Result<Root> {
    let kind = match (&object.def, object.kind) {
        (Some(def), _) if !def.without_rowid => TreeKind::Table,
        (Some(_), _) | (None, Kind::Index) => TreeKind::Index,
        (None, _) => {
            let bytes = view.page(object.root)?;
            BtreePage::parse(object.root, &bytes, view.header()?.usable)?.kind
        }
    };
    Ok(Root {
        pgno: object.root,
        kind,
    })
}

/// Reads a whole table by rowid.
pub fn scan(view: &View, root: Root) -> Result<Scan> {
    let header = view.header()?;
    let mut scan = Scan::default();
    let mut work = vec![root.pgno];
    while let Some(pgno) = work.pop() {
        if !scan.pages.insert(pgno) {
            return Err(corrupt(&format!("page {pgno} has two parents")));
        }
        let mut children = read(view, pgno, root.kind)?;
        // The last one pushed is the next one read.
        children.reverse();
        if !children.is_empty() {
            work.extend(children);
            continue;
        }
        let bytes = view.page(pgno)?;
        let page = BtreePage::parse(pgno, &bytes, header.usable)?;
        for i in 0..page.cells {
            let cell = page.cell(i)?;
            let payload = view.payload(&cell, &mut |pgno| {
                scan.pages.insert(pgno);
            })?;
            if scan
                .rows
                .last()
                .is_some_and(|(last, _)| *last >= cell.rowid)
            {
                return Err(corrupt(&format!("page {pgno} is out of order")));
            }
            let values = record::decode(&payload, header.encoding)?;
            scan.rows.push((cell.rowid, values));
        }
    }
    Ok(scan)
}
