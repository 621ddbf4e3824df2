//! One b-tree before and after: the pages that only one state has, or that
//! changed. Reads what lies on the way to them, and nothing else.
//!
//! A page that did not change has the same children in both states. So a
//! subtree without a changed page in it is either whole in both, wherever it
//! hangs, or gone as a whole.

use std::collections::HashSet;

use super::corrupt;
use super::layout::{Found, Layout, Root, Slot, children_are_leaves, read};
use super::view::View;
use crate::error::Result;

pub struct Explorer<'a> {
    pub base: &'a View<'a>,
    pub new: &'a View<'a>,
    /// Of the base state.
    pub layout: &'a Layout,
    pub changed: &'a HashSet<u32>,
    /// The changed pages and what is above them in the base state.
    pub dirty: &'a HashSet<u32>,
}

/// What was found of a b-tree.
#[derive(Debug, Default)]
pub struct Explored {
    /// Pages whose cells may differ, ascending.
    pub base_pages: Vec<u32>,
    pub new_pages: Vec<u32>,
    /// Pages that the tree may have lost; those it still has are placed anew.
    pub released: Vec<u32>,
    /// Pages and where they hang now.
    pub placed: Vec<(u32, Slot)>,
}

impl Explored {
    /// The whole of a tree: `self` explored as if it were gone, `new` as if
    /// it had never been there.
    pub fn and(self, new: Explored) -> Explored {
        Explored {
            base_pages: self.base_pages,
            released: self.released,
            new_pages: new.new_pages,
            placed: new.placed,
        }
    }
}

impl Explorer<'_> {
    pub fn explore(&self, base_root: Option<Root>, new_root: Option<Root>) -> Result<Explored> {
        let mut base = Found::new();
        let mut opened = HashSet::new();
        if let Some(root) = base_root {
            let leaf = self.known(root.pgno)?.leaf;
            base.insert(root.pgno, Slot { parent: 0, leaf });
            let open = |pgno| self.dirty.contains(&pgno);
            self.open(
                self.base,
                root,
                vec![root.pgno],
                &open,
                &mut base,
                &mut opened,
            )?;
        }
        let mut new = Found::new();
        if let Some(root) = new_root {
            let unknown = |pgno| {
                let known = base_root.is_some_and(|b| self.layout.root_of(pgno) == Some(b.pgno));
                !known || self.dirty.contains(&pgno)
            };
            let leaf = read(self.new, root.pgno, root.kind)?.is_empty();
            new.insert(root.pgno, Slot { parent: 0, leaf });
            let mut opened = HashSet::new();
            self.open(
                self.new,
                root,
                vec![root.pgno],
                &unknown,
                &mut new,
                &mut opened,
            )?;
        }
        if let Some(root) = base_root {
            self.open_gone(root, &mut base, &new, &mut opened)?;
        }
        Ok(self.summary(&base, &new))
    }

    fn known(&self, pgno: u32) -> Result<Slot> {
        let slot = self.layout.get(pgno);
        slot.ok_or_else(|| corrupt(&format!("page {pgno} belongs to nothing")))
    }

    /// Reads the interior pages that `which` names, from `work` downwards.
    fn open(
        &self,
        view: &View,
        root: Root,
        mut work: Vec<u32>,
        which: &dyn Fn(u32) -> bool,
        found: &mut Found,
        opened: &mut HashSet<u32>,
    ) -> Result<()> {
        while let Some(pgno) = work.pop() {
            if found.get(&pgno).is_none_or(|slot| slot.leaf) || !which(pgno) {
                continue;
            }
            if !opened.insert(pgno) {
                continue;
            }
            let children = read(view, pgno, root.kind)?;
            if children.is_empty() {
                return Err(corrupt("a b-tree whose leaves differ in depth"));
            }
            let leaf = children_are_leaves(view, &children, root.kind)?;
            for child in children {
                let slot = Slot { parent: pgno, leaf };
                if found.insert(child, slot).is_some() {
                    return Err(corrupt(&format!("page {child} has two parents")));
                }
                work.push(child);
            }
        }
        Ok(())
    }

    /// Subtrees that did not change and are in the new state no more.
    fn open_gone(
        &self,
        root: Root,
        base: &mut Found,
        new: &Found,
        opened: &mut HashSet<u32>,
    ) -> Result<()> {
        loop {
            let gone = |(pgno, slot): (&u32, &Slot)| {
                (!slot.leaf && !new.contains_key(pgno) && !opened.contains(pgno)).then_some(*pgno)
            };
            let work: Vec<u32> = base.iter().filter_map(gone).collect();
            if work.is_empty() {
                return Ok(());
            }
            let which = |pgno| !new.contains_key(&pgno);
            self.open(self.base, root, work, &which, base, opened)?;
        }
    }

    fn summary(&self, base: &Found, new: &Found) -> Explored {
        let differs = |a: &Found, b: &Found| {
            let only = |pgno: &&u32| self.changed.contains(pgno) || !b.contains_key(pgno);
            let mut pages: Vec<u32> = a.keys().filter(only).copied().collect();
            pages.sort_unstable();
            pages
        };
        let mut placed: Vec<_> = new.iter().map(|(pgno, slot)| (*pgno, *slot)).collect();
        placed.sort_unstable_by_key(|(pgno, _)| *pgno);
        let mut released: Vec<u32> = base.keys().copied().collect();
        released.sort_unstable();
        Explored {
            base_pages: differs(base, new),
            new_pages: differs(new, base),
            released,
            placed,
        }
    }
}
