//! One replica: a local database and its primary.

pub mod apply;
mod backoff;
pub mod beside;
mod chunk;
mod commit;
mod control;
pub mod digest;
pub mod files;
pub mod identity;
pub mod image;
pub mod leader;
mod live;
pub mod local;
mod pages;
pub mod pipeline;
pub mod position;
pub mod progress;
mod proof;
pub mod reader;
mod reconcile;
pub mod record;
pub mod registry;
mod rows;
mod scheduler;
pub mod secret;
mod session;
mod staged;
pub mod status;
pub mod transaction;
pub mod turn;
pub mod undo;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use self::apply::Message;
use self::files::Hold;
use self::identity::{History, Identity};
use self::image::empty_database;
use self::local::{Found, Local};
use self::pipeline::Outcome;
use self::progress::Progress;
use self::reader::Reader;
use self::record::Record;
use self::scheduler::Background;
use self::status::{Facts, State, Status};
use self::writer::Writer;
use crate::config::Options;
use crate::crypt::vault::{self, Vault};
use crate::error::{Error, Result};
use crate::ffi::attention;
use crate::ffi::conn::Connection;
use crate::ffi::fork;
use crate::ffi::thread;
use crate::ffi::vfs::BaseVfs;
use crate::log;
use crate::remote::http::Http;
use crate::remote::mailbox::Mailbox;
use crate::remote::primary::Primary;
use crate::remote::wal_log::WalLog;
use crate::remote::{Head, Position, Reached, Remote, SharedOptions};

/// So long a sync is waited for in any case.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// What a sync did.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    pub frame_no: Option<u64>,
    pub frames: u64,
}

pub struct Replica {
    path: String,
    vfs: BaseVfs,
    options: SharedOptions,
    /// The key of an encrypted replica stays known for as long as this does.
    _vault: Option<Arc<Vault>>,
    pub status: Arc<Status>,
    /// Nobody here writes to it: then nothing of what follows is used.
    reader: Option<Mutex<Reader>>,
    /// There is local data: opening has nothing to wait for.
    ready: AtomicBool,
    frozen: AtomicBool,
    history: History,
    /// Held by whoever works on the files or talks to the primary.
    engine: Mutex<Engine>,
    /// Used only on behalf of a connection that holds WAL_WRITE_LOCK.
    writer: Arc<Mutex<Writer>>,
    background: Background,
    /// The process that opened it. A forked child has a copy that it must not use.
    process: u32,
}

struct Engine {
    local: Option<Box<Local>>,
    remote: Box<dyn Remote>,
}

impl Replica {
    /// `options.sync_url` is given. Nothing is opened or asked yet.
    pub fn new(vfs: BaseVfs, path: &str, options: Options) -> Result<Replica> {
        Self::with(vfs, path, Arc::new(Mutex::new(options)), Arc::default())
    }

    fn with(
        vfs: BaseVfs,
        path: &str,
        options: SharedOptions,
        status: Arc<Status>,
    ) -> Result<Replica> {
        let http = Arc::new(Self::http(&options, &status)?);
        let remote = Box::new(WalLog::new(http.clone(), options.clone()));
        let primary = Primary::new(http.clone(), WalLog::new(http, options.clone()));
        Ok(Replica {
            path: path.to_string(),
            vfs,
            options,
            _vault: vault::offered(path),
            status,
            reader: None,
            ready: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            history: History::of(path),
            engine: Mutex::new(Engine {
                local: None,
                remote,
            }),
            writer: Arc::new(Mutex::new(Writer::new(Arc::new(primary), vfs, path))),
            background: Background::default(),
            process: fork::process(),
        })
    }

    fn http(options: &SharedOptions, status: &Status) -> Result<Http> {
        let url = options.lock().sync_url.clone();
        let url = url.ok_or_else(|| Error::Config("no sync_url".into()))?;
        Http::new(url, options.clone(), status.traffic.clone())
    }

    /// A client of its own, with its own connections.
    fn wal_log(options: &SharedOptions, status: &Status) -> Result<WalLog> {
        let http = Arc::new(Self::http(options, status)?);
        Ok(WalLog::new(http, options.clone()))
    }

    /// A second of the same for a thread of its own: other handles, other
    /// connections, the same options and counters.
    fn twin(&self) -> Result<Replica> {
        let (options, status) = (self.options.clone(), self.status.clone());
        let twin = Self::with(self.vfs, &self.path, options, status)?;
        twin.history.now();
        Ok(twin)
    }

    /// Whether this process got it by forking: of the parent's threads,
    /// sockets and file locks the child has none.
    pub fn is_inherited(&self) -> bool {
        self.process != fork::process()
    }

