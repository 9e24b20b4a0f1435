//! Estafette's drop-file transport, `file:PATH`: a directory of messages, several processes, no server.
//!
//! Everything is a file that `ls` and `cat` can show. A message file holds one envelope a line (`CloudEvents` 1.0 JSON); its
//! names ("entries") say which lines they stand for, when these are due and how often they were handed over, so that order,
//! delay and lease expiry need no index.
//!
//! ```text
//! PATH/queues/QUEUE/queue.json   name, patterns, lifetime
//!                   new/         entries that wait, sorted by due time
//!                   claimed/     entries that are held: by whom, until when; and journals of what is settled
//!                   dead/        dead letters, an entry each
//! PATH/owners/                   a locked file for every open transport
//! PATH/changes                   names of queues that were made, changed or deleted
//! PATH/tmp/  PATH/aside/         files being written; files that were found and are no messages
//! ```
//!
//! | our word | here |
//! |---|---|
//! | publish | write a file without a name, flush, link it into `new/` of every queue, flush the directories |
//! | claim | rename from `new/` to `claimed/`: one of many processes wins. Part of an entry: the rest is linked back |
//! | ack | a record in the claim's journal; removal of the claim when it was the last |
//! | retry, reject | a new file in `new/` or `dead/`, flushed, and then as an ack |
//! | lease | the time in the claim's name, by the file system's clock; a dead process's claims return at once |
//! | fencing | a claim that was taken over has another name: settling under the old one fails |
//! | wake-up | inotify; looking ten times a second on network file systems |
//!
//! What it does not promise: an ack survives the end of any process but is not flushed, so that after a power cut messages
//! acked in the last seconds may come again; a process killed in the microseconds between giving part of a file back and
//! noting that may cause a second delivery; a publish to several queues that was killed, and so never returned, may have
//! reached some of them. The file system should be one with a journal.
//!
//! Hosts that share a directory over a network need a file system with atomic rename and links (NFS 4 has them). Their clocks
//! may differ. Unix only. Tried on ext4 and tmpfs, Linux 6.
//!
//! Reading order: `config`, `name` and `line` (what is on disk), `store`, `queues`, `declare`; `publisher`, `sheet`, `writer`,
//! `write` (storing); `backlog`, `claim`, `held`, `open`, `catch`,
//! `receiver`, `settler`, `order`, `recover` (receiving); `admin`, `dead`.

#![cfg(unix)]

mod admin;
mod adopt;
mod backlog;
mod catch;
mod claim;
mod clock;
mod config;
mod dead;
mod declare;
mod disk;
mod error;
mod held;
mod journal;
mod line;
mod lines;
mod name;
mod open;
mod order;
mod owner;
mod publisher;
mod queues;
mod receiver;
mod recover;
mod settler;
mod sheet;
mod store;
mod watch;
mod write;
mod writer;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use estafette_core::{
    Admin, Durability, Guarantees, Lifetime, Order, Outgoing, QueueName, QueueSpec, Receipt, ReceiveOptions,
    Receiver, Result, Support, Transport, TransportUrl, async_trait,
};

pub use config::{FileConfig, FileDurability};

use crate::{
    open::OpenQueue, queues::Routes, receiver::FileReceiver, store::Store, watch::Watcher, writer::Writer,
};

/// Queues in a directory. Clones share what is open.
#[derive(Clone)]
pub struct FileTransport {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    writer: Arc<Writer>,
    routes: Routes,
    open: Mutex<HashMap<QueueName, Weak<OpenQueue>>>,
    /// Started with the first receiver.
    watcher: OnceLock<Option<Arc<Watcher>>>,
    /// When temporary queues without an owner are looked for next.
    orphans_at: Mutex<Option<Instant>>,
    /// Whether this process made a temporary queue, which it must remove.
    has_temporary: AtomicBool,
    closed: AtomicBool,
}

