//! Makes pulled pages the local content, as one transaction: through the log
//! of a database that exists, or as a new database file.

use libsqlite3_sys as sql;

use super::chunk::Chunk;
use super::files::{Files, Hold, WriteLock, log_end};
use super::identity::path_of;
use super::image::{Changes, check_page1};
use super::position::PositionFile;
use super::record::{Record, Stamp};
use super::undo;
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::ffi::file::{FileKind, MOST_PAGES, OsFile};
use crate::ffi::shm::ShmLock;
use crate::ffi::vfs::BaseVfs;
use crate::remote::Reached;
use crate::wal::format::next_salt;
use crate::wal::index::Header;
use crate::wal::reader::Reader;
use crate::wal::writer::{LogEnd, Writer};
use crate::wal::{PAGE_SIZE, Page};

/// What arrives at an applier: pages, then where they lead. Without `Finish`
/// nothing is applied.
pub enum Message {
    Pages(Chunk),
    Finish(Reached),
}

/// A transaction in the log of an existing database.
struct LogTransaction<'a> {
    files: &'a Files,
    _lock: WriteLock<'a>,
    /// The database before it.
    before: Reader<'a, OsFile, OsFile>,
    writer: Writer<'a, OsFile, OsFile>,
    changes: Changes,
}

impl<'a> LogTransaction<'a> {
    fn begin(files: &'a Files, lock: WriteLock<'a>, mut header: Header) -> Result<Self> {
        restart_if_done(files, &mut header)?;
        Ok(LogTransaction {
            files,
            _lock: lock,
            before: files.reader(header),
            writer: Writer::begin(&files.wal, files.index(), header, api::random())?,
            changes: Changes::new(files.hash),
        })
    }

    fn put(&mut self, pgno: u32, page: &Page) -> Result<()> {
        self.changes.note(pgno, page);
        self.writer.put(pgno, page)
    }

    fn put_all(&mut self, pages: &Chunk) -> Result<()> {
        pages
            .iter()
            .try_for_each(|(pgno, page)| self.put(pgno, page))
    }

    /// Page 1 as it will be.
    fn page1(&self) -> Result<Box<Page>> {
        if let Some(page) = &self.changes.page1 {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE_SIZE]);
        self.before.read(1, &mut page)?;
        Ok(page)
    }

    fn hash_before(&self, pgno: u32, page: &mut Page) -> Result<u64> {
        self.before.read(pgno, page)?;
        Ok(self.files.hash.of(pgno, page))
    }

    /// Pages inside the new size that nobody wrote are zeros, whatever an
    /// earlier, larger content left at their place, in the file or in the log.
    fn blank(&mut self, from: u32, page_count: u32) -> Result<()> {
        let on_disk = (self.files.db.size()? / PAGE_SIZE as u64).min(u64::from(page_count)) as u32;
        let on_disk = on_disk.max(self.before.page_count()?.min(page_count));
        let logged = match from <= page_count {
            true => self.before.index.pages(self.before.header.max_frame)?,
            false => Vec::new(),
        };
        let logged = logged
            .into_iter()
            .filter(|pgno| (from..=page_count).contains(pgno));
        for pgno in (from..=on_disk).chain(logged) {
            if !self.writer.contains(pgno) {
                self.put(pgno, &[0; PAGE_SIZE])?;
            }
        }
        Ok(())
    }

    /// `base`: the record of the content before, None if all of it is replaced.
    fn commit(
        mut self,
        store: &mut PositionFile,
        base: Option<&Record>,
        reached: Reached,
    ) -> Result<Record> {
        let page_count = reached.page_count;
        check_page1(&*self.page1()?, page_count)?;
        let digest = match base {
            None => {
                self.changes.check_whole(page_count)?;
                self.blank(1, page_count)?;
                self.changes.digest(page_count)
            }
            Some(base) => {
                let size = base.undo.as_ref().map_or(base.page_count, |u| u.page_count);
                self.changes.check_growth(size, page_count)?;
                self.blank(size + 1, page_count)?;
                let (mut digest, mut page) = (base.digest, Box::new([0; PAGE_SIZE]));
                for (&pgno, &hash) in &self.changes.hashes {
                    if pgno <= base.page_count {
                        digest.remove(self.hash_before(pgno, &mut page)?);
                    }
                    if pgno <= page_count {
                        digest.add(hash);
                    }
                }
                for pgno in page_count + 1..=base.page_count {
                    if !self.changes.hashes.contains_key(&pgno) {
                        digest.remove(self.hash_before(pgno, &mut page)?);
                    }
                }
                digest
            }
        };
        let prepared = self.writer.prepare(page_count)?;
        // Recorded and durable first: whichever of the two states a crash
        // leaves, there is a record of it.
        let record = store.append(Record {
            seq: 0,
            position: reached.position,
            page_count,
            digest,
            end: Some(prepared.end()),
            stamp: Some(self.files.stamp(false)?),
            complete: false,
            undo: None,
        })?;
        store.sync()?;
        if base.is_none() {
            store.note_history()?;
        }
        prepared.publish()?;
        if base.is_none() {
            // Again: whoever has read in between may have read what was before.
            store.note_history()?;
        }
        if base.is_none_or(|base| base.undo.is_some()) {
            // Only then is the state before it gone for good.
            self.files.wal.sync()?;
            undo::remove(&self.files.vfs, self.files.db.path());
        }
        if store.is_sync_due() {
            self.files.wal.sync()?;
        }
        Ok(record)
    }
}

