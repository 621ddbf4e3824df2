//! The local side of a replica: the files, where in the primary's history they
//! are, and their checkpoints.

use std::time::{Duration, Instant};

use super::apply::{self, Located, Message, NewFile};
use super::digest::PageHash;
use super::files::{Files, Hold, log_end};
use super::identity::{Identity, path_of};
use super::position::{Opened, PositionFile};
use super::record::{Record, Stamp};
use crate::crypt::nonce;
use crate::error::{Error, Result};
use crate::ffi::attention;
use crate::ffi::conn::{Checkpoint, Connection};
use crate::ffi::fork;
use crate::ffi::vfs::BaseVfs;
use crate::log;
use crate::remote::Divergence;
use crate::wal::format::FRAME_SIZE;
use crate::wal::index::Header;

/// A log of so many frames is checkpointed, as by SQLite's default.
const CHECKPOINT_FRAMES: u32 = 1000;
/// A log file of this size is cut back when it is done with.
const LARGE_LOG: u64 = 16 << 20;
/// So long a writer is waited for that is in the way of a file's first use.
const FOR_THE_LOCK: Duration = Duration::from_secs(5);
/// So often that is tried.
const RETRY: Duration = Duration::from_millis(250);

/// What lies at a replica's path.
pub enum Found {
    /// No content: the primary's has to be fetched.
    Nothing,
    /// A replica's file that another SQLite took out of WAL mode, or another
    /// file put in its place. It can be read; only `adopt` writes to it.
    OutOfWalMode,
    Replica(Box<Local>),
}

pub struct Local {
    pub files: Files,
    pub store: PositionFile,
    path: String,
    /// The state that was last known, and the wal-index header it had.
    seen: Option<(Header, Record)>,
    /// When the log was last checkpointed because it is due.
    tried: Option<Instant>,
}

