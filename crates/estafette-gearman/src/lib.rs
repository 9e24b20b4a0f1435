//! Estafette's Gearman transport, `gearman:`, over the servers' binary protocol.
//!
//! | our word | in Gearman |
//! |---|---|
//! | queue | a function, and `<queue>.retry`, `<queue>.delay`, `<queue>.dead` beside it |
//! | topic, pattern | nothing: a fixed list in the URL says which queue takes which topics |
//! | publish, send | `SUBMIT_JOB_BG`, confirmed by `JOB_CREATED`; many in flight |
//! | envelope | the job's data, as `CloudEvents` JSON; anything else is the body of a foreign message |
//! | message id | the job's unique id |
//! | delay | `SUBMIT_JOB_EPOCH`, in whole seconds, rounded up |
//! | delivery | `GRAB_JOB_UNIQ`, as many at once as were asked for |
//! | ack | `WORK_COMPLETE` |
//! | retry, reject, release | the message submitted again, confirmed; then `WORK_COMPLETE`. Never `WORK_FAIL`, which drops it |
//! | attempt | an attribute of the envelope, and a file beside the consumers for those that ended with their process |
//! | lease | a timer here: a server knows none. A connection that ends gives its jobs back |
//!
//! What it does not promise: topics without the list; temporary queues; order by partition key; cancelling; taking a message
//! from a consumer that is frozen but still connected; that an ack arrived before the connection broke. Messages that come back
//! come after those that wait. How durable a server is, is its own setting (`gearmand -q`). Tried with gearmand 1.1.20.
//!
//! Reading order: `config`, `names`, `payload` (what is on the wire); `protocol`, `link`, `servers`, `desk` (talking to
//! servers); `publisher`; `hold`, `fetch`, `receiver`, `settler`, `journal`; `taken`, `admin`.

mod admin;
mod config;
mod desk;
mod error;
mod fetch;
mod hold;
mod journal;
mod link;
mod names;
mod payload;
mod protocol;
mod publisher;
mod receiver;
mod servers;
mod settler;
mod taken;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use estafette_core::{
    Admin, Durability, Error, Guarantees, Lifetime, Order, Outgoing, QueueName, QueueSpec, Receipt,
    ReceiveOptions, Receiver, Result, Support, Transport, TransportUrl, async_trait,
};

pub use config::{Body, Endpoint, GearmanConfig};

use crate::{hold::Hold, protocol::kind, receiver::GearmanReceiver, servers::Servers};

/// Queues on Gearman servers. Clones share the connections.
#[derive(Clone)]
pub struct GearmanTransport {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Arc<Servers>,
    queues: Mutex<Queues>,
    /// Whose turn it is to look at dead letters.
    dead_turn: tokio::sync::Mutex<()>,
}

/// What this handle knows of queues.
#[derive(Default)]
struct Queues {
    declared: BTreeSet<Box<str>>,
    /// What its receivers hold.
    holds: Vec<Weak<Hold>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_declared(&self, queue: &QueueName) -> bool {
        self.lock().declared.contains(queue.as_str())
    }

    fn declared(&self) -> Vec<QueueName> {
        self.lock().declared.iter().filter_map(|name| QueueName::try_from(&**name).ok()).collect()
    }

    fn register(&self, hold: &Arc<Hold>) {
        let mut queues = self.lock();
        queues.holds.retain(|hold| hold.strong_count() > 0);
        queues.holds.push(Arc::downgrade(hold));
    }

