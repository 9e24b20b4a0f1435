//! What one receiver has from the servers: fetched, handed over, settled.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use estafette_core::{Envelope, Error, QueueName, Ticket};
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use crate::{
    journal::{Change, Journal, Written},
    link::Link,
    payload::Notes,
};

/// How long what was fetched may lie here while nobody asks for it, before it goes back.
pub(crate) const IDLE: Duration = Duration::from_millis(250);

/// A job as it was fetched.
#[derive(Clone)]
pub(crate) struct Fetched {
    pub(crate) link: Arc<Link>,
    pub(crate) handle: Bytes,
    pub(crate) function: Bytes,
    pub(crate) unique: Bytes,
    pub(crate) data: Bytes,
}

/// A delivery that was handed over.
pub(crate) struct Held {
    pub(crate) fetched: Fetched,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) notes: Notes,
    pub(crate) attempt: u32,
    pub(crate) ends_at: Instant,
}

impl Held {
    pub(crate) fn written(&self) -> Written {
        Written::of(&self.envelope, self.notes.attempts)
    }
}

pub(crate) struct Hold {
    pub(crate) queue: QueueName,
    state: Mutex<State>,
    /// Something was fetched, settled, looked for in vain, or ended.
    pub(crate) changed: Notify,
    /// The next thing to be done by itself may be sooner than thought.
    pub(crate) watch: Notify,
    /// For each server: more is wanted, or it is to stop.
    pub(crate) pokes: Vec<Notify>,
    /// Where what must still be done is done when a caller has gone.
    pub(crate) runtime: Handle,
}

pub(crate) struct State {
    /// Fetched and not handed over, in order.
    pub(crate) fresh: VecDeque<Fetched>,
    pub(crate) out: HashMap<u64, Held>,
    next_key: u64,
    /// How many tasks put deliveries back at the moment.
    pub(crate) returning: usize,
    /// How many questions are out whose answers nobody waits for yet.
    pub(crate) asking: usize,
    /// How many deliveries the call that waits would take.
    pub(crate) wanted: usize,
    /// When a call last ended.
    pub(crate) received_at: Instant,
    pub(crate) looks: Vec<Looks>,
    journal: Option<Journal>,
    /// When the watching task looks next.
    pub(crate) look_at: Option<Instant>,
    /// Nothing more is fetched.
    pub(crate) ending: bool,
    /// Why nothing can be received any more.
    pub(crate) ended: Option<Error>,
}

/// How often one server was asked for jobs.
#[derive(Clone, Default)]
pub(crate) struct Looks {
    pub(crate) begun: u64,
    /// The last one whose answer has come.
    pub(crate) done: u64,
    /// Why the last one failed.
    pub(crate) error: Option<Error>,
    /// The connection.
    pub(crate) link: Option<Arc<Link>>,
}