impl Local {
    /// Looks at the path and opens what is there. Waits, bounded, for another
    /// process that is fetching the database.
    pub fn find(vfs: &BaseVfs, path: &str, timeout: Duration) -> Result<Found> {
        let deadline = Instant::now() + timeout;
        loop {
            let size = match std::fs::metadata(path) {
                Ok(meta) => meta.len(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
                Err(e) => return Err(Error::CantOpen(format!("cannot stat '{path}': {e}"))),
            };
            if size == 0 {
                return Ok(Found::Nothing);
            }
            let store = PositionFile::open(path)?.ok_or_else(|| foreign(path))?;
            match Self::open(vfs, path, store) {
                // A bootstrap goes on, or another process recovers or closes.
                Err(Error::Busy(_)) if Instant::now() < deadline => {
                    attention::pause(Duration::from_millis(20))?;
                }
                Err(Error::Busy(_)) => return Err(being_fetched(path)),
                Err(e) => return Err(e),
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
            }
        }
    }

    /// Opens a file that has content; None if it has to be looked at again.
    fn open(vfs: &BaseVfs, path: &str, mut store: PositionFile) -> Result<Option<Found>> {
        // A bootstrap that died: SQLite rolls it back to nothing. A journal that
        // stays is not hot: a stock program's with journal_mode=PERSIST.
        let journal = format!("{path}-journal");
        if vfs.exists(&journal)? {
            Connection::open(vfs, path)?.touch()?;
            if !vfs.exists(&journal)? {
                return Ok(None);
            }
        }
        if store.last().is_none() {
            return Err(foreign(path));
        }
        let Some(mut files) = Files::open(vfs, path, store.page_hash())? else {
            return Ok(Some(Found::OutOfWalMode));
        };
        if store.has_no_key() {
            give_key(&files, &mut store)?;
            files.hash = store.page_hash();
        }
        Ok(Some(Found::Replica(Box::new(Local {
            files,
            store,
            path: path.to_string(),
            seen: None,
            tried: None,
        }))))
    }

    /// Puts a new file in the place of one that the key of this encrypted
    /// database does not prove. Nothing of that one is believed: where the
    /// content is in the primary's history is not known any more.
    pub fn disown(vfs: &BaseVfs, path: &str, identity: Identity) -> Result<()> {
        let hash = PageHash::Public;
        let unproven =
            || -> Result<bool> { Ok(matches!(PositionFile::examine(path)?, Opened::Unproven)) };
        if std::fs::metadata(path).map_or(0, |meta| meta.len()) == 0 || !unproven()? {
            return Ok(());
        }
        let files = match Files::open(vfs, path, hash)? {
            Some(files) => files,
            None => Files::open_converted(vfs, path, hash)?,
        };
        let (_lock, _) = files.write_lock(Hold::Take(FOR_THE_LOCK))?;
        if unproven()? {
            let mut store = PositionFile::create(path, identity)?;
            store.append(Record::of_nowhere()?)?;
            store.sync()?;
            log::warn(&format!(
                "'{}' was not proved by the key of the database, and is made anew",
                path_of(path)
            ));
        }
        Ok(())
    }

    /// Handles of their own on a replica that is open already.
    pub fn reopen(vfs: &BaseVfs, path: &str) -> Result<Local> {
        let store = PositionFile::open(path)?.ok_or_else(|| foreign(path))?;
        match Self::open(vfs, path, store)? {
            Some(Found::Replica(local)) => Ok(*local),
            _ => Err(Error::Diverged(format!(
                "'{path}' was taken out of WAL mode by another SQLite, or replaced"
            ))),
        }
    }

    /// Ends it without a checkpoint: somebody else has the files open.
    pub fn close(mut self) {
        self.seen = None;
    }

    /// Opens what is there, whatever its content, for it to be replaced.
    pub fn adopt(vfs: &BaseVfs, path: &str) -> Result<Local> {
        let store = PositionFile::open(path)?.ok_or_else(|| foreign(path))?;
        let files = Files::open_converted(vfs, path, store.page_hash())?;
        Ok(Local {
            files,
            store,
            path: path.to_string(),
            seen: None,
            tried: None,
        })
    }

    /// Makes the database of what `fetch` feeds it.
    pub fn create(
        vfs: &BaseVfs,
        path: &str,
        identity: Identity,
        timeout: Duration,
        fetch: impl FnOnce(&mut NewFile) -> Result<crate::remote::Reached>,
    ) -> Result<Found> {
        let Some(mut new) = NewFile::begin(vfs, path, || PositionFile::create(path, identity))?
        else {
            return Ok(Found::Nothing);
        };
        if let Err(e) = fetch(&mut new).and_then(|reached| new.commit(reached)) {
            // The cause counts, not what the cleaning up runs into.
            let _ = new.abandon();
            return Err(e);
        }
        // Unlocks, for our own next look.
        drop(new);
        Self::find(vfs, path, timeout)
    }

    /// Where in the primary's history the local content is, and where the log
    /// ends with it.
    pub fn locate(&mut self, hold: Hold) -> Result<Located> {
        let _inside = fork::inside();
        let header = self.files.header()?;
        self.store.refresh()?;
        let stamp = self.files.stamp(false)?;
        let end = log_end(&header);
        match self.known(&header, &stamp) {
            Some(record) => {
                self.seen = Some((header, record.clone()));
                Ok(Located { record, end, stamp })
            }
            None => self.identify(hold),
        }
    }

    fn known(&self, header: &Header, stamp: &Stamp) -> Option<Record> {
        self.store.known(header, stamp, self.seen.as_ref())
    }

    /// Whether the content is still where it was found.
    pub fn is_at(&mut self, base: &Located, hold: Hold) -> Result<bool> {
        let now = self.locate(hold)?.record;
        Ok(now.position == base.record.position && now.undo == base.record.undo)
    }

    /// Whether only the checksum of the position's frame is another one in the
    /// primary's log, as it is where that was compacted between own commits.
    /// That is recorded; the next pull goes on from there.
    pub fn goes_on(&mut self, base: &Located, other: &Divergence, hold: Hold) -> Result<bool> {
        let Some(checksum) = other.checksum else {
            return Ok(false);
        };
        if !self.store.has_begun_anew(&base.record.position, checksum) {
            return Ok(false);
        }
        let (_lock, header) = self.files.write_lock(hold)?;
        // Whoever has changed it since has looked for itself.
        if log_end(&header) == base.end {
            let mut record = base.record.clone();
            record.position.checksum = Some(checksum);
            let record = self.store.append(record)?;
            self.seen = Some((header, record));
        }
        Ok(true)
    }

    /// As `locate`, if that can be had by looking: it waits for nobody.
    pub fn peek(&mut self) -> Result<Option<Record>> {
        let _inside = fork::inside();
        let Some(header) = self.files.index().header()? else {
            return Ok(None);
        };
        self.store.refresh()?;
        let stamp = self.files.stamp(false)?;
        Ok(self.known(&header, &stamp))
    }

    /// The slow way: by the content. Due after another process has
    /// checkpointed, or put another file there, or written.
    fn identify(&mut self, hold: Hold) -> Result<Located> {
        let (_lock, header) = self.files.write_lock(hold)?;
        self.store.refresh()?;
        let stamp = self.files.stamp(true)?;
        let (digest, page_count) = self.files.digest(header)?;
        let Some(record) = self.store.find_content(digest, page_count).cloned() else {
            return Err(Error::Diverged(format!(
                "'{}' was changed locally, not by this replica (a write by another SQLite, or another file put there)",
                self.path
            )));
        };
        let backfilled = self.files.index().backfilled()?;
        let end = log_end(&header);
        let complete = backfilled == header.max_frame;
        let record = self.store.append(Record {
            end,
            stamp: Some(stamp),
            complete,
            ..record
        })?;
        self.seen = Some((header, record.clone()));
        Ok(Located { record, end, stamp })
    }

    /// Applies what was pulled since `base`; None if the state is another by now.
    pub fn increment(
        &mut self,
        base: &Located,
        hold: Hold,
        messages: &mut dyn Iterator<Item = Message>,
    ) -> Result<Option<Record>> {
        let _inside = fork::inside();
        let applied = apply::increment(&self.files, &mut self.store, base, hold, messages)?;
        self.note(applied)
    }

    /// Replaces the content by what was pulled.
    pub fn replace(
        &mut self,
        timeout: Duration,
        messages: &mut dyn Iterator<Item = Message>,
    ) -> Result<Option<Record>> {
        let _inside = fork::inside();
        let applied = apply::replace(&self.files, &mut self.store, Hold::Take(timeout), messages)?;
        self.note(applied)
    }

    fn note(&mut self, applied: Option<Record>) -> Result<Option<Record>> {
        if let Some(record) = &applied {
            let header = self.files.header()?;
            // Unless somebody has gone on already.
            if log_end(&header) == record.end {
                self.seen = Some((header, record.clone()));
            }
        }
        Ok(applied)
    }

    /// Checkpoints when the log has grown; waits for nobody, and is no reason
    /// for an error: the next one does what this one could not.
    pub fn checkpoint_if_due(&mut self) -> Result<()> {
        let header = self.files.header()?;
        let waiting = header
            .max_frame
            .saturating_sub(self.files.index().backfilled()?);
        let large = u64::from(header.max_frame) * FRAME_SIZE as u64 > LARGE_LOG;
        // A large log that readers keep is no reason to try at every commit.
        let tried = self.tried.is_some_and(|at| at.elapsed() < RETRY);
        if waiting < CHECKPOINT_FRAMES && (!large || tried) {
            return Ok(());
        }
        self.tried = Some(Instant::now());
        self.checkpoint(if large {
            Checkpoint::Truncate
        } else {
            Checkpoint::Passive
        })
    }

    /// Checkpoints, and records the stamp that the database file then has.
    pub fn checkpoint(&mut self, how: Checkpoint) -> Result<()> {
        let _inside = fork::inside();
        self.store.sync()?;
        self.files.conn.checkpoint(how)?;
        let stamp = self.files.stamp(true)?;
        let (_lock, header) = self
            .files
            .write_lock(Hold::Take(Duration::from_millis(100)))?;
        self.store.refresh()?;
        let end = log_end(&header);
        if let Some(record) = self.known(&header, &stamp) {
            let complete = self.files.index().backfilled()? == header.max_frame;
            let current = Record {
                end,
                stamp: Some(stamp),
                complete,
                ..record.clone()
            };
            if self.files.stamp(false)? == stamp && current != record {
                self.store.append(current)?;
            }
        }
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // So that the next process finds a file it knows. What fails here is
        // found out by the next locate.
        if self.seen.is_some() {
            let _ = self.checkpoint(Checkpoint::Passive);
        }
    }
}

/// Takes a file over that has no key yet: one whole look at the content, which
/// is the same by both hashes.
fn give_key(files: &Files, store: &mut PositionFile) -> Result<()> {
    let (_lock, header) = files.write_lock(Hold::Take(FOR_THE_LOCK))?;
    store.refresh()?;
    if !store.has_no_key() {
        // Another process was faster.
        return Ok(());
    }
    let (stamp, end) = (files.stamp(true)?, log_end(&header));
    let known = match store.find(end, &stamp) {
        Some(record) => Some(record.clone()),
        None => {
            let (digest, page_count) = files.digest_by(PageHash::Public, header)?;
            store.find_content(digest, page_count).cloned()
        }
    };
    let seed = nonce::random()?;
    let current = match known {
        Some(record) => Record {
            digest: files.digest_by(PageHash::new(&seed), header)?.0,
            end,
            stamp: Some(stamp),
            complete: files.index().backfilled()? == header.max_frame,
            ..record
        },
        None => Record::of_nowhere()?,
    };
    store.give_key(seed, current)
}

pub fn foreign(path: &str) -> Error {
    Error::CantOpen(format!(
        "'{path}' has content of its own and is not a replica (there is no '{}' beside it); move it away or choose another path",
        path_of(path)
    ))
}

fn being_fetched(path: &str) -> Error {
    Error::Busy(format!(
        "another process is fetching '{path}' from the primary; try again"
    ))
}
