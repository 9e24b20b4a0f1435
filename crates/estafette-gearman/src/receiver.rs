//! Taking deliveries.
//!
//! A receiver asks every server for as much as it was asked for itself. Jobs cannot be given back to a server one by one but by
//! submitting them again, so nothing is fetched ahead; except by who takes one full hand after the other at once, which gets
//! the next one fetched while it works.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    Delivery, Failure, QueueName, ReceiveOptions, Receiver, Result, Settler, Timestamp, async_trait,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Shared,
    config::Endpoint,
    error,
    fetch::{COUNT_FIRST, ask, fetch},
    hold::{Fetched, Held, Hold, IDLE, State},
    journal::Journal,
    link::Link,
    names, payload,
    protocol::{self, kind},
    settler::GearmanSettler,
};

/// How soon after one full hand the next one shows that more are wanted.
const HOT: Duration = Duration::from_millis(20);

/// How many are fetched ahead for who takes fewer at a time.
const AHEAD_MAX: usize = 16;

pub(crate) struct GearmanReceiver {
    settler: Arc<GearmanSettler>,
    hold: Arc<Hold>,
    options: ReceiveOptions,
    fetching: JoinSet<()>,
    /// How many jobs are asked for at once.
    count: usize,
    /// How many are fetched ahead, as learned.
    ahead: usize,
    /// When a call last returned all that was asked for.
    filled_at: Option<Instant>,
    closed: bool,
}

/// Says how many a call wants, until it is dropped.
struct Wanting<'a>(&'a Hold);

impl<'a> Wanting<'a> {
    fn new(hold: &'a Hold, count: usize) -> Self {
        hold.lock().wanted = count;
        hold.poke();
        Self(hold)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.wanted = 0;
        state.received_at = Instant::now();
        if !state.fresh.is_empty() {
            let at = state.received_at + IDLE;
            self.0.look_at(&mut state, at);
        }
    }
}

