//! One queue and the life of its messages: ready, delayed, leased, dead.
//!
//! Every function is a step of `docs/lifecycle.md` and takes the time it happens at; none waits.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{
    DeadLetter, Envelope, Failure, Lifetime, Outcome, Pattern, QueueName, QueueStatus, ReceiveOptions,
    Result, Settlement, Ticket, Timestamp,
};
use tokio::sync::Notify;

use crate::error;

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: QueueName,
    pub(crate) lifetime: Lifetime,
    /// Wakes one waiting receiver; whoever leaves something behind wakes the next.
    pub(crate) arrived: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) receivers: usize,
    pub(crate) deleted: bool,
    pub(crate) dead: VecDeque<DeadLetter>,
    pub(crate) messages_max: usize,
    /// Sorted by place. Nearly always pushed at the back and popped at the front.
    ready: VecDeque<Message>,
    delayed: BTreeMap<(Timestamp, u64), Message>,
    leased: HashMap<u64, Lease>,
    /// No lease ends before this, so that leases are looked through only when one may have ended.
    lease_ends_from: Option<Timestamp>,
    /// How many messages of a key are leased or wait for a retry.
    busy_keys: HashMap<Box<str>, u32>,
    next_place: u64,
    next_fence: u64,
}

/// A message in a queue, with what the queue knows about it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) envelope: Arc<Envelope>,
    /// Where it stands in the queue; kept through retries, so that a retried message comes before its successors.
    place: u64,
    /// How many times it was handed over.
    attempt: u32,
    /// Whether it waits for a retry rather than a publisher's delay.
    retrying: bool,
    first_failed_at: Option<Timestamp>,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Lease {
    message: Message,
    fence: u64,
    ends_at: Timestamp,
}

/// A message that was just leased.
pub(crate) struct Taken {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) attempt: u32,
    pub(crate) ticket: Ticket,
}

