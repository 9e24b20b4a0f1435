//! What happened in a test.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use estafette_core::{Envelope, Outcome, Outgoing, QueueName};
use tokio::sync::{Notify, futures::Notified};

/// A delivery that was handled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Handled {
    /// The queue it came from.
    pub queue: QueueName,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Which hand-over of it this was, from 1.
    pub attempt: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It was settled like this.
    Settled(Outcome),
    /// The handler was done with it, but the acknowledgement was lost: a fault of the test.
    AckLost,
}

/// Everything that happened, in order.
#[derive(Default)]
pub(super) struct Record {
    log: Mutex<Log>,
    /// Grows with everything that happens.
    steps: AtomicU64,
    /// How many receivers were opened.
    receivers: AtomicU64,
    changed: Notify,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) published: Vec<Outgoing>,
    pub(super) handled: Vec<Handled>,
    consumed: HashSet<QueueName>,
}

impl Record {
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // A panic while it was held leaves nothing half done.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, outgoing: &Outgoing) {
        self.log().published.push(outgoing.clone());
        self.step();
    }

    pub(super) fn handle(&self, handled: Handled) {
        self.log().handled.push(handled);
        self.step();
    }

    pub(super) fn open(&self, queue: &QueueName) {
        self.log().consumed.insert(queue.clone());
        self.receivers.fetch_add(1, Ordering::AcqRel);
        self.step();
    }

    /// Something moved that is not worth a line of its own.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Acquire)
    }

    pub(super) fn receivers(&self) -> u64 {
        self.receivers.load(Ordering::Acquire)
    }

    /// Ends at the next step after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn is_consumed(&self, queue: &QueueName) -> bool {
        self.log().consumed.contains(queue)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AckLost => formatter.write_str("acked, but the ack was lost"),
            Self::Settled(Outcome::Ack) => formatter.write_str("acked"),
            Self::Settled(Outcome::Retry { after, error }) => {
                write!(formatter, "retry after {after:?}: {}", error.as_deref().unwrap_or("no error"))
            }
            Self::Settled(Outcome::Reject(failure)) => {
                write!(formatter, "dead, {}: {}", failure.reason, failure.error)
            }
            Self::Settled(Outcome::Release { after }) => write!(formatter, "released for {after:?}"),
        }
    }
}

/// The story so far, for the message of a failed assertion.
impl fmt::Display for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "published:")?;
        for outgoing in &self.published {
            let Envelope { topic, body, .. } = &*outgoing.envelope;
            writeln!(formatter, "  {topic} {}", excerpt(body))?;
        }
        writeln!(formatter, "handled:")?;
        for Handled { queue, envelope, attempt, fate } in &self.handled {
            let Envelope { topic, body, .. } = &**envelope;
            writeln!(formatter, "  {queue}: {topic} {}, attempt {attempt}: {fate}", excerpt(body))?;
        }
        Ok(())
    }
}

/// The beginning of a body.
fn excerpt(body: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = String::from_utf8_lossy(body);
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}
