//! Looking after queues and dead letters.

use estafette_core::{
    Admin, DeadLetter, DeadQuery, MessageId, Pattern, QueueName, QueueStatus, Result, async_trait,
};

use crate::Shared;

#[async_trait]
impl Admin for Shared {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        self.check_open()?;
        self.store.queues().await
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        self.check_open()?;
        self.store.queue(queue).await
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        self.check_open()?;
        self.store.unsubscribe(queue, pattern).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        self.check_open()?;
        self.store.delete(queue).await?;
        // Its receivers find out that it is gone.
        self.wake.everybody();
        Ok(())
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.check_open()?;
        self.store.purge(queue).await
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        self.check_open()?;
        self.store.dead(queue, query).await
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.check_open()?;
        let (queue, redriven) = self.store.redrive(queue, query).await?;
        self.wake.arrived(&[queue]);
        Ok(redriven)
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.check_open()?;
        self.store.purge_dead(queue, query).await
    }

    async fn cancel(&self, queue: &QueueName, id: &MessageId) -> Result<bool> {
        self.check_open()?;
        self.store.cancel(queue, id).await
    }
}
