//! The test kit: an application's own consumers, run in process on the memory transport, under a clock and with faults that
//! the test decides.
//!
//! ```
//! use std::time::Duration;
//! use estafette::{Bus, Consumer, Context, Message, Retry, testkit::{Faults, TestKit, When}};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(topic = "order.created")]
//! struct OrderCreated { id: u64 }
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(topic = "invoice.sent")]
//! struct InvoiceSent { order: u64 }
//!
//! // The application's own function: the same consumer runs in production.
//! fn billing(bus: &Bus) -> Consumer {
//!     let out = bus.clone();
//!     bus.consumer("billing")
//!         .subscribe::<OrderCreated>()
//!         .retry(Retry::fixed(Duration::from_secs(60)).attempts_max(3))
//!         .handle(move |order: OrderCreated, context: Context| {
//!             let out = out.clone();
//!             async move {
//!                 if context.attempt() == 1 {
//!                     return Err(estafette::Error::new(estafette::ErrorKind::Unavailable, "the printer is off"));
//!                 }
//!                 out.publish(&InvoiceSent { order: order.id }).await?;
//!                 Ok(())
//!             }
//!         })
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> estafette::Result<()> {
//! let kit = TestKit::new();
//! kit.consumer(billing).await?;
//!
//! kit.bus().publish(&OrderCreated { id: 7 }).await?;
//! kit.run_until_idle().await?;
//! kit.assert_retried("billing", 1);
//! kit.assert_published::<InvoiceSent>(0);
//!
//! kit.advance(Duration::from_secs(60)).await?;             // the retry is due
//! kit.assert_acked("billing", 1);
//! assert_eq!(kit.published::<InvoiceSent>()[0].order, 7);
//! # Ok(()) }
//! ```
//!
//! Nothing is handed over but while [`TestKit::run_until_idle`], [`TestKit::advance`], [`TestKit::run_to_the_end`] or
//! [`TestKit::run_while`] is awaited, so that a test decides what happens when. The kit's clock stands still; only the test
//! moves it. Messages live in memory; what was published and handled is recorded until the kit is dropped.
//!
//! The kit sees what its consumers handle; what a handler leaves to a task of its own may still go on when they are idle.
//!
//! Deliberately not here: the time handlers themselves and time limits go by, which is tokio's (`tokio::time::pause` stops
//! it), and engines: what a transport keeps is the business of the conformance suite.
//!
//! Reading order: `stage` (the transport), `receiver` (hand-over and settling), `traffic` (whether anything moves), `crew`
//! (the consumers), `when` and `faults`, `record`, `story` and `asserting`.

mod asserting;
mod crew;
mod faults;
mod receiver;
mod record;
mod stage;
mod story;
mod traffic;
mod when;

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use estafette_consumer::Consumer;
use estafette_core::{Error, ErrorKind, Result, Timestamp};

pub use faults::Faults;
pub use record::{Fate, Handled};
pub use when::When;

use crate::Bus;
use crew::Crew;
use stage::{Stage, TestTransport};

/// How many deliveries one run handles at most: handlers that keep each other busy for ever must not fill the memory.
const HANDLED_MAX: u64 = 100_000;

/// An application's consumers on the memory transport, driven by a test.
pub struct TestKit {
    stage: Arc<Stage>,
    bus: Bus,
    crew: Arc<Crew>,
    patience: Duration,
}

impl TestKit {
    /// A kit in which nothing goes wrong by itself.
    #[must_use]
    pub fn new() -> Self {
        Self::with_faults(Faults::none())
    }

    /// A kit in which `faults` happen.
    #[must_use]
    pub fn with_faults(faults: Faults) -> Self {
        let stage = Arc::new(Stage::new(faults));
        let bus = Bus::new(TestTransport(Arc::clone(&stage)));
        let crew = Arc::new(Crew::new(Arc::clone(&stage)));
        Self { stage, bus, crew, patience: Duration::from_secs(10) }
    }

    /// How long, by tokio's clock, one call may run until the consumers are idle; 10 seconds by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// From now on `faults` happen, and no others.
    pub fn set_faults(&self, faults: Faults) {
        *self.stage.faults() = faults;
    }

    /// The bus to give to the application, and to publish with.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The time by the kit's clock, which begins far in the future and moves only by [`advance`](Self::advance) and
    /// [`run_to_the_end`](Self::run_to_the_end).
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.stage.memory.now()
    }

    /// Starts a consumer, by the application's function that makes it; its queue is there when this returns.
    ///
    /// When a limit of its own ends the consumer and its queue holds more, the function is called again, as a supervisor
    /// would start it again.
    ///
    /// # Errors
    ///
    /// Those of the consumer when it starts, such as mistakes in its settings.
    pub async fn consumer(&self, build: impl Fn(&Bus) -> Consumer + Send + Sync + 'static) -> Result<()> {
        let mut progress = self.stage.traffic.watch_progress();
        let opened = self.stage.traffic.opened();
        self.crew.add(&self.bus, Box::new(build));
        self.patiently(async {
            while self.stage.traffic.opened() == opened && !self.crew.has_ended() {
                // Fails only when the sender is gone, which the stage keeps.
                progress.changed().await.map_err(|_gone| Error::from(ErrorKind::Closed))?;
            }
            self.crew.look_after(&self.bus, &[])
        })
        .await
    }

    /// Runs the consumers until none has anything to do: nothing is ready, and nothing is being handled. What waits for its time,
    /// such as a retry, goes on waiting: see [`advance`](Self::advance).
    ///
    /// # Errors
    ///
    /// Those of the consumers; [`ErrorKind::TimedOut`] with everything that happened when they are not idle within the kit's
    /// [`patience`](Self::patience), or after 100,000 deliveries.
    pub async fn run_until_idle(&self) -> Result<()> {
        self.patiently(self.until_idle()).await
    }

    /// Runs the consumers until they are idle, while the clock moves by `time`, from one moment at which something is due to the
    /// next: delays, retries, leases and expiries happen in the order and at the time they would in life.
    ///
    /// # Errors
    ///
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn advance(&self, time: Duration) -> Result<()> {
        let memory = &self.stage.memory;
        let until = self.now() + time;
        self.patiently(async {
            self.until_idle().await?;
            while let Some(next) = memory.next_event().filter(|next| self.now() + *next <= until) {
                self.move_clock(next).await?;
            }
            self.move_clock(until.since(self.now())).await
        })
        .await
    }

    /// Moves the clock to whatever is due next and runs the consumers, over and over, until nothing waits any more.
    ///
    /// # Errors
    ///
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn run_to_the_end(&self) -> Result<()> {
        self.patiently(async {
            self.until_idle().await?;
            while let Some(next) = self.stage.memory.next_event() {
                self.move_clock(next).await?;
            }
            Ok(())
        })
        .await
    }

    /// Runs the consumers while `future` does what it does, such as a request that waits for its reply, then until they are
    /// idle. Returns what `future` returns.
    ///
    /// # Errors
    ///
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn run_while<F: Future>(&self, future: F) -> Result<F::Output> {
        self.patiently(async {
            let _run = self.stage.traffic.run();
            let mut future = pin!(future);
            let mut progress = self.stage.traffic.watch_progress();
            let output = loop {
                progress.borrow_and_update();
                self.crew.look_after(&self.bus, &self.statuses())?;
                tokio::select! {
                    output = &mut future => break output,
                    changed = progress.changed() => changed.map_err(|_gone| Error::from(ErrorKind::Closed))?,
                }
            };
            self.until_idle().await?;
            Ok(output)
        })
        .await
    }

    async fn move_clock(&self, by: Duration) -> Result<()> {
        self.stage.memory.advance(by);
        self.until_idle().await
    }

    async fn until_idle(&self) -> Result<()> {
        let traffic = &self.stage.traffic;
        let _run = traffic.run();
        let mut progress = traffic.watch_progress();
        let handled_before = self.stage.record.handled_count();
        loop {
            progress.borrow_and_update();
            if self.is_idle()? {
                return Ok(());
            }
            if self.stage.record.handled_count() - handled_before > HANDLED_MAX {
                return Err(self.restless(&format!("{HANDLED_MAX} deliveries")));
            }
            progress.changed().await.map_err(|_gone| Error::from(ErrorKind::Closed))?;
        }
    }

    /// Whether no consumer has anything to do. Looking at several queues takes time; only if nothing changed meanwhile did all
    /// of them rest.
    fn is_idle(&self) -> Result<bool> {
        let traffic = &self.stage.traffic;
        let changes = traffic.change_count();
        let statuses = self.statuses();
        self.crew.look_after(&self.bus, &statuses)?;
        let mut at_rest = traffic.in_hand() == 0;
        for status in &statuses {
            at_rest &= status.leased == 0;
            if status.ready > 0 {
                // What is ready may have to wait for another message with its key. What nobody consumes stays.
                let tended = traffic.is_at_rest(&status.name, changes);
                at_rest &= tended.unwrap_or_else(|| !self.crew.tends(&status.name));
            }
        }
        Ok(at_rest && traffic.change_count() == changes && !self.crew.has_ended())
    }

    async fn patiently<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(self.restless(&format!("{:?}", self.patience))),
        }
    }

    fn restless(&self, after: &str) -> Error {
        let sentence = format!("the consumers are not idle after {after}\n{}", self.story());
        Error::new(ErrorKind::TimedOut, sentence)
    }
}

impl Default for TestKit {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestKit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestKit").field("consumers", &self.crew.len()).finish_non_exhaustive()
    }
}
