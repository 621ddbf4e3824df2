//! Which b-tree a page belongs to: the parent of every page, up to the root.
//! Kept current from commit to commit, so that a change is found in time that
//! goes with the change and not with the database.

use std::collections::{HashMap, HashSet};

use super::corrupt;
use super::page::{BtreePage, TreeKind};
use super::view::View;
use crate::error::Result;

/// A b-tree of the largest database has fewer levels (SQLite: 20).
const MAX_DEPTH: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 0 for a root.
    pub parent: u32,
    pub leaf: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    pub pgno: u32,
    pub kind: TreeKind,
}

/// Indexed by page number; the unused are `None`.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    slots: Vec<Option<Slot>>,
}

impl PartialEq for Layout {
    fn eq(&self, other: &Layout) -> bool {
        let len = self.slots.len().max(other.slots.len()) as u32;
        (0..len).all(|pgno| self.get(pgno) == other.get(pgno))
    }
}

impl Layout {
    /// Reads every interior page of the b-trees, and no more leaves than
    /// it takes to know them as such.
    pub fn load(view: &View, roots: &[Root]) -> Result<Layout> {
        let mut layout = Layout::default();
        for root in roots {
            let mut work = vec![(root.pgno, 0, None)];
            while let Some((pgno, parent, leaf)) = work.pop() {
                let mut slot = Slot { parent, leaf: true };
                if leaf != Some(true) {
                    let node = read(view, pgno, root.kind)?;
                    slot.leaf = node.is_empty();
                    let leaf = children_are_leaves(view, &node, root.kind)?;
                    work.extend(node.into_iter().map(|child| (child, pgno, Some(leaf))));
                }
                layout.claim(pgno, slot, view.size)?;
            }
        }
        Ok(layout)
    }

    pub fn get(&self, pgno: u32) -> Option<Slot> {
        self.slots.get(pgno as usize).copied().flatten()
    }

    /// Takes a page that must not belong to anything.
    pub fn claim(&mut self, pgno: u32, slot: Slot, size: u32) -> Result<()> {
        if pgno == 0 || pgno > size {
            return Err(corrupt(&format!("there can be no page {pgno}")));
        }
        let at = pgno as usize;
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
        }
        if self.slots[at].is_some() {
            return Err(corrupt(&format!("page {pgno} has two parents")));
        }
        self.slots[at] = Some(slot);
        Ok(())
    }

    pub fn release(&mut self, pgno: u32) {
        if let Some(slot) = self.slots.get_mut(pgno as usize) {
            *slot = None;
        }
    }

    /// The root of the b-tree that has this page.
    pub fn root_of(&self, pgno: u32) -> Option<u32> {
        let mut at = pgno;
        for _ in 0..MAX_DEPTH {
            match self.get(at)?.parent {
                0 => return Some(at),
                parent => at = parent,
            }
        }
        None
    }

    /// These pages and all that are above them.
    pub fn with_ancestors(&self, pages: &[u32]) -> HashSet<u32> {
        let mut all = HashSet::new();
        for &page in pages {
            let mut at = page;
            while let Some(slot) = self.get(at) {
                if !all.insert(at) || slot.parent == 0 {
                    break;
                }
                at = slot.parent;
            }
        }
        all
    }

    /// Every page of a b-tree.
    pub fn pages(&self) -> impl Iterator<Item = (u32, Slot)> {
        let pages = self.slots.iter().enumerate();
        pages.filter_map(|(pgno, slot)| Some((pgno as u32, (*slot)?)))
    }
}

/// An interior page's children; none for a leaf.
pub fn read(view: &View, pgno: u32, kind: TreeKind) -> Result<Vec<u32>> {
    let bytes = view.page(pgno)?;
    let page = BtreePage::parse(pgno, &bytes, view.header()?.usable)?;
    if page.kind != kind {
        return Err(corrupt(&format!(
            "page {pgno} is of the other kind of b-tree"
        )));
    }
    page.children()
}

/// All leaves have the same depth, so one child speaks for its siblings.
pub fn children_are_leaves(view: &View, children: &[u32], kind: TreeKind) -> Result<bool> {
    match children.first() {
        Some(&first) => Ok(read(view, first, kind)?.is_empty()),
        None => Ok(true),
    }
}

/// Pages found under a parent, in one of the two states.
pub type Found = HashMap<u32, Slot>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_parent() {
        let mut layout = Layout::default();
        let slot = |parent, leaf| Slot { parent, leaf };
        layout.claim(2, slot(0, false), 9).unwrap();
        layout.claim(3, slot(2, false), 9).unwrap();
        layout.claim(4, slot(3, true), 9).unwrap();
        assert!(layout.claim(4, slot(2, true), 9).is_err());
        assert!(layout.claim(10, slot(2, true), 9).is_err());
        assert_eq!(layout.root_of(4), Some(2));
        assert_eq!(layout.root_of(5), None);
        assert_eq!(layout.with_ancestors(&[4, 8]), HashSet::from([2, 3, 4]));
        layout.release(4);
        assert_eq!(layout.get(4), None);
        let mut same = Layout::default();
        same.claim(2, slot(0, false), 9).unwrap();
        same.claim(3, slot(2, false), 9).unwrap();
        assert!(layout == same);
    }
}
