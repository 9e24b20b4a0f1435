//! The stand-in's administration.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    Admin, DeadLetter, DeadQuery, Lifetime, MessageId, Outgoing, Pattern, QueueName, QueueStatus, Reason,
    Result, Transport, async_trait,
};

use crate::{faults::Fault, transport::Shared};

pub(crate) struct BrokenAdmin {
    pub(crate) shared: Arc<Shared>,
}

impl BrokenAdmin {
    fn has(&self, fault: Fault) -> bool {
        self.shared.fault == fault
    }

    fn inner(&self) -> &dyn Admin {
        self.shared.inner.admin()
    }

    fn query(&self, query: &DeadQuery) -> DeadQuery {
        if self.has(Fault::IgnoresQueries) { DeadQuery::all() } else { query.clone() }
    }
}

#[async_trait]
impl Admin for BrokenAdmin {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        let mut queues = self.inner().queues().await?;
        if self.has(Fault::SaysNothingIsLeased) {
            for queue in &mut queues {
                queue.leased = 0;
            }
        }
        Ok(queues)
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        let found = self.queues().await?.into_iter().find(|status| status.name == *queue);
        match found {
            None if self.has(Fault::InventsQueues) => {
                Ok(QueueStatus::empty(queue.clone(), Vec::new(), Lifetime::Durable))
            }
            found => found.ok_or_else(|| estafette_core::Error::no_queue(queue)),
        }
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        if self.has(Fault::KeepsSubscriptions) {
            return Ok(());
        }
        self.inner().unsubscribe(queue, pattern).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        if self.has(Fault::KeepsDeletedQueues) {
            return Ok(());
        }
        self.inner().delete(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        if self.has(Fault::PurgesDeadLetters) {
            self.inner().purge_dead(queue, &DeadQuery::all()).await?;
        }
        self.inner().purge(queue).await
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        let mut dead = self.inner().dead(queue, &self.query(query)).await?;
        match self.shared.fault {
            Fault::ForgetsErrors => dead.iter_mut().for_each(|letter| letter.error.clear()),
            Fault::ForgetsExpired => dead.retain(|letter| letter.reason != Reason::Expired),
            _ => {}
        }
        Ok(dead)
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        if self.has(Fault::RedrivesEverything) {
            self.inner().redrive(queue, &DeadQuery::all()).await?;
        }
        if self.has(Fault::RedrivesToAll) || self.has(Fault::RedrivesInTwoSteps) {
            let letters = self.inner().dead(queue, query).await?;
            self.inner().purge_dead(queue, query).await?;
            // Where it can be interrupted, also when the machine is busy.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let outgoing = |letter: &DeadLetter| match self.shared.fault {
                Fault::RedrivesToAll => Outgoing::publish(letter.envelope.clone()),
                _ => Outgoing::send(queue.clone(), letter.envelope.clone()),
            };
            let batch: Vec<_> = letters.iter().map(outgoing).collect();
            return Ok(self.shared.inner.publish(&batch).await.len() as u64);
        }
        self.inner().redrive(queue, query).await
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.inner().purge_dead(queue, &self.query(query)).await
    }

    async fn cancel(&self, queue: &QueueName, id: &MessageId) -> Result<bool> {
        if self.has(Fault::PretendsToCancel) {
            return Ok(true);
        }
        self.inner().cancel(queue, id).await
    }
}
