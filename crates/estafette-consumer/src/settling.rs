//! The outgoing end of the loop: decided deliveries, settled in batches and counted.

use estafette_core::{Delivery, ErrorKind, Outcome, QueueName, settle_all};

use crate::{
    Summary,
    heartbeat::{Heartbeat, Registry},
};

/// Settled together at most.
const BATCH_MAX: usize = 512;

/// Decided deliveries on their way to be settled.
pub(crate) struct Settling {
    queue: QueueName,
    pending: Vec<(Delivery, Outcome)>,
    pub(crate) summary: Summary,
    /// How many were decided to be retries or dead letters.
    pub(crate) failures: u64,
}

impl Settling {
    pub(crate) fn new(queue: QueueName) -> Self {
        Self { queue, pending: Vec::new(), summary: Summary::new(), failures: 0 }
    }

    pub(crate) fn push(&mut self, delivery: Delivery, outcome: Outcome) {
        if matches!(outcome, Outcome::Retry { .. } | Outcome::Reject(_)) {
            self.failures += 1;
        }
        self.pending.push((delivery, outcome));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether there is so much to settle that it should not wait for more.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= BATCH_MAX
    }

    /// Takes what is to be settled now.
    pub(crate) fn take(&mut self) -> Vec<(Delivery, Outcome)> {
        std::mem::take(&mut self.pending)
    }

    /// Settles what is pending.
    pub(crate) async fn flush(&mut self, heartbeat: &Heartbeat) {
        let batch = self.take();
        if !batch.is_empty() {
            let settled = settle(batch, &heartbeat.registry()).await;
            self.count(&settled);
        }
    }

    /// Counts what was settled.
    pub(crate) fn count(&mut self, settled: &Settled) {
        let summary = &mut self.summary;
        summary.acked += settled.acked;
        summary.retried += settled.retried;
        summary.dead += settled.dead;
        summary.released += settled.released;
        summary.lost += settled.lost;
        let queue = self.queue.as_str();
        for (outcome, count) in [
            ("ack", settled.acked),
            ("retry", settled.retried),
            ("reject", settled.dead),
            ("release", settled.released),
            ("lost", settled.lost),
        ] {
            if count > 0 {
                metrics::counter!("estafette_settled_total", "queue" => queue.to_owned(), "outcome" => outcome)
                    .increment(count);
            }
        }
    }
}

/// How a batch was settled.
#[derive(Default)]
pub(crate) struct Settled {
    acked: u64,
    retried: u64,
    dead: u64,
    released: u64,
    lost: u64,
}

/// Settles a batch. What fails is reported and comes again by itself.
pub(crate) async fn settle(batch: Vec<(Delivery, Outcome)>, registry: &Registry) -> Settled {
    registry.remove(batch.iter().map(|(delivery, _)| delivery.ticket()));
    let mut settled = Settled::default();
    // What to count for each item, should settling it succeed: the outcome itself goes to the transport.
    let kinds: Vec<Kind> = batch.iter().map(|(delivery, outcome)| Kind::of(delivery, outcome)).collect();
    let results = settle_all(batch).await;
    for (kind, result) in kinds.into_iter().zip(results) {
        match (result, kind) {
            (Ok(()), Kind::Ack) => settled.acked += 1,
            (Ok(()), Kind::Retry) => settled.retried += 1,
            (Ok(()), Kind::Reject) => settled.dead += 1,
            (Ok(()), Kind::Release) => settled.released += 1,
            (Err(error), _) => {
                settled.lost += 1;
                if error.kind() == ErrorKind::LeaseLost {
                    tracing::warn!(
                        "a lease ended before its message was settled; another consumer has it now"
                    );
                } else {
                    tracing::warn!(
                        error = error.report(),
                        "a message could not be settled and will come again"
                    );
                }
            }
        }
    }
    settled
}

#[derive(Clone, Copy)]
enum Kind {
    Ack,
    Retry,
    Reject,
    Release,
}

impl Kind {
    fn of(delivery: &Delivery, outcome: &Outcome) -> Self {
        let envelope = delivery.envelope();
        match outcome {
            Outcome::Ack => Self::Ack,
            Outcome::Release { .. } => Self::Release,
            Outcome::Retry { after, error } => {
                let error = error.as_deref().unwrap_or_default();
                tracing::info!(id = %envelope.id, topic = %envelope.topic, attempt = delivery.attempt(), ?after, error, "retry");
                Self::Retry
            }
            Outcome::Reject(failure) => {
                let (reason, error) = (failure.reason, &failure.error);
                tracing::warn!(id = %envelope.id, topic = %envelope.topic, attempt = delivery.attempt(), %reason, error, "dead letter");
                Self::Reject
            }
        }
    }
}
