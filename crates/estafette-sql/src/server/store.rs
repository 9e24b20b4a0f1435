//! What the transport asks for, on connections of the pools.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    DeadLetter, DeadQuery, Error, ErrorKind, Lifetime, MessageId, Outgoing, Pattern, QueueName, QueueSpec,
    QueueStatus, Result, Ticket, Timestamp, async_trait,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    CHUNK_MAX,
    config::ServerConfig,
    dead,
    inner::{Inner, Later, lock, tell},
    micros, owners,
    queues::{self, Which},
    schema,
    work::{Repeat, Tries, work},
};
use crate::{
    leases::{Lease, Leases},
    routes::QueueId,
    store::{Claim, Deliver, Delivered, Fate, Store, Stored},
};

/// An open database on a server. Clones are the same.
#[derive(Clone)]
pub(crate) struct ServerStore(Arc<Inner>);

impl ServerStore {
    /// Connects, and brings the tables up to date.
    pub(crate) async fn open(config: ServerConfig) -> Result<Self> {
        let inner = Inner::new(config);
        work!(inner.durably(Repeat::Freely), connection => match inner.config.migrate {
            true => schema::bring_up_to_date(connection, &inner.config).await.map(drop),
            false => schema::check(connection, &inner.config).await,
        })?;
        Ok(Self(Arc::new(inner)))
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.0.config
    }

    /// Does what somebody asked for who could not wait, for ever.
    pub(crate) async fn do_later(&self) {
        loop {
            self.0.later_arrived.notified().await;
            self.0.do_later().await;
        }
    }

    /// Those of `queues` that hold something due.
    pub(crate) async fn with_something_due(&self, queues: &[QueueId]) -> Result<Vec<QueueId>> {
        let inner = &self.0;
        let numbers: Vec<String> = queues.iter().map(ToString::to_string).collect();
        let select = format!(
            "SELECT q.id FROM estafette_queue q WHERE q.id IN ({}) AND EXISTS
                (SELECT 1 FROM estafette_message m WHERE m.queue = q.id AND m.due <= {{now}} LIMIT 1)",
            numbers.join(", ")
        );

        work!(Tries::new(&inner.relaxed, inner.config.patience, Repeat::Freely), connection => {
            connection.rows(&select, &[]).await?.iter().map(|row| row.integer(0)).collect()
        })
    }

    /// Tells nobody of queues that are not consumed here any more.
    pub(crate) fn forget_others(&self, consumed: &[QueueId]) {
        self.0.marks.keep(|queue| consumed.contains(&queue));
    }
}

/// One result for each lease that stood or did not.
fn results(stood: &[Option<i64>]) -> Vec<Result<()>> {
    stood.iter().map(|stood| stood.map(|_due| ()).ok_or_else(|| ErrorKind::LeaseLost.into())).collect()
}

/// Work that goes on when whoever asked for it does not wait any more.
async fn unbreakable<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|source| Err(Error::new(ErrorKind::Engine, source)))
}

#[async_trait]
impl Store for ServerStore {
    async fn declare(&self, spec: &QueueSpec) -> Result<()> {
        let inner = &self.0;

        work!(inner.durably(Repeat::Freely), connection => {
            if spec.lifetime == Lifetime::Temporary {
                owners::beat(connection, &inner.owner).await?;
            }
            queues::declare(connection, spec, &inner.owner).await
        })
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<Stored> {
        let inner = Arc::clone(&self.0);
        let (stored, wait) = oneshot::channel();
        inner.sharing.enter(messages, stored);
        unbreakable(async move {
            inner.sharing.store(&inner.durable, &inner.known, inner.config.patience).await;
            Ok(())
        })
        .await?;
        wait.await.unwrap_or_else(|_never_sent| Err(ErrorKind::Engine.into()))
    }

    async fn consume(&self, name: &QueueName) -> Result<(QueueId, Lifetime)> {
        let inner = &self.0;

        work!(inner.durably(Repeat::Freely), connection => {
            let found = queues::find(connection, name).await?;
            let (queue, lifetime) = found.ok_or_else(|| Error::no_queue(name))?;
            if lifetime == Lifetime::Temporary {
                owners::adopt(connection, queue, &inner.owner).await?;
            }
            Ok((queue, lifetime))
        })
    }

    async fn claim(&self, claim: Claim, deliver: Deliver) -> Result<Delivered> {
        let inner = Arc::clone(&self.0);
        unbreakable(async move { inner.claim(claim, deliver).await }).await
    }

    async fn settle(
        &self,
        queue: QueueId,
        batch: Vec<(Lease, Fate)>,
        wakes: bool,
    ) -> Result<Vec<Result<()>>> {
        let inner = Arc::clone(&self.0);
        let settled = unbreakable(async move { inner.settle(queue, &batch, wakes).await }).await?;
        Ok(results(&settled))
    }

    fn put_back(&self, queue: QueueId, lease: Lease, finish: Box<dyn FnOnce() + Send>) {
        lock(&self.0.later).push(Later::PutBack(queue, lease, finish));
        self.0.later_arrived.notify_one();
    }

    async fn extend(
        &self,
        queue: QueueId,
        leases: Arc<Leases>,
        tickets: Vec<Ticket>,
        lease: Duration,
    ) -> Result<Vec<Result<()>>> {
        let found = leases.find(&tickets);
        let from_now = Timestamp::from_micros(micros(lease));
        let batch: Vec<(Lease, Fate)> =
            found.iter().flatten().map(|lease| (lease.clone(), Fate::LeasedUntil(from_now))).collect();
        let inner = Arc::clone(&self.0);
        let moved = unbreakable(async move { inner.settle(queue, &batch, false).await }).await?;
        let mut moved = moved.into_iter();
        let ends: Vec<Option<i64>> =
            found.iter().map(|lease| lease.as_ref().and_then(|_| moved.next().flatten())).collect();
        for ((ticket, end), before) in tickets.iter().zip(&ends).zip(&found) {
            if let (Some(end), Some(before)) = (end, before.as_ref().and_then(|lease| lease.ends().next())) {
                leases.extended(*ticket, before, *end);
            }
        }
        Ok(results(&ends))
    }

    async fn remove_temporary(&self, name: &QueueName) -> Result<()> {
        self.0.remove_temporary(name).await
    }

    fn remove_temporary_later(&self, name: &QueueName) {
        lock(&self.0.later).push(Later::RemoveTemporary(name.clone()));
        self.0.later_arrived.notify_one();
    }

    async fn beat(&self) -> Result<()> {
        work!(self.0.durably(Repeat::Freely), connection => owners::beat(connection, &self.0.owner).await)
    }

    async fn orphans(&self) -> Result<Vec<QueueId>> {
        work!(self.0.durably(Repeat::Freely), connection => owners::orphans(connection).await)
    }

    async fn remove_orphans(&self, suspects: Vec<QueueId>) -> Result<()> {
        work!(self.0.durably(Repeat::Freely), connection => {
            for queue in owners::still_orphans(connection, &suspects).await? {
                owners::remove(connection, queue).await?;
            }
            Ok(())
        })
    }

    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        work!(self.0.durably(Repeat::Freely), connection => queues::statuses(connection, None).await)
    }

