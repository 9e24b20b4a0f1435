//! What a behaviour needs: a promise of the transport, or something the subject brings along.

use std::fmt;

use estafette_core::{Durability, Guarantees, Order};

/// Larger limits than this one are not tried out: the bodies would not fit into memory.
pub(crate) const BODY_BYTES_TRIED_MAX: usize = 256 << 20;

/// One thing without which a behaviour cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Messages outlive the process.
    Persistent,
    /// First in, first out.
    QueueOrder,
    /// Strict order of each partition key.
    KeyOrder,
    /// Several processes on the same URL.
    Shared,
    /// Topics and patterns.
    Topics,
    /// Delays.
    Delay,
    /// Expiry.
    Expiry,
    /// Counted attempts.
    Attempts,
    /// Dead letters.
    DeadLetters,
    /// Temporary queues.
    TemporaryQueues,
    /// Leases that can be extended.
    LeaseExtend,
    /// Late settlements are noticed.
    Fencing,
    /// Delayed messages can be cancelled.
    Cancel,
    /// A limit on bodies that is small enough to be tried out.
    BodyLimit,
    /// A program to start as another process; see [`Subject::with_agent`](crate::Subject::with_agent).
    Agent,
}

impl Need {
    /// Whether a transport with these guarantees meets it. [`Need::Agent`] is not the transport's to meet.
    #[must_use]
    pub fn is_promised(self, guarantees: &Guarantees) -> bool {
        match self {
            Self::Persistent => guarantees.durability > Durability::Process,
            Self::QueueOrder => guarantees.order >= Order::Queue,
            Self::KeyOrder => guarantees.order >= Order::Key,
            Self::Shared => guarantees.shared,
            Self::Topics => guarantees.topics.is_some(),
            Self::Delay => guarantees.delay.is_some(),
            Self::Expiry => guarantees.expiry.is_some(),
            Self::Attempts => guarantees.attempts.is_some(),
            Self::DeadLetters => guarantees.dead_letters.is_some(),
            Self::TemporaryQueues => guarantees.temporary_queues.is_some(),
            Self::LeaseExtend => guarantees.lease_extend.is_some(),
            Self::Fencing => guarantees.fencing.is_some(),
            Self::Cancel => guarantees.cancel.is_some(),
            Self::BodyLimit => guarantees.body_bytes_max < BODY_BYTES_TRIED_MAX,
            Self::Agent => true,
        }
    }

    /// The guarantee's name, as in [`Guarantees::rows`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Persistent => "durability",
            Self::QueueOrder | Self::KeyOrder => "order",
            Self::Shared => "shared",
            Self::Topics => "topics",
            Self::Delay => "delay",
            Self::Expiry => "expiry",
            Self::Attempts => "attempts",
            Self::DeadLetters => "dead_letters",
            Self::TemporaryQueues => "temporary_queues",
            Self::LeaseExtend => "lease_extend",
            Self::Fencing => "fencing",
            Self::Cancel => "cancel",
            Self::BodyLimit => "body_bytes_max",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
