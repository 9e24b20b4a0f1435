//! The SQL transport: messages in a database. `sqlite:PATH`, with SQLite compiled in, `postgres://…` and `mysql://…`, each a
//! cargo feature.
//!
//! | our word | in SQLite | on a server |
//! |---|---|---|
//! | message | part of a row of `estafette_block`, which holds the envelopes that were published together | a row of `estafette_message` for each queue that takes it |
//! | queue, subscription | rows of `estafette_queue` and `estafette_subscription`; patterns are matched here, not in SQL | the same |
//! | delivery, lease | part of a row of `estafette_entry`, which stands for a run of messages and is sorted by when they are due; a lease is an entry due at its end | the message's row, due at the lease's end; taken with `SKIP LOCKED` |
//! | ticket | the block and the line; the end of the lease is the fence | the row's id; the end of the lease is the fence |
//! | dead letter | a row of `estafette_dead` | the same |
//! | batch | a transaction; whatever waits at the same moment shares one, and its flush | a statement; publishers that wait at the same moment share one |
//! | wake-up | inside the process directly; across processes the kernel's word that the log was written | inside the process directly; across processes `NOTIFY` on PostgreSQL, asking on MySQL |
//! | clock | the machine's | the server's |
//!
//! Any number of processes of one machine may use SQLite's file at once; it must not be on a network file system. Tried with
//! SQLite 3.51 as sqlx 0.9 bundles it, PostgreSQL 15 and MariaDB 10.11.
//!
//! Reading order: `config`, `publisher`, `receiver`, `admin`, `store` (what is asked of an engine), then `sqlite` or `server`.

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("estafette-sql needs an engine: enable its feature `sqlite`, `postgres` or `mysql`");

mod admin;
#[cfg(feature = "sqlite")]
mod config;
mod error;
// Servers have a row for each message, and no blocks.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "blocks are SQLite's"))]
mod frame;
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "in part SQLite's"))]
mod leases;
mod publisher;
mod receiver;
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "in part SQLite's"))]
mod routes;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[cfg_attr(
    not(all(feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_variables, reason = "in part the other server's")
)]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "in part SQLite's"))]
mod wake;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use estafette_core::{
    Admin, Guarantees, Lifetime, Order, Outgoing, QueueName, QueueSpec, Receipt, ReceiveOptions, Receiver,
    Result, Support, Transport, TransportUrl, async_trait,
};
use tokio::task::JoinSet;

#[cfg(feature = "sqlite")]
pub use config::SqlConfig;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use server::{Engine, ServerConfig, migrate, migrations};

use crate::{
    receiver::{SqlReceiver, SqlSettler},
    store::Store,
    wake::Wake,
};

/// A database that holds queues. Clones share its connections.
#[derive(Clone)]
pub struct SqlTransport {
    shared: Arc<Shared>,
}

/// What the settings decide about the transport's guarantees.
struct Promises {
    durability: estafette_core::Durability,
    body_bytes_max: usize,
}

/// What the transport, its receivers and its deliveries share.
struct Shared {
    promises: Promises,
    store: Arc<dyn Store>,
    wake: Arc<Wake>,
    closed: AtomicBool,
    /// Whose deliveries go back when the transport is closed.
    settlers: Mutex<Vec<Weak<SqlSettler>>>,
    /// Whether there may be temporary queues of ours, so that the others must be told that we live.
    owns_queues: Arc<AtomicBool>,
    // Ends with the transport.
    tasks: Mutex<JoinSet<()>>,
}

impl SqlTransport {
    /// Opens a SQLite database; makes the file and our tables where they are missing.
    ///
    /// # Errors
    ///
    /// [`Denied`](estafette_core::ErrorKind::Denied) when the file cannot be opened, made or written,
    /// [`Corrupt`](estafette_core::ErrorKind::Corrupt) when it is no database,
    /// [`Conflict`](estafette_core::ErrorKind::Conflict) when a newer version of this crate made its tables,
    /// [`Unavailable`](estafette_core::ErrorKind::Unavailable) when others keep it locked.
    #[cfg(feature = "sqlite")]
    pub async fn connect(config: SqlConfig) -> Result<Self> {
        let store = Arc::new(sqlite::SqliteStore::open(&config).await?);
        let wake = Arc::new(Wake::default());
        let mut tasks = JoinSet::new();
        let mut log = config.path.clone().into_os_string();
        log.push("-wal");
        let log = std::path::PathBuf::from(log).into_boxed_path();
        tasks.spawn(sqlite::watch(Arc::clone(&store), Arc::clone(&wake), log));
        tasks.spawn(sqlite::checkpoint(Arc::clone(&store)));
        let promises = Promises { durability: config.durability, body_bytes_max: config.body_bytes_max };
        Ok(Self::assemble(store, wake, promises, tasks))
    }

