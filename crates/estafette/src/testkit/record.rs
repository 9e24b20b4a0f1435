//! What happened in a test, in order.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{Envelope, MessageId, Outcome, Outgoing, QueueName, Receipt, Result};

/// A delivery that was handled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Handled {
    /// When, by the kit's clock: how far it had been moved.
    pub at: Duration,
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

/// What a fault did to a message before it was handed over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mishap {
    Duplicated,
    Delayed(Duration),
}

/// One line of the story.
pub(super) enum Event {
    Published { at: Duration, outgoing: Outgoing, receipt: Result<Receipt> },
    Handled(Handled),
    Mishap { at: Duration, queue: QueueName, envelope: Arc<Envelope>, mishap: Mishap },
}

/// Everything that happened, in order.
#[derive(Default)]
pub(super) struct Record {
    log: Mutex<Log>,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) events: Vec<Event>,
    seen: HashSet<MessageId>,
    handled: u64,
}

impl Record {
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // A panic while it was held leaves nothing half done.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, at: Duration, outgoing: Outgoing, receipt: &Result<Receipt>) {
        let mut log = self.log();
        log.seen.insert(outgoing.envelope.id.clone());
        log.events.push(Event::Published { at, outgoing, receipt: receipt.clone() });
    }

    pub(super) fn handle(&self, handled: Handled) {
        let mut log = self.log();
        log.handled += 1;
        log.events.push(Event::Handled(handled));
    }

    pub(super) fn mishap(&self, at: Duration, queue: &QueueName, envelope: &Arc<Envelope>, mishap: Mishap) {
        let (queue, envelope) = (queue.clone(), Arc::clone(envelope));
        self.log().events.push(Event::Mishap { at, queue, envelope, mishap });
    }

    /// Whether a message with this id was published before.
    pub(super) fn has_seen(&self, id: &MessageId) -> bool {
        self.log().seen.contains(id)
    }

    /// How many deliveries were handled.
    pub(super) fn handled_count(&self) -> u64 {
        self.log().handled
    }

    pub(super) fn handled(&self, queue: &QueueName) -> Vec<Handled> {
        let of_queue = |event: &Event| match event {
            Event::Handled(handled) if handled.queue == *queue => Some(handled.clone()),
            _ => None,
        };
        self.log().events.iter().filter_map(of_queue).collect()
    }

    pub(super) fn outgoing(&self) -> Vec<Outgoing> {
        let stored = |event: &Event| match event {
            Event::Published { outgoing, receipt: Ok(_), .. } => Some(outgoing.clone()),
            _ => None,
        };
        self.log().events.iter().filter_map(stored).collect()
    }
}