    /// Changes whenever all of the content becomes that of another history.
    pub fn history(&self) -> Option<u64> {
        self.history.now()
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn options(&self) -> Options {
        self.options.lock().clone()
    }

    fn timeout(&self) -> Duration {
        self.options.lock().timeout
    }

    fn engine(&self) -> Result<MutexGuard<'_, Engine>> {
        let engine = attention::wait(self.timeout(), |step| self.engine.try_lock_for(step))?;
        engine.ok_or_else(|| {
            Error::Busy(format!(
                "'{}': another connection is syncing and has not ended yet",
                self.path
            ))
        })
    }

    fn identity(&self) -> Identity {
        let options = self.options.lock();
        Identity {
            sync_url: options
                .sync_url
                .as_ref()
                .map_or_else(String::new, |u| u.text.clone()),
            namespace: options.namespace.clone(),
        }
    }

    /// Makes sure that there is a local database: opens it, or fetches it.
    pub fn ensure_ready(&self) -> Result<()> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut engine = self.engine()?;
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let timeout = self.timeout();
        let deadline = Instant::now() + timeout;
        // Who comes here without naming the primary has been refused.
        Local::disown(&self.vfs, &self.path, self.identity())?;
        loop {
            let found = match Local::find(&self.vfs, &self.path, timeout)? {
                Found::Nothing => self.bootstrap(&mut engine)?,
                found => found,
            };
            match found {
                Found::Replica(mut local) => {
                    if *local.store.identity() != self.identity() {
                        local.store.set_identity(self.identity())?;
                    }
                    self.status.update(|f| {
                        f.frame_no = local.store.last().and_then(Record::frame_no);
                    });
                    engine.local = Some(local);
                    // From now on it has the file open that tells a freeze.
                    self.history.now();
                    self.ready.store(true, Ordering::Release);
                    return Ok(());
                }
                Found::OutOfWalMode => return Ok(()),
                Found::Nothing => {}
            }
            // Another process began to fetch it at the same time.
            if Instant::now() > deadline {
                return Err(Error::Busy(format!(
                    "another process is fetching '{}' from the primary; try again",
                    self.path
                )));
            }
            attention::pause(Duration::from_millis(20))?;
        }
    }

    /// The first fetch, into a new file.
    fn bootstrap(&self, engine: &mut Engine) -> Result<Found> {
        self.status.update(|f| f.state = State::Bootstrapping);
        let unreachable = |e: Error| match e {
            Error::Unreachable(why) => Error::CantOpen(format!(
                "'{}' has no local content yet and the primary cannot be reached: {why}",
                self.path
            )),
            e => e,
        };
        let head = engine.remote.hello().map_err(unreachable)?;
        let start = Position::start(head.log_id.clone());
        let to_come = head.frame_no.map_or(0, |n| n + 1);
        let mut bar = Progress::new(self.options.lock().progress, to_come);
        let mut frames = 0;
        let found = Local::create(
            &self.vfs,
            &self.path,
            self.identity(),
            self.timeout(),
            |new| {
                if head.frame_no.is_none() {
                    let mut image = empty_image(start.clone());
                    return new.fill(&mut image)?.ok_or_else(unfinished);
                }
                let fill = |messages: &mut dyn Iterator<Item = Message>| new.fill(messages);
                match pipeline::pull(&mut *engine.remote, &start, &head, &mut |n| bar.at(n), fill)?
                {
                    Outcome::Applied(Some(reached)) => {
                        frames = reached.frames;
                        Ok(reached)
                    }
                    Outcome::Diverged(other) => Err(Error::Unreachable(other.why)),
                    Outcome::Applied(None) | Outcome::UpToDate => Err(unfinished()),
                }
            },
        )
        .map_err(unreachable)?;
        bar.done();
        if let Found::Replica(local) = &found {
            self.noted(local.store.last(), &head, frames);
        }
        Ok(found)
    }

    /// Has SQLite recover the log, on a connection of our own; one that is
    /// busy with it does it.
    pub fn recover_log(&self) -> Result<()> {
        let _inside = fork::inside();
        match Connection::open(&self.vfs, &self.path)?.touch() {
            Err(Error::Busy(_)) => Ok(()),
            done => done,
        }
    }

    /// Pulls to the primary's newest commit.
    pub fn sync(&self) -> Result<Synced> {
        self.check_writable()?;
        let mut engine = self.engine()?;
        self.told(|| self.sync_now(&mut engine))
    }

    fn sync_now(&self, engine: &mut Engine) -> Result<Synced> {
        if self.is_frozen()? {
            return Err(Error::Config(format!(
                "'{}' was frozen: it is no replica any more",
                self.path
            )));
        }
        let timeout = self.timeout();
        let Engine { local, remote } = engine;
        let local = local.as_mut().ok_or_else(|| {
            Error::Diverged(format!(
                "'{}' was taken out of WAL mode by another SQLite, or replaced",
                self.path
            ))
        })?;
        // Another process that syncs the same file may be faster; each round
        // is lost only to one that got further.
        for _ in 0..100 {
            // In this order: what is here by now, whoever pulled it, the
            // primary had before it is asked.
            let base = local.locate(Hold::Take(timeout))?;
            let head = remote.hello()?;
            self.status.update(|f| f.primary_frame_no = head.frame_no);
            if let Some(why) = reconcile::lost(&self.vfs, &self.path, &base.record, &head)? {
                // Unless somebody else has done it in the meantime.
                if local.is_at(&base, Hold::Take(timeout))? {
                    return self.rebootstrap(local, &mut **remote, &why);
                }
                continue;
            }
            let apply = |messages: &mut dyn Iterator<Item = Message>| {
                local.increment(&base, Hold::Take(timeout), messages)
            };
            match pipeline::pull(
                &mut **remote,
                &base.record.position,
                &head,
                &mut |_| {},
                apply,
            )? {
                Outcome::UpToDate if base.record.undo.is_some() => {
                    if let Some(record) = local.reconcile(&base, Hold::Take(timeout))? {
                        return Ok(self.noted(Some(&record), &head, 0));
                    }
                }
                Outcome::UpToDate => return Ok(self.noted(Some(&base.record), &head, 0)),
                Outcome::Applied(Some(record)) => {
                    let frames = frames_between(&base.record, &record);
                    self.checkpoint(local);
                    return Ok(self.noted(Some(&record), &head, frames));
                }
                Outcome::Applied(None) => {}
                // Unless somebody else has taken the other history in the meantime.
                Outcome::Diverged(other) if local.is_at(&base, Hold::Take(timeout))? => {
                    if !local.goes_on(&base, &other, Hold::Take(timeout))? {
                        return self.rebootstrap(local, &mut **remote, &other.why);
                    }
                }
                Outcome::Diverged(_) => {}
            }
        }
        Err(Error::Busy(format!(
            "'{}': other processes keep changing it",
            self.path
        )))
    }

    /// The primary has another history: takes all of it, in one transaction.
    fn rebootstrap(&self, local: &mut Local, remote: &mut dyn Remote, why: &str) -> Result<Synced> {
        let head = remote.hello()?;
        if head.frame_no.is_none() {
            return Err(Error::Diverged(format!(
                "{why}, and the primary is empty; this replica may be the last copy, so it stays as it is"
            )));
        }
        self.status.traffic.begin_history()?;
        self.loud(&format!(
            "'{}': {why}; fetching everything again",
            self.path
        ));
        let synced = self.take_all(local, remote, &head)?;
        let text = format!("'{}': {why}; everything was fetched again", self.path);
        self.loud(&text);
        self.status.update(|f| f.last_error = Some(text));
        Ok(synced)
    }

    fn take_all(&self, local: &mut Local, remote: &mut dyn Remote, head: &Head) -> Result<Synced> {
        let timeout = self.timeout();
        let start = Position::start(head.log_id.clone());
        let record = if head.frame_no.is_none() {
            local.replace(timeout, &mut empty_image(start))?
        } else {
            let apply =
                |messages: &mut dyn Iterator<Item = Message>| local.replace(timeout, messages);
            match pipeline::pull(remote, &start, head, &mut |_| {}, apply)? {
                Outcome::Applied(record) => record,
                Outcome::Diverged(other) => return Err(Error::Unreachable(other.why)),
                Outcome::UpToDate => None,
            }
        }
        .ok_or_else(unfinished)?;
        self.checkpoint(local);
        Ok(self.noted(Some(&record), head, record.position.next()))
    }

    /// Throws the local content away and takes the primary's.
    pub fn resync(&self) -> Result<Synced> {
        self.check_writable()?;
        let mut engine = self.engine()?;
        self.told(|| {
            let Engine { local, remote } = &mut *engine;
            let head = remote.hello()?;
            let local = match local {
                Some(local) => local,
                None => local.insert(Box::new(Local::adopt(&self.vfs, &self.path)?)),
            };
            let synced = self.take_all(local, &mut **remote, &head)?;
            self.background.retry();
            Ok(synced)
        })
    }

    /// Syncs until at least `frame_no` is here; false when `limit` has passed first.
    pub fn wait(self: &Arc<Self>, frame_no: u64, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(2);
        if self.reader.is_some() {
            return Ok(self.see(frame_no, deadline));
        }
        if self.facts().frame_no >= Some(frame_no) {
            return Ok(true);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.sync_within(left.max(SHORTEST_WAIT))? {
                Some(Ok(synced)) if synced.frame_no >= Some(frame_no) => return Ok(true),
                None | Some(Ok(_) | Err(Error::Unreachable(_) | Error::Busy(_))) => {}
                Some(Err(e)) => return Err(e),
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            attention::pause(pause.min(deadline - now))?;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// A sync that is waited for no longer than that. A network that swallows
    /// everything holds it up for `timeout`; it ends by itself.
    fn sync_within(self: &Arc<Self>, limit: Duration) -> Result<Option<Result<Synced>>> {
        let (mailbox, replica) = (Mailbox::default(), self.clone());
        let sender = mailbox.clone();
        thread::spawn("libreplica-wait", move || {
            sender.put(replica.sync());
        })?;
        attention::wait(limit, |step| mailbox.take(step))
    }

    /// What is known of the replica, whichever process works on it.
    pub fn facts(&self) -> Facts {
        let frame_no = self.look();
        let mut facts = self.status.facts();
        if let Some(reader) = &self.reader {
            facts.frame_no = reader.lock().last().and_then(Record::frame_no);
        }
        facts.frame_no = frame_no.unwrap_or(facts.frame_no);
        if !self.background.is_leading()
            && let Some(note) = leader::noted(&self.path)
            && note.newest() > leader::newer(facts.last_sync, facts.offline_since)
        {
            note.apply(&mut facts);
        }
        facts.primary_frame_no = facts.primary_frame_no.max(facts.frame_no);
        facts
    }

    /// The frame by what stands beside the file, another process may have
    /// written it; None if somebody is at it.
    fn look(&self) -> Option<Option<u64>> {
        if let Some(reader) = &self.reader {
            return reader.lock().look().ok()?.map(|record| record.frame_no());
        }
        let mut engine = self.engine.try_lock()?;
        let record = engine.local.as_mut()?.peek().ok().flatten()?;
        Some(record.frame_no())
    }

    /// Starts the background work that the options ask for.
    pub fn start_background(&self) {
        if self.reader.is_some() {
            return;
        }
        if let Err(e) = self.background.ensure(self) {
            self.status.failed(&e);
            log::error(e.code(), &format!("'{}': {e}", self.path));
        }
    }

    /// Changes how commits travel.
    pub fn travel(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options.lock());
    }

    /// Changes an option of an open replica.
    pub fn configure(&self, name: &str, value: &str) -> Result<()> {
        if !["auth_token", "sync_interval", "live", "timeout"].contains(&name) {
            return Err(Error::Config(format!(
                "'{name}' cannot be changed while open; auth_token, sync_interval, live and timeout can"
            )));
        }
        self.check_writable()?;
        let mut options = self.options();
        options.set(name, value)?;
        *self.options.lock() = options;
        self.background.adjust(self)
    }

    fn noted(&self, record: Option<&Record>, head: &Head, frames: u64) -> Synced {
        let frame_no = record.and_then(Record::frame_no);
        self.status.synced(frame_no, frames);
        self.status
            .update(|f| f.primary_frame_no = head.frame_no.max(frame_no));
        Synced { frame_no, frames }
    }

    /// A checkpoint that cannot be done now is not the sync's failure.
    fn checkpoint(&self, local: &mut Local) {
        if let Err(e) = local.checkpoint_if_due() {
            log::error(e.code(), &format!("checkpoint of '{}': {e}", self.path));
        }
    }

    /// Keeps an error of a write, which has no place for words.
    pub fn note_failure(&self, error: &Error) {
        let text = error.to_string();
        log::error(error.write_code(), &format!("'{}': {text}", self.path));
        registry::set_last_error(&text);
        self.status.failed(error);
    }

    /// Keeps an error for `replica_status`.
    fn told<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().inspect_err(|e| self.status.failed(e))
    }

    /// Something the user must be able to find out later.
    fn loud(&self, text: &str) {
        log::warn(text);
        registry::set_last_error(text);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if self.is_inherited() {
            // Ending it would checkpoint and unlock what is the parent's, and
            // wait for threads that are not here.
            std::mem::forget(std::mem::take(&mut self.background));
            std::mem::forget(self.engine.get_mut().local.take());
            match self.writer.try_lock() {
                Some(mut writer) => writer.forget(),
                None => std::mem::forget(self.writer.clone()),
            }
        } else {
            self.background.stop();
            self.writer.lock().close();
        }
    }
}

/// Frames from one position to another of the same history.
fn frames_between(base: &Record, record: &Record) -> u64 {
    record.position.next().saturating_sub(base.position.next())
}

/// What a replica of an empty primary consists of.
fn empty_image(position: Position) -> impl Iterator<Item = Message> {
    let reached = Reached {
        position,
        page_count: 1,
        frames: 0,
    };
    [
        Message::Pages([(1, empty_database())].into_iter().collect()),
        Message::Finish(reached),
    ]
    .into_iter()
}

fn unfinished() -> Error {
    Error::Internal("the pull ended without a result".into())
}
