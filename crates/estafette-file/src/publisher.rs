//! From messages to lines on their way to queues.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use estafette_core::{
    Destination, Error, ErrorKind, MessageId, Outgoing, QueueName, QueueSpec, Receipt, Result, Routing,
};

use crate::{
    Shared, declare, error, line,
    queues::Queues,
    sheet::{Folder, Slot},
    writer::Lines,
};

/// How often a publisher looks for temporary queues whose process has ended: nobody works off what they get.
const ORPHANS_EVERY: Duration = Duration::from_secs(10);

/// How often a message is routed anew because a queue was deleted under way.
const ROUTE_ATTEMPTS_MAX: u32 = 3;

impl Shared {
    /// Stores a batch: one result for each message, in order.
    pub(crate) async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        if let Err(error) = self.check_open().and_then(|()| self.delete_orphans_now_and_then()) {
            return vec![Err(error); batch.len()];
        }
        let mut results: Vec<Option<Result<Receipt>>> = vec![None; batch.len()];
        for attempt in 1..=ROUTE_ATTEMPTS_MAX {
            if let Err(error) = self.routes.refresh(&self.store) {
                return vec![Err(error); batch.len()];
            }
            let is_last = attempt == ROUTE_ATTEMPTS_MAX;
            self.publish_missing(batch, &mut results, is_last).await;
            if results.iter().all(Option::is_some) {
                break;
            }
        }
        let missing = || Err(ErrorKind::Engine.into());
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }

    fn delete_orphans_now_and_then(&self) -> Result<()> {
        let mut at = self.orphans_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if at.is_some_and(|at| now < at) {
            return Ok(());
        }
        *at = Some(now + ORPHANS_EVERY);
        drop(at);
        self.delete_orphans()
    }

    /// Stores those without a result. A queue that vanished leaves its messages without, unless it `is_last`.
    async fn publish_missing(
        &self,
        batch: &[Outgoing],
        results: &mut [Option<Result<Receipt>>],
        is_last: bool,
    ) {
        let mut lines = Lines::default();
        let mut stored = Vec::with_capacity(batch.len());
        for (index, (outgoing, result)) in batch.iter().zip(results.iter_mut()).enumerate() {
            if result.is_some() {
                continue;
            }
            match self.route(outgoing) {
                Ok(queues) if queues.is_empty() => *result = Some(Ok(receipt(outgoing, 0))),
                Ok(queues) => {
                    stored.push((index, queues.len()));
                    line::write(&outgoing.envelope, &mut lines.bytes);
                    let due = (!outgoing.delay.is_zero()).then(|| self.store.clock.now() + outgoing.delay);
                    lines.end_line(Slot { queues, folder: Folder::New, due, retrying: false, key: None });
                }
                Err(error) => *result = Some(Err(error)),
            }
        }
        if lines.is_empty() {
            return;
        }
        for ((index, count), answer) in stored.into_iter().zip(self.writer.store(lines).await) {
            let (Some(result), Some(outgoing)) = (results.get_mut(index), batch.get(index)) else { continue };
            match answer {
                Ok(()) => *result = Some(Ok(receipt(outgoing, count))),
                Err(error) if error.kind() == ErrorKind::NotFound && !is_last => {}
                Err(error) => *result = Some(Err(error)),
            }
        }
    }

    /// The queues that take a message; an empty set when there are none and none is required.
    fn route(&self, outgoing: &Outgoing) -> Result<Queues> {
        let bytes = outgoing.envelope.body.len();
        let max = self.store.config.body_bytes_max;
        if bytes > max {
            return Err(error::too_large(bytes, max));
        }
        match &outgoing.destination {
            Destination::Queue(name) if outgoing.require_queue => {
                self.routes.refresh(&self.store)?;
                self.routes.named(name).ok_or_else(|| error::no_such_queue(name))
            }
            Destination::Queue(name) => self.queue_or_new(name),
            Destination::Topic => {
                let queues = self.routes.subscribed(&outgoing.envelope.topic);
                if queues.is_empty() && outgoing.require_queue {
                    return Err(error::unroutable(&outgoing.envelope.topic));
                }
                Ok(queues)
            }
        }
    }

    fn queue_or_new(&self, name: &QueueName) -> Result<Queues> {
        if let Some(queues) = self.routes.named(name) {
            return Ok(queues);
        }
        declare::declare(&self.store, &self.routes, &QueueSpec::durable(name.clone())).or_else(|error| {
            match error.kind() {
                // Somebody made it as a temporary queue this moment: it takes messages as well.
                ErrorKind::Conflict => Ok(()),
                _ => Err(error),
            }
        })?;
        self.routes.refresh(&self.store)?;
        self.routes.named(name).ok_or_else(|| Error::no_queue(name))
    }
}

fn receipt(outgoing: &Outgoing, queues: usize) -> Receipt {
    let id: MessageId = outgoing.envelope.id.clone();
    Receipt { id, routing: Routing::to_queues(queues) }
}
