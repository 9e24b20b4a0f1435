//! What the publisher and the workers say, and what it adds up to.

use std::collections::{HashMap, HashSet};

use estafette::{Routing, Topic};

use super::messages::{QUEUES, takers};

/// A line one of the processes prints.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message is stored.
    Published { id: String, topic: Topic, routing: Routing },
    /// A handler is about to end.
    Handled { queue: String, id: String, did: Did },
}

/// What a handler did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Handle,
    Fail,
    GiveUp,
    Refuse,
}

impl Did {
    const ALL: [(Self, &str); 4] = [
        (Self::Handle, "handled"),
        (Self::Fail, "failed"),
        (Self::GiveUp, "gave-up"),
        (Self::Refuse, "refused"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(did, _)| *did == self).map_or("", |(_, word)| word)
    }
}

impl Heard {
    /// The line.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Published { id, topic, routing } => {
                let queues = match routing {
                    Routing::Queues(count) => *count,
                    Routing::Unrouted | Routing::Routed => 0,
                };
                format!("published {id} {topic} {queues}")
            }
            Self::Handled { queue, id, did } => format!("{} {id} {queue}", did.word()),
        }
    }

    /// What a line says; nothing when it is none of ours.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (verb, id, name) = (words.next()?, words.next()?.to_owned(), words.next()?);
        if verb == "published" {
            let routing = Routing::to_queues(words.next()?.parse().ok()?);
            return Some(Self::Published { id, topic: name.parse().ok()?, routing });
        }
        let (did, _) = Did::ALL.into_iter().find(|(_, word)| *word == verb)?;
        Some(Self::Handled { queue: name.to_owned(), id, did })
    }
}

/// Everything heard so far.
#[derive(Default)]
pub(super) struct Tally {
    /// Messages published.
    pub(super) published: u64,
    /// Messages whose receipt names another number of queues than are subscribed.
    pub(super) misrouted: u64,
    /// One for each of [`QUEUES`].
    pub(super) queues: [QueueTally; QUEUES.len()],
}

/// What was heard about one queue.
#[derive(Default)]
pub(super) struct QueueTally {
    /// The ids of the messages it got a copy of.
    pub(super) copies: HashSet<String>,
    /// The ids of the messages that were handled, and how many times.
    pub(super) handled: HashMap<String, u32>,
    /// Failed attempts that were not the last.
    pub(super) retried: u64,
    /// Messages refused, or given up.
    pub(super) refused: u64,
}

impl QueueTally {
    /// Messages that were handled more than once.
    pub(super) fn repeated(&self) -> u64 {
        self.handled.values().filter(|times| **times > 1).count() as u64
    }
}

impl Tally {
    pub(super) fn add(&mut self, heard: Heard) {
        match heard {
            Heard::Published { id, topic, routing } => {
                self.published += 1;
                let mut count = 0;
                for index in takers(&topic) {
                    count += 1;
                    if let Some(queue) = self.queues.get_mut(index) {
                        queue.copies.insert(id.clone());
                    }
                }
                self.misrouted += u64::from(routing != Routing::to_queues(count));
            }
            Heard::Handled { queue, id, did } => {
                let Some(index) = QUEUES.iter().position(|(name, _)| *name == queue) else { return };
                let Some(queue) = self.queues.get_mut(index) else { return };
                match did {
                    Did::Handle => *queue.handled.entry(id).or_default() += 1,
                    Did::Fail => queue.retried += 1,
                    Did::GiveUp | Did::Refuse => queue.refused += 1,
                }
            }
        }
    }

    /// The sum over all queues.
    pub(super) fn sum(&self, part: impl Fn(&QueueTally) -> u64) -> u64 {
        self.queues.iter().map(part).sum()
    }

    /// Copies for all queues together.
    pub(super) fn copies(&self) -> u64 {
        self.sum(|queue| queue.copies.len() as u64)
    }

    /// Copies that were handled.
    pub(super) fn handled(&self) -> u64 {
        self.sum(|queue| queue.handled.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_they_were_made_of() {
        let topic: Topic = "order.created".parse().unwrap();
        let published = Heard::Published { id: "1".into(), topic, routing: Routing::Queues(2) };
        let handled = Heard::Handled { queue: "orders".into(), id: "1".into(), did: Did::GiveUp };
        for heard in [published, handled] {
            assert_eq!(Heard::parse(&heard.line()), Some(heard));
        }
        assert_eq!(Heard::parse("something else"), None);
    }

    #[test]
    fn a_copy_is_counted_in_every_queue_that_takes_it() {
        let mut tally = Tally::default();
        tally.add(Heard::parse("published 1 order.created 2").unwrap());
        tally.add(Heard::parse("handled 1 orders").unwrap());
        tally.add(Heard::parse("handled 1 orders").unwrap());
        assert_eq!((tally.published, tally.copies(), tally.handled(), tally.misrouted), (1, 2, 1, 0));
        assert_eq!(tally.queues[0].repeated(), 1);
    }
}
