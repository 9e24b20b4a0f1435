//! Settling deliveries: an ack completes the job; anything else submits it again and completes it after that.
//!
//! A job is never failed: a server drops a background job that fails.

use std::sync::Arc;

use estafette_core::{
    Error, ErrorKind, Outcome, Result, Settlement, Settler, Ticket, Timestamp, async_trait,
};
use std::time::Duration;
use tokio::time::Instant;

use crate::{
    error,
    hold::{Fetched, Held, Hold},
    link::Link,
    names::{self, Copy},
    payload::{self, Notes},
    protocol::{self, kind},
    servers::{Job, Servers, When},
};

pub(crate) struct GearmanSettler {
    pub(crate) hold: Arc<Hold>,
    pub(crate) servers: Arc<Servers>,
}

/// A delivery that is submitted again: its place among the results, what it was, and what it becomes.
struct Again {
    index: usize,
    ticket: Ticket,
    held: Held,
    job: Job,
    is_release: bool,
}

#[async_trait]
impl Settler for GearmanSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut completed = Completed::default();
        let mut again = Vec::new();
        {
            let mut state = self.hold.lock();
            for (index, Settlement { ticket, outcome }) in batch.into_iter().enumerate() {
                let Some(held) = state.take(ticket) else {
                    results.push(Err(error::lease_lost(&self.hold.queue)));
                    continue;
                };
                results.push(Ok(()));
                if outcome == Outcome::Ack {
                    completed.add(&held.fetched);
                    continue;
                }
                let is_release = matches!(outcome, Outcome::Release { .. });
                match self.job(&held, outcome) {
                    Ok(job) => again.push(Again { index, ticket, held, job, is_release }),
                    Err(error) => {
                        state.out.insert(ticket.key, held);
                        set(&mut results, index, Err(error));
                    }
                }
            }
            if again.is_empty() {
                state.tidy();
                self.hold.look_for_the_end(&state);
            }
        }
        self.hold.changed.notify_one();
        completed.tell();
        self.submit_again(again, &mut results).await;
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let ends_at = Instant::now() + lease;
        let mut state = self.hold.lock();
        let mut extend = |ticket: &Ticket| match state.out.get_mut(&ticket.key) {
            Some(held) if held.fetched.link.is_open() => {
                held.ends_at = ends_at;
                Ok(())
            }
            _ => Err(error::lease_lost(&self.hold.queue)),
        };
        let results = tickets.iter().map(&mut extend).collect();
        self.hold.look_at(&mut state, ends_at);
        results
    }

    fn abandon(&self, ticket: Ticket) {
        let held: Vec<_> = {
            let mut state = self.hold.lock();
            let held = state.take(ticket);
            state.begin_return(held.into_iter().collect())
        };
        self.hold.changed.notify_one();
        self.give_back(held);
    }
}

impl GearmanSettler {
    async fn submit_again(&self, mut again: Vec<Again>, results: &mut [Result<()>]) {
        if again.is_empty() {
            return;
        }
        let jobs: Vec<_> = again.iter_mut().map(|again| again.job.clone()).collect();
        let submitted = self.servers.submit(&jobs).await;
        let mut completed = Completed::default();
        let mut state = self.hold.lock();
        for (again, submitted) in again.into_iter().zip(submitted) {
            let Again { index, ticket, held, is_release, .. } = again;
            match submitted {
                Ok(()) => {
                    if is_release {
                        state.note_release(&held);
                    }
                    completed.add(&held.fetched);
                }
                Err(error) => {
                    // It comes again when its lease ends.
                    self.hold.look_at(&mut state, held.ends_at);
                    state.out.insert(ticket.key, held);
                    set(results, index, Err(error));
                }
            }
        }
        state.tidy();
        self.hold.look_for_the_end(&state);
        drop(state);
        completed.tell();
    }