    /// Connects to a server's database; makes our tables where they are missing, unless the settings say not to.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](estafette_core::ErrorKind::Unavailable) when the server cannot be reached,
    /// [`Denied`](estafette_core::ErrorKind::Denied) when it refuses the user,
    /// [`NotFound`](estafette_core::ErrorKind::NotFound) when it has no such database, or the database has not our tables and
    /// they are not to be made,
    /// [`Conflict`](estafette_core::ErrorKind::Conflict) when a newer version of this crate made the tables.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub async fn connect_to_server(config: ServerConfig) -> Result<Self> {
        let wake = Arc::new(Wake::default());
        let promises = Promises {
            durability: estafette_core::Durability::Server,
            body_bytes_max: config.body_bytes_max,
        };
        let store = Arc::new(server::ServerStore::open(config).await?);
        let mut tasks = JoinSet::new();
        tasks.spawn(server::watch(Arc::clone(&store), Arc::clone(&wake)));
        Ok(Self::assemble(store, wake, promises, tasks))
    }

    fn assemble(store: Arc<dyn Store>, wake: Arc<Wake>, promises: Promises, mut tasks: JoinSet<()>) -> Self {
        let owns_queues = Arc::new(AtomicBool::new(false));
        tasks.spawn(look_after_temporary_queues(Arc::clone(&store), Arc::clone(&owns_queues)));
        let shared = Shared {
            promises,
            store,
            wake,
            closed: AtomicBool::new(false),
            settlers: Mutex::new(Vec::new()),
            owns_queues,
            tasks: Mutex::new(tasks),
        };
        Self { shared: Arc::new(shared) }
    }
}

/// Connects to the database a URL such as `sqlite:./mail.db` or `postgres://localhost/shop` names.
///
/// # Errors
///
/// Those of the settings, and of [`SqlTransport::connect`] or [`SqlTransport::connect_to_server`].
pub async fn connect(url: TransportUrl) -> Result<Arc<dyn Transport>> {
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    if ServerConfig::answers_to(url.scheme()) {
        return Ok(Arc::new(SqlTransport::connect_to_server(ServerConfig::from_url(url)?).await?));
    }
    #[cfg(feature = "sqlite")]
    return Ok(Arc::new(SqlTransport::connect(SqlConfig::from_url(url)?).await?));
    #[cfg(not(feature = "sqlite"))]
    return Err(estafette_core::Error::new(
        estafette_core::ErrorKind::InvalidInput,
        format!("{url} is not a database this program knows"),
    ));
}

/// Says that this process lives while it owns temporary queues, and removes those of processes that do not.
async fn look_after_temporary_queues(store: Arc<dyn Store>, owns_queues: Arc<AtomicBool>) {
    let mut suspects = Vec::new();
    loop {
        if let Err(error) = look_once(&*store, owns_queues.load(Ordering::Acquire), &mut suspects).await {
            tracing::warn!(
                error = error.report(),
                "temporary queues could not be looked after; trying again"
            );
        }
        tokio::time::sleep(store::HEARTBEAT).await;
    }
}

/// What was an orphan at the last look and is one now goes.
async fn look_once(store: &dyn Store, owns_queues: bool, suspects: &mut Vec<routes::QueueId>) -> Result<()> {
    if owns_queues {
        store.beat().await?;
    }
    let orphans = store.orphans().await?;
    if orphans.iter().any(|orphan| suspects.contains(orphan)) {
        store.remove_orphans(std::mem::take(suspects)).await?;
    }
    *suspects = orphans;
    Ok(())
}

#[async_trait]
impl Transport for SqlTransport {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durability: self.shared.promises.durability,
            order: Order::Key,
            shared: true,
            topics: Support::Native,
            delay: Support::Native,
            expiry: Support::Native,
            attempts: Support::Native,
            dead_letters: Support::Native,
            temporary_queues: Support::Emulated,
            lease_extend: Support::Native,
            fencing: Support::Native,
            cancel: Support::Native,
            body_bytes_max: self.shared.promises.body_bytes_max,
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.shared.check_open()?;
        if queue.lifetime == Lifetime::Temporary {
            self.shared.owns_queues.store(true, Ordering::Release);
        }
        self.shared.store.declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        publisher::publish(&self.shared, batch).await
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        self.shared.check_open()?;
        Ok(Box::new(SqlReceiver::open(Arc::clone(&self.shared), queue, options).await?))
    }

    fn admin(&self) -> &dyn Admin {
        &*self.shared
    }

    async fn close(&self) -> Result<()> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.shared.wake.everybody();
        let settlers = std::mem::take(&mut *self.shared.settlers());
        let held = settlers.iter().filter_map(Weak::upgrade).map(|settler| settler.take_all()).collect();
        self.shared.store.close(held).await
    }
}

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(error::closed()) } else { Ok(()) }
    }

    fn settlers(&self) -> std::sync::MutexGuard<'_, Vec<Weak<SqlSettler>>> {
        self.settlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shortest lease.
const LEASE_MIN: Duration = Duration::from_millis(1);
