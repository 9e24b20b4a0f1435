//! What a transport promises, as data: the conformance suite tests exactly this, and consumers ask it before they start.

use std::fmt;

/// When `Ok` from `publish` means the message is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Never: messages live as long as the process.
    Process,
    /// When the operating system has it: safe from the end of any process, not from a power cut.
    System,
    /// When the disk has it: safe from a power cut.
    Disk,
    /// When a server confirmed it: safe as far as that server is configured to be.
    Server,
}

/// Which order deliveries keep. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// None.
    None,
    /// First in, first out in each queue, while one consumer runs and nothing is retried.
    Queue,
    /// A receiver that asks for it gets messages of one partition key strictly in order: the next one only after the one
    /// before is settled, retries included, whatever the number of consumers.
    Key,
}

/// How a feature is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Not at all: asking for it is an [`Unsupported`](crate::ErrorKind::Unsupported) error.
    None,
    /// By Estafette, beside the engine.
    Emulated,
    /// By the engine itself.
    Native,
}

impl Support {
    /// Whether it is there, either way.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::None
    }
}

/// What a transport promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// When `Ok` from `publish` means the message is safe.
    pub durability: Durability,
    /// Which order deliveries keep.
    pub order: Order,
    /// Whether several processes may use the same URL at once.
    pub shared: bool,
    /// Publishing to topics, with patterns.
    pub topics: Support,
    /// Delivery after a delay.
    pub delay: Support,
    /// Expiry of messages.
    pub expiry: Support,
    /// Counting attempts, also those that ended with the process.
    pub attempts: Support,
    /// Dead letters that can be listed, redriven and purged.
    pub dead_letters: Support,
    /// Queues that go away with their receiver.
    pub temporary_queues: Support,
    /// Extending leases.
    pub lease_extend: Support,
    /// Detecting that a settlement came too late.
    pub fencing: Support,
    /// Cancelling a delayed message by its id.
    pub cancel: Support,
    /// The largest body, in bytes.
    pub body_bytes_max: usize,
}

macro_rules! display_as {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

display_as!(Durability { Process => "process", System => "system", Disk => "disk", Server => "server" });
display_as!(Order { None => "none", Queue => "queue", Key => "key" });
display_as!(Support { None => "no", Emulated => "emulated", Native => "native" });

impl Guarantees {
    /// Every promise as a name and a value, for tables.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, String); 13] {
        [
            ("durability", self.durability.to_string()),
            ("order", self.order.to_string()),
            ("shared", if self.shared { "yes".into() } else { "no".into() }),
            ("topics", self.topics.to_string()),
            ("delay", self.delay.to_string()),
            ("expiry", self.expiry.to_string()),
            ("attempts", self.attempts.to_string()),
            ("dead_letters", self.dead_letters.to_string()),
            ("temporary_queues", self.temporary_queues.to_string()),
            ("lease_extend", self.lease_extend.to_string()),
            ("fencing", self.fencing.to_string()),
            ("cancel", self.cancel.to_string()),
            ("body_bytes_max", self.body_bytes_max.to_string()),
        ]
    }
}