impl GearmanReceiver {
    pub(crate) fn open(shared: &Shared, queue: &QueueName, options: ReceiveOptions) -> Self {
        let journal = shared.servers.config.state.as_deref().and_then(|state| {
            Journal::begin(state, queue)
                .inspect_err(|error| {
                    tracing::warn!(%error, state = %state.display(), "attempts that end with this process will not be counted");
                })
                .ok()
        });
        let endpoints = &shared.servers.config.endpoints;
        let hold = Arc::new(Hold::new(queue.clone(), endpoints.len(), journal));
        shared.register(&hold);
        let mut fetching = JoinSet::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let (hold, servers) = (Arc::clone(&hold), Arc::clone(&shared.servers));
            fetching.spawn(fetch(hold, servers, index, endpoint.clone()));
        }
        let servers = Arc::clone(&shared.servers);
        let settler = Arc::new(GearmanSettler { hold: Arc::clone(&hold), servers });
        tokio::spawn(watch(Arc::clone(&settler)));
        Self {
            settler,
            hold,
            options,
            fetching,
            count: COUNT_FIRST,
            ahead: 0,
            filled_at: None,
            closed: false,
        }
    }

    /// Hands over what has come, up to `max`; and what has come but must not be handed over.
    fn take(&self, max: usize) -> (Vec<Delivery>, Vec<(Delivery, Failure)>) {
        let ends_at = Instant::now() + self.options.lease;
        let now = Timestamp::now();
        let mut failures = Vec::new();
        let mut state = self.hold.lock();
        let room = self.options.unsettled_max.saturating_sub(state.out.len()).min(max);
        let batch: Vec<_> = state
            .take_fresh(room)
            .into_iter()
            .map(|fetched| {
                let read = payload::read(&fetched.data, &self.hold.queue, &fetched.unique, &fetched.handle);
                let expired = read.envelope.is_expired(now).then(|| Failure::expired(&read.envelope));
                let failure = read.failure.or(expired);
                // What is not handed over spends no attempt.
                let attempt = read.notes.attempts + u32::from(failure.is_none());
                failures.push(failure);
                Held { fetched, envelope: Arc::new(read.envelope), notes: read.notes, attempt, ends_at }
            })
            .collect();
        if !batch.is_empty() {
            self.hold.look_at(&mut state, ends_at);
        }
        let handed = state.hand_over(batch);
        drop(state);
        let settler = Arc::clone(&self.settler) as Arc<dyn Settler>;
        let (mut deliveries, mut failed) = (Vec::with_capacity(handed.len()), Vec::new());
        for ((ticket, envelope, attempt), failure) in handed.into_iter().zip(failures) {
            let queue = self.hold.queue.clone();
            let delivery = Delivery::new(envelope, queue, attempt, ticket, Arc::clone(&settler));
            match failure {
                Some(failure) => failed.push((delivery, failure)),
                None => deliveries.push(delivery),
            }
        }
        (deliveries, failed)
    }

    /// Moves what must not be handed over to the dead letters.
    async fn bury(&self, failed: Vec<(Delivery, Failure)>) {
        for (delivery, failure) in failed {
            if let Err(error) = delivery.reject(failure).await {
                tracing::warn!(queue = %self.hold.queue, error = error.report(), "a message that cannot be handled could not be moved to the dead letters; it comes again");
            }
        }
    }

    /// How often every server was asked so far.
    fn looks_begun(&self) -> Vec<u64> {
        self.hold.lock().looks.iter().map(|looks| looks.begun).collect()
    }

    /// Whether every server has answered a question that was asked after `before`.
    fn has_looked(&self, before: &[u64]) -> bool {
        let state = self.hold.lock();
        state.looks.iter().zip(before).all(|(looks, &before)| looks.done > before)
    }

    /// Nothing came: an error when no server could be asked.
    fn nothing(&self) -> Result<Vec<Delivery>> {
        let state = self.hold.lock();
        let errors: Vec<_> = state.looks.iter().filter_map(|looks| looks.error.as_ref()).collect();
        match errors.first() {
            Some(&error) if errors.len() == state.looks.len() => Err(error.clone()),
            _ => Ok(Vec::new()),
        }
    }

    fn check(&self) -> Result<()> {
        if self.closed {
            return Err(error::closed());
        }
        match &self.hold.lock().ended {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The only server's connection, when it has been made: it can be asked without a turn of the fetching task.
    fn only_link(&self) -> Option<(Arc<Link>, &Endpoint)> {
        let [endpoint] = &*self.settler.servers.config.endpoints else { return None };
        match &*self.hold.lock().looks {
            [only] => only.link.clone().filter(|link| link.is_open()).map(|link| (link, endpoint)),
            _ => None,
        }
    }

    /// Asks the only server: how many jobs came. None when it could not be asked, which the fetching task finds out.
    async fn ask(&mut self, room: usize, until: Instant) -> Option<usize> {
        let (link, endpoint) = self.only_link()?;
        let count = self.count.min(room);
        let answered = ask(&self.hold, &link, endpoint, count).ok()?;
        let Ok(Ok(Ok(came))) = tokio::time::timeout_at(until, answered).await else { return None };
        self.count = if came == count { self.count.max(came * 2) } else { came.max(COUNT_FIRST) };
        Some(came)
    }

    /// Has more fetched while the caller works, when this hand was full and the one before has just been.
    fn fetch_ahead(&mut self, taken: usize, max: usize) {
        let is_full = taken == max;
        let was_filled_at = std::mem::replace(&mut self.filled_at, is_full.then(Instant::now));
        if !is_full || was_filled_at.is_none_or(|at| at.elapsed() > HOT) {
            self.ahead = 0;
            return;
        }
        self.ahead = (self.ahead * 2).clamp(1, AHEAD_MAX).max(max);
        let is_wanted = {
            let state = self.hold.lock();
            state.asking == 0 && state.fresh.len() < self.ahead.div_ceil(2).max(max)
        };
        if is_wanted && let Some((link, endpoint)) = self.only_link() {
            // Nobody waits for it now; a connection that has ended is met again.
            drop(ask(&self.hold, &link, endpoint, self.ahead));
        }
    }

    fn is_asking(&self) -> bool {
        self.hold.lock().asking > 0
    }

    fn room(&self, max: usize) -> usize {
        let state = self.hold.lock();
        self.options.unsettled_max.saturating_sub(state.out.len()).min(max)
    }
}

#[async_trait]
impl Receiver for GearmanReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        let hold = Arc::clone(&self.hold);
        let before = self.looks_begun();
        let mut wanting: Option<Wanting<'_>> = None;
        let mut asked = false;
        loop {
            self.check()?;
            let changed = hold.changed.notified();
            let (deliveries, failed) = self.take(max);
            if !failed.is_empty() {
                self.bury(failed).await;
                if deliveries.is_empty() {
                    continue;
                }
            }
            if !deliveries.is_empty() || max == 0 {
                self.fetch_ahead(deliveries.len(), max);
                return Ok(deliveries);
            }
            let room = self.room(max);
            // Looking only: as long as the servers need to answer.
            let until = if wait.is_zero() { self.settler.servers.deadline() } else { deadline };
            if room > 0 && self.is_asking() && Instant::now() < until {
                // A time-out ends the loop on its next turn; so below.
                drop(tokio::time::timeout_at(until, changed).await);
                continue;
            }
            if !asked && room > 0 {
                asked = true;
                match self.ask(room, until).await {
                    Some(0) if wait.is_zero() => return Ok(Vec::new()),
                    Some(1..) => continue,
                    Some(0) | None => {}
                }
            }
            let is_late = Instant::now() >= deadline;
            if is_late && (room == 0 || !wait.is_zero() || self.has_looked(&before)) {
                drop(wanting);
                return self.nothing();
            }
            if room > 0 && wanting.is_none() {
                wanting = Some(Wanting::new(&hold, room));
            }
            drop(tokio::time::timeout_at(until, changed).await);
        }
    }

    async fn close(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.hold.lock().ending = true;
        self.hold.poke();
        let deadline = self.settler.servers.deadline();
        // What is being fetched comes first, or it would stay with a connection that others wait for.
        while let Ok(Some(_ended)) = tokio::time::timeout_at(deadline, self.fetching.join_next()).await {}
        end(&self.settler).await;
        Ok(())
    }
}

