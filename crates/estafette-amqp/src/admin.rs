//! Looking after queues.
//!
//! AMQP cannot list queues: those known here are the ones declared through this handle; others are found when asked for by
//! name. What waits and what is leased is counted as far as this handle made it wait, or its receivers hold it.

use std::sync::Arc;

use estafette_core::{
    Admin, DeadLetter, DeadQuery, Error, ErrorKind, Lifetime, Pattern, QueueName, QueueStatus, Result,
    async_trait,
};

use crate::{
    Shared,
    dead::Graveyard,
    names::{self, Waiting},
    protocol::request,
};

#[async_trait]
impl Admin for Shared {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        let mut found = Vec::new();
        for spec in self.topology.specs() {
            match self.queue(&spec.name).await {
                Ok(status) => found.push(status),
                // Deleted, or temporary and over.
                Err(error) if error.kind() == ErrorKind::NotFound => self.topology.forget_queue(&spec.name),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        self.check_open()?;
        let (ready, _consumers) = self.desk.must_exist(queue).await?;
        let spec = self.topology.spec(queue);
        let mut patterns = spec.as_ref().map_or(Vec::new(), |spec| spec.patterns.clone());
        patterns.sort();
        let lifetime = spec.map_or(Lifetime::Durable, |spec| spec.lifetime);
        let mut status = QueueStatus::empty(queue.clone(), patterns, lifetime);
        let (fetched, leased) = self.held(queue);
        status.ready = u64::from(ready) + fetched;
        status.leased = leased;
        status.dead = self.ready_in(&names::dead(queue.as_str())).await?;
        for (why, name) in self.topology.waiting_of(queue) {
            let count = self.ready_in(&name).await?;
            status.delayed += count;
            if why == Waiting::Retry {
                status.retrying += count;
            }
        }
        Ok(status)
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        self.check_open()?;
        self.topology.unsubscribe(queue, pattern).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        self.check_open()?;
        self.topology.delete(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.check_open()?;
        self.desk.must_exist(queue).await?;
        let mut count = 0;
        let waiting = self.topology.waiting_of(queue).into_iter().map(|(_, name)| name);
        for name in waiting.chain([queue.as_str().to_owned()]) {
            match self.desk.call(|out, id| request::queue_purge(out, id, &name)).await {
                Ok(reply) => count += u64::from(reply.count()?),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        let Some(graveyard) = self.graveyard(queue).await? else { return Ok(Vec::new()) };
        graveyard.list(query).await
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        let Some(graveyard) = self.graveyard(queue).await? else { return Ok(0) };
        graveyard.redrive(query, &self.publisher).await
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        let Some(graveyard) = self.graveyard(queue).await? else { return Ok(0) };
        graveyard.purge(query).await
    }
}

impl Shared {
    async fn ready_in(&self, queue: &str) -> Result<u64> {
        Ok(self.desk.look(queue).await?.map_or(0, |(ready, _)| u64::from(ready)))
    }

    /// A queue's dead letters; none when there never were any.
    async fn graveyard(&self, queue: &QueueName) -> Result<Option<Graveyard>> {
        self.check_open()?;
        self.desk.must_exist(queue).await?;
        let Some((count, _)) = self.desk.look(&names::dead(queue.as_str())).await? else { return Ok(None) };
        Graveyard::open(&self.desk, queue, count).await.map(Some)
    }

    /// The error of whoever uses this after closing.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.closed_error().map_or(Ok(()), Err::<(), Error>)
    }

    pub(crate) fn closed_error(&self) -> Option<Error> {
        self.connector_is_closed().then(crate::error::closed)
    }

    pub(crate) fn connector_is_closed(&self) -> bool {
        self.consuming.is_closed()
    }

    /// Notes that a receiver holds messages of its queue.
    pub(crate) fn register(&self, hold: &Arc<crate::hold::Hold>) {
        let mut holds = self.holds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        holds.retain(|known| known.strong_count() > 0);
        holds.push(Arc::downgrade(hold));
    }

    /// How many messages of a queue this handle's receivers have fetched and not handed over, and how many are leased.
    fn held(&self, queue: &QueueName) -> (u64, u64) {
        let holds = self.holds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_queue = holds.iter().filter_map(std::sync::Weak::upgrade).filter(|hold| hold.queue == *queue);
        of_queue.fold((0, 0), |(fetched, leased), hold| {
            let state = hold.lock();
            (fetched + state.fresh.len() as u64, leased + state.out as u64)
        })
    }
}
