//! Queues: their names, what makes one, and how full it is.

use crate::{
    Error, ErrorKind, MessageId, Pattern, Result,
    text::{SharedText, text_type},
    topic::visible,
};

/// The longest queue name, in bytes. AMQP allows 255; the rest is room for suffixes such as `.dead`.
pub const QUEUE_NAME_BYTES_MAX: usize = 200;

/// The name of a queue: 1 to 200 bytes of visible text. It does not begin with a dot or a dash.
#[derive(Clone)]
pub struct QueueName(SharedText);

text_type!(QueueName);

impl QueueName {
    /// A name that nothing else has, for a temporary queue.
    #[must_use]
    pub fn unique() -> Self {
        Self(SharedText::from(format!("temporary.{}", MessageId::new()).as_str()))
    }

    fn check(text: &str) -> Result<()> {
        let problem = if text.is_empty() {
            "is empty".to_owned()
        } else if text.len() > QUEUE_NAME_BYTES_MAX {
            format!("is {} bytes long; the limit is {QUEUE_NAME_BYTES_MAX}", text.len())
        } else if text.starts_with(['.', '-']) {
            "begins with a dot or a dash".to_owned()
        } else if let Some(character) = text.chars().find(|&character| !visible(character)) {
            format!("contains {character:?}, which is not allowed there")
        } else {
            return Ok(());
        };
        let shown: String = text.chars().take(64).collect();
        Err(Error::new(ErrorKind::InvalidInput, format!("queue name {shown:?} {problem}")))
    }
}

/// How long a queue lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Durable,
    /// Until the receiver that consumes it is closed or its process ends.
    Temporary,
}

/// A queue to declare: its name, the topics it takes and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue's name.
    pub name: QueueName,
    /// The topics it gets a copy of; none when messages are only sent to it by name.
    pub patterns: Vec<Pattern>,
    /// How long it lives.
    pub lifetime: Lifetime,
}

impl QueueSpec {
    /// A durable queue without subscriptions.
    #[must_use]
    pub fn durable(name: QueueName) -> Self {
        Self { name, patterns: Vec::new(), lifetime: Lifetime::Durable }
    }

    /// A temporary queue with a name of its own.
    #[must_use]
    pub fn temporary() -> Self {
        Self { name: QueueName::unique(), patterns: Vec::new(), lifetime: Lifetime::Temporary }
    }

    /// The same queue, subscribed to `pattern` too.
    #[must_use]
    pub fn subscribe(mut self, pattern: Pattern) -> Self {
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
        self
    }
}

/// What is in a queue at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// The queue's name.
    pub name: QueueName,
    /// The topics it takes, sorted.
    pub patterns: Vec<Pattern>,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Messages a consumer would get now.
    pub ready: u64,
    /// Messages that wait for their time: delayed by the publisher, or waiting for a retry.
    pub delayed: u64,
    /// Those of `delayed` that wait for a retry.
    pub retrying: u64,
    /// Messages a consumer holds.
    pub leased: u64,
    /// Dead letters.
    pub dead: u64,
}

impl QueueStatus {
    /// The status of a queue that holds nothing.
    #[must_use]
    pub fn empty(name: QueueName, patterns: Vec<Pattern>, lifetime: Lifetime) -> Self {
        Self { name, patterns, lifetime, ready: 0, delayed: 0, retrying: 0, leased: 0, dead: 0 }
    }

    /// Whether all work is done: nothing ready, held or waiting for a retry. Delays asked for by publishers do not count.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ready == 0 && self.leased == 0 && self.retrying == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_visible_text() {
        for good in ["billing", "aed.my_event.receiver", "заказы", "a/b"] {
            assert!(QueueName::try_from(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a b", "a\n", "a\0"] {
            assert!(QueueName::try_from(bad).is_err(), "{bad:?}");
        }
        assert!(QueueName::try_from("a".repeat(201)).is_err());
    }
}
