//! What one receiver has from the broker: fetched, handed over, settled.
//!
//! A delivery tag counts up from 1 on each channel, so that everything about a delivery is found by its tag less the first one
//! still remembered. A channel that breaks takes all of it along: the next one begins with a new generation, and tickets of
//! the old are lost.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{Envelope, Error, MessageId, QueueName, Ticket};
use tokio::{sync::Notify, time::Instant};

use crate::{
    link::{Channel, Events, Incoming},
    protocol::{Properties, request},
};

/// How long what was fetched may lie here while nobody asks for it, before it goes back.
pub(crate) const IDLE: Duration = Duration::from_millis(250);

/// After how long without being asked no more is fetched when something is settled.
const PARK_AFTER: Duration = Duration::from_millis(50);

/// What a receiver holds.
pub(crate) struct Hold {
    pub(crate) queue: QueueName,
    /// Whether the queue goes away with its consumer, which must stay then.
    pub(crate) is_temporary: bool,
    state: Mutex<State>,
    /// Something was fetched, settled, or ended.
    pub(crate) changed: Notify,
    /// The next thing to be done by itself may be sooner than thought.
    pub(crate) watch: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) channel: Option<Arc<Channel>>,
    /// Counts the channels.
    pub(crate) generation: u64,
    pub(crate) consumer: Option<Consumer>,
    keeps_consumer: bool,
    /// Consumers to be cancelled as soon as they have started.
    unwanted: Vec<String>,
    /// The broker ended the consumer: the queue is gone.
    pub(crate) cancelled: bool,
    /// Why there is no channel any more.
    pub(crate) error: Option<Error>,
    /// Fetched and not handed over, in order.
    pub(crate) fresh: VecDeque<Incoming>,
    /// By tag, from `first` on.
    slots: VecDeque<Slot>,
    first: u64,
    /// How many are handed over and unsettled.
    pub(crate) out: usize,
    /// How many were acknowledged and not yet written.
    unwritten: usize,
    /// Ids of messages that were fetched and lost with a channel: redelivered, but never handed over.
    pub(crate) unspent: HashSet<MessageId>,
    /// Whether `receive` waits at the moment, and when it last ended.
    pub(crate) receiving: bool,
    pub(crate) received_at: Option<Instant>,
    /// When the watching task looks next; none when it was not told to.
    pub(crate) look_at: Option<Instant>,
    /// The receiver was dropped without closing it.
    pub(crate) dropped: bool,
}

/// A consumer on the broker.
pub(crate) struct Consumer {
    pub(crate) tag: String,
    pub(crate) prefetch: usize,
    /// Whether the broker said so. Cancelling one before that crashes the channel in RabbitMQ 3.10.
    pub(crate) started: bool,
}

/// Where a delivery is.
enum Slot {
    /// In `fresh`, or being returned.
    Fresh,
    /// Handed over.
    Out(Box<Handed>),
    /// Handed over and being settled: the end of the lease does not matter any more.
    Settling,
    Settled,
}

/// A delivery that was handed over.
pub(crate) struct Handed {
    pub(crate) incoming: Incoming,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) attempt: u32,
    pub(crate) ends_at: Instant,
}

impl Handed {
    /// Whether the message itself says who it is.
    pub(crate) fn incoming_has_id(&self) -> bool {
        id_of(&self.incoming).is_some()
    }
}