/// Gives back what was not handed over, and wants no more.
async fn end(settler: &GearmanSettler) {
    let fresh: Vec<Fetched> = {
        let mut state = settler.hold.lock();
        decline(&state, &settler.hold.queue);
        let fresh = state.fresh.drain(..).collect();
        state.begin_return(fresh)
    };
    settler.return_fresh(fresh);
    settler.hold.watch.notify_one();
}

/// Says to the servers which jobs are not wanted any more. Not those of which one is held: they would be taken back.
fn decline(state: &State, queue: &QueueName) {
    let held = || state.out.values().map(|held| &held.fetched).chain(&state.fresh);
    let mut links: Vec<&Arc<Link>> = held().map(|fetched| &fetched.link).collect();
    links.sort_by_key(|link| Arc::as_ptr(link));
    links.dedup_by_key(|link| Arc::as_ptr(link));
    for link in links {
        let mut requests = Vec::new();
        for function in names::taken(queue) {
            let function = function.as_bytes();
            if !held().any(|fetched| Arc::ptr_eq(&fetched.link, link) && fetched.function == function) {
                protocol::put(&mut requests, kind::CANT_DO, &[function]);
            }
        }
        // A connection that has ended needs nothing.
        drop(link.tell(&requests));
    }
}

impl Drop for GearmanReceiver {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        self.hold.lock().ending = true;
        self.hold.poke();
        let (settler, mut fetching) = (Arc::clone(&self.settler), std::mem::take(&mut self.fetching));
        self.settler.hold.runtime.spawn(async move {
            while fetching.join_next().await.is_some() {}
            end(&settler).await;
        });
    }
}

/// Ends leases, and gives back what nobody asks for. Ends when nothing is held and nothing more is fetched.
async fn watch(settler: Arc<GearmanSettler>) {
    let hold = Arc::clone(&settler.hold);
    loop {
        let now = Instant::now();
        let (ended, idle, next) = {
            let mut state = hold.lock();
            let (ended, idle) = (leases_ended(&mut state, now), fresh_idle(&mut state, now));
            if state.is_over() {
                state.finish();
                return;
            }
            state.look_at = next_look(&state);
            (ended, idle, state.look_at)
        };
        if !ended.is_empty() {
            tracing::debug!(queue = %hold.queue, count = ended.len(), "leases ended");
            hold.changed.notify_one();
        }
        settler.give_back(ended);
        settler.return_fresh(idle);
        match next {
            Some(at) => drop(tokio::time::timeout_at(at, hold.watch.notified()).await),
            None => hold.watch.notified().await,
        }
    }
}

fn leases_ended(state: &mut State, now: Instant) -> Vec<Held> {
    let keys: Vec<_> =
        state.out.iter().filter(|(_, held)| held.ends_at <= now).map(|(&key, _)| key).collect();
    let ended = keys.iter().filter_map(|key| state.out.remove(key));
    let ended = ended.filter(|held| held.fetched.link.is_open()).collect();
    state.begin_return(ended)
}

fn fresh_idle(state: &mut State, now: Instant) -> Vec<Fetched> {
    if state.wanted > 0 || state.received_at + IDLE > now {
        return Vec::new();
    }
    let fresh = state.fresh.drain(..).collect();
    state.begin_return(fresh)
}

fn next_look(state: &State) -> Option<Instant> {
    let lease = state.out.values().map(|held| held.ends_at).min();
    let idle = (!state.fresh.is_empty() && state.wanted == 0).then(|| state.received_at + IDLE);
    lease.into_iter().chain(idle).min()
}
