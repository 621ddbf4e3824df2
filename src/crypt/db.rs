//! The database file: the header, then its pages in a [`Grid`]. The header is
//! written together with the first cell, so an empty database is an empty file.

use std::sync::Arc;

use super::Raw;
use super::grid::Grid;
use super::header::{self, Found, Slot};
use super::keys::FileKeys;
use super::vault::Vault;
use crate::error::{Error, Result};

/// The largest cell; pages larger than it have several.
const LARGEST: usize = 4096;

pub struct Db {
    vault: Arc<Vault>,
    state: Option<(Arc<FileKeys>, Grid)>,
    /// Whether a journal lies beside the file.
    journal: Box<dyn Fn() -> bool + Send>,
    /// The pages are smaller than the cells (a page size made smaller).
    small_pages: bool,
}

/// The slot in force of a file that is larger than a header.
pub fn slot(raw: &impl Raw) -> Result<Option<Slot>> {
    if raw.size()? == 0 {
        return Ok(None);
    }
    let mut head = vec![0; header::SIZE];
    let got = raw.read_at(&mut head, 0)?;
    match header::find(&head[..got]) {
        _ if got < header::MAGIC.len() || !ours(&head) => Err(Error::NotADb(
            "the file is not encrypted, but an encryption_key was given".into(),
        )),
        Found::Slot(slot) if raw.size()? > header::SIZE as u64 => Ok(Some(slot)),
        _ if raw.size()? <= header::SIZE as u64 => Ok(None),
        _ => Err(Error::NotADb(
            "the header of the encrypted database is damaged".into(),
        )),
    }
}

/// Whether bytes begin as an encrypted database does.
pub fn ours(head: &[u8]) -> bool {
    let second = header::SLOTS[1] as usize;
    head.starts_with(header::MAGIC)
        || head
            .get(second..)
            .is_some_and(|b| b.starts_with(header::MAGIC))
}

impl Db {
    pub fn new(vault: Arc<Vault>, journal: Box<dyn Fn() -> bool + Send>) -> Db {
        Db {
            vault,
            state: None,
            journal,
            small_pages: false,
        }
    }

    /// Finds the header; false while the file is empty.
    fn bind(&mut self, raw: &impl Raw) -> Result<bool> {
        if self.state.is_some() {
            return Ok(true);
        }
        if raw.size()? == 0 {
            return Ok(false);
        }
        let Some(slot) = slot(raw)? else {
            // The first write did not finish; its journal says so.
            if (self.journal)() {
                return Ok(false);
            }
            return Err(Error::Corrupt(
                "the encrypted database was cut off behind its header".into(),
            ));
        };
        let keys = self.vault.bind(&slot)?;
        let grid = Grid::shared(header::SIZE as u64, slot.unit, None);
        self.state = Some((keys, grid));
        Ok(true)
    }

    /// Looks at the page size of a file that has been opened.
    pub fn look(&mut self, raw: &impl Raw) {
        let mut head = [0; 100];
        if let (Ok(100), Some((_, grid))) = (self.read(raw, &mut head, 0), &self.state) {
            let page = match u16::from_be_bytes([head[16], head[17]]) {
                1 => 65_536,
                page => usize::from(page),
            };
            self.small_pages = page < grid.unit();
        }
    }

    /// A lock was taken: others may have changed the file before.
    pub fn locked(&mut self, raw: &impl Raw) {
        if let Some((keys, grid)) = &mut self.state {
            grid.forget_size();
            let mut id = [0; 16];
            let read = raw.read_at(&mut id, header::AT_FILE_ID as u64);
            if !matches!(read, Ok(16)) || id != keys.file_id {
                self.state = None;
            }
        }
    }

    /// What an interrupted creation left is nothing; the caller may write.
    pub fn sweep(&mut self, raw: &impl Raw) -> Result<()> {
        let size = raw.size()?;
        if self.state.is_none() && size > 0 && !self.bind(raw)? {
            raw.truncate(0)?;
        }
        Ok(())
    }

    pub fn forget_size(&mut self) {
        if let Some((_, grid)) = &mut self.state {
            grid.forget_size();
        }
    }

    /// Bytes that are written as one: the cells, where pages are smaller.
    pub fn sector(&self) -> Option<usize> {
        let (_, grid) = self.state.as_ref()?;
        self.small_pages.then(|| grid.unit())
    }

    /// The size of a cell, of a file that has any.
    pub fn unit(&self) -> Option<usize> {
        self.state.as_ref().map(|(_, grid)| grid.unit())
    }

    pub fn size(&mut self, raw: &impl Raw) -> Result<u64> {
        self.bind(raw)?;
        match &mut self.state {
            Some((_, grid)) => grid.size(raw),
            None => Ok(0),
        }
    }

    /// The usual read, of one whole cell; None if it is another.
    #[inline(always)]
    pub fn read_cell(&mut self, raw: &impl Raw, buf: &mut [u8], at: u64) -> Option<Result<usize>> {
        let (keys, grid) = self.state.as_mut()?;
        grid.read_cell(&keys.db, raw, buf, at)
    }

    pub fn read(&mut self, raw: &impl Raw, buf: &mut [u8], at: u64) -> Result<usize> {
        let read = self.read_cells(raw, buf, at);
        // SQLite looks at these before it knows what a journal or log has to
        // repair: a page 1 that a crash tore is not an error yet.
        let peek = matches!((at, buf.len()), (0, 100) | (24, 16));
        match read {
            Err(Error::Corrupt(_)) if peek => {
                buf.fill(0);
                Ok(0)
            }
            read => read,
        }
    }

    fn read_cells(&mut self, raw: &impl Raw, buf: &mut [u8], at: u64) -> Result<usize> {
        self.bind(raw)?;
        match &mut self.state {
            Some((keys, grid)) => grid.read(&keys.db, raw, buf, at),
            None => {
                buf.fill(0);
                Ok(0)
            }
        }
    }

    /// The cells of a file whose first write this is.
    fn create(&mut self, raw: &impl Raw, first: usize) -> Result<()> {
        if self.bind(raw)? {
            return Ok(());
        }
        let fits = first.is_power_of_two() && (512..=LARGEST).contains(&first);
        let unit = if fits { first } else { LARGEST };
        let keys = self.vault.keys()?;
        let header = self.vault.header(&keys, unit)?;
        let grid = Grid::shared(header::SIZE as u64, unit, Some(header));
        self.state = Some((keys, grid));
        Ok(())
    }

    pub fn write(&mut self, raw: &impl Raw, buf: &[u8], at: u64) -> Result<()> {
        self.create(raw, buf.len())?;
        match &mut self.state {
            Some((keys, grid)) => grid.write(&keys.db, raw, buf, at),
            None => Err(Error::Internal("no keys to write with".into())),
        }
    }

    pub fn truncate(&mut self, raw: &impl Raw, to: u64) -> Result<()> {
        if to == 0 {
            self.state = None;
            return raw.truncate(0);
        }
        self.create(raw, LARGEST)?;
        match &mut self.state {
            Some((keys, grid)) => grid.truncate(&keys.db, raw, to),
            None => Err(Error::Internal("no keys to write with".into())),
        }
    }
}
