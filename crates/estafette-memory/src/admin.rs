//! Looking after queues.

use estafette_core::{
    Admin, DeadLetter, DeadQuery, MessageId, Pattern, QueueName, QueueStatus, Result, async_trait,
};

use crate::Shared;

#[async_trait]
impl Admin for Shared {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        let now = self.clock.now();
        Ok(self.routes.queues().iter().map(|queue| queue.status(now)).collect())
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        Ok(self.routes.queue(queue)?.status(self.clock.now()))
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        let found = self.routes.queue(queue)?;
        found.lock().patterns.retain(|known| known != pattern);
        self.routes.forget_topics();
        Ok(())
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        self.routes.remove(queue)
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        Ok(self.routes.queue(queue)?.lock().purge() as u64)
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        Ok(self.routes.queue(queue)?.dead_letters(query))
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.routes.queue(queue)?.redrive(query, self.clock.now())
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        Ok(self.routes.queue(queue)?.take_dead(query).len() as u64)
    }

    async fn cancel(&self, queue: &QueueName, id: &MessageId) -> Result<bool> {
        Ok(self.routes.queue(queue)?.lock().cancel(id))
    }
}