impl Queue {
    pub(crate) fn new(name: QueueName, lifetime: Lifetime, messages_max: usize) -> Self {
        let state = State { messages_max, ..State::default() };
        Self { name, lifetime, arrived: Notify::new(), state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves no step half done: each ends with plain assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the queue is full.
    pub(crate) fn check_room(&self) -> Result<()> {
        self.lock().check_room(&self.name)
    }

    /// Stores a message, visible after `delay`.
    pub(crate) fn push(&self, envelope: Arc<Envelope>, delay: Duration, now: Timestamp) -> Result<()> {
        let mut state = self.lock();
        state.check_room(&self.name)?;
        let place = state.new_place();
        let message =
            Message { envelope, place, attempt: 0, retrying: false, first_failed_at: None, last_error: None };
        if delay.is_zero() {
            state.ready.push_back(message);
        } else {
            state.delayed.insert((now + delay, place), message);
        }
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Leases up to `max` messages. Counts the attempt; moves expired messages to the dead letters.
    pub(crate) fn take(&self, max: usize, options: &ReceiveOptions, now: Timestamp) -> Vec<Taken> {
        let mut state = self.lock();
        state.promote(now);
        let mut taken = Vec::with_capacity(max.min(state.ready.len()));
        let mut index = 0;
        while taken.len() < max {
            let Some(message) = state.ready.get(index) else { break };
            let key = message.envelope.partition_key.as_deref();
            if options.ordered_by_key && key.is_some_and(|key| state.busy_keys.contains_key(key)) {
                index += 1;
                continue;
            }
            let Some(message) = state.ready.remove(index) else { break };
            if message.envelope.is_expired(now) {
                let failure = Failure::expired(&message.envelope);
                state.bury(&self.name, message, failure, now);
            } else {
                taken.push(state.lease(message, now + options.lease));
            }
        }
        let more = !state.ready.is_empty();
        drop(state);
        if more && !taken.is_empty() {
            self.arrived.notify_one();
        }
        taken
    }

    /// Ends leases as the consumer decided.
    pub(crate) fn settle(&self, batch: Vec<Settlement>, now: Timestamp) -> Vec<Result<()>> {
        // Freed when the lock is not held any more.
        let mut acked = Vec::with_capacity(batch.len());
        let mut state = self.lock();
        state.promote(now);
        let settle = |Settlement { ticket, outcome }| {
            let Some(message) = state.end_lease(ticket) else { return Err(error::lease_lost(&self.name)) };
            acked.extend(state.settle(&self.name, message, outcome, now));
            Ok(())
        };
        let results = batch.into_iter().map(settle).collect();
        drop(state);
        // A settled message may also free its key.
        self.arrived.notify_one();
        results
    }

    pub(crate) fn extend(&self, ticket: Ticket, lease: Duration, now: Timestamp) -> Result<()> {
        let mut state = self.lock();
        state.promote(now);
        match state.leased.get_mut(&ticket.key).filter(|held| held.fence == ticket.fence) {
            Some(held) => {
                held.ends_at = now + lease;
                state.lease_ends_from = state.lease_ends_from.min(Some(now + lease));
                Ok(())
            }
            None => Err(error::lease_lost(&self.name)),
        }
    }

    /// Returns a leased message at once; the attempt counts. Nothing when the lease is not held any more.
    pub(crate) fn abandon(&self, ticket: Ticket, now: Timestamp) {
        let mut state = self.lock();
        if let Some(message) = state.end_lease(ticket) {
            state.put_back(message, Duration::ZERO, now);
            drop(state);
            self.arrived.notify_one();
        }
    }

    pub(crate) fn status(&self, now: Timestamp) -> QueueStatus {
        let mut state = self.lock();
        state.promote(now);
        let mut patterns = state.patterns.clone();
        patterns.sort();
        QueueStatus {
            ready: state.ready.len() as u64,
            delayed: state.delayed.len() as u64,
            retrying: state.delayed.values().filter(|message| message.retrying).count() as u64,
            leased: state.leased.len() as u64,
            dead: state.dead.len() as u64,
            ..QueueStatus::empty(self.name.clone(), patterns, self.lifetime)
        }
    }
}

impl State {
    fn check_room(&self, queue: &QueueName) -> Result<()> {
        let held = self.ready.len() + self.delayed.len() + self.leased.len();
        if held >= self.messages_max { Err(error::full(queue, self.messages_max)) } else { Ok(()) }
    }

    fn new_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    /// Makes ready what is due by now: delayed messages, and leased ones whose lease has ended.
    fn promote(&mut self, now: Timestamp) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let mut message = entry.remove();
            if message.retrying {
                message.retrying = false;
                self.free_key(&message);
            } else {
                // A publisher's delay: it takes its place when it becomes visible.
                message.place = self.new_place();
            }
            self.make_ready(message);
        }
        if self.lease_ends_from.is_some_and(|ends_from| ends_from <= now) {
            let ended: Vec<Ticket> = self
                .leased
                .iter()
                .filter(|(_, lease)| lease.ends_at <= now)
                .map(|(&key, lease)| Ticket { key, fence: lease.fence })
                .collect();
            for ticket in ended {
                if let Some(message) = self.end_lease(ticket) {
                    self.make_ready(message);
                }
            }
            self.lease_ends_from = self.leased.values().map(|lease| lease.ends_at).min();
        }
    }

    fn make_ready(&mut self, message: Message) {
        let index = self.ready.partition_point(|other| other.place < message.place);
        self.ready.insert(index, message);
    }

    fn lease(&mut self, mut message: Message, ends_at: Timestamp) -> Taken {
        message.attempt += 1;
        self.next_fence += 1;
        let ticket = Ticket { key: message.place, fence: self.next_fence };
        let taken = Taken { envelope: Arc::clone(&message.envelope), attempt: message.attempt, ticket };
        self.hold_key(&message);
        self.lease_ends_from = Some(self.lease_ends_from.map_or(ends_at, |from| from.min(ends_at)));
        self.leased.insert(ticket.key, Lease { message, fence: ticket.fence, ends_at });
        taken
    }

    /// Takes a message out of its lease, if this hand-over still holds it.
    fn end_lease(&mut self, ticket: Ticket) -> Option<Message> {
        let Entry::Occupied(held) = self.leased.entry(ticket.key) else { return None };
        if held.get().fence != ticket.fence {
            return None;
        }
        let message = held.remove().message;
        self.free_key(&message);
        Some(message)
    }

    /// Does as the consumer decided, and returns the message when it is done with.
    fn settle(
        &mut self,
        queue: &QueueName,
        mut message: Message,
        outcome: Outcome,
        now: Timestamp,
    ) -> Option<Message> {
        match outcome {
            Outcome::Ack => return Some(message),
            Outcome::Reject(failure) => self.bury(queue, message, failure, now),
            Outcome::Retry { after, error } => {
                message.first_failed_at.get_or_insert(now);
                message.last_error = error.or(message.last_error);
                self.put_back(message, after, now);
            }
            Outcome::Release { after } => {
                message.attempt -= 1;
                self.put_back(message, after, now);
            }
        }
        None
    }

    /// Puts a message back into the queue, visible after `after`.
    fn put_back(&mut self, mut message: Message, after: Duration, now: Timestamp) {
        if after.is_zero() {
            return self.make_ready(message);
        }
        message.retrying = true;
        self.hold_key(&message);
        self.delayed.insert((now + after, message.place), message);
    }

    fn bury(&mut self, queue: &QueueName, message: Message, failure: Failure, now: Timestamp) {
        self.dead.push_back(DeadLetter {
            envelope: Arc::unwrap_or_clone(message.envelope),
            queue: queue.clone(),
            reason: failure.reason,
            error: failure.error,
            attempts: message.attempt,
            first_failed_at: message.first_failed_at.unwrap_or(now),
            last_failed_at: now,
        });
    }

    fn hold_key(&mut self, message: &Message) {
        if let Some(key) = &message.envelope.partition_key {
            *self.busy_keys.entry(key.clone()).or_default() += 1;
        }
    }

    fn free_key(&mut self, message: &Message) {
        let Some(key) = &message.envelope.partition_key else { return };
        if let Some(count) = self.busy_keys.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.busy_keys.remove(key);
            }
        }
    }

    /// When something becomes ready by itself.
    pub(crate) fn next_event(&self) -> Option<Timestamp> {
        let due = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let lease_ends_from = self.lease_ends_from.filter(|_| !self.leased.is_empty());
        due.into_iter().chain(lease_ends_from).min()
    }

    /// Drops everything nobody holds and returns how many messages that were.
    pub(crate) fn purge(&mut self) -> usize {
        let count = self.ready.len() + self.delayed.len();
        self.ready.clear();
        for message in std::mem::take(&mut self.delayed).into_values().filter(|message| message.retrying) {
            self.free_key(&message);
        }
        count
    }

    /// Drops the delayed message with this id.
    pub(crate) fn cancel(&mut self, id: &estafette_core::MessageId) -> bool {
        let found = self.delayed.iter().find(|(_, message)| message.envelope.id == *id).map(|(key, _)| *key);
        let Some(message) = found.and_then(|key| self.delayed.remove(&key)) else { return false };
        if message.retrying {
            self.free_key(&message);
        }
        true
    }
}