/// Begins the log anew where nobody needs its frames any more, as SQLite's
/// writers do. A reader of the log simply keeps it growing.
fn restart_if_done(files: &Files, header: &mut Header) -> Result<()> {
    let index = files.index();
    if header.max_frame == 0 || index.backfilled()? != header.max_frame {
        return Ok(());
    }
    if files.db.shm_lock(ShmLock::LOG_READERS)? {
        let random: [u8; 4] = api::random();
        let restarted = index.restart(header, next_salt(header.salt, random));
        files.db.shm_unlock(ShmLock::LOG_READERS);
        restarted?;
    }
    Ok(())
}

/// The state a database was found in.
pub struct Located {
    pub record: Record,
    /// Where the log ends.
    pub end: Option<LogEnd>,
    /// Of the database file.
    pub stamp: Stamp,
}

/// Applies pages on top of the state that was found. None if it is another by
/// now (another process was faster), or if nothing was finished.
pub fn increment(
    files: &Files,
    store: &mut PositionFile,
    base: &Located,
    hold: Hold,
    messages: &mut dyn Iterator<Item = Message>,
) -> Result<Option<Record>> {
    let (lock, header) = files.write_lock(hold)?;
    still_a_replica(store)?;
    if log_end(&header) != base.end {
        return Ok(None);
    }
    // One empty log is like another: what was written, checkpointed and cut
    // off in between shows in the database file alone.
    if base.end.is_none() && base.stamp != files.stamp(false)? {
        return Ok(None);
    }
    let mut transaction = LogTransaction::begin(files, lock, header)?;
    if let Some(undo) = &base.record.undo {
        // First the primary's pages as they were, then what has become of them.
        undo::read(&files.vfs, files.db.path(), undo, |pgno, page| {
            transaction.put(pgno, page)
        })?;
    }
    run(&mut transaction, messages, LogTransaction::put_all)?
        .map(|reached| transaction.commit(store, Some(&base.record), reached))
        .transpose()
}

/// Replaces the whole content.
pub fn replace(
    files: &Files,
    store: &mut PositionFile,
    hold: Hold,
    messages: &mut dyn Iterator<Item = Message>,
) -> Result<Option<Record>> {
    let (lock, header) = files.write_lock(hold)?;
    still_a_replica(store)?;
    let mut transaction = LogTransaction::begin(files, lock, header)?;
    run(&mut transaction, messages, LogTransaction::put_all)?
        .map(|reached| transaction.commit(store, None, reached))
        .transpose()
}

/// Under the write lock: another process may have frozen it.
fn still_a_replica(store: &PositionFile) -> Result<()> {
    match store.was_frozen()? {
        false => Ok(()),
        true => Err(Error::Config(
            "it was frozen: it is no replica any more".into(),
        )),
    }
}

/// Feeds pages into a target until the end is told, or never is.
fn run<T>(
    target: &mut T,
    messages: &mut dyn Iterator<Item = Message>,
    put: impl Fn(&mut T, &Chunk) -> Result<()>,
) -> Result<Option<Reached>> {
    for message in messages {
        match message {
            Message::Pages(pages) => put(target, &pages)?,
            Message::Finish(reached) => return Ok(Some(reached)),
        }
    }
    Ok(None)
}

/// A database file in the making. It stands under SQLite's own rollback
/// protocol: an EXCLUSIVE lock, and a journal that says "no pages before". Any
/// SQLite that finds it after a crash rolls it back to nothing.
pub struct NewFile {
    db: OsFile,
    vfs: BaseVfs,
    path: String,
    changes: Changes,
    store: PositionFile,
    /// There was no file, not even an empty one.
    made: bool,
    /// Bytes written since the last sync.
    unsynced: usize,
}

/// Less than what is fetched in the time that it takes.
const SYNC_EVERY: usize = 16 << 20;

