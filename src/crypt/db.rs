//! The database file: the header, then its pages in a [`Grid`]. The header is
//! written together with the first cell, so an empty database is an empty file.

use std::sync::Arc;

use super::Raw;
use super::grid::Grid;
use super::header::{self, Found, Layout, Slot};
use super::keys::FileKeys;
use super::vault::Vault;
use crate::error::{Error, Result};

/// The largest cell; pages larger than it have several.
const LARGEST: usize = 4096;

pub struct Db {
    vault: Arc<Vault>,
    state: Option<(Arc<FileKeys>, Grid)>,
    unfinished: Unfinished,
}

/// Whether the journal of a first transaction lies beside the file.
pub type Unfinished = Box<dyn Fn() -> bool + Send>;

/// The slot in force; None of a file without content. What the first
/// transaction wrote and did not commit is none: a power cut may leave any
/// bytes of it.
pub fn slot(raw: &impl Raw, unfinished: &dyn Fn() -> bool) -> Result<Option<Slot>> {
    let size = raw.size()?;
    if size == 0 {
        return Ok(None);
    }
    let mut head = vec![0; header::SIZE];
    let got = raw.read_at(&mut head, 0)?;
    let found = header::find(&head[..got]);
    let whole = size
        > match &found {
            Found::Slot(slot) => slot.layout.base(),
            _ => header::SIZE as u64,
        };
    match found {
        Found::Slot(slot) if whole => Ok(Some(slot)),
        _ if unfinished() => Ok(None),
        Found::Version(version) => Err(Error::NotADb(format!(
            "the file is encrypted in version {version} of the format, this library reads version {}: with the library that made it, VACUUM INTO a plain file",
            header::VERSION
        ))),
        _ if got < header::MAGIC.len() || !ours(&head) => Err(Error::NotADb(
            "the file is not encrypted, but an encryption_key was given".into(),
        )),
        _ if !whole => Err(Error::Corrupt(
            "the encrypted database was cut off behind its header".into(),
        )),
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
    pub fn new(vault: Arc<Vault>, unfinished: Unfinished) -> Db {
        Db {
            vault,
            state: None,
            unfinished,
        }
    }

    /// Finds the header; false while the file is empty.
    fn bind(&mut self, raw: &impl Raw) -> Result<bool> {
        if self.state.is_some() {
            return Ok(true);
        }
        let Some(slot) = slot(raw, &self.unfinished)? else {
            self.vault.set_written(false);
            return Ok(false);
        };
        let keys = self.vault.bind(&slot)?;
        self.vault.set_written(true);
        let grid = Grid::shared(slot.layout, None);
        self.state = Some((keys, grid));
        Ok(true)
    }

    /// The size of the pages, if page 1 is there.
    pub fn page_size(&mut self, raw: &impl Raw) -> Option<usize> {
        let mut head = [0; 100];
        if !matches!(self.read(raw, &mut head, 0), Ok(100)) {
            return None;
        }
        match u16::from_be_bytes([head[16], head[17]]) {
            1 => Some(65_536),
            size => Some(size.into()).filter(|size| (512..=32_768).contains(size)),
        }
    }

    /// The size of the cells, where the pages are smaller (made so by a
    /// backup): then each write is one of all pages in a cell.
    pub fn shared_cells(&mut self, raw: &impl Raw) -> Option<usize> {
        let page = self.page_size(raw)?;
        self.unit().filter(|unit| page < *unit)
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
    /// True if there was any: it must not come back once its journal is gone.
    pub fn sweep(&mut self, raw: &impl Raw) -> Result<bool> {
        let left = self.state.is_none() && raw.size()? > 0 && !self.bind(raw)?;
        if left {
            raw.truncate(0)?;
        }
        Ok(left)
    }

    pub fn forget_size(&mut self) {
        if let Some((_, grid)) = &mut self.state {
            grid.forget_size();
        }
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
        let layout = Layout {
            unit,
            spaced: self.vault.is_careful(),
        };
        let mut header = self.vault.header(&keys, layout)?.into_vec();
        header.resize(layout.base() as usize, 0);
        let grid = Grid::shared(layout, Some(header.into()));
        self.state = Some((keys, grid));
        self.vault.set_written(true);
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
            self.vault.set_written(false);
            return raw.truncate(0);
        }
        self.create(raw, LARGEST)?;
        match &mut self.state {
            Some((keys, grid)) => grid.truncate(&keys.db, raw, to),
            None => Err(Error::Internal("no keys to write with".into())),
        }
    }
}
