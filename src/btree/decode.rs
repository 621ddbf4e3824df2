//! A transaction's pages to what they mean.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::corrupt;
use super::diff::{Row, RowChange, diff};
use super::explore::{Explored, Explorer};
use super::gather::{Rows, gather};
use super::known::{Known, SCHEMA_ROOT, Scan, Step, read_schema, root_of, scan};
use super::layout::{Layout, Root};
use super::overflow::{Search, chains};
use super::page::{BtreePage, TreeKind};
use super::schema::compare::{Pair, SchemaChange, compare};
use super::schema::create::TableDef;
use super::schema::objects::{Kind, Object, Schema};
use super::view::{Header, Pages, Side, View};
use crate::error::{Error, Result};

/// What became of a table and its rows; without changes it is not told.
#[derive(Debug)]
pub struct TableRows {
    pub pair: Pair,
    /// None of a dropped table, all of a created one.
    pub rows: Vec<RowChange>,
}

#[derive(Debug)]
pub struct Decoded {
    pub schema: SchemaChange,
    pub tables: Vec<TableRows>,
    /// All of `sqlite_sequence` as it is now, if the transaction may have
    /// touched it.
    pub sequence: Option<Vec<Row>>,
    pub user_version: Option<i32>,
    /// For `Known::advance`.
    pub step: Step,
}

/// Decodes a transaction. Fails with `ReadOnly` for a change that is none of
/// rows or schema, with `Corrupt` for pages that are no database.
pub fn decode(known: &Known, pages: &dyn Pages) -> Result<Decoded> {
    let guessed = |base: &Arc<Schema>, new: &Arc<Schema>| Some(compare(base, new));
    let walk = Walk::new(known, pages, guessed)?;
    walk.map_or_else(|| Err(corrupt("it has no schema")), Walk::decode)
}

/// As `decode`, of a transaction that makes this change of the schema, made
/// by SQL that makes it; None of any other.
pub fn decode_as(
    change: &SchemaChange,
    known: &Known,
    pages: &dyn Pages,
) -> Result<Option<Decoded>> {
    let walk = Walk::new(known, pages, |base, new| change.between(base, new))?;
    walk.map(Walk::decode).transpose()
}

/// The database header's fields that a program can set; answers the new
/// `user_version`.
fn header_changes(base: &View, new: &View) -> Result<Option<i32>> {
    let now = new.header()?;
    let empty = Header {
        user_version: 0,
        application_id: 0,
        default_cache_size: 0,
        ..now.clone()
    };
    let was = base.header.as_ref().unwrap_or(&empty);
    let refused = |what: &str| {
        Err(Error::ReadOnly(format!(
            "{what} cannot be expressed in SQL that a primary accepts; where it takes pages, write_path=pages can"
        )))
    };
    if was.application_id != now.application_id {
        return refused("PRAGMA application_id");
    }
    if was.default_cache_size != now.default_cache_size {
        return refused("PRAGMA default_cache_size");
    }
    if was.auto_vacuum != now.auto_vacuum || was.incremental_vacuum != now.incremental_vacuum {
        return refused("PRAGMA auto_vacuum");
    }
    if was.encoding != now.encoding {
        return refused("PRAGMA encoding");
    }
    Ok((was.user_version != now.user_version).then_some(now.user_version))
}

/// Roots before and after, and the table whose rows are below them.
type Roots = (Option<Root>, Option<Root>, Option<usize>);

struct Tree {
    base: Option<Root>,
    new: Option<Root>,
    /// The table whose rows it holds.
    pair: Option<usize>,
    explored: Explored,
    /// Pages that did not change, but for what their cells' overflow pages hold.
    overflown: Vec<u32>,
}

struct Walk<'a> {
    known: &'a Known,
    base: View<'a>,
    new: View<'a>,
    changed: HashSet<u32>,
    dirty: HashSet<u32>,
    scan: Arc<Scan>,
    schema: SchemaChange,
    trees: Vec<Tree>,
}

