//! Publications that wait to be confirmed.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use estafette_core::{Error, MessageId, Result};
use tokio::{sync::Notify, time::Instant};

use crate::{
    envelope, error,
    link::{Channel, Content, Events},
    protocol::Properties,
    publication::Publication,
};

/// How many publications are encoded before others may write.
const CHUNK: usize = 64;

/// What became of a publication.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Stored in every queue that takes it; at least one.
    Stored,
    /// No queue takes it.
    Returned,
    /// The broker said no.
    Refused,
    /// The channel ended first: unknown.
    Lost(Error),
}

/// Publications that were handed over together.
pub(crate) struct Job {
    state: Mutex<JobState>,
    done: Notify,
}

struct JobState {
    fates: Vec<Option<Fate>>,
    left: usize,
}

impl Job {
    fn new(count: usize) -> Self {
        Self { state: Mutex::new(JobState { fates: vec![None; count], left: count }), done: Notify::new() }
    }

    fn settle(&self, index: usize, fate: Fate) {
        let mut state = lock(&self.state);
        if let Some(place @ None) = state.fates.get_mut(index) {
            *place = Some(fate);
            state.left -= 1;
            if state.left == 0 {
                self.done.notify_one();
            }
        }
    }

    /// Waits for every publication's fate; those that have none by `deadline` have none in the result.
    async fn wait(&self, deadline: Instant) -> Vec<Option<Fate>> {
        loop {
            let done = self.done.notified();
            if lock(&self.state).left == 0 || Instant::now() >= deadline {
                return std::mem::take(&mut lock(&self.state).fates);
            }
            // A time-out ends the loop on its next turn.
            drop(tokio::time::timeout_at(deadline, done).await);
        }
    }
}

/// A publication on its way.
struct Pending {
    job: Arc<Job>,
    index: usize,
    fingerprint: u64,
    returned: bool,
    settled: bool,
}

/// The unconfirmed publications of one channel.
pub(crate) struct Window {
    max: usize,
    state: Mutex<State>,
    changed: Notify,
    hasher: RandomState,
}

#[derive(Default)]
struct State {
    /// The tag of the first in `pending`.
    first: u64,
    pending: VecDeque<Pending>,
    /// Of those in `pending`, how many have no fate.
    in_flight: usize,
    closed: Option<Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Window {
    pub(crate) fn new(max: usize) -> Self {
        let state = State { first: 1, ..State::default() };
        Self { max, state: Mutex::new(state), changed: Notify::new(), hasher: RandomState::new() }
    }

    /// Publishes and waits for the fates; `None` for what is not known by `deadline`.
    pub(crate) async fn publish(
        &self,
        channel: &Channel,
        items: &[Publication<'_>],
        deadline: Instant,
    ) -> Vec<Option<Fate>> {
        let job = Arc::new(Job::new(items.len()));
        let mut index = 0;
        for part in items.chunks(CHUNK) {
            let mut part = part;
            while !part.is_empty() {
                let written = match tokio::time::timeout_at(deadline, self.room(channel)).await {
                    Ok(Ok(())) => self.write(channel, &job, index, part),
                    Ok(Err(error)) => {
                        for index in index..items.len() {
                            job.settle(index, Fate::Lost(error.clone()));
                        }
                        return job.wait(deadline).await;
                    }
                    Err(_) => {
                        // Nothing of these was written.
                        for index in index..items.len() {
                            job.settle(index, Fate::Lost(error::blocked(deadline.elapsed())));
                        }
                        return job.wait(deadline).await;
                    }
                };
                index += written;
                part = part.get(written..).unwrap_or_default();
            }
        }
        job.wait(deadline).await
    }

    /// Waits for room in the window and in the buffer of what is to be written.
    async fn room(&self, channel: &Channel) -> Result<()> {
        channel.link().room().await?;
        loop {
            let changed = self.changed.notified();
            {
                let state = lock(&self.state);
                if let Some(error) = &state.closed {
                    return Err(error.clone());
                }
                // Not for every single confirmation: a few more are written together then.
                if state.in_flight + self.max.div_ceil(8) <= self.max || state.in_flight == 0 {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Writes as many publications as there is room for, and returns how many.
    fn write(&self, channel: &Channel, job: &Arc<Job>, index: usize, items: &[Publication<'_>]) -> usize {
        let frame_max = channel.link().shared().frame_max;
        let mut state = lock(&self.state);
        let count = items.len().min(self.max.saturating_sub(state.in_flight));
        let items = items.get(..count).unwrap_or_default();
        if state.closed.is_some() {
            return 0;
        }
        for (offset, item) in items.iter().enumerate() {
            state.pending.push_back(Pending {
                job: Arc::clone(job),
                index: index + offset,
                fingerprint: self.fingerprint(&item.exchange, &item.key, item.id()),
                returned: false,
                settled: false,
            });
        }
        state.in_flight += count;
        // Under the lock, so that the tags are those of the order written.
        channel.write_later(|out, id| {
            for item in items {
                item.put(out, id, frame_max);
            }
        });
        drop(state);
        channel.write_now();
        count
    }

    fn fingerprint(&self, exchange: &str, key: &str, id: &MessageId) -> u64 {
        self.hasher.hash_one((exchange, key, id))
    }
}

impl State {
    fn settle(&mut self, tag: u64, multiple: bool, fate: &Fate) {
        let Some(offset) = tag.checked_sub(self.first).and_then(|offset| usize::try_from(offset).ok()) else {
            return;
        };
        let end = (offset + 1).min(self.pending.len());
        for pending in self.pending.range_mut(if multiple { 0 } else { offset.min(end) }..end) {
            if !pending.settled {
                pending.settled = true;
                self.in_flight -= 1;
                pending
                    .job
                    .settle(pending.index, if pending.returned { Fate::Returned } else { fate.clone() });
            }
        }
        while self.pending.pop_front_if(|pending| pending.settled).is_some() {
            self.first += 1;
        }
    }
}

impl Events for Window {
    fn returned(&self, content: Content, origin: &[u8]) {
        let id =
            Properties::read(&content.header).ok().and_then(|properties| properties.message_id?.parse().ok());
        let (Some(id), Ok((exchange, key))) = (id, envelope::origin(origin)) else { return };
        let fingerprint = self.fingerprint(&exchange, &key, &id);
        let mut state = lock(&self.state);
        let is_it = |pending: &&mut Pending| {
            !pending.settled && !pending.returned && pending.fingerprint == fingerprint
        };
        if let Some(pending) = state.pending.iter_mut().find(is_it) {
            pending.returned = true;
        }
    }

    fn confirmed(&self, tag: u64, multiple: bool, stored: bool) {
        let fate = if stored { Fate::Stored } else { Fate::Refused };
        lock(&self.state).settle(tag, multiple, &fate);
    }

    fn settled_down(&self) {
        self.changed.notify_waiters();
    }

    fn closed(&self, error: &Error) {
        let mut state = lock(&self.state);
        state.closed = Some(error.clone());
        for pending in std::mem::take(&mut state.pending).into_iter().filter(|pending| !pending.settled) {
            pending.job.settle(pending.index, Fate::Lost(error.clone()));
        }
        state.in_flight = 0;
        drop(state);
        self.changed.notify_waiters();
    }
}
