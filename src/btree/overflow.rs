//! Changed overflow pages whose cells did not change. SQLite writes over a
//! row of the same size in place, and touches only the pages that differ.

use std::collections::{HashMap, HashSet};

use super::layout::Layout;
use super::page::BtreePage;
use super::view::View;
use crate::error::Result;

pub struct Search<'a> {
    pub view: &'a View<'a>,
    pub layout: &'a Layout,
    pub hints: &'a HashMap<u32, u32>,
    /// Whether the page is one that can hold the head of such a chain: with
    /// rows of a table, in both states, unchanged.
    pub is_candidate: &'a dyn Fn(u32) -> bool,
}

impl Search<'_> {
    /// The b-tree pages whose chains have one of `wanted`. What is left in it
    /// belongs to no table: overflow pages of indexes.
    pub fn owners(
        &self,
        wanted: &mut HashSet<u32>,
        met: &mut HashMap<u32, u32>,
    ) -> Result<Vec<u32>> {
        let mut owners = Vec::new();
        let mut hinted: Vec<u32> = wanted
            .iter()
            .filter_map(|p| self.hints.get(p).copied())
            .collect();
        hinted.sort_unstable();
        hinted.dedup();
        for pgno in hinted {
            self.look(pgno, wanted, met, &mut owners)?;
        }
        for (pgno, _) in self.layout.pages() {
            if wanted.is_empty() {
                break;
            }
            self.look(pgno, wanted, met, &mut owners)?;
        }
        Ok(owners)
    }

    fn look(
        &self,
        pgno: u32,
        wanted: &mut HashSet<u32>,
        met: &mut HashMap<u32, u32>,
        owners: &mut Vec<u32>,
    ) -> Result<()> {
        if !(self.is_candidate)(pgno) || owners.contains(&pgno) {
            return Ok(());
        }
        let mut found = false;
        for page in chains(self.view, pgno)? {
            found |= wanted.remove(&page);
            met.insert(page, pgno);
        }
        if found {
            owners.push(pgno);
        }
        Ok(())
    }
}

/// All overflow pages of a b-tree page's cells.
pub fn chains(view: &View, pgno: u32) -> Result<Vec<u32>> {
    let bytes = view.page(pgno)?;
    let page = BtreePage::parse(pgno, &bytes, view.header()?.usable)?;
    let mut pages = Vec::new();
    for i in 0..page.cells {
        view.overflow(&page.cell(i)?, &mut |pgno, _| pages.push(pgno))?;
    }
    Ok(pages)
}