    fn holds(&self) -> Vec<Arc<Hold>> {
        self.lock().holds.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends the receivers of a queue that is deleted.
    fn end_receivers(&self, queue: &QueueName) {
        for hold in self.holds().iter().filter(|hold| hold.queue == *queue) {
            hold.end(&Error::no_queue(queue));
        }
    }

    fn forget(&self, queue: &QueueName) {
        self.lock().declared.remove(queue.as_str());
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.servers.check_open()?;
        if queue.lifetime == Lifetime::Temporary {
            return Err(error::no_temporary_queues());
        }
        for pattern in &queue.patterns {
            let listed = (queue.name.clone(), pattern.clone());
            if !self.servers.config.subscriptions.contains(&listed) {
                return Err(error::not_listed(&queue.name, pattern));
            }
        }
        // A function is there as soon as a worker names it, and stays when it goes.
        let deadline = self.servers.deadline();
        let link = self.servers.any(deadline).await?;
        let mut requests = Vec::new();
        protocol::put(&mut requests, kind::CAN_DO, &[queue.name.as_str().as_bytes()]);
        protocol::put(&mut requests, kind::RESET_ABILITIES, &[]);
        link.tell(&requests)?;
        link.flush(deadline).await?;
        self.lock().declared.insert(queue.name.as_str().into());
        Ok(())
    }
}

impl GearmanTransport {
    /// Connects with these settings; servers that are away are waited for within [`GearmanConfig::patience`].
    ///
    /// # Errors
    ///
    /// [`Unavailable`](estafette_core::ErrorKind::Unavailable) when no server could be reached.
    pub async fn connect(config: GearmanConfig) -> Result<Self> {
        let servers = Arc::new(Servers::new(Arc::new(config)));
        servers.any(servers.deadline()).await?;
        let shared = Shared { servers, queues: Mutex::default(), dead_turn: tokio::sync::Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Connects to `gearman://host:port,host:port`.
///
/// # Errors
///
/// [`InvalidInput`](estafette_core::ErrorKind::InvalidInput) for a URL that cannot be read or an unknown setting; those of
/// [`GearmanTransport::connect`].
pub async fn connect(url: TransportUrl) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(GearmanTransport::connect(GearmanConfig::from_url(url)?).await?))
}

#[async_trait]
impl Transport for GearmanTransport {
    fn guarantees(&self) -> Guarantees {
        let config = &self.shared.servers.config;
        Guarantees {
            durability: Durability::Server,
            order: Order::Queue,
            shared: true,
            topics: if config.subscriptions.is_empty() { Support::None } else { Support::Emulated },
            delay: Support::Native,
            expiry: Support::Emulated,
            attempts: if config.state.is_some() { Support::Emulated } else { Support::None },
            dead_letters: Support::Emulated,
            temporary_queues: Support::None,
            lease_extend: Support::Emulated,
            fencing: Support::None,
            cancel: Support::None,
            body_bytes_max: config.body_bytes_max,
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.shared.declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        if let Err(error) = self.shared.servers.check_open() {
            return vec![Err(error); batch.len()];
        }
        self.shared.publish(batch).await
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        self.shared.servers.check_open()?;
        if options.ordered_by_key {
            return Err(error::no_key_order());
        }
        if !self.shared.exists(queue).await? {
            return Err(Error::no_queue(queue));
        }
        Ok(Box::new(GearmanReceiver::open(&self.shared, queue, options)))
    }

    fn admin(&self) -> &dyn Admin {
        &*self.shared
    }

    async fn close(&self) -> Result<()> {
        self.shared.servers.close().await;
        for hold in self.shared.holds() {
            hold.end(&error::closed());
        }
        Ok(())
    }
}

/// Reads bytes as a server's packets, and as a job's data: for the fuzz target alone.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let mut buffer = bytes::BytesMut::from(bytes);
    while let Ok(Some(packet)) = protocol::take(&mut buffer, 1 << 16) {
        drop(packet.arguments::<4>());
    }
    if let Ok(queue) = QueueName::try_from("fuzz") {
        let read = payload::read(&bytes::Bytes::copy_from_slice(bytes), &queue, bytes, b"H:fuzz:1");
        drop(payload::write_noted(&read.envelope, &read.notes));
        drop(payload::dead_letter(read, &queue));
    }
}
