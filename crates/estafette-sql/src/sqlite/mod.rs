//! The store on SQLite: what the transport asks of an engine, done there.
//!
//! Two connections, each with a thread: one writes, and everything that writes in this process shares its transactions; one
//! reads, so that counting a long queue keeps nobody from publishing.
//!
//! Reading order: `schema`, `publish`, `claim`, `settle`, `queues`, `dead`, `owners`; below them `thread`, `session`
//! and `raw`; `checkpoint` keeps the log short; `watch` notices what other processes wrote.

mod block;
mod checkpoint;
mod claim;
mod dead;
mod entry;
mod error;
mod owners;
#[cfg(test)]
mod plans;
mod publish;
mod queues;
mod raw;
mod schema;
mod session;
mod settle;
mod thread;
mod watch;
mod writes;

use std::{sync::Arc, time::Duration};

use estafette_core::{
    DeadLetter, DeadQuery, Lifetime, MessageId, Outgoing, Pattern, QueueName, QueueSpec, QueueStatus, Result,
    Ticket, async_trait,
};
use sqlx::{
    ConnectOptions as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

pub(crate) use self::{checkpoint::checkpoint, watch::watch};
use self::{
    checkpoint::{Checkpoints, Log},
    error::from_sqlx,
    publish::Batch,
    queues::Which,
    session::Session,
    thread::{Mode, Thread},
};
use crate::{
    SqlConfig,
    leases::{Lease, Leases},
    routes::QueueId,
    store::{Claim, Deliver, Delivered, Fate, Store, Stored},
};

/// How many messages or dead letters a transaction removes or redrives at most, so that others get their turn.
const CHUNK_MAX: usize = 2000;

/// An open database.
pub(crate) struct SqliteStore {
    writer: Thread,
    reader: Thread,
    checkpoints: Arc<Checkpoints>,
    /// This process's name among the owners of temporary queues.
    owner: Arc<str>,
}

impl SqliteStore {
    /// Opens the database, made and migrated where that is needed.
    pub(crate) async fn open(config: &SqlConfig) -> Result<Self> {
        let mut writing = connect(config).await?;
        schema::migrate(&mut writing, config.busy_max).await?;
        let reading = connect(config).await?;
        let checkpoints = Arc::<Checkpoints>::default();
        let log = Log::new(Arc::clone(&checkpoints));
        Ok(Self {
            writer: Thread::start("estafette-sqlite-writer", writing, config.durability, Some(log))?,
            reader: Thread::start("estafette-sqlite-reader", reading, config.durability, None)?,
            checkpoints,
            owner: MessageId::new().to_string().into(),
        })
    }

    /// A number that changes whenever anybody has committed something.
    pub(crate) async fn data_version(&self) -> Result<i64> {
        self.reader.run(Mode::Read, |session| session.data_version()).await
    }

    async fn remove(&self, name: &QueueName, which: Which) -> Result<u64> {
        let name = name.clone();
        let find =
            move |session: &mut Session<'_>| Ok((session.queue(&name)?, queues::newest_block(session)?));
        let (queue, newest) = self.writer.run(Mode::Read, find).await?;
        let mut removed = 0;
        loop {
            let remove =
                move |session: &mut Session<'_>| queues::remove(session, queue, which, newest, CHUNK_MAX);
            let (entries, messages) = self.writer.run(Mode::Durable, remove).await?;
            removed += messages;
            if entries < CHUNK_MAX {
                return Ok(removed);
            }
        }
    }

    /// Does something to the dead letters that `query` means, in chunks: who is interrupted has done some and harmed none.
    async fn for_dead(
        &self,
        name: &QueueName,
        query: &DeadQuery,
        work: fn(&mut Session<'_>, &[i64]) -> Result<u64>,
    ) -> Result<u64> {
        let (name, query) = (name.clone(), query.clone());
        let ids = self.reader.run(Mode::Read, move |session| dead::ids(session, &name, &query)).await?;
        let mut done = 0;
        for chunk in ids.chunks(CHUNK_MAX) {
            let chunk = chunk.to_vec();
            done += self.writer.run(Mode::Durable, move |session| work(session, &chunk)).await?;
        }
        Ok(done)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn declare(&self, spec: &QueueSpec) -> Result<()> {
        let (spec, owner) = (spec.clone(), Arc::clone(&self.owner));
        let declare = move |session: &mut Session<'_>| {
            if spec.lifetime == Lifetime::Temporary {
                owners::beat(session, &owner)?;
            }
            queues::declare(session, &spec, &owner)
        };
        self.writer.run(Mode::Durable, declare).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<Stored> {
        let batch = Batch::new(messages)?;
        self.writer.run(Mode::Durable, move |session| publish::publish(session, &batch)).await
    }

    async fn consume(&self, name: &QueueName) -> Result<(QueueId, Lifetime)> {
        let (name, owner) = (name.clone(), Arc::clone(&self.owner));
        let consume = move |session: &mut Session<'_>| {
            let found = queues::find(session, &name)?;
            let (queue, lifetime) = found.ok_or_else(|| estafette_core::Error::no_queue(&name))?;
            if lifetime == Lifetime::Temporary {
                owners::adopt(session, queue, &owner)?;
            }
            Ok((queue, lifetime))
        };
        self.writer.run(Mode::Relaxed, consume).await
    }

    async fn claim(&self, claim: Claim, deliver: Deliver) -> Result<Delivered> {
        let probed = claim.clone();
        let probe = move |session: &mut Session<'_>| {
            let nothing = claim::probe(session, &probed)?;
            Ok(nothing.map(|taken| Delivered { deliveries: Vec::new(), next_due: taken.next_due }))
        };
        // Not flushed: a claim that a power cut undoes is a message that comes again, as it would anyway.
        let run = move |session: &mut Session<'_>| {
            let taken = claim::claim(session, &claim)?;
            let deliveries = taken.messages.into_iter().map(&deliver).collect();
            Ok(Delivered { deliveries, next_due: taken.next_due })
        };
        self.writer.run_unless(Mode::Relaxed, probe, run).await
    }

    // Whoever waits in another process sees that the log was written.
    async fn settle(
        &self,
        queue: QueueId,
        batch: Vec<(Lease, Fate)>,
        _wakes: bool,
    ) -> Result<Vec<Result<()>>> {
        let settle = move |session: &mut Session<'_>| settle::settle(session, queue, &batch);
        self.writer.run(Mode::Durable, settle).await.map(settle::results)
    }

    fn put_back(&self, queue: QueueId, lease: Lease, finish: Box<dyn FnOnce() + Send>) {
        let batch = [(lease, Fate::Dropped)];
        let run = move |session: &mut Session<'_>| settle::settle(session, queue, &batch).map(|_ends| ());
        self.writer.post(run, |_outcome| finish());
    }

    async fn extend(
        &self,
        queue: QueueId,
        leases: Arc<Leases>,
        tickets: Vec<Ticket>,
        lease: Duration,
    ) -> Result<Vec<Result<()>>> {
        let extend = move |session: &mut Session<'_>| {
            let until = session::now() + lease;
            let found = leases.find(&tickets);
            let batch: Vec<(Lease, Fate)> =
                found.iter().flatten().map(|lease| (lease.clone(), Fate::LeasedUntil(until))).collect();
            let mut ends = settle::settle(session, queue, &batch)?.into_iter();
            let ends: Vec<Option<i64>> =
                found.iter().map(|lease| lease.as_ref().and_then(|_| ends.next().flatten())).collect();
            for (ticket, before) in tickets.iter().zip(&ends) {
                if let Some(before) = before {
                    leases.extended(*ticket, *before, until.as_micros());
                }
            }
            Ok(ends)
        };
        self.writer.run(Mode::Relaxed, extend).await.map(settle::results)
    }

    async fn remove_temporary(&self, name: &QueueName) -> Result<()> {
        let (name, owner) = (name.clone(), Arc::clone(&self.owner));
        let remove = move |session: &mut Session<'_>| owners::remove_temporary(session, &name, &owner);
        self.writer.run(Mode::Relaxed, remove).await
    }

    fn remove_temporary_later(&self, name: &QueueName) {
        let (name, owner) = (name.clone(), Arc::clone(&self.owner));
        let remove = move |session: &mut Session<'_>| owners::remove_temporary(session, &name, &owner);
        self.writer.post(remove, |_outcome| ());
    }

    async fn beat(&self) -> Result<()> {
        let owner = Arc::clone(&self.owner);
        self.writer.run(Mode::Relaxed, move |session| owners::beat(session, &owner)).await
    }

    async fn orphans(&self) -> Result<Vec<QueueId>> {
        self.reader.run(Mode::Read, owners::orphans).await
    }

    async fn remove_orphans(&self, suspects: Vec<QueueId>) -> Result<()> {
        self.writer.run(Mode::Relaxed, move |session| owners::remove_orphans(session, &suspects)).await
    }

    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        self.reader.run(Mode::Read, |session| queues::statuses(session, None)).await
    }

    async fn queue(&self, name: &QueueName) -> Result<QueueStatus> {
        let name = name.clone();
        let status = move |session: &mut Session<'_>| {
            let queue = session.queue(&name)?;
            let found = queues::statuses(session, Some(queue))?.pop();
            found.ok_or_else(|| estafette_core::Error::no_queue(&name))
        };
        self.reader.run(Mode::Read, status).await
    }

    async fn unsubscribe(&self, name: &QueueName, pattern: &Pattern) -> Result<()> {
        let (name, pattern) = (name.clone(), pattern.clone());
        let unsubscribe = move |session: &mut Session<'_>| queues::unsubscribe(session, &name, &pattern);
        self.writer.run(Mode::Durable, unsubscribe).await
    }

    async fn delete(&self, name: &QueueName) -> Result<()> {
        self.remove(name, Which::All).await?;
        self.purge_dead(name, &DeadQuery::all()).await?;
        let name = name.clone();
        let delete = move |session: &mut Session<'_>| {
            let queue = session.queue(&name)?;
            queues::delete(session, queue)
        };
        self.writer.run(Mode::Durable, delete).await
    }

    async fn purge(&self, name: &QueueName) -> Result<u64> {
        self.remove(name, Which::Free).await
    }

    async fn dead(&self, name: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        let (name, query) = (name.clone(), query.clone());
        self.reader.run(Mode::Read, move |session| dead::list(session, &name, &query)).await
    }

    async fn redrive(&self, name: &QueueName, query: &DeadQuery) -> Result<(QueueId, u64)> {
        let searched = name.clone();
        let queue = self.writer.run(Mode::Read, move |session| session.queue(&searched)).await?;
        Ok((queue, self.for_dead(name, query, dead::redrive).await?))
    }

    async fn purge_dead(&self, name: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.for_dead(name, query, dead::purge).await
    }

    async fn cancel(&self, name: &QueueName, id: &MessageId) -> Result<bool> {
        let (name, id) = (name.clone(), id.clone());
        self.writer.run(Mode::Durable, move |session| queues::cancel(session, &name, &id)).await
    }

    async fn close(&self, held: Vec<(QueueId, Vec<Lease>)>) -> Result<()> {
        let owner = Arc::clone(&self.owner);
        let held: Vec<(QueueId, Vec<(Lease, Fate)>)> = held
            .into_iter()
            .map(|(queue, leases)| (queue, leases.into_iter().map(|lease| (lease, Fate::Dropped)).collect()))
            .collect();
        let leave = move |session: &mut Session<'_>| {
            for (queue, batch) in &held {
                settle::settle(session, *queue, batch)?;
            }
            owners::leave(session, &owner)
        };
        let left = self.writer.run(Mode::Durable, leave).await;
        self.reader.close().await?;
        self.writer.close().await?;
        left
    }
}

async fn connect(config: &SqlConfig) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(&config.path)
        .create_if_missing(true)
        .busy_timeout(config.busy_max.min(Duration::from_secs(86_400)))
        .synchronous(SqliteSynchronous::Full)
        // Only the thread that owns a connection uses it.
        .serialized(false)
        // The application's own tables may have them; ours have none.
        .foreign_keys(false)
        // What is hot, the two ends of the trees, is small; a cache that grows far is only memory to fault in.
        .pragma("cache_size", "-4096")
        // A net: see `checkpoint`.
        .pragma("wal_autocheckpoint", "8000")
        .disable_statement_logging();
    options.connect().await.map_err(from_sqlx)
}
