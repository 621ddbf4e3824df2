//! The encrypted databases of this process: a vault for each path that is
//! open, with the user's key and the file's. A key is offered for one open on
//! one thread, and counts once the file's header has accepted it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use super::header::{self, Layout, Slot};
use super::keys::{FileKeys, UserKey};
use crate::error::{Error, Result};

static OPEN: Lazy<Mutex<HashMap<String, Weak<Vault>>>> = Lazy::new(Mutex::default);
/// An encrypted database has been open in this process.
static EVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static OFFER: RefCell<Option<Offer>> = const { RefCell::new(None) };
}

/// What the user gave for the open that is under way on this thread.
#[derive(Clone)]
struct Offer {
    path: String,
    /// None: no key.
    vault: Option<Arc<Vault>>,
}

/// How a database file is being opened.
pub enum Access {
    /// By the user, with a key.
    Key(Arc<Vault>),
    /// By the user, without.
    NoKey,
    /// By a handle of our own, beside one that has the key.
    Inside(Arc<Vault>),
    /// By a handle of our own, of a path that nobody has given a key for.
    Plain,
    /// By somebody who names the VFS of our own handles.
    Foreign,
}

/// The next open of `path` on this thread is the user's, with this key or none.
pub fn offer(path: &str, key: Option<UserKey>) {
    let vault = key.map(|key| match find(path) {
        Some(open) if open.inner.lock().user.same(&key) => open,
        _ => Arc::new(Vault::new(path, key)),
    });
    if vault.is_some() {
        EVER.store(true, Ordering::Release);
    }
    let path = path.to_string();
    OFFER.set(Some(Offer { path, vault }));
}

/// The key that was offered for `path` on this thread.
pub fn offered(path: &str) -> Option<Arc<Vault>> {
    OFFER.with_borrow(|o| o.as_ref().filter(|o| o.path == path)?.vault.clone())
}

pub fn withdraw() {
    OFFER.set(None);
}

/// `own`: the library opens it for itself.
pub fn access(path: &str, own: bool) -> Access {
    let offer = OFFER.with_borrow(|o| o.as_ref().filter(|o| o.path == path).cloned());
    match (offer.map(|o| o.vault), find(path)) {
        (Some(Some(vault)), _) => Access::Key(vault),
        (Some(None), _) => Access::NoKey,
        (None, _) if !own => Access::Foreign,
        (None, Some(vault)) => Access::Inside(vault),
        (None, None) => Access::Plain,
    }
}

/// The vault of an open database.
pub fn find(path: &str) -> Option<Arc<Vault>> {
    OPEN.lock().get(path).and_then(Weak::upgrade)
}

pub fn ever_used() -> bool {
    EVER.load(Ordering::Acquire)
}

struct Inner {
    user: UserKey,
    /// File and generation of the slot that accepted the user's key.
    verified: Option<([u8; 16], u32)>,
    keys: Option<Arc<FileKeys>>,
}

pub struct Vault {
    path: String,
    inner: Mutex<Inner>,
    /// Counts the changes of `keys`.
    version: AtomicU64,
    /// The database file has a header, as far as its handles have seen.
    written: AtomicBool,
    /// A handle's device may damage what lies beside a write.
    careful: AtomicBool,
}

impl Vault {
    fn new(path: &str, user: UserKey) -> Vault {
        Vault {
            path: path.to_string(),
            inner: Mutex::new(Inner {
                user,
                verified: None,
                keys: None,
            }),
            version: AtomicU64::new(0),
            written: AtomicBool::new(false),
            careful: AtomicBool::new(false),
        }
    }

    pub fn set_careful(&self) {
        self.careful.store(true, Ordering::Release);
    }

    pub fn is_careful(&self) -> bool {
        self.careful.load(Ordering::Acquire)
    }

    pub fn set_written(&self, written: bool) {
        self.written.store(written, Ordering::Release);
    }

