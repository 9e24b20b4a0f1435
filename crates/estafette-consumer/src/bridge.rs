//! The bridge: takes from a queue of one transport, publishes to another, and acknowledges only what the other confirmed.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use estafette_core::{
    Delivery, Destination, Error, Failure, Outcome, Outgoing, QueueName, QueueSpec, Reason, ReceiveOptions,
    Receiver, Result, Retry, Transport,
};

use crate::{
    StopReason, Summary,
    heartbeat::Heartbeat,
    settling::{Settling, settle},
    stop::{Ready, Trigger},
};

/// Forwarded together at most.
const BATCH_MAX: usize = 500;

/// Moves messages from a queue of one transport to the topics, or one queue, of another: accept locally, forward to the
/// central broker.
///
/// Messages go in the order they are taken, a batch at a time; while the other side is down they stay where they are and
/// no attempt is spent. One the other side refuses for good (too large, say) becomes a dead letter on this side.
#[must_use = "a bridge does nothing until it runs"]
pub struct Bridge {
    from: Arc<dyn Transport>,
    to: Arc<dyn Transport>,
    spec: QueueSpec,
    target: Destination,
    count_max: Option<u64>,
    until_empty: bool,
    when_ready: Option<Ready>,
}

impl Bridge {
    /// A bridge from the queue `spec` of `from`, which is declared when the bridge runs, to the same topics on `to`.
    pub fn new(from: Arc<dyn Transport>, spec: QueueSpec, to: Arc<dyn Transport>) -> Self {
        Self {
            from,
            to,
            spec,
            target: Destination::Topic,
            count_max: None,
            until_empty: false,
            when_ready: None,
        }
    }

    /// Sends everything to one queue of the other side instead.
    pub fn to_queue(mut self, queue: QueueName) -> Self {
        self.target = Destination::Queue(queue);
        self
    }

    /// Stops after so many messages.
    pub fn count_max(mut self, count: u64) -> Self {
        self.count_max = Some(count);
        self
    }

    /// Stops when the queue is empty.
    pub fn stop_when_empty(mut self) -> Self {
        self.until_empty = true;
        self
    }

    /// Calls `ready` when the queue is declared and messages can come for the first time.
    pub fn when_ready(mut self, ready: impl FnOnce() + Send + 'static) -> Self {
        self.when_ready = Some(Box::new(ready));
        self
    }

    /// Runs until SIGTERM or SIGINT, or until a limit set before is reached.
    ///
    /// # Errors
    ///
    /// Those errors of either transport that trying again does not cure.
    pub async fn run(self) -> Result<Summary> {
        let trigger = Trigger::signals()?;
        self.run_with(trigger).await
    }

