//! What is measured.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use estafette::{Bus, Bytes, Envelope, Outcome, Outgoing, QueueName, ReceiveOptions, Topic, settle_all};

use super::timing::{Clock, Timing};

const TOPIC: Topic = Topic::from_static("estafette.bench");

/// Messages published, or taken, together.
const BATCH: usize = 100;

/// Times measured for the latency: enough for a 99th of a hundred.
const ROUNDS_MAX: usize = 1000;

/// How long a message that was published may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Stages {
    pub(super) bus: Bus,
    pub(super) queue: QueueName,
    pub(super) messages_max: usize,
    pub(super) time_max: Duration,
    pub(super) body: Bytes,
}

impl Stages {
    /// One message after the other, each stored before the next.
    pub(super) async fn publish_single(&self) -> anyhow::Result<Timing> {
        self.publish(1, "publish").await
    }

    /// Batches, each stored before the next.
    pub(super) async fn publish_batches(&self) -> anyhow::Result<Timing> {
        self.publish(BATCH, "publish in batches").await
    }

    async fn publish(&self, together: usize, stage: &'static str) -> anyhow::Result<Timing> {
        let mut clock = Clock::start();
        while clock.goes_on(self.messages_max, self.time_max) {
            let batch = (0..together).map(|_| self.message()).collect();
            let started = Instant::now();
            let results = self.bus.publish_batch(batch).await;
            clock.add(started.elapsed(), together);
            results.into_iter().collect::<Result<Vec<_>, _>>().context("cannot publish")?;
        }
        Ok(clock.stop(stage, if together == 1 { "a message" } else { "a batch of 100" }))
    }

    /// Takes and acknowledges everything, in batches.
    pub(super) async fn consume(&self) -> anyhow::Result<Timing> {
        let mut receiver = self.bus.transport().receiver(&self.queue, ReceiveOptions::default()).await?;
        let mut clock = Clock::start();
        while clock.goes_on(usize::MAX, self.time_max) {
            let started = Instant::now();
            let deliveries = receiver.receive(BATCH, Duration::ZERO).await.context("cannot receive")?;
            if deliveries.is_empty() {
                clock.leave_out(started);
                break;
            }
            let count = deliveries.len();
            let acks = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
            settle_all(acks)
                .await
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .context("cannot acknowledge")?;
            clock.add(started.elapsed(), count);
        }
        receiver.close().await?;
        self.bus.admin().purge(&self.queue).await.context("cannot empty the queue")?;
        Ok(clock.stop("consume and ack in batches", "a batch of 100"))
    }

    /// From the call that publishes to the delivery, to a consumer that waits on an empty queue.
    pub(super) async fn latency(&self) -> anyhow::Result<Timing> {
        let mut receiver = self.bus.transport().receiver(&self.queue, ReceiveOptions::default()).await?;
        let mut clock = Clock::start();
        while clock.goes_on(self.messages_max.min(ROUNDS_MAX), self.time_max) {
            let started = Instant::now();
            let (received, published) =
                tokio::join!(receiver.receive(1, PATIENCE), self.bus.publish_batch(vec![self.message()]));
            clock.add(started.elapsed(), 1);
            published.into_iter().collect::<Result<Vec<_>, _>>().context("cannot publish")?;
            let delivery = received.context("cannot receive")?.pop();
            let delivery = delivery.context("a message that was published does not come")?;
            let acked = Instant::now();
            delivery.ack().await.context("cannot acknowledge")?;
            clock.leave_out(acked);
        }
        receiver.close().await?;
        let timing = clock.stop("publish to delivery, idle", "a message");
        ensure!(timing.messages > 0, "no message came within the time limit");
        Ok(timing)
    }

    fn message(&self) -> Outgoing {
        Outgoing::send(self.queue.clone(), Envelope::new(TOPIC, self.body.clone()))
    }
}
