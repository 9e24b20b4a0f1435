//! The loop: take, handle, settle, until something says stop.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use estafette_core::{Outcome, Result};
use tokio::time::Instant;

use crate::{
    StopReason, Summary,
    heartbeat::Heartbeat,
    intake::Intake,
    running::{Engine, Running},
    settling::{Settled, Settling, settle},
    stop::{Limits, Trigger, resident_bytes},
};

/// How long decided deliveries wait at most while handlers that never pause keep the loop busy.
const SETTLE_AFTER: Duration = Duration::from_millis(10);

type SettlingFuture = Pin<Box<dyn Future<Output = Settled> + Send>>;

pub(crate) struct Pump {
    pub(crate) engine: Arc<Engine>,
    pub(crate) intake: Intake,
    pub(crate) running: Running,
    pub(crate) settling: Settling,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) limits: Limits,
    pub(crate) grace: Duration,
    /// Messages whose handling ended.
    pub(crate) handled: u64,
    pub(crate) settling_now: Option<SettlingFuture>,
}

impl Pump {
    /// Runs until a limit is reached or `trigger` fires, then stops gracefully.
    pub(crate) async fn run(mut self, mut trigger: Trigger) -> Result<Summary> {
        let ended = self.work(&mut trigger).await;
        self.stop(&mut trigger).await;
        self.settling.summary.reason = ended?;
        Ok(self.settling.summary)
    }

    async fn work(&mut self, trigger: &mut Trigger) -> Result<StopReason> {
        loop {
            self.handle_buffer().await;
            self.start_settling();
            if let Some(reason) = self.limit_reached() {
                return Ok(reason);
            }
            self.intake.start(self.room(), self.handled, self.limits.until_empty);
            let idle_deadline = self.idle_deadline();
            let heartbeat = &mut self.heartbeat;
            tokio::select! {
                biased;
                reason = trigger.fired() => return Ok(reason),
                settled = finish(&mut self.settling_now) => self.settling.count(&settled),
                done = self.running.next() => self.done(done),
                buffered = self.intake.next(|deliveries| heartbeat.add(deliveries)) => {
                    if buffered? == 0 && self.is_done_with_the_queue().await? {
                        return Ok(StopReason::Empty);
                    }
                }
                () = sleep_until(idle_deadline) => return Ok(StopReason::Idle),
            }
        }
    }

    /// Hands buffered deliveries to handlers while there is room.
    async fn handle_buffer(&mut self) {
        let began = Instant::now();
        while let Some(done) = self.running.try_next() {
            self.done(done);
        }
        while self.running.has_room() && !self.limits_hit() {
            let Some(delivery) = self.intake.buffer.pop_front() else { return };
            if let Some(done) = self.running.start(&self.engine, delivery).await {
                self.done(done);
                // A handler that ends without ever pausing: settle now and then, not once at the end.
                if self.settling.is_full() || began.elapsed() > SETTLE_AFTER {
                    return self.settling.flush(&self.heartbeat).await;
                }
            }
        }
    }

    fn done(&mut self, (delivery, outcome): (estafette_core::Delivery, Outcome)) {
        self.handled += 1;
        self.settling.push(delivery, outcome);
    }

    /// Begins to settle what is decided, unless that is already going on: then the next round takes all of it at once.
    fn start_settling(&mut self) {
        if self.settling_now.is_none() && !self.settling.is_empty() {
            let batch = self.settling.take();
            let registry = self.heartbeat.registry();
            self.settling_now = Some(Box::pin(async move { settle(batch, &registry).await }));
        }
    }

    /// How many more deliveries may be taken.
    fn room(&self) -> usize {
        let begun = self.handled + (self.running.len() + self.intake.buffer.len()) as u64;
        let left = self.limits.count.map_or(u64::MAX, |count| count.saturating_sub(begun));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    fn limits_hit(&self) -> bool {
        self.limits.count.is_some_and(|count| self.handled >= count)
            || self.limits.failures.is_some_and(|max| self.settling.failures >= max)
    }

    fn limit_reached(&self) -> Option<StopReason> {
        let Limits { count, failures, memory_bytes, .. } = self.limits;
        if count.is_some_and(|count| self.handled >= count) {
            return Some(StopReason::Count);
        }
        if failures.is_some_and(|max| self.settling.failures >= max) {
            return Some(StopReason::FailureLimit);
        }
        memory_bytes
            .filter(|&max| resident_bytes().is_some_and(|used| used >= max))
            .map(|_| StopReason::MemoryLimit)
    }

    /// Whether the run is until the queue is empty, and it is: nothing here, nothing there.
    async fn is_done_with_the_queue(&mut self) -> Result<bool> {
        if !self.limits.until_empty || self.running.len() > 0 || self.intake.is_failing() {
            return Ok(false);
        }
        self.settle_all().await;
        let origin = &self.engine.origin;
        Ok(origin.transport.admin().queue(&origin.queue).await?.is_idle())
    }

    async fn settle_all(&mut self) {
        if self.settling_now.is_some() {
            let settled = finish(&mut self.settling_now).await;
            self.settling.count(&settled);
        }
        self.settling.flush(&self.heartbeat).await;
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let is_idle = self.running.len() == 0 && self.intake.buffer.is_empty();
        self.limits.idle.filter(|_| is_idle).map(|idle| self.intake.last_arrival + idle)
    }

    /// Stops gracefully: what runs may end within the grace period, what has not begun goes back unspent. A second request
    /// to stop ends the grace period.
    async fn stop(&mut self, trigger: &mut Trigger) {
        self.intake.close().await;
        for delivery in std::mem::take(&mut self.intake.buffer) {
            self.settling.push(delivery, Outcome::Release { after: Duration::ZERO });
        }
        let deadline = Instant::now() + self.grace;
        while self.running.len() > 0 {
            self.start_settling();
            tokio::select! {
                settled = finish(&mut self.settling_now) => self.settling.count(&settled),
                done = self.running.next() => self.done(done),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(running = self.running.len(), grace = ?self.grace, "handlers did not end in time; their messages go back");
                    self.running.abort().await;
                }
                _ = trigger.fired() => {
                    tracing::warn!(running = self.running.len(), "asked again to stop; stopping now");
                    self.running.abort().await;
                }
            }
        }
        self.settle_all().await;
        self.intake.release().await;
    }
}

async fn finish(settling: &mut Option<SettlingFuture>) -> Settled {
    let Some(future) = settling else { return std::future::pending().await };
    let settled = future.await;
    *settling = None;
    settled
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