    async fn queue(&self, name: &QueueName) -> Result<QueueStatus> {
        work!(self.0.durably(Repeat::Freely), connection => {
            let queue = queues::queue(connection, name).await?;
            let found = queues::statuses(connection, Some(queue)).await?.pop();
            found.ok_or_else(|| Error::no_queue(name))
        })
    }

    async fn unsubscribe(&self, name: &QueueName, pattern: &Pattern) -> Result<()> {
        work!(self.0.durably(Repeat::Freely), connection => queues::unsubscribe(connection, name, pattern).await)
    }

    async fn delete(&self, name: &QueueName) -> Result<()> {
        work!(self.0.durably(Repeat::Freely), connection => {
            let queue = queues::queue(connection, name).await?;
            // First, so that nothing is stored in it any more while it is emptied.
            owners::remove(connection, queue).await?;
            tell(connection, &[queue]).await
        })
    }

    async fn purge(&self, name: &QueueName) -> Result<u64> {
        self.0.remove(name, Which::Free).await
    }

    async fn dead(&self, name: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        let letters =
            work!(self.0.durably(Repeat::Freely), connection => dead::list(connection, name, query).await)?;
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    async fn redrive(&self, name: &QueueName, query: &DeadQuery) -> Result<(QueueId, u64)> {
        let inner = &self.0;

        let queue =
            work!(inner.durably(Repeat::Freely), connection => queues::queue(connection, name).await)?;
        let mut done = 0;
        for ids in inner.dead_ids(name, query).await?.chunks(CHUNK_MAX) {
            done += work!(inner.durably(Repeat::Freely), connection => {
                dead::redrive(connection, &inner.known, name, ids).await
            })?;
        }
        Ok((queue, done))
    }

    async fn purge_dead(&self, name: &QueueName, query: &DeadQuery) -> Result<u64> {
        let mut done = 0;
        for ids in self.0.dead_ids(name, query).await?.chunks(CHUNK_MAX) {
            done += work!(self.0.durably(Repeat::Freely), connection => dead::purge(connection, ids).await)?;
        }
        Ok(done)
    }

    async fn cancel(&self, name: &QueueName, id: &MessageId) -> Result<bool> {
        work!(self.0.durably(Repeat::Freely), connection => queues::cancel(connection, name, id).await)
    }

    async fn close(&self, held: Vec<(QueueId, Vec<Lease>)>) -> Result<()> {
        let inner = &self.0;
        inner.do_later().await;
        let mut left = Ok(());
        for (queue, leases) in held {
            let batch: Vec<_> = leases.into_iter().map(|lease| (lease, Fate::Dropped)).collect();
            if !batch.is_empty() {
                left = left.and(inner.settle(queue, &batch, true).await.map(drop));
            }
        }

        left = left.and(work!(inner.durably(Repeat::Freely), connection => {
            for queue in owners::leave(connection, &inner.owner).await? {
                owners::remove(connection, queue).await?;
            }
            Ok(())
        }));
        let deadline = Instant::now() + inner.config.patience;
        inner.relaxed.close(deadline).await;
        inner.durable.close(deadline).await;
        left
    }
}