impl NewFile {
    /// None if the file is not empty any more, or another process is making it.
    pub fn begin(
        vfs: &BaseVfs,
        path: &str,
        store: impl FnOnce() -> Result<PositionFile>,
    ) -> Result<Option<NewFile>> {
        let Some((db, made)) = open_or_make(vfs, path)? else {
            return Ok(None);
        };
        let locked = db.lock(sql::SQLITE_LOCK_SHARED)?
            && db.lock(sql::SQLITE_LOCK_RESERVED)?
            && db.lock(sql::SQLITE_LOCK_EXCLUSIVE)?;
        if !locked || db.has_moved() || db.size()? != 0 {
            return Ok(None);
        }
        let begun = begin_beside(vfs, path).and_then(|()| store());
        let store = begun.inspect_err(|_| {
            if made {
                // What it failed for counts.
                let _ = vfs.delete(path);
            }
        })?;
        let this = NewFile {
            db,
            vfs: *vfs,
            path: path.to_string(),
            changes: Changes::new(store.page_hash()),
            store,
            made,
            unsynced: 0,
        };
        match this.write_journal() {
            Ok(()) => Ok(Some(this)),
            Err(e) => {
                let _ = this.abandon();
                Err(e)
            }
        }
    }

    fn write_journal(&self) -> Result<()> {
        let journal = OsFile::open(&self.vfs, &self.path, FileKind::Journal, true)?;
        journal.write_at(&empty_journal(), 0)?;
        journal.sync()
    }

    fn put_all(&mut self, pages: &Chunk) -> Result<()> {
        for (pgno, page) in pages.iter() {
            self.changes.note(pgno, page);
        }
        // Pages of a log mostly come in their order in the file: few writes are enough.
        for (first, bytes) in pages.runs(MOST_PAGES) {
            let at = u64::from(first - 1) * PAGE_SIZE as u64;
            self.db.write_at(bytes, at)?;
        }
        // The disk works while more is being fetched, not only at the end.
        self.unsynced += pages.len() * PAGE_SIZE;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.db.sync()?;
        }
        Ok(())
    }

    pub fn fill(&mut self, messages: &mut dyn Iterator<Item = Message>) -> Result<Option<Reached>> {
        run(self, messages, NewFile::put_all)
    }

    /// Makes the database exist. After an error it is to be abandoned.
    pub fn commit(&mut self, reached: Reached) -> Result<Record> {
        let page_count = reached.page_count;
        self.changes.check_whole(page_count)?;
        if let Some(page1) = &self.changes.page1 {
            check_page1(page1, page_count)?;
        }
        self.db.truncate(u64::from(page_count) * PAGE_SIZE as u64)?;
        self.db.sync()?;
        let record = self.store.append(Record {
            seq: 0,
            position: reached.position,
            page_count,
            digest: self.changes.digest(page_count),
            end: None,
            stamp: Some(Stamp::settled(&self.path)?),
            complete: true,
            undo: None,
        })?;
        self.store.sync()?;
        // The commit, as in rollback mode.
        self.vfs.delete(&format!("{}-journal", self.path))?;
        Ok(record)
    }

    /// Leaves behind what was there before: nothing, or an empty file.
    pub fn abandon(self) -> Result<()> {
        self.db.truncate(0)?;
        self.vfs.delete(&format!("{}-journal", self.path))?;
        // First, while nobody else can begin another one.
        self.vfs.delete(&path_of(&self.path))?;
        if !self.made {
            return Ok(());
        }
        // Still locked: whoever waits for it sees that it has moved, and begins again.
        self.vfs.delete(&self.path)
    }
}

/// The file, and whether it was made now; None if others make or remove it at
/// the same time.
fn open_or_make(vfs: &BaseVfs, path: &str) -> Result<Option<(OsFile, bool)>> {
    // To SQLite's VFS an empty file does not exist.
    let exists = || std::fs::metadata(path).is_ok();
    if !exists() {
        return match OsFile::create_new(vfs, path, FileKind::Database) {
            Ok(db) => Ok(Some((db, true))),
            Err(_) if exists() => Ok(None),
            Err(e) => Err(e),
        };
    }
    match OsFile::open(vfs, path, FileKind::Database, false) {
        Ok(db) => Ok(Some((db, false))),
        Err(_) if !exists() => Ok(None),
        Err(e) => Err(e),
    }
}

/// What an older database of this name left behind must not be taken for part
/// of the new one.
fn begin_beside(vfs: &BaseVfs, path: &str) -> Result<()> {
    vfs.delete(&format!("{path}-wal"))?;
    undo::remove(vfs, path);
    Ok(())
}

/// A rollback journal of a database that had no pages (file format, section 3).
fn empty_journal() -> [u8; 512] {
    let mut header = [0; 512];
    header[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    // No records, a nonce for their checksums, no pages.
    header[12..16].copy_from_slice(&api::random::<4>());
    header[20..24].copy_from_slice(&512u32.to_be_bytes());
    header[24..28].copy_from_slice(&(PAGE_SIZE as u32).to_be_bytes());
    header
}
