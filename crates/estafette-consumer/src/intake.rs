//! The incoming end of the loop: taking deliveries, as many as will soon be handled.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use estafette_core::{Delivery, Receiver, Result, Retry};
use tokio::{sync::Notify, time::Instant};

/// How far ahead deliveries are taken: as many as were handled in this time of late.
const LOOK_AHEAD: Duration = Duration::from_millis(100);

/// How long one wait for deliveries takes at most.
const WAIT: Duration = Duration::from_secs(60);

/// How long a wait takes while the run is until the queue is empty, and it holds no ready message but is not empty either.
const WAIT_FOR_EMPTY: Duration = Duration::from_millis(100);

/// How long an ongoing wait is given to return what it may just have taken, when the run ends.
const LAST_WAIT: Duration = Duration::from_millis(50);

type Receiving = Pin<Box<dyn Future<Output = (Box<dyn Receiver>, Result<Vec<Delivery>>)> + Send>>;

/// Deliveries taken and not begun, and the wait for more.
pub(crate) struct Intake {
    pub(crate) buffer: VecDeque<Delivery>,
    prefetch_max: usize,
    /// The receiver, unless a wait holds it.
    receiver: Option<Box<dyn Receiver>>,
    receiving: Option<Receiving>,
    /// Ends the wait, which then gives the receiver back.
    enough: Arc<Notify>,
    /// Whether the last wait brought nothing.
    found_nothing: bool,
    /// Failures since deliveries could be taken the last time.
    failures: u32,
    rate: Rate,
}

impl Intake {
    pub(crate) fn new(receiver: Box<dyn Receiver>, prefetch_max: usize) -> Self {
        Self {
            buffer: VecDeque::new(),
            prefetch_max,
            receiver: Some(receiver),
            receiving: None,
            enough: Arc::default(),
            found_nothing: false,
            failures: 0,
            rate: Rate::new(),
        }
    }

    /// Begins to wait for deliveries, for the idle handlers and as many more as will soon be handled, unless that already
    /// goes on or half of them are buffered. At most `room` are taken.
    ///
    /// A handler that takes long gets nothing ahead: what it could not begin is better left to another consumer.
    pub(crate) fn start(&mut self, idle: usize, room: usize, handled: u64, until_empty: bool) {
        if self.receiving.is_some() {
            return;
        }
        let wanted = idle + self.rate.ahead(handled).min(self.prefetch_max);
        if self.buffer.len() * 2 >= wanted {
            return;
        }
        let max = (wanted - self.buffer.len()).min(room);
        let Some(mut receiver) = self.receiver.take_if(|_| max > 0) else { return };
        let wait = match until_empty {
            false => WAIT,
            true if self.found_nothing => WAIT_FOR_EMPTY,
            true => Duration::ZERO,
        };
        let pause = self.pause();
        let enough = Arc::clone(&self.enough);
        self.receiving = Some(Box::pin(async move {
            let receive = async {
                // Even a sleep of no length takes until the timer's next tick.
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                receiver.receive(max, wait).await
            };
            let result = tokio::select! {
                biased;
                result = receive => result,
                () = enough.notified() => Ok(Vec::new()),
            };
            (receiver, result)
        }));
    }

    /// How long to hold off after failures.
    fn pause(&self) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let policy =
            Retry::exponential(Duration::from_millis(100)).delay_max(Duration::from_secs(5)).jitter(0.3);
        policy.delay(self.failures, fastrand::f64())
    }

    /// What the wait brings: how many deliveries, which are in the buffer then. Waits for ever when no wait was begun.
    /// Cancel safe: the wait goes on.
    pub(crate) async fn next(&mut self, taken: impl FnOnce(&[Delivery])) -> Result<usize> {
        let Some(receiving) = &mut self.receiving else { return std::future::pending().await };
        let (receiver, result) = receiving.await;
        self.receiving = None;
        self.receiver = Some(receiver);
        match result {
            Ok(deliveries) => {
                if self.failures > 0 {
                    tracing::info!(failures = self.failures, "receiving works again");
                }
                self.failures = 0;
                self.found_nothing = deliveries.is_empty();
                taken(&deliveries);
                self.buffer.extend(deliveries);
                Ok(self.buffer.len())
            }
            Err(error) if error.is_retryable() => {
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(
                    error = error.report(),
                    failures = self.failures,
                    "receiving failed; trying again"
                );
                Ok(self.buffer.len())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the last attempt to receive failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Ends taking deliveries. What an ongoing wait has already taken ends up in the buffer.
    pub(crate) async fn close(&mut self, taken: impl FnOnce(&[Delivery])) {
        let Some(mut receiving) = self.receiving.take() else { return };
        let (receiver, result) = match tokio::time::timeout(LAST_WAIT, &mut receiving).await {
            Ok(received) => received,
            Err(_elapsed) => {
                self.enough.notify_one();
                receiving.await
            }
        };
        self.receiver = Some(receiver);
        let deliveries = result.unwrap_or_default();
        taken(&deliveries);
        self.buffer.extend(deliveries);
    }

    /// Lets go of the queue, after everything was settled.
    pub(crate) async fn release(&mut self) {
        if let Some(mut receiver) = self.receiver.take()
            && let Err(error) = receiver.close().await
        {
            tracing::warn!(
                error = error.report(),
                "the receiver could not be closed; its leases end by themselves"
            );
        }
    }
}

/// How many messages are handled in [`LOOK_AHEAD`], by how long the last ones took.
struct Rate {
    at: Instant,
    handled: u64,
    ahead: usize,
}

impl Rate {
    fn new() -> Self {
        Self { at: Instant::now(), handled: 0, ahead: 0 }
    }

    fn ahead(&mut self, handled: u64) -> usize {
        let since = handled - self.handled;
        if since > 0 {
            let elapsed = self.at.elapsed().max(Duration::from_micros(1));
            let ahead = since as f64 * LOOK_AHEAD.as_secs_f64() / elapsed.as_secs_f64();
            // At most eight times more than the last time, since a quick start says little.
            let limit = (self.ahead.max(1) * 8) as f64;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, saturating, clamped after"
            )]
            {
                self.ahead = ahead.min(limit) as usize;
            }
            self.handled = handled;
            self.at = Instant::now();
        }
        self.ahead
    }
}