impl<'a> Walk<'a> {
    /// None if `compare` makes nothing of the schemas.
    fn new(
        known: &'a Known,
        pages: &'a dyn Pages,
        compare: impl Fn(&Arc<Schema>, &Arc<Schema>) -> Option<SchemaChange>,
    ) -> Result<Option<Walk<'a>>> {
        let base = View::open(pages, Side::Base)?;
        let new = View::open(pages, Side::New)?;
        let sizes = |view: &View| view.header.as_ref().map(|h| (h.page_size, h.usable));
        if sizes(&base).is_some_and(|base| Some(base) != sizes(&new)) {
            return Err(corrupt("its page size changed"));
        }
        let in_range = |pgno: &&u32| **pgno <= new.size.max(base.size);
        let changed: HashSet<u32> = pages.changed().iter().filter(in_range).copied().collect();
        let (scan, schema) = read_schema_again(known, &new, &changed)?;
        let Some(change) = compare(&known.schema, &schema) else {
            return Ok(None);
        };
        Ok(Some(Walk {
            dirty: known.layout.with_ancestors(pages.changed()),
            schema: change,
            known,
            base,
            new,
            changed,
            scan,
            trees: Vec::new(),
        }))
    }

    fn decode(mut self) -> Result<Decoded> {
        let user_version = header_changes(&self.base, &self.new)?;
        self.explore()?;
        self.check()?;
        self.rows(user_version)
    }

    fn explore(&mut self) -> Result<()> {
        let mut pairs: Vec<Roots> = Vec::new();
        let existed = self.base.header.is_some();
        pairs.push((existed.then_some(SCHEMA_ROOT), Some(SCHEMA_ROOT), None));
        for (i, pair) in self.schema.tables.iter().enumerate() {
            let base = pair.base.as_deref().map(|o| root_of(&self.base, o));
            let new = pair.new.as_deref().map(|o| root_of(&self.new, o));
            pairs.push((base.transpose()?, new.transpose()?, Some(i)));
        }
        pairs.extend(self.indexes()?);
        let explorer = Explorer {
            base: &self.base,
            new: &self.new,
            layout: &self.known.layout,
            changed: &self.changed,
            dirty: &self.dirty,
        };
        for (base, new, pair) in pairs {
            let touched = base.is_none_or(|root| self.dirty.contains(&root.pgno));
            let whole = pair.is_some_and(|i| self.schema.tables[i].alteration.drops());
            let explored = if whole {
                explorer
                    .explore(base, None)?
                    .and(explorer.explore(None, new)?)
            } else if touched || base != new {
                explorer.explore(base, new)?
            } else {
                Explored::default()
            };
            self.trees.push(Tree {
                base,
                new,
                pair,
                explored,
                overflown: Vec::new(),
            });
        }
        Ok(())
    }

    /// Index b-trees: one at the same root is the same as far as pages go.
    fn indexes(&self) -> Result<Vec<Roots>> {
        let has_root = |o: &&Arc<Object>| o.root != 0;
        let mut roots: HashMap<u32, (Option<Root>, Option<Root>)> = HashMap::new();
        for object in self.schema.base.of(Kind::Index).filter(has_root) {
            roots.entry(object.root).or_default().0 = Some(root_of(&self.base, object)?);
        }
        for object in self.schema.new.of(Kind::Index).filter(has_root) {
            roots.entry(object.root).or_default().1 = Some(root_of(&self.new, object)?);
        }
        Ok(roots.into_values().map(|(b, n)| (b, n, None)).collect())
    }

    /// No page may belong to two b-trees, nor lie past the end.
    fn check(&self) -> Result<()> {
        let released = self.released();
        let mut placed = HashSet::new();
        for (pgno, _) in self.trees.iter().flat_map(|t| &t.explored.placed) {
            let taken = self.known.layout.get(*pgno).is_some() && !released.contains(pgno);
            if taken || !placed.insert(*pgno) || *pgno > self.new.size {
                return Err(corrupt(&format!("page {pgno} has two parents")));
            }
        }
        if self.new.size < self.base.size {
            let cut_off = |pgno: &u32| *pgno > self.new.size && !released.contains(pgno);
            if self.known.layout.pages().any(|(pgno, _)| cut_off(&pgno)) {
                return Err(corrupt("a b-tree reaches past the end"));
            }
        }
        Ok(())
    }

    fn released(&self) -> HashSet<u32> {
        let all = self.trees.iter().flat_map(|t| &t.explored.released);
        all.copied().collect()
    }

    fn rows(mut self, user_version: Option<i32>) -> Result<Decoded> {
        let mut met = HashMap::new();
        let mut new_rows = Vec::new();
        for tree in &self.trees {
            new_rows.push(self.gather_new(tree, &tree.explored.new_pages, &mut met)?);
        }
        self.overflown(&mut met)?;
        let mut tables = Vec::new();
        for (tree, mut rows) in self.trees.iter().zip(new_rows) {
            let Some(pair) = tree.pair.map(|i| &self.schema.tables[i]) else {
                continue;
            };
            rows.extend(self.gather_new(tree, &tree.overflown, &mut HashMap::new())?);
            let changes = self.diff(tree, pair, &rows)?;
            let is_same = pair.base.is_some() && pair.new.is_some();
            if !(is_same && changes.is_empty() && pair.alteration.steps.is_empty()) {
                tables.push(TableRows {
                    pair: pair.clone(),
                    rows: changes,
                });
            }
        }
        let sequence = self.sequence(&tables)?;
        let step = self.step(met);
        Ok(Decoded {
            schema: self.schema,
            tables,
            sequence,
            user_version,
            step,
        })
    }

    /// The definition by which a table's rows can be read.
    fn def(object: &Object) -> Result<&TableDef> {
        object.def.as_ref().ok_or_else(|| {
            Error::ReadOnly(format!(
                "the definition of table {} is not understood: {}",
                object.name, object.sql
            ))
        })
    }

    fn gather_new(&self, tree: &Tree, pages: &[u32], met: &mut HashMap<u32, u32>) -> Result<Rows> {
        let pair = tree.pair.map(|i| &self.schema.tables[i]);
        match pair.and_then(|p| p.new.as_ref()) {
            Some(new) if !pages.is_empty() => {
                self.not_in_place(tree, new, pages)?;
                gather(&self.new, Self::def(new)?, pages, met)
            }
            _ => Ok(Rows::new()),
        }
    }

    /// A definition that was written over (`writable_schema`) leaves the rows
    /// where they are; one that was dropped and created does not.
    fn not_in_place(&self, tree: &Tree, new: &Object, pages: &[u32]) -> Result<()> {
        let twin = self.schema.base.find(Kind::Table, &new.name);
        if tree.base.is_some() || twin.is_none_or(|twin| twin.sql == new.sql) {
            return Ok(());
        }
        for &pgno in pages.iter().filter(|p| !self.changed.contains(p)) {
            let bytes = self.new.page(pgno)?;
            let page = BtreePage::parse(pgno, &bytes, self.new.header()?.usable)?;
            let same_tree = self.known.layout.root_of(pgno) == Some(new.root);
            if same_tree && page.leaf && page.cells > 0 {
                return Err(Error::ReadOnly(format!(
                    "the change of table {}'s definition is none that ALTER TABLE makes",
                    new.name
                )));
            }
        }
        Ok(())
    }

    fn diff(&self, tree: &Tree, pair: &Pair, new_rows: &Rows) -> Result<Vec<RowChange>> {
        let Some(new) = &pair.new else {
            return Ok(Vec::new());
        };
        let mut pages = tree.explored.base_pages.clone();
        pages.extend(&tree.overflown);
        if pages.is_empty() && new_rows.is_empty() {
            return Ok(Vec::new());
        }
        let (mut base_def, mut base_rows) = (None, Rows::new());
        if let Some(base) = &pair.base {
            let def = Self::def(base)?;
            base_def = Some(def);
            base_rows = gather(&self.base, def, &pages, &mut HashMap::new())?;
        }
        let encoding = self.new.header()?.encoding;
        let (base, new) = ((base_def, &base_rows), (Self::def(new)?, new_rows));
        diff(base, new, &pair.alteration, encoding)
    }

    /// Finds the cells of changed overflow pages that nothing else accounts for.
    fn overflown(&mut self, met: &mut HashMap<u32, u32>) -> Result<()> {
        let placed: HashSet<u32> = self.placed().map(|(pgno, _)| *pgno).collect();
        let mut wanted = HashSet::new();
        for &pgno in &self.changed {
            let seen = placed.contains(&pgno) || met.contains_key(&pgno);
            if !seen && pgno <= self.new.size && !self.new.is_reserved(pgno)? {
                wanted.insert(pgno);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let free = self.new.freelist()?;
        wanted.retain(|pgno| !free.contains(pgno) && !self.scan.pages.contains(pgno));
        for tree in self.trees.iter().filter(|t| t.pair.is_none()) {
            if !wanted.is_empty() && tree.new.is_some_and(|r| r.kind == TreeKind::Index) {
                for &pgno in &tree.explored.new_pages {
                    chains(&self.new, pgno)?.iter().for_each(|page| {
                        wanted.remove(page);
                    });
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.search(&mut wanted, &placed, met)
    }

    fn search(
        &mut self,
        wanted: &mut HashSet<u32>,
        placed: &HashSet<u32>,
        met: &mut HashMap<u32, u32>,
    ) -> Result<()> {
        let released = self.released();
        let mut by_root = HashMap::new();
        for (i, tree) in self.trees.iter().enumerate() {
            if let (Some(base), Some(_), Some(_)) = (tree.base, tree.new, tree.pair) {
                by_root.insert(base.pgno, (i, base.kind));
            }
        }
        let layout: &Layout = &self.known.layout;
        let tree_of = |pgno: u32| layout.root_of(pgno).and_then(|root| by_root.get(&root));
        let is_candidate = |pgno: u32| {
            let there = placed.contains(&pgno) || !released.contains(&pgno);
            let leaf = layout.get(pgno).is_some_and(|slot| slot.leaf);
            let has_rows = tree_of(pgno).is_some_and(|(_, kind)| leaf || *kind == TreeKind::Index);
            has_rows && there && !self.changed.contains(&pgno)
        };
        let search = Search {
            view: &self.new,
            layout,
            hints: &self.known.owners,
            is_candidate: &is_candidate,
        };
        for pgno in search.owners(wanted, met)? {
            if let Some((i, _)) = tree_of(pgno) {
                self.trees[*i].overflown.push(pgno);
            }
        }
        Ok(())
    }

    fn placed(&self) -> impl Iterator<Item = &(u32, super::layout::Slot)> {
        self.trees.iter().flat_map(|t| &t.explored.placed)
    }

    fn sequence(&self, tables: &[TableRows]) -> Result<Option<Vec<Row>>> {
        let Some(object) = self.schema.new.find(Kind::Table, "sqlite_sequence") else {
            return Ok(None);
        };
        let concerns = |table: &TableRows| {
            let sides = [&table.pair.base, &table.pair.new].into_iter().flatten();
            let mut defs = sides.filter_map(|o| Some((o, o.def.as_ref()?)));
            defs.any(|(o, def)| def.autoincrement || o.is_named("sqlite_sequence"))
        };
        if !tables.iter().any(concerns) {
            return Ok(None);
        }
        let def = Self::def(object)?;
        let scan = scan(&self.new, root_of(&self.new, object)?)?;
        let rows = scan
            .rows
            .into_iter()
            .map(|(id, row)| Row::new(def, id, row));
        rows.collect::<Result<_>>().map(Some)
    }

    fn step(&self, met: HashMap<u32, u32>) -> Step {
        let mut released: Vec<u32> = self.released().into_iter().collect();
        released.sort_unstable();
        Step {
            schema: self.schema.new.clone(),
            schema_scan: self.scan.clone(),
            released,
            placed: self.placed().copied().collect(),
            owners: met.into_iter().collect(),
            size: self.new.size,
        }
    }
}

/// The new state's schema: the same object if it is the same.
fn read_schema_again(
    known: &Known,
    new: &View,
    changed: &HashSet<u32>,
) -> Result<(Arc<Scan>, Arc<Schema>)> {
    let same = || (known.schema_scan.clone(), known.schema.clone());
    let was_read = !known.schema_scan.pages.is_empty();
    if was_read && known.schema_scan.pages.is_disjoint(changed) {
        return Ok(same());
    }
    let scan = scan(new, SCHEMA_ROOT)?;
    if was_read && scan.rows == known.schema_scan.rows {
        return Ok((Arc::new(scan), known.schema.clone()));
    }
    let schema = Arc::new(read_schema(&scan)?);
    Ok((Arc::new(scan), schema))
}