impl Hold {
    pub(crate) fn new(queue: QueueName, servers: usize, journal: Option<Journal>) -> Self {
        let state = State {
            fresh: VecDeque::new(),
            out: HashMap::new(),
            next_key: 0,
            returning: 0,
            asking: 0,
            wanted: 0,
            received_at: Instant::now(),
            looks: vec![Looks::default(); servers],
            journal,
            look_at: None,
            ending: false,
            ended: None,
        };
        Self {
            queue,
            state: Mutex::new(state),
            changed: Notify::new(),
            watch: Notify::new(),
            pokes: std::iter::repeat_with(Notify::new).take(servers).collect(),
            runtime: Handle::current(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everything look again.
    pub(crate) fn poke(&self) {
        for poke in &self.pokes {
            poke.notify_one();
        }
    }

    /// Has the watching task look at `at` at the latest.
    pub(crate) fn look_at(&self, state: &mut State, at: Instant) {
        if state.look_at.is_none_or(|known| at < known) {
            state.look_at = Some(at);
            self.watch.notify_one();
        }
    }

    /// Has the watching task see whether this was the last thing it waited for.
    pub(crate) fn look_for_the_end(&self, state: &State) {
        if state.ending {
            self.watch.notify_one();
        }
    }

    /// Lets go of everything, since the transport was closed: it comes again.
    pub(crate) fn end(&self, error: &Error) {
        let mut state = self.lock();
        state.ending = true;
        state.ended = Some(error.clone());
        state.fresh.clear();
        state.forget(|_link| true);
        for looks in &mut state.looks {
            looks.link = None;
        }
        drop(state);
        self.poke();
        self.changed.notify_one();
        self.watch.notify_one();
    }
}

impl State {
    /// Takes what one more call may hand over.
    pub(crate) fn take_fresh(&mut self, max: usize) -> Vec<Fetched> {
        let count = max.min(self.fresh.len());
        self.fresh.drain(..count).filter(|fetched| fetched.link.is_open()).collect()
    }

    /// Counts the attempts of what is handed over, and notes it.
    pub(crate) fn hand_over(&mut self, mut batch: Vec<Held>) -> Vec<(Ticket, Arc<Envelope>, u32)> {
        if let Some(journal) = &mut self.journal {
            let written: Vec<_> = batch.iter().map(Held::written).collect();
            let noted = journal.look().and_then(|()| {
                for (held, written) in batch.iter_mut().zip(&written) {
                    held.attempt += journal.lost(written);
                }
                journal.note(written.iter().map(|written| (written, Change::Handed)))
            });
            note_failure(noted);
        }
        let mut deliveries = Vec::with_capacity(batch.len());
        for held in batch {
            let key = self.next_key;
            self.next_key += 1;
            deliveries.push((Ticket { key, fence: 0 }, Arc::clone(&held.envelope), held.attempt));
            self.out.insert(key, held);
        }
        deliveries
    }

    /// Takes a delivery out to settle it. None when it is lost: settled, its lease has ended, or its connection.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Held> {
        let held = self.out.remove(&ticket.key)?;
        if held.fetched.link.is_open() {
            return Some(held);
        }
        self.lose();
        None
    }

    /// Notes that a delivery was given back without spending an attempt.
    pub(crate) fn note_release(&mut self, held: &Held) {
        if let Some(journal) = &mut self.journal {
            note_failure(journal.note([(&held.written(), Change::Released)]));
        }
    }

    /// Keeps the journal short.
    pub(crate) fn tidy(&mut self) {
        if let Some(journal) = &mut self.journal
            && journal.is_long(self.out.is_empty())
        {
            let out: Vec<_> = self.out.values().map(Held::written).collect();
            note_failure(journal.renew(&out));
        }
    }

    /// Forgets what came over connections that ended: the server has it back.
    pub(crate) fn forget(&mut self, is_lost: impl Fn(&Arc<Link>) -> bool) {
        let before = self.out.len();
        self.fresh.retain(|fetched| !is_lost(&fetched.link));
        self.out.retain(|_, held| !is_lost(&held.fetched.link));
        if self.out.len() < before {
            self.lose();
        }
    }

    /// Counts what was handed over so far as lost; what is settled nevertheless never asks.
    pub(crate) fn lose(&mut self) {
        if let Some(journal) = &mut self.journal {
            note_failure(journal.lose());
        }
    }

    /// Counts a task that is going to put these back, if there are any: until it has, this is not over.
    pub(crate) fn begin_return<T>(&mut self, batch: Vec<T>) -> Vec<T> {
        self.returning += usize::from(!batch.is_empty());
        batch
    }

    /// Whether nothing is held and nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.ending && self.out.is_empty() && self.fresh.is_empty() && self.returning == 0 && self.asking == 0
    }

    /// Ends the journal, when everything is settled.
    pub(crate) fn finish(&mut self) {
        if self.out.is_empty()
            && let Some(journal) = self.journal.take()
        {
            note_failure(journal.finish());
        }
    }
}

fn note_failure(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "attempts that end with this process will not be counted");
    }
}
