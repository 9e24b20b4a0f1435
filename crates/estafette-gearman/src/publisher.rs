//! Publishing: a job for each queue that takes a message.

use std::time::Duration;

use estafette_core::{Destination, Outgoing, QueueName, Receipt, Result, Routing};

use crate::{
    Shared,
    config::Body,
    error,
    names::{self, Copy},
    payload,
    servers::Job,
    settler::when,
};

impl Shared {
    pub(crate) async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut jobs = Vec::with_capacity(batch.len());
        // Which message each job is of.
        let mut owners = Vec::with_capacity(batch.len());
        for (index, outgoing) in batch.iter().enumerate() {
            let queues = self.route(outgoing).await;
            results.push(queues.map(|queues| {
                owners.extend(queues.iter().map(|_| index));
                jobs.extend(self.jobs(outgoing, &queues));
                Receipt { id: outgoing.envelope.id.clone(), routing: Routing::to_queues(queues.len()) }
            }));
        }
        if jobs.is_empty() {
            return results;
        }
        for (submitted, owner) in self.servers.submit(&jobs).await.into_iter().zip(owners) {
            if let (Err(error), Some(result)) = (submitted, results.get_mut(owner)) {
                *result = Err(error);
            }
        }
        results
    }

    /// The queues that take a message.
    async fn route(&self, outgoing: &Outgoing) -> Result<Vec<QueueName>> {
        let config = &self.servers.config;
        let bytes = outgoing.envelope.body.len();
        if bytes > config.body_bytes_max {
            return Err(error::too_large(bytes, config.body_bytes_max));
        }
        match &outgoing.destination {
            Destination::Queue(queue) if outgoing.require_queue && !self.exists(queue).await? => {
                Err(error::no_such_queue(queue))
            }
            Destination::Queue(queue) => Ok(vec![queue.clone()]),
            Destination::Topic if config.subscriptions.is_empty() => Err(error::no_topics()),
            Destination::Topic => {
                let mut queues = Vec::new();
                for (queue, pattern) in &config.subscriptions {
                    if !queues.contains(queue) && pattern.matches(&outgoing.envelope.topic) {
                        queues.push(queue.clone());
                    }
                }
                if queues.is_empty() && outgoing.require_queue {
                    return Err(error::unroutable(&outgoing.envelope.topic));
                }
                Ok(queues)
            }
        }
    }

    fn jobs(&self, outgoing: &Outgoing, queues: &[QueueName]) -> Vec<Job> {
        let body = self.servers.config.body;
        let data = payload::write(&outgoing.envelope, body);
        let unique = names::unique(&outgoing.envelope, Copy::After(0));
        let job = |queue: &QueueName| Job {
            function: function(queue, outgoing.delay, body),
            unique: unique.clone(),
            data: data.clone(),
            when: when(outgoing.delay),
        };
        queues.iter().map(job).collect()
    }
}

/// Where a message waits: apart when it is delayed, to be counted apart; but other programs know one function only.
fn function(queue: &QueueName, delay: Duration, body: Body) -> String {
    if delay.is_zero() || body == Body::Plain { queue.to_string() } else { names::delay(queue) }
}
