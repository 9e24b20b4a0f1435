//! The loop: take, handle, settle, until something says stop.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use estafette_core::{Delivery, Outcome, Result};
use tokio::time::Instant;

use crate::{
    StopReason, Summary,
    heartbeat::Heartbeat,
    intake::Intake,
    running::{Engine, Running},
    settling::{Settled, Settling, settle},
    stop::{Limits, MemoryWatch, Trigger},
};

/// How long handlers that never pause may keep the loop: then what is decided is settled, and other tasks have their turn.
const BUSY_MAX: Duration = Duration::from_millis(10);

/// How long settling may take when everything else has ended.
const LAST_SETTLING: Duration = Duration::from_secs(10);

type SettlingFuture = Pin<Box<dyn Future<Output = Settled> + Send>>;

pub(crate) struct Pump {
    pub(crate) engine: Arc<Engine>,
    pub(crate) intake: Intake,
    pub(crate) running: Running,
    pub(crate) settling: Settling,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) limits: Limits,
    pub(crate) memory: MemoryWatch,
    pub(crate) grace: Duration,
    /// Messages whose handling ended.
    pub(crate) handled: u64,
    pub(crate) settling_now: Option<SettlingFuture>,
    /// When something came or was done the last time.
    pub(crate) last_activity: Instant,
    /// When other tasks had their turn for certain.
    pub(crate) gave_way: Instant,
}

impl Pump {
    /// Runs until a limit is reached or `trigger` fires, then stops gracefully.
    pub(crate) async fn run(mut self, mut trigger: Trigger) -> Result<Summary> {
        self.heartbeat.start().await;
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
            self.intake.start(self.running.room(), self.room(), self.handled, self.limits.until_empty);
            self.give_way().await;
            let idle_deadline = self.idle_deadline();
            let can_go_on = self.can_begin();
            let heartbeat = &self.heartbeat;
            tokio::select! {
                biased;
                reason = trigger.fired() => return Ok(reason),
                settled = finish(&mut self.settling_now) => self.settling.count(&settled),
                done = self.running.next() => self.done(done),
                buffered = self.intake.next(|deliveries| heartbeat.add(deliveries)) => {
                    if buffered? > 0 {
                        self.last_activity = Instant::now();
                    } else if self.is_done_with_the_queue().await? {
                        return Ok(StopReason::Empty);
                    }
                }
                () = std::future::ready(()), if can_go_on => {}
                () = sleep_until(idle_deadline) => return Ok(StopReason::Idle),
            }
        }
    }

    /// Hands buffered deliveries to handlers while there is room.
    async fn handle_buffer(&mut self) {
        while let Some(done) = self.running.try_next() {
            self.done(done);
        }
        let began = Instant::now();
        while self.can_begin() {
            let Some(delivery) = self.intake.buffer.pop_front() else { return };
            if let Some(done) = self.running.start(&self.engine, delivery).await {
                self.done(done);
                // A handler that ends without ever pausing: settle now and then, not once at the end.
                if began.elapsed() > BUSY_MAX {
                    return;
                }
            }
        }
    }

    /// Whether a delivery is there, a handler for it, and no reason to hold back.
    fn can_begin(&self) -> bool {
        !self.intake.buffer.is_empty()
            && self.running.room() > 0
            && !self.settling.is_full()
            && self.handling_limit().is_none()
    }

    fn done(&mut self, (delivery, outcome): (Delivery, Outcome)) {
        self.handled += 1;
        self.settling.push(delivery, outcome);
    }

    /// Begins to settle what is decided, unless that is already going on: then the next round takes all of it at once.
    fn start_settling(&mut self) {
        if self.settling_now.is_none() && !self.settling.is_empty() {
            self.last_activity = Instant::now();
            let batch = self.settling.take();
            let registry = self.heartbeat.registry();
            self.settling_now = Some(Box::pin(async move { settle(batch, &registry).await }));
        }
    }

    /// Lets other tasks have their turn, now and then: with a backlog and quick handlers nothing here ever waits.
    async fn give_way(&mut self) {
        if self.gave_way.elapsed() > BUSY_MAX {
            tokio::task::yield_now().await;
            self.gave_way = Instant::now();
        }
    }

    /// How many more deliveries may be taken.
    fn room(&self) -> usize {
        let begun = self.handled + (self.running.len() + self.intake.buffer.len()) as u64;
        let left = self.limits.count.map_or(u64::MAX, |count| count.saturating_sub(begun));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// The limit that forbids to begin with another message.
    fn handling_limit(&self) -> Option<StopReason> {
        let Limits { count, failures, .. } = self.limits;
        if count.is_some_and(|count| self.handled >= count) {
            return Some(StopReason::Count);
        }
        failures.is_some_and(|max| self.settling.failures >= max).then_some(StopReason::FailureLimit)
    }

    fn limit_reached(&mut self) -> Option<StopReason> {
        self.handling_limit().or_else(|| self.memory.is_over().then_some(StopReason::MemoryLimit))
    }

    /// Whether the run is until the queue is empty, and it is: nothing here, nothing there.
    async fn is_done_with_the_queue(&mut self) -> Result<bool> {
        if !self.limits.until_empty || self.running.len() > 0 || self.intake.is_failing() {
            return Ok(false);
        }
        self.settle_all().await;
        let origin = &self.engine.origin;
        match origin.transport.admin().queue(&origin.queue).await {
            Ok(status) => Ok(status.is_idle()),
            Err(error) if error.is_retryable() => {
                tracing::warn!(error = error.report(), "cannot see whether the queue is empty; trying again");
                Ok(false)
            }
            Err(error) => Err(error),
        }
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
        self.limits.idle.filter(|_| is_idle).map(|idle| self.last_activity + idle)
    }

    /// Stops gracefully: what runs may end within the grace period, what has not begun goes back unspent. A second request
    /// to stop ends the grace period.
    async fn stop(&mut self, trigger: &mut Trigger) {
        let deadline = Instant::now() + self.grace;
        let heartbeat = &self.heartbeat;
        self.intake.close(|deliveries| heartbeat.add(deliveries)).await;
        for delivery in std::mem::take(&mut self.intake.buffer) {
            self.settling.push(delivery, Outcome::Release { after: Duration::ZERO });
        }
        while self.running.len() > 0 {
            self.start_settling();
            tokio::select! {
                settled = finish(&mut self.settling_now) => self.settling.count(&settled),
                done = self.running.next() => self.done(done),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(running = self.running.len(), grace = ?self.grace, "handlers did not end in time; their messages go back");
                    self.abort().await;
                }
                _ = trigger.fired() => {
                    tracing::warn!(running = self.running.len(), "asked again to stop; stopping now");
                    self.abort().await;
                }
            }
        }
        let finish = async {
            self.settle_all().await;
            self.intake.release().await;
        };
        tokio::select! {
            () = finish => {}
            () = tokio::time::sleep(LAST_SETTLING) => tracing::warn!("settling takes too long; leases end by themselves"),
            _ = trigger.fired() => tracing::warn!("asked again to stop; what is not settled comes again"),
        }
    }

    async fn abort(&mut self) {
        for done in self.running.abort().await {
            self.done(done);
        }
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