    /// Runs until `future` ends, whatever signals come.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_until(self, future: impl Future<Output = ()> + Send + 'static) -> Result<Summary> {
        self.run_with(Trigger::future(future)).await
    }

    async fn run_with(mut self, mut trigger: Trigger) -> Result<Summary> {
        let mut settling = Settling::new(self.spec.name.clone());
        let mut heartbeat = Heartbeat::new(ReceiveOptions::default().lease);
        heartbeat.start().await;
        let (mut failures, mut receiver) = (0, None);
        let mut when_ready = self.when_ready.take();
        let reason = loop {
            let step = self.step(&mut receiver, &mut when_ready, &mut settling, &heartbeat);
            let moved = tokio::select! {
                moved = step => moved,
                // What was taken and is not confirmed goes back by itself.
                reason = trigger.fired() => break reason,
            };
            let pause = match moved {
                Ok(Some(reason)) => break reason,
                Ok(None) => {
                    failures = 0;
                    continue;
                }
                Err(error) if error.is_retryable() => {
                    failures += 1;
                    tracing::warn!(
                        error = error.report(),
                        failures,
                        "the bridge is interrupted; trying again"
                    );
                    let policy =
                        Retry::exponential(Duration::from_millis(100)).delay_max(Duration::from_secs(5));
                    policy.delay(failures, fastrand::f64())
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                reason = trigger.fired() => break reason,
            }
        };
        if let Some(mut receiver) = receiver
            && let Err(error) = receiver.close().await
        {
            tracing::warn!(
                error = error.report(),
                "the receiver could not be closed; its leases end by themselves"
            );
        }
        settling.summary.reason = reason;
        Ok(settling.summary)
    }

    /// Moves one batch. The reason when that was the last one.
    async fn step(
        &self,
        receiver: &mut Option<Box<dyn Receiver>>,
        when_ready: &mut Option<Ready>,
        settling: &mut Settling,
        heartbeat: &Heartbeat,
    ) -> Result<Option<StopReason>> {
        let moved = settling.summary.acked + settling.summary.dead;
        let left = self.count_max.map_or(u64::MAX, |count| count.saturating_sub(moved));
        if left == 0 {
            return Ok(Some(StopReason::Count));
        }
        let receiver = match receiver {
            Some(receiver) => receiver,
            None => {
                let opened = self.open().await?;
                if let Some(ready) = when_ready.take() {
                    ready();
                }
                receiver.insert(opened)
            }
        };
        let max = usize::try_from(left).map_or(BATCH_MAX, |left| left.min(BATCH_MAX));
        let wait = if self.until_empty { Duration::from_millis(100) } else { Duration::from_secs(60) };
        let deliveries = receiver.receive(max, wait).await?;
        if deliveries.is_empty() {
            let is_done = self.until_empty && self.from.admin().queue(&self.spec.name).await?.is_idle();
            return Ok(is_done.then_some(StopReason::Empty));
        }
        heartbeat.add(&deliveries);
        let (decided, failure) = self.forward(deliveries).await;
        let settled = settle(decided, &heartbeat.registry()).await;
        settling.count(&settled);
        failure.map_or(Ok(None), Err)
    }

    async fn open(&self) -> Result<Box<dyn Receiver>> {
        self.from.declare(&self.spec).await?;
        let guarantees = self.from.guarantees();
        let ordered_by_key = guarantees.order >= estafette_core::Order::Key;
        let options =
            ReceiveOptions { ordered_by_key, unsettled_max: BATCH_MAX, ..ReceiveOptions::default() };
        self.from.receiver(&self.spec.name, options).await
    }

    /// Publishes a batch to the other side and decides about each message; the error when the other side is down.
    async fn forward(&self, deliveries: Vec<Delivery>) -> (Vec<(Delivery, Outcome)>, Option<Error>) {
        let batch: Vec<Outgoing> = deliveries.iter().map(|delivery| self.outgoing(delivery)).collect();
        let mut results: VecDeque<_> = self.to.publish(&batch).await.into();
        let mut down = None;
        let decide = |delivery: Delivery| {
            let outcome = match results.pop_front() {
                Some(Ok(receipt)) if receipt.routing.is_routed() => Outcome::Ack,
                Some(Ok(_unrouted)) => {
                    let sentence = format!("no queue of the other side takes {}", delivery.envelope().topic);
                    Outcome::Reject(Failure::new(Reason::Unhandled, sentence))
                }
                Some(Err(error)) if !error.is_retryable() => {
                    Outcome::Reject(Failure::new(Reason::Rejected, error.report()))
                }
                Some(Err(error)) => {
                    down = Some(error);
                    Outcome::Release { after: Duration::ZERO }
                }
                None => Outcome::Release { after: Duration::ZERO },
            };
            (delivery, outcome)
        };
        let decided = deliveries.into_iter().map(decide).collect();
        (decided, down)
    }

    fn outgoing(&self, delivery: &Delivery) -> Outgoing {
        Outgoing { destination: self.target.clone(), ..Outgoing::publish(Arc::clone(delivery.envelope())) }
    }
}
