//! Queues of user messages, in memory and bounded: what scripts push and backends consume.
//!
//! A queue exists while it holds a message or has a consumer. Every message goes to exactly one of its queue's consumers:
//! the one that has waited longest. A consumption that asked for acknowledgement gives back, at the front, what it had not
//! acknowledged when it is dropped.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::mesh::ConnectionId;

/// How much the queues hold.
#[derive(Debug, Clone)]
pub struct QueueLimits {
    /// Messages in one queue; 2,000 by default.
    pub messages_max: usize,
    /// Queues at a time; 100 by default.
    pub queues_max: usize,
    /// Bytes of data in all queues together; 256 MiB by default.
    pub bytes_max: usize,
    /// Messages a consumption may hold unacknowledged; 1,000 by default.
    pub unacknowledged_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { messages_max: 2_000, queues_max: 100, bytes_max: 256 << 20, unacknowledged_max: 1_000 }
    }
}

/// What a script pushed.
#[derive(Debug)]
pub struct QueueMessage {
    /// The node it was pushed on.
    pub node: String,
    /// The connection whose callback pushed it; `None` outside of a callback.
    pub client_id: Option<ConnectionId>,
    /// The queue it was pushed to.
    pub queue: String,
    /// An object or a list, as JSON.
    pub data: Box<RawValue>,
}

/// Why a queue does not take a message or a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFull {
    /// This queue holds as many messages as it may: consume faster, or raise `topicSize`.
    Messages,
    /// There are as many queues as there may be: use fewer names, or raise `maxTopics`.
    Queues,
    /// All queues together hold as many bytes as they may.
    Bytes,
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Messages => "the queue is full",
            Self::Queues => "there are too many queues",
            Self::Bytes => "the queues hold too many bytes",
        })
    }
}

impl std::error::Error for QueueFull {}

/// The queues of one node. Clones are the same queues.
#[derive(Debug, Clone)]
pub struct Queues {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: QueueLimits,
    state: Mutex<State>,
    pushed: AtomicU64,
    refused: AtomicU64,
    consumed: AtomicU64,
    returned: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<String, Queue>,
    bytes: usize,
    consumers: u64,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Arc<QueueMessage>>,
    /// Consumers that found nothing, the one that has waited longest first.
    waiting: VecDeque<(u64, Arc<Notify>)>,
    consumers: usize,
}

impl Queue {
    fn wake_one(&mut self) {
        if let Some((_, notify)) = self.waiting.pop_front() {
            notify.notify_one();
        }
    }
}

/// One queue's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// Its name.
    pub name: String,
    /// Messages waiting.
    pub messages: usize,
    /// Consumptions registered.
    pub consumers: usize,
}

/// What the queues counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueTotals {
    /// Messages taken in.
    pub pushed: u64,
    /// Messages refused because something was full.
    pub refused: u64,
    /// Messages handed to consumers, each hand-over counted.
    pub consumed: u64,
    /// Unacknowledged messages that came back.
    pub returned: u64,
}