impl FileTransport {
    /// Opens the directory, making what is missing. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Denied`](estafette_core::ErrorKind::Denied) when the directory cannot be written to,
    /// [`Full`](estafette_core::ErrorKind::Full) when the file system has no space left.
    pub fn open(config: FileConfig) -> Result<Self> {
        let store = Arc::new(Store::open(config)?);
        let writer = Arc::new(Writer::new(Arc::clone(&store)));
        let shared = Shared {
            store,
            writer,
            routes: Routes::default(),
            open: Mutex::default(),
            watcher: OnceLock::new(),
            orphans_at: Mutex::default(),
            has_temporary: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        };
        shared.delete_orphans()?;
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl fmt::Debug for FileTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FileTransport")
            .field("path", &self.shared.store.path())
            .finish_non_exhaustive()
    }
}

/// Connects to `file:PATH?durability=fsync|os&body_max=BYTES&batch_max=MESSAGES`.
///
/// # Errors
///
/// [`InvalidInput`](estafette_core::ErrorKind::InvalidInput) for a wrong setting, and those of [`FileTransport::open`].
pub async fn connect(url: TransportUrl) -> Result<Arc<dyn Transport>> {
    let config = FileConfig::from_url(url)?;
    let opened = tokio::task::spawn_blocking(move || FileTransport::open(config)).await;
    Ok(Arc::new(opened.map_err(|_ended| error::no_answer("opening the directory"))??))
}

#[async_trait]
impl Transport for FileTransport {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durability: if self.shared.store.flushes() { Durability::Disk } else { Durability::System },
            order: Order::Key,
            shared: true,
            topics: Support::Native,
            delay: Support::Native,
            expiry: Support::Native,
            attempts: Support::Native,
            dead_letters: Support::Native,
            temporary_queues: Support::Native,
            lease_extend: Support::Native,
            fencing: Support::Native,
            cancel: Support::Native,
            body_bytes_max: self.shared.store.config.body_bytes_max,
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.shared.check_open()?;
        if queue.lifetime == Lifetime::Temporary {
            self.shared.has_temporary.store(true, Ordering::Release);
        }
        let spec = queue.clone();
        self.shared.blocking(move |shared| declare::declare(&shared.store, &shared.routes, &spec)).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        self.shared.publish(batch).await
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        self.shared.check_open()?;
        Ok(Box::new(FileReceiver::open(Arc::clone(&self.shared), queue, options)?))
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        for queue in self.shared.open_queues() {
            queue.arrived.notify_waiters();
        }
        Ok(())
    }
}

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(error::closed()) } else { Ok(()) }
    }

    /// Wakes the queue's receivers when something is settled: a partition key may be free.
    fn watch_claimed(&self, queue: &Arc<OpenQueue>) {
        if let Some(Some(watcher)) = self.watcher.get() {
            watcher.watch_claimed(queue);
        }
    }

    /// Deletes temporary queues whose process has ended.
    fn delete_orphans(&self) -> Result<()> {
        declare::delete_orphans(&self.store, &self.routes.temporary(&self.store)?);
        Ok(())
    }

    fn open_queues(&self) -> Vec<Arc<OpenQueue>> {
        // Nothing in here panics half way through a change.
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter_map(Weak::upgrade).collect()
    }

    /// What this process has of a queue, opened when it has nothing yet.
    fn open_queue(&self, name: &QueueName) -> Result<Arc<OpenQueue>> {
        let queue = self.routes.queue(&self.store, name)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.get(name).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.queue.incarnation == queue.incarnation) {
            return Ok(known);
        }
        open.retain(|_, queue| queue.strong_count() > 0);
        let watcher = self.watcher.get_or_init(|| Watcher::start(&self.store).map(Arc::new)).as_ref();
        let news = watcher.map(Arc::downgrade).unwrap_or_default();
        let opened = OpenQueue::open(Arc::clone(&self.store), Arc::clone(&self.writer), queue, news)?;
        let opened = Arc::new(opened);
        if let Some(watcher) = watcher {
            watcher.watch(&opened);
        }
        open.insert(name.clone(), Arc::downgrade(&opened));
        Ok(opened)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.has_temporary.load(Ordering::Acquire) {
            return;
        }
        // Best effort: what is left, others remove when they see that its owner has ended.
        for queue in self.routes.all(&self.store).unwrap_or_default() {
            if queue.owner == Some(self.store.owner.id) {
                declare::delete(&self.store, &queue.name).unwrap_or_default();
            }
        }
    }
}