impl Hold {
    pub(crate) fn new(queue: QueueName, is_temporary: bool) -> Self {
        let state = State { first: 1, keeps_consumer: is_temporary, ..State::default() };
        Self { queue, is_temporary, state: Mutex::new(state), changed: Notify::new(), watch: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the watching task look at `at` at the latest.
    pub(crate) fn look_at(&self, state: &mut State, at: Instant) {
        if state.look_at.is_none_or(|known| at < known) {
            state.look_at = Some(at);
            self.watch.notify_one();
        }
    }

    /// Puts a handed over delivery back. Nothing when it is not held any more.
    pub(crate) fn give_back(&self, ticket: Ticket) {
        let mut state = self.lock();
        if state.take(ticket).is_some() {
            state.requeue(&[ticket.key]);
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    /// Begins anew on another channel.
    pub(crate) fn begin(&mut self, channel: Arc<Channel>) {
        self.generation += 1;
        self.channel = Some(channel);
        self.consumer = None;
        self.unwanted.clear();
        self.error = None;
        self.first = 1;
        self.slots.clear();
        self.fresh.clear();
        self.out = 0;
        self.unwritten = 0;
    }

    fn index(&self, tag: u64) -> Option<usize> {
        usize::try_from(tag.checked_sub(self.first)?).ok()
    }

    /// Notes that the oldest fetched message was handed over.
    pub(crate) fn hand_over(&mut self, handed: Handed) -> Ticket {
        let tag = handed.incoming.tag;
        let index = self.index(tag);
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) {
            *slot = Slot::Out(Box::new(handed));
            self.out += 1;
        }
        Ticket { key: tag, fence: self.generation }
    }

    /// Takes a delivery out to settle it. None when it is lost: another channel's, settled, or its lease has ended.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Box<Handed>> {
        if ticket.fence != self.generation || self.channel.is_none() {
            return None;
        }
        let index = self.index(ticket.key)?;
        let slot = self.slots.get_mut(index).filter(|slot| matches!(slot, Slot::Out(_)))?;
        let Slot::Out(handed) = std::mem::replace(slot, Slot::Settling) else { return None };
        self.out -= 1;
        Some(handed)
    }

    /// Corrects the attempt of a delivery.
    pub(crate) fn set_attempt(&mut self, ticket: Ticket, attempt: u32) {
        if ticket.fence != self.generation {
            return;
        }
        if let Some(Slot::Out(handed)) = self.index(ticket.key).and_then(|index| self.slots.get_mut(index)) {
            handed.attempt = attempt;
        }
    }

    /// Changes when a lease ends; false when it is lost.
    pub(crate) fn extend(&mut self, ticket: Ticket, ends_at: Instant, now: Instant) -> bool {
        if ticket.fence != self.generation || self.channel.is_none() {
            return false;
        }
        let slot = self.index(ticket.key).and_then(|index| self.slots.get_mut(index));
        match slot {
            Some(Slot::Out(handed)) if handed.ends_at > now => {
                handed.ends_at = ends_at;
                true
            }
            _ => false,
        }
    }

    /// The tickets of leases that ended by `now`, and when the next one ends.
    pub(crate) fn ended(&self, now: Instant) -> (Vec<Ticket>, Option<Instant>) {
        let mut ended = Vec::new();
        let mut next: Option<Instant> = None;
        for (tag, slot) in (self.first..).zip(&self.slots) {
            let Slot::Out(handed) = slot else { continue };
            if handed.ends_at <= now {
                ended.push(Ticket { key: tag, fence: self.generation });
            } else {
                next = Some(next.map_or(handed.ends_at, |next| next.min(handed.ends_at)));
            }
        }
        (ended, next)
    }

    /// Acknowledges deliveries that were taken out, in as few frames as possible.
    pub(crate) fn ack(&mut self, tags: &[u64]) {
        let Some(channel) = self.channel.clone() else { return };
        for &tag in tags {
            self.mark_settled(tag);
        }
        // Everything up to the first that is not settled goes in one.
        let settled = self.slots.iter().take_while(|slot| matches!(slot, Slot::Settled)).count();
        let before = self.first + settled as u64;
        channel.write_later(|out, id| {
            let block = tags.iter().filter(|&&tag| tag < before).max();
            if let Some(&last) = block {
                request::basic_ack(out, id, last, true);
            }
            for &tag in tags.iter().filter(|&&tag| tag >= before) {
                request::basic_ack(out, id, tag, false);
            }
        });
        // Not each by itself while more are about to come, and the last at once: a process that ends now has settled them.
        self.unwritten += tags.len();
        if self.unwritten >= self.out {
            self.unwritten = 0;
            channel.write_now();
        }
        self.forget_settled();
    }

    /// Puts deliveries back into their queue.
    pub(crate) fn requeue(&mut self, tags: &[u64]) {
        let Some(channel) = self.channel.clone() else { return };
        for &tag in tags {
            self.mark_settled(tag);
        }
        channel.write(|out, id| {
            for &tag in tags {
                request::basic_requeue(out, id, tag, false);
            }
        });
        self.forget_settled();
    }

    fn mark_settled(&mut self, tag: u64) {
        if let Some(slot) = self.index(tag).and_then(|index| self.slots.get_mut(index)) {
            *slot = Slot::Settled;
        }
    }

    fn forget_settled(&mut self) {
        while self.slots.pop_front_if(|slot| matches!(slot, Slot::Settled)).is_some() {
            self.first += 1;
        }
    }

    /// Ends the consumer when nobody has asked for a while, so that settling does not fetch what nobody wants.
    pub(crate) fn park(&mut self) {
        let is_idle = !self.keeps_consumer
            && !self.receiving
            && self.received_at.is_none_or(|at| at.elapsed() > PARK_AFTER);
        if is_idle {
            self.end_consumer();
        }
    }

    pub(crate) fn end_consumer(&mut self) {
        let (Some(consumer), Some(channel)) = (self.consumer.take(), &self.channel) else { return };
        if consumer.started {
            channel.write(|out, id| request::basic_cancel(out, id, &consumer.tag, true));
        } else {
            self.unwanted.push(consumer.tag);
        }
    }

    /// Whether every consumer that was asked for has started.
    pub(crate) fn has_started(&self) -> bool {
        self.unwanted.is_empty() && self.consumer.as_ref().is_none_or(|consumer| consumer.started)
    }

    fn started(&mut self, tag: &str) {
        if let Some(consumer) = self.consumer.as_mut().filter(|consumer| consumer.tag == tag) {
            consumer.started = true;
        } else if let Some(channel) = &self.channel {
            self.unwanted.retain(|unwanted| unwanted != tag);
            channel.write(|out, id| request::basic_cancel(out, id, tag, true));
        }
    }
}

/// The id of a message, if it has one.
pub(crate) fn id_of(incoming: &Incoming) -> Option<MessageId> {
    Properties::read(&incoming.content.header).ok()?.message_id?.parse().ok()
}

/// What comes on one channel of a hold.
pub(crate) struct Inbox {
    pub(crate) hold: std::sync::Weak<Hold>,
    pub(crate) generation: u64,
}

impl Inbox {
    fn with(&self, change: impl FnOnce(&Hold, &mut State)) {
        let Some(hold) = self.hold.upgrade() else { return };
        let mut state = hold.lock();
        if state.generation == self.generation {
            change(&hold, &mut state);
        }
    }
}

impl Events for Inbox {
    fn delivered(&self, message: Incoming) {
        self.with(|_, state| {
            state.slots.push_back(Slot::Fresh);
            state.fresh.push_back(message);
        });
    }

    fn consuming(&self, tag: &str) {
        self.with(|hold, state| {
            state.started(tag);
            hold.changed.notify_one();
        });
    }

    fn cancelled(&self) {
        self.with(|hold, state| {
            state.consumer = None;
            state.cancelled = true;
            hold.changed.notify_one();
        });
    }

    fn settled_down(&self) {
        self.with(|hold, state| {
            if state.receiving {
                hold.changed.notify_one();
            } else if !state.fresh.is_empty() && !hold.is_temporary {
                hold.look_at(state, Instant::now() + IDLE);
            }
        });
    }

    fn closed(&self, error: &Error) {
        self.with(|hold, state| {
            state.channel = None;
            state.consumer = None;
            state.error = Some(error.clone());
            let unspent = state.fresh.iter().filter(|message| !message.redelivered).filter_map(id_of);
            let unspent: HashSet<MessageId> = unspent.collect();
            state.unspent = unspent;
            state.fresh.clear();
            state.slots.clear();
            state.out = 0;
            hold.changed.notify_one();
        });
    }
}