impl Queues {
    /// Empty queues within `limits`.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                state: Mutex::default(),
                pushed: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                consumed: AtomicU64::new(0),
                returned: AtomicU64::new(0),
            }),
        }
    }

    /// Puts `message` at the end of its queue; returns how many wait there now.
    ///
    /// # Errors
    /// [`QueueFull`] when a limit is reached: the message is not taken, and is counted as refused.
    pub fn push(&self, message: QueueMessage) -> Result<usize, QueueFull> {
        let result = self.shared.lock().push(message, &self.shared.limits);
        let counter = if result.is_ok() { &self.shared.pushed } else { &self.shared.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Starts to consume the queues of these names, whether or not they exist yet.
    ///
    /// # Errors
    /// [`QueueFull::Queues`] when they would be too many.
    pub fn register(&self, names: &[String]) -> Result<Consumption, QueueFull> {
        self.consumption(names, None)
    }

    /// As [`Queues::register`], for messages that are settled by [`Consumption::acknowledge`].
    ///
    /// # Errors
    /// [`QueueFull::Queues`] when they would be too many.
    pub fn register_acknowledging(&self, names: &[String]) -> Result<Consumption, QueueFull> {
        self.consumption(names, Some(BTreeMap::new()))
    }

    fn consumption(&self, names: &[String], unacknowledged: Option<Held>) -> Result<Consumption, QueueFull> {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut state = self.shared.lock();
        let new = names.iter().filter(|name| !state.queues.contains_key(*name)).count();
        if state.queues.len() + new > self.shared.limits.queues_max {
            return Err(QueueFull::Queues);
        }
        for name in &names {
            state.queues.entry(name.clone()).or_default().consumers += 1;
        }
        state.consumers += 1;
        let id = state.consumers;
        drop(state);
        Ok(Consumption {
            shared: Arc::clone(&self.shared),
            names,
            id,
            notify: Arc::default(),
            unacknowledged,
            next_tag: 1,
            turn: 0,
        })
    }

    /// Every queue there is, by name.
    #[must_use]
    pub fn depths(&self) -> Vec<QueueDepth> {
        let state = self.shared.lock();
        let depth = |(name, queue): (&String, &Queue)| QueueDepth {
            name: name.clone(),
            messages: queue.messages.len(),
            consumers: queue.consumers,
        };
        let mut depths: Vec<_> = state.queues.iter().map(depth).collect();
        depths.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        depths
    }

    /// What was counted since the start.
    #[must_use]
    pub fn totals(&self) -> QueueTotals {
        QueueTotals {
            pushed: self.shared.pushed.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            consumed: self.shared.consumed.load(Ordering::Relaxed),
            returned: self.shared.returned.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, message: QueueMessage, limits: &QueueLimits) -> Result<usize, QueueFull> {
        let size = message.data.get().len();
        if self.bytes + size > limits.bytes_max {
            return Err(QueueFull::Bytes);
        }
        if !self.queues.contains_key(&message.queue) && self.queues.len() >= limits.queues_max {
            return Err(QueueFull::Queues);
        }
        let queue = self.queues.entry(message.queue.clone()).or_default();
        if queue.messages.len() >= limits.messages_max {
            return Err(QueueFull::Messages);
        }
        queue.messages.push_back(Arc::new(message));
        queue.wake_one();
        let depth = queue.messages.len();
        self.bytes += size;
        Ok(depth)
    }

    fn take(&mut self, name: &str) -> Option<Arc<QueueMessage>> {
        let message = self.queues.get_mut(name)?.messages.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.data.get().len());
        Some(message)
    }

    fn forget_unused(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(|queue| queue.consumers == 0 && queue.messages.is_empty()) {
            self.queues.remove(name);
        }
    }
}

type Held = BTreeMap<u64, Arc<QueueMessage>>;

/// A message handed to a consumer.
#[derive(Debug, Clone)]
pub struct Consumed {
    /// What acknowledges it.
    pub tag: u64,
    /// The message itself.
    pub message: Arc<QueueMessage>,
}

/// One consumer's registration; ends when dropped.
#[derive(Debug)]
pub struct Consumption {
    shared: Arc<Shared>,
    names: Vec<String>,
    id: u64,
    notify: Arc<Notify>,
    unacknowledged: Option<Held>,
    next_tag: u64,
    turn: usize,
}

impl Consumption {
    /// The next message of any of its queues, which take turns. Waits without limit; dropping the future loses nothing.
    ///
    /// In acknowledging mode it yields nothing more while as many as allowed are unacknowledged: call it again
    /// after acknowledging.
    pub async fn next(&mut self) -> Consumed {
        loop {
            if self.holds_too_many() {
                std::future::pending::<()>().await;
            }
            if let Some(consumed) = self.try_next() {
                return consumed;
            }
            self.notify.notified().await;
        }
    }

    /// Settles the message of this tag; false if there is none.
    pub fn acknowledge(&mut self, tag: u64) -> bool {
        self.unacknowledged.as_mut().is_some_and(|held| held.remove(&tag).is_some())
    }

    /// The queues it consumes.
    #[must_use]
    pub fn queues(&self) -> &[String] {
        &self.names
    }

    fn holds_too_many(&self) -> bool {
        self.unacknowledged.as_ref().is_some_and(|held| held.len() >= self.shared.limits.unacknowledged_max)
    }

    /// Takes a message, or notes in every queue that this consumer waits.
    fn try_next(&mut self) -> Option<Consumed> {
        let mut state = self.shared.lock();
        let names = self.names.iter().cycle().skip(self.turn).take(self.names.len());
        let message = names.into_iter().find_map(|name| state.take(name));
        for name in &self.names {
            let Some(queue) = state.queues.get_mut(name) else { continue };
            let place = queue.waiting.iter().position(|(id, _)| *id == self.id);
            match (&message, place) {
                (Some(_), Some(place)) => drop(queue.waiting.remove(place)),
                (None, None) => queue.waiting.push_back((self.id, Arc::clone(&self.notify))),
                (Some(_), None) | (None, Some(_)) => {}
            }
            // A wake-up meant for a message that is still there goes on to somebody else.
            if message.is_some() && !queue.messages.is_empty() {
                queue.wake_one();
            }
        }
        drop(state);
        let message = message?;
        self.turn = (self.turn + 1) % self.names.len().max(1);
        self.shared.consumed.fetch_add(1, Ordering::Relaxed);
        let tag = self.next_tag;
        self.next_tag += 1;
        if let Some(held) = &mut self.unacknowledged {
            held.insert(tag, Arc::clone(&message));
        }
        Some(Consumed { tag, message })
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let held = self.unacknowledged.take().unwrap_or_default();
        self.shared.returned.fetch_add(held.len() as u64, Ordering::Relaxed);
        for message in held.into_values().rev() {
            state.bytes += message.data.get().len();
            if let Some(queue) = state.queues.get_mut(&message.queue) {
                queue.messages.push_front(message);
                queue.wake_one();
            }
        }
        for name in &self.names {
            if let Some(queue) = state.queues.get_mut(name) {
                queue.waiting.retain(|(id, _)| *id != self.id);
                queue.consumers = queue.consumers.saturating_sub(1);
                if !queue.messages.is_empty() {
                    queue.wake_one();
                }
            }
            state.forget_unused(name);
        }
    }
}
