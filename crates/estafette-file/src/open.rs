//! A queue this process receives from: what all its receivers share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use estafette_core::{Result, Timestamp};
use tokio::sync::Notify;

use crate::{
    adopt,
    backlog::{self, Backlog},
    claim::Folders,
    error,
    held::{Held, Place},
    name::EntryName,
    order::KeyOrder,
    queues::{Queue, Queues},
    recover,
    store::Store,
    watch::Watcher,
    writer::Writer,
};

/// How often the claims of other processes are looked through, at the latest: their leases may have ended.
const RECOVER_EVERY: Duration = Duration::from_millis(500);

/// How often a directory is listed anew although nothing said so, in case news were lost. Long listings are done less often.
const LIST_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct OpenQueue {
    pub(crate) store: Arc<Store>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) queue: Arc<Queue>,
    /// The queue as messages are routed to it.
    pub(crate) as_set: Queues,
    pub(crate) folders: Folders,
    /// Something may be ready. Wakes one receiver; whoever leaves something behind wakes the next.
    pub(crate) arrived: Notify,
    pub(crate) receivers: AtomicUsize,
    /// News come by themselves; otherwise the directory is looked at now and then.
    pub(crate) has_news: AtomicBool,
    backlog: Mutex<Backlog>,
    held: Mutex<Held>,
    schedule: Mutex<Schedule>,
    listing: tokio::sync::Mutex<()>,
    order: OnceLock<KeyOrder>,
    /// Reads the news that wait, where there are any.
    news: Weak<Watcher>,
}

/// When what is done by itself is due.
#[derive(Debug)]
struct Schedule {
    recover_at: Instant,
    list_at: Instant,
    adopt_at: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What panics half way through a change leaves names that are not there or leases that end: both are found out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenQueue {
    pub(crate) fn open(
        store: Arc<Store>,
        writer: Arc<Writer>,
        queue: Arc<Queue>,
        news: Weak<Watcher>,
    ) -> Result<Self> {
        let folders = Folders::open(&store, &queue)?;
        let now = Instant::now();
        Ok(Self {
            store,
            writer,
            as_set: Queues::from([Arc::clone(&queue)]),
            queue,
            folders,
            arrived: Notify::new(),
            receivers: AtomicUsize::new(0),
            has_news: AtomicBool::new(false),
            backlog: Mutex::default(),
            held: Mutex::default(),
            schedule: Mutex::new(Schedule { recover_at: now, list_at: now, adopt_at: None }),
            listing: tokio::sync::Mutex::default(),
            order: OnceLock::new(),
            news,
        })
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { store: &self.store, folders: &self.folders, queue: &self.queue.name }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    pub(crate) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        lock(&self.backlog)
    }

    /// Names appeared in `new/`.
    pub(crate) fn note_arrivals<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut backlog = self.backlog();
        names.for_each(|name| backlog.insert(name));
        if !backlog.foreign.is_empty() {
            lock(&self.schedule).adopt_at.get_or_insert_with(Instant::now);
        }
        drop(backlog);
        self.arrived.notify_one();
    }

    /// A name that looked like one of ours and is not.
    pub(crate) fn note_foreign(&self, name: Box<str>) {
        self.backlog().foreign.insert(name);
        lock(&self.schedule).adopt_at.get_or_insert_with(Instant::now);
    }

    /// Entries were put into `new/` by who will look there himself.
    pub(crate) fn insert_entries(&self, entries: &[EntryName]) {
        let mut backlog = self.backlog();
        entries.iter().for_each(|entry| backlog.insert(&entry.to_string()));
    }

    pub(crate) fn note_entries(&self, entries: &[EntryName]) {
        if !entries.is_empty() {
            let names: Vec<String> = entries.iter().map(ToString::to_string).collect();
            self.note_arrivals(names.iter().map(String::as_str));
        }
    }

    /// News were missed.
    pub(crate) fn doubt(&self) {
        self.backlog().doubt();
        self.arrived.notify_one();
    }

    /// The claims must be looked through now: an owner may have died.
    pub(crate) fn recover_soon(&self) {
        lock(&self.schedule).recover_at = Instant::now();
        self.arrived.notify_waiters();
    }

    /// Does what is due by itself: ended leases, dead owners, foreign files, a listing.
    pub(crate) async fn keep_up(self: &Arc<Self>) -> Result<()> {
        let ended = self.held().put_back_ended(self.place());
        self.note_entries(&ended);
        if self.is_time_to_recover() {
            self.recover()?;
        }
        if self.is_time_to_list() || self.backlog().needs_listing() {
            self.list().await?;
        }
        self.adopt_foreign()
    }

