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
//! let mut kit = TestKit::new();
//! kit.consumer(billing).await?;
//!
//! kit.bus().publish(&OrderCreated { id: 7 }).await?;
//! kit.run_until_idle().await?;
//! kit.assert_retried("billing", 1);
//! kit.assert_published::<InvoiceSent>(0);
//!
//! kit.advance(Duration::from_secs(60)).await?;             // the retry is due
//! kit.assert_acked("billing", 1);
//! assert_eq!(kit.published::<InvoiceSent>()?[0].order, 7);
//! # Ok(()) }
//! ```
//!
//! Consumers run while [`TestKit::run_until_idle`] or [`TestKit::advance`] is awaited, and only then, so that a test decides what
//! happens when. Messages live in memory; what was published and handled is recorded until the kit is dropped.
//!
//! Deliberately not here: paused time for handlers themselves (`tokio::time::pause` does that), and engines: what a transport
//! keeps is the business of the conformance suite.

mod asserting;
mod faults;
mod record;
mod transport;

use std::{fmt, sync::Arc, time::Duration};

use estafette_consumer::{Consumer, Summary};
use estafette_core::{Error, ErrorKind, Lifetime, QueueStatus, Result, Transport};
use estafette_memory::MemoryTransport;
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

pub use faults::{Faults, When};
pub use record::{Fate, Handled};

use crate::Bus;
use record::Record;
use transport::TestTransport;

/// How often to look at the queues although nothing was said to have moved: the memory transport buries expired messages by
/// itself.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

type Build = Box<dyn Fn(&Bus) -> Consumer + Send + Sync>;

/// An application's consumers on the memory transport, driven by a test.
pub struct TestKit {
    memory: MemoryTransport,
    record: Arc<Record>,
    bus: Bus,
    consumers: Vec<Build>,
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
        let memory = MemoryTransport::new();
        let record = Arc::new(Record::default());
        let bus = Bus::new(TestTransport::new(memory.clone(), Arc::clone(&record), faults));
        Self { memory, record, bus, consumers: Vec::new(), patience: Duration::from_secs(10) }
    }

    /// How long, in real time, consumers may take until they are idle; 10 seconds by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The bus to give to the application, and to publish with.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Adds a consumer, by the application's function that makes it, and declares its queue.
    ///
    /// The function is called again for each run. A temporary queue gets only what is published while consumers run.
    ///
    /// # Errors
    ///
    /// Those of declaring the queue.
    pub async fn consumer(&mut self, build: impl Fn(&Bus) -> Consumer + Send + Sync + 'static) -> Result<()> {
        let consumer = build(&self.bus);
        if consumer.queue().lifetime == Lifetime::Durable {
            self.memory.declare(consumer.queue()).await?;
        }
        self.consumers.push(Box::new(build));
        Ok(())
    }

    /// Runs the consumers until none has anything to do: nothing is ready, and nothing is being handled. What waits for its time,
    /// such as a retry, goes on waiting: see [`advance`](Self::advance).
    ///
    /// # Errors
    ///
    /// Those of the consumers; [`ErrorKind::TimedOut`] with what there is to do when they are not idle within the kit's
    /// [`patience`](Self::patience).
    pub async fn run_until_idle(&self) -> Result<()> {
        let mut running = JoinSet::new();
        let mut stops = Vec::new();
        let opened = self.record.receivers();
        for build in &self.consumers {
            let (stop, stopped) = oneshot::channel::<()>();
            stops.push(stop);
            // Its sender is dropped to stop it.
            running.spawn(build(&self.bus).run_until(async move { drop(stopped.await) }));
        }
        let started = opened + self.consumers.len() as u64;
        let waited = self.wait_until_idle(started, &mut running).await;
        drop(stops);
        while let Some(ended) = running.join_next().await {
            summary(ended)?;
        }
        waited
    }

    /// Moves the clock by `time` and runs the consumers again: delays, retries, leases and expiries that end within are due.
    ///
    /// # Errors
    ///
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn advance(&self, time: Duration) -> Result<()> {
        self.memory.advance(time);
        self.run_until_idle().await
    }

    /// Moves the clock to whatever is due next and runs the consumers, over and over, until nothing waits any more.
    ///
    /// # Errors
    ///
    /// As [`run_until_idle`](Self::run_until_idle), the patience being that of all runs together.
    pub async fn run_to_the_end(&self) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        self.run_until_idle().await?;
        while let Some(next) = self.memory.next_event() {
            if Instant::now() > deadline {
                return Err(self.impatient(&self.statuses().await?));
            }
            self.advance(next).await?;
        }
        Ok(())
    }

    async fn wait_until_idle(&self, started: u64, running: &mut JoinSet<Result<Summary>>) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        loop {
            let changed = self.record.changed();
            let before = self.record.steps();
            let statuses = self.statuses().await?;
            let is_idle = statuses.iter().all(|status| status.ready == 0 && status.leased == 0);
            // Looking at several queues takes time; only if nothing moved meanwhile did all of them rest.
            if is_idle && self.record.receivers() >= started && self.record.steps() == before {
                return Ok(());
            }
            tokio::select! {
                () = changed => {}
                Some(ended) = running.join_next() => drop(summary(ended)?),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            if Instant::now() > deadline {
                return Err(self.impatient(&statuses));
            }
        }
    }

    /// The queues of the consumers.
    async fn statuses(&self) -> Result<Vec<QueueStatus>> {
        let mut statuses = self.memory.admin().queues().await?;
        statuses.retain(|status| self.record.is_consumed(&status.name));
        Ok(statuses)
    }

    fn impatient(&self, statuses: &[QueueStatus]) -> Error {
        use fmt::Write as _;
        let mut sentence = format!("the consumers are not idle after {:?}", self.patience);
        for QueueStatus { name, ready, leased, .. } in statuses {
            // Writing to a string cannot fail.
            write!(sentence, "; {name}: {ready} ready, {leased} being handled").unwrap_or_default();
        }
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
        formatter.debug_struct("TestKit").field("consumers", &self.consumers.len()).finish_non_exhaustive()
    }
}

fn summary(ended: Result<Result<Summary>, tokio::task::JoinError>) -> Result<Summary> {
    ended.map_err(|error| Error::new(ErrorKind::Engine, error))?
}