    /// What a delivery becomes.
    fn job(&self, held: &Held, outcome: Outcome) -> Result<Job> {
        let queue = &self.hold.queue;
        let (function, copy, notes, after) = match outcome {
            Outcome::Ack => return Err(Error::new(ErrorKind::InvalidInput, "an ack submits nothing")),
            Outcome::Retry { after, error } => {
                let notes = held.notes.failed(held.attempt, error, None);
                (names::retry(queue), Copy::After(held.attempt), notes, after)
            }
            Outcome::Reject(failure) => {
                let notes = held.notes.failed(held.attempt, Some(failure.error), Some(failure.reason));
                (names::dead(queue), Copy::Dead, notes, Duration::ZERO)
            }
            Outcome::Release { after } => {
                let notes = Notes { attempts: held.attempt.saturating_sub(1), ..held.notes.clone() };
                (names::retry(queue), Copy::Released, notes, after)
            }
        };
        let is_first = copy == Copy::Released && after.is_zero();
        let when = if is_first { When::First } else { when(after) };
        let function = if after.is_zero() && copy != Copy::Dead { queue.to_string() } else { function };
        let data = payload::write_noted(&held.envelope, &notes)?;
        Ok(Job { function, unique: names::unique(&held.envelope, copy), data, when })
    }

    /// Puts deliveries back whose lease ended or that were dropped: an attempt more, and their turn comes again. Their return
    /// has begun ([`State::begin_return`](crate::hold::State::begin_return)), here and below.
    pub(crate) fn give_back(&self, batch: Vec<Held>) {
        if batch.is_empty() {
            return;
        }
        let jobs =
            batch.iter().map(|held| self.job(held, Outcome::Retry { after: Duration::ZERO, error: None }));
        let jobs: Result<Vec<_>> = jobs.collect();
        let fetched = batch.into_iter().map(|held| held.fetched).collect();
        self.replace(fetched, jobs);
    }

    /// Puts back what was fetched and not handed over, before everything else, as it was.
    pub(crate) fn return_fresh(&self, batch: Vec<Fetched>) {
        if batch.is_empty() {
            return;
        }
        let queue = &self.hold.queue;
        let jobs = batch.iter().map(|fetched| {
            let read = payload::read(&fetched.data, queue, &fetched.unique, &fetched.handle);
            let unique = names::unique(&read.envelope, Copy::Released);
            Ok(Job { function: queue.to_string(), unique, data: fetched.data.clone(), when: When::First })
        });
        let jobs = jobs.collect();
        self.replace(batch, jobs);
    }

    /// Submits jobs and completes those they stand for. What fails stays with the server until the connection ends.
    fn replace(&self, fetched: Vec<Fetched>, jobs: Result<Vec<Job>>) {
        let servers = Arc::clone(&self.servers);
        let hold = Arc::clone(&self.hold);
        let replacing = async move {
            let results = match jobs {
                Ok(jobs) => servers.submit(&jobs).await,
                Err(error) => vec![Err(error); fetched.len()],
            };
            let mut completed = Completed::default();
            let mut is_kept = false;
            for (fetched, result) in fetched.iter().zip(results) {
                match result {
                    Ok(()) => completed.add(fetched),
                    Err(error) => {
                        tracing::warn!(queue = %hold.queue, error = error.report(), "a message could not be put back; it comes again when the connection ends");
                        is_kept = true;
                    }
                }
            }
            completed.tell();
            let mut state = hold.lock();
            if is_kept {
                state.lose();
            }
            state.returning -= 1;
            hold.look_for_the_end(&state);
        };
        self.hold.runtime.spawn(replacing);
    }
}

/// When a message that waits so long is due: at a full second, not before.
pub(crate) fn when(after: Duration) -> When {
    if after.is_zero() {
        return When::InTurn;
    }
    let due = (Timestamp::now() + after).as_micros();
    When::NotBefore(due.div_euclid(1_000_000).saturating_add(i64::from(due.rem_euclid(1_000_000) > 0)))
}

fn set(results: &mut [Result<()>], index: usize, result: Result<()>) {
    if let Some(slot) = results.get_mut(index) {
        *slot = result;
    }
}

/// Jobs that are done, told to each server in one go.
#[derive(Default)]
pub(crate) struct Completed(Vec<(Arc<Link>, Vec<u8>)>);

impl Completed {
    pub(crate) fn add(&mut self, fetched: &Fetched) {
        let known = self.0.iter().position(|(link, _)| Arc::ptr_eq(link, &fetched.link));
        let index = known.unwrap_or_else(|| {
            self.0.push((Arc::clone(&fetched.link), Vec::new()));
            self.0.len() - 1
        });
        if let Some((_, requests)) = self.0.get_mut(index) {
            protocol::put(requests, kind::WORK_COMPLETE, &[&fetched.handle, b""]);
        }
    }

    pub(crate) fn tell(self) {
        for (link, requests) in self.0 {
            if let Err(error) = link.tell(&requests) {
                tracing::info!(error = error.report(), "what was settled may come again");
            }
        }
    }
}
