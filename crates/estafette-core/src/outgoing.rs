//! What is handed to a transport to be stored, and what it answers.

use std::{sync::Arc, time::Duration};

use crate::{Envelope, MessageId, QueueName};

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A copy into every queue subscribed to the envelope's topic.
    Topic,
    /// This one queue, which keeps the message until somebody consumes, even if nobody has yet.
    Queue(QueueName),
}

/// An envelope on its way to a transport.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Where it goes.
    pub destination: Destination,
    /// How long it stays invisible first; zero for none.
    pub delay: Duration,
    /// Whether a topic nobody is subscribed to, or a queue that does not exist, is an error and nothing is stored.
    pub require_queue: bool,
}

impl Outgoing {
    /// A message for every queue subscribed to its topic.
    #[must_use]
    pub fn publish(envelope: impl Into<Arc<Envelope>>) -> Self {
        Self {
            envelope: envelope.into(),
            destination: Destination::Topic,
            delay: Duration::ZERO,
            require_queue: false,
        }
    }

    /// A message for one queue.
    #[must_use]
    pub fn send(queue: QueueName, envelope: impl Into<Arc<Envelope>>) -> Self {
        Self { destination: Destination::Queue(queue), ..Self::publish(envelope) }
    }

    /// The envelope, to change it before it goes.
    pub fn envelope_mut(&mut self) -> &mut Envelope {
        Arc::make_mut(&mut self.envelope)
    }
}

/// What became of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id.
    pub id: MessageId,
    /// Which queues took it.
    pub routing: Routing,
}

/// Which queues took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// None was subscribed to the topic: the message is gone. (With `require_queue` this is an error instead.)
    Unrouted,
    /// So many did; at least one.
    Queues(u32),
    /// At least one did; the engine does not say how many.
    Routed,
}

impl Routing {
    /// The routing of a message that so many queues took.
    #[must_use]
    pub fn to_queues(count: usize) -> Self {
        if count == 0 { Self::Unrouted } else { Self::Queues(u32::try_from(count).unwrap_or(u32::MAX)) }
    }

    /// Whether any queue took the message.
    #[must_use]
    pub fn is_routed(self) -> bool {
        self != Self::Unrouted
    }
}