    fn is_time_to_recover(&self) -> bool {
        let mut schedule = lock(&self.schedule);
        let now = Instant::now();
        let is_time = schedule.recover_at <= now;
        if is_time {
            schedule.recover_at = now + RECOVER_EVERY;
        }
        is_time
    }

    fn recover(&self) -> Result<()> {
        let is_held = |claim| self.held().contains(claim);
        let recovered = recover::recover(&self.store, &self.folders, self.queue.name.as_str(), is_held)?;
        self.note_entries(&recovered.entries);
        if let Some(end) = recovered.next_end {
            let end = Instant::now() + end.since(self.store.clock.now()) + Duration::from_millis(1);
            let mut schedule = lock(&self.schedule);
            schedule.recover_at = schedule.recover_at.min(end);
        }
        Ok(())
    }

    fn is_time_to_list(&self) -> bool {
        lock(&self.schedule).list_at <= Instant::now()
    }

    /// Lists the directory, one receiver at a time; the others wait for what that one finds.
    async fn list(self: &Arc<Self>) -> Result<()> {
        let _listing = self.listing.lock().await;
        if !self.is_time_to_list() && !self.backlog().needs_listing() {
            return Ok(());
        }
        let started = Instant::now();
        let this = Arc::clone(self);
        let listing = tokio::task::spawn_blocking(move || backlog::list(&this.folders.new)).await;
        let listing = listing.map_err(|_ended| error::no_answer("listing the messages of a queue"))??;
        let mut backlog = self.backlog();
        backlog.take_in(listing);
        let mut schedule = lock(&self.schedule);
        schedule.list_at = Instant::now() + LIST_EVERY.max(started.elapsed() * 1000);
        if !backlog.foreign.is_empty() {
            schedule.adopt_at.get_or_insert(started);
        }
        Ok(())
    }

    /// Gives names of ours to files that somebody else put there.
    fn adopt_foreign(&self) -> Result<()> {
        let is_time = lock(&self.schedule).adopt_at.is_some_and(|at| at <= Instant::now());
        if !is_time {
            return Ok(());
        }
        let foreign = std::mem::take(&mut self.backlog().foreign);
        lock(&self.schedule).adopt_at = None;
        let mut entries = Vec::new();
        for name in foreign {
            match adopt::adopt(self.place(), &name)? {
                adopt::Adopted::Entry(entry) => entries.push(entry),
                adopt::Adopted::NotYet(wait) => {
                    self.backlog().foreign.insert(name);
                    let at = Instant::now() + wait;
                    let mut schedule = lock(&self.schedule);
                    schedule.adopt_at = Some(schedule.adopt_at.map_or(at, |other| other.min(at)));
                }
                adopt::Adopted::Not => {}
            }
        }
        self.note_entries(&entries);
        Ok(())
    }

    /// When to look again without being woken.
    pub(crate) fn next_look(&self) -> Instant {
        let now = Instant::now();
        // A millisecond more, so that the look is not too early by the timer's grain.
        let after = |due: Timestamp| now + due.since(self.store.clock.now()) + Duration::from_millis(1);
        let due = self.backlog().next_due().map(after);
        let lease = self.held().next_end().map(|end| end + Duration::from_millis(1));
        let schedule = lock(&self.schedule);
        let own = [Some(schedule.recover_at), Some(schedule.list_at), schedule.adopt_at];
        own.into_iter().chain([due, lease]).flatten().min().unwrap_or(now)
    }

    /// What is needed to take messages in the order of their keys.
    pub(crate) fn key_order(&self) -> Result<&KeyOrder> {
        if self.order.get().is_none() {
            // Who is quicker does not matter.
            self.order.set(KeyOrder::open(self)?).unwrap_or_default();
        }
        self.order.get().ok_or_else(|| error::no_answer("opening the lock of a queue"))
    }

    /// Knows everything that is in `new/` at this moment.
    pub(crate) fn catch_up(&self) -> Result<()> {
        match self.news.upgrade() {
            Some(news) if self.is_watched() => news.read_all(),
            _ => {
                let listing = backlog::list(&self.folders.new)?;
                self.backlog().take_in(listing);
            }
        }
        Ok(())
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.has_news.load(Ordering::Acquire)
    }
}