    pub fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Makes the offered key the path's. `slot`: the header's, None of a file
    /// that is yet to be written. Answers the vault that all handles share.
    pub fn admit(self: Arc<Vault>, slot: Option<&Slot>) -> Result<Arc<Vault>> {
        let open = find(&self.path).filter(|open| !Arc::ptr_eq(open, &self));
        match slot {
            Some(slot) => self.verify(slot)?,
            None => {
                if let Some(open) = &open
                    && !open.inner.lock().user.same(&self.inner.lock().user)
                {
                    return Err(Self::wrong_key());
                }
            }
        }
        let mut table = OPEN.lock();
        table.retain(|_, vault| vault.strong_count() > 0);
        match table.get(&self.path).and_then(Weak::upgrade) {
            Some(open) if !Arc::ptr_eq(&open, &self) => {
                // The key was changed by another process meanwhile.
                if slot.is_some() {
                    let (mut ours, theirs) = (open.inner.lock(), self.inner.lock());
                    ours.user = theirs.user.clone();
                    ours.verified = theirs.verified;
                    let same = |keys: &Arc<FileKeys>| {
                        theirs
                            .keys
                            .as_ref()
                            .is_some_and(|k| k.file_id == keys.file_id)
                    };
                    if !ours.keys.as_ref().is_some_and(same) {
                        ours.keys = theirs.keys.clone();
                        open.version.fetch_add(1, Ordering::Release);
                    }
                }
                Ok(open)
            }
            Some(open) => Ok(open),
            None => {
                table.insert(self.path.clone(), Arc::downgrade(&self));
                drop(table);
                Ok(self)
            }
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    fn wrong_key() -> Error {
        Error::NotADb("encryption_key is not the key of this database".into())
    }

    /// Checks the user's key against a header.
    fn verify(&self, slot: &Slot) -> Result<()> {
        let mut inner = self.inner.lock();
        let facts = (slot.file_id, slot.generation);
        if inner.verified == Some(facts) {
            return Ok(());
        }
        let keys = slot.unwrap(&inner.user)?.ok_or_else(Self::wrong_key)?;
        inner.verified = Some(facts);
        if inner.keys.as_ref().map(|k| k.file_id) != Some(keys.file_id) {
            inner.keys = Some(Arc::new(keys));
            self.version.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// The keys of the file that has this header.
    pub fn bind(&self, slot: &Slot) -> Result<Arc<FileKeys>> {
        let known = self.inner.lock().keys.clone();
        if let Some(keys) = known.filter(|k| k.file_id == slot.file_id) {
            return Ok(keys);
        }
        self.verify(slot)?;
        self.keys()
    }

    /// The file's keys; made now if it does not exist yet.
    pub fn keys(&self) -> Result<Arc<FileKeys>> {
        let mut inner = self.inner.lock();
        if let Some(keys) = &inner.keys {
            return Ok(keys.clone());
        }
        let keys = Arc::new(FileKeys::generate()?);
        inner.keys = Some(keys.clone());
        self.version.fetch_add(1, Ordering::Release);
        Ok(keys)
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A header for these keys, wrapped for the user.
    pub fn header(&self, keys: &FileKeys, layout: Layout) -> Result<Box<[u8]>> {
        let mut inner = self.inner.lock();
        let header = header::make(keys, &inner.user, layout, 1)?;
        inner.verified = Some((keys.file_id, 1));
        Ok(header)
    }

    /// Another key from now on, once `write` has made its header the one that
    /// counts; `slot`: the header's current one, None if there is no header yet.
    pub fn rekey(
        &self,
        slot: Option<&Slot>,
        user: UserKey,
        write: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let verified = match slot {
            None => None,
            Some(slot) => {
                let keys = self.bind(slot)?;
                let generation = slot.generation.wrapping_add(1);
                write(&header::make(&keys, &user, slot.layout, generation)?)?;
                Some((slot.file_id, generation))
            }
        };
        let mut inner = self.inner.lock();
        inner.user = user;
        inner.verified = verified;
        Ok(())
    }
}
