//! Settling deliveries.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use estafette_core::{
    Error, ErrorKind, Failure, Lifetime, Outcome, QueueName, Result, Settlement, Settler, Ticket, Timestamp,
    async_trait,
};
use tokio::{task::AbortHandle, time::Instant};

use crate::{
    Shared,
    attempts::Written,
    confirms::Fate,
    envelope, error,
    hold::{Handed, Hold},
    marks::Marks,
    names::{self, Waiting},
    protocol::{Properties, request},
    publication::{Copied, Publication, What},
};

/// Settles what one receiver took.
pub(crate) struct AmqpSettler {
    shared: Arc<Shared>,
    hold: Arc<Hold>,
    /// The task that watches over leases; it ends with the last delivery.
    watching: OnceLock<AbortHandle>,
    /// Whether the queue goes away when the receiver is dropped.
    delete_at_end: Mutex<bool>,
}

/// A delivery on its way to another queue, and where its result belongs.
struct Moving {
    place: usize,
    tag: u64,
    handed: Box<Handed>,
    key: String,
    marks: Marks,
}

impl AmqpSettler {
    pub(crate) fn new(shared: Arc<Shared>, hold: Arc<Hold>) -> Self {
        Self { shared, hold, watching: OnceLock::new(), delete_at_end: Mutex::new(false) }
    }

    pub(crate) fn own(&self, watching: AbortHandle) {
        self.watching.get_or_init(|| watching);
    }

    pub(crate) fn queue(&self) -> &QueueName {
        &self.hold.queue
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    pub(crate) fn delete_at_end(&self, lifetime: Lifetime) {
        *self.delete_at_end.lock().unwrap_or_else(PoisonError::into_inner) = lifetime == Lifetime::Temporary;
    }

    /// What closing the receiver does, after it was only dropped.
    pub(crate) async fn close_dropped(&self) {
        let ended = self.end_receiving().await;
        let delete = *self.delete_at_end.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = if delete { self.shared.topology.delete(&self.hold.queue).await } else { Ok(()) };
        for error in [ended.err(), deleted.err()].into_iter().flatten() {
            tracing::debug!(queue = %self.hold.queue, error = error.report(), "a dropped receiver could not be closed");
        }
    }

    /// Corrects the attempt of a delivery after it was found out.
    pub(crate) fn set_attempt(&self, ticket: Option<Ticket>, attempt: u32) {
        let Some(ticket) = ticket else { return };
        self.hold.lock().set_attempt(ticket, attempt);
    }

    /// Ends the consumer and puts back what was fetched and not handed over.
    pub(crate) async fn end_receiving(&self) -> Result<()> {
        // A broker that does not answer puts everything back itself, sooner or later.
        drop(tokio::time::timeout(self.shared.config.patience, self.consumer_started()).await);
        let (consumer, channel) = {
            let mut state = self.hold.lock();
            (state.consumer.take(), state.channel.clone())
        };
        let Some(channel) = channel else { return Ok(()) };
        let queue = self.hold.queue.as_str();
        if let Some(consumer) = consumer {
            let cancelled =
                channel.call(|out, id| request::basic_cancel(out, id, &consumer.tag, false)).await;
            // A delivery may still come after the answer to cancelling, but none after the next.
            if cancelled.is_err() || channel.flush(queue).await.is_err() {
                return Ok(());
            }
        }
        self.return_fresh().await;
        // Whoever looks into the queue now finds there what was put back. A channel that broke has put it back itself.
        drop(channel.flush(queue).await);
        Ok(())
    }

    async fn consumer_started(&self) {
        loop {
            let changed = self.hold.changed.notified();
            {
                let state = self.hold.lock();
                if state.channel.is_none() || state.has_started() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Puts back what was fetched and not handed over, with a note that it was not.
    pub(crate) async fn return_fresh(&self) {
        let (generation, fresh) = {
            let mut state = self.hold.lock();
            (state.generation, std::mem::take(&mut state.fresh))
        };
        let unspent = fresh.iter().filter(|message| !message.redelivered).filter_map(Written::of);
        let news: Vec<_> = unspent.map(|written| (written.clone(), written.spent)).collect();
        self.shared.attempts.write(&self.hold.queue, &news).await;
        let mut state = self.hold.lock();
        if state.generation == generation {
            let tags: Vec<u64> = fresh.iter().map(|message| message.tag).collect();
            state.requeue(&tags);
        }
    }

    /// Decides about one delivery that is held.
    async fn move_for(
        &self,
        place: usize,
        tag: u64,
        handed: Box<Handed>,
        outcome: Outcome,
    ) -> Result<Moving> {
        let queue = &self.hold.queue;
        let now = Timestamp::now();
        let properties = Properties::read(&handed.incoming.content.header).unwrap_or_default();
        let mut marks = Marks::read(properties.fields());
        if marks.key.is_none() && properties.kind.is_none() {
            let key = envelope::origin(&handed.incoming.origin).map(|(_, key)| key.into_owned());
            marks.key = key.ok().filter(|key| key != queue.as_str());
        }
        let moving = |key, marks, handed| Moving { place, tag, handed, key, marks };
        let again = async |after: Duration| match after.is_zero() {
            true => Ok(queue.as_str().to_owned()),
            false => self.shared.topology.waiting(queue, Waiting::Retry, names::delay_millis(after)).await,
        };
        marks.attempts = handed.attempt;
        match outcome {
            Outcome::Retry { after, error } => {
                marks.first_failed_at.get_or_insert(now);
                marks.last_failed_at = Some(now);
                marks.error = error.or(marks.error);
                Ok(moving(again(after).await?, marks, handed))
            }
            Outcome::Release { after } => {
                marks.attempts = handed.attempt.saturating_sub(1);
                Ok(moving(again(after).await?, marks, handed))
            }
            Outcome::Reject(Failure { reason, error }) => {
                marks.first_failed_at.get_or_insert(now);
                marks.last_failed_at = Some(now);
                marks.reason = Some(reason);
                marks.error = Some(error);
                Ok(moving(names::dead(queue.as_str()), marks, handed))
            }
            Outcome::Ack => Err(ErrorKind::Engine.into()),
        }
    }

    /// Publishes the copies, and settles the sources whose copy is stored.
    async fn settle_moving(&self, fence: u64, moving: Vec<Moving>, results: &mut [Result<()>]) {
        let publications: Vec<Publication<'_>> = moving
            .iter()
            .map(|moving| Publication {
                exchange: "".into(),
                key: moving.key.as_str().into(),
                what: What::Copy(Copied {
                    content: Cow::Borrowed(&moving.handed.incoming.content),
                    id: moving.handed.envelope.id.clone(),
                    marks: moving.marks.clone(),
                    redriven: None,
                }),
            })
            .collect();
        let mut fates = self.shared.publisher.confirmed(&publications).await;
        for (publication, fate) in publications.iter().zip(&mut fates) {
            if matches!(fate, Ok(Fate::Returned)) {
                *fate = self.publish_to_new_queue(publication).await;
            }
        }
        let mut stored = Vec::new();
        let mut failed = Vec::new();
        for (moving, fate) in moving.iter().zip(fates) {
            let result = match fate {
                Ok(Fate::Stored) => Ok(()),
                Ok(Fate::Returned) => Err(Error::no_queue(&self.hold.queue)),
                Ok(Fate::Refused) => Err(error::refused_by_broker()),
                Ok(Fate::Lost(error)) | Err(error) => Err(error),
            };
            if result.is_ok() { &mut stored } else { &mut failed }.push(moving.tag);
            if let Some(place) = results.get_mut(moving.place) {
                *place = result;
            }
        }
        let mut state = self.hold.lock();
        if state.generation != fence || state.channel.is_none() {
            for moving in moving.iter().filter(|moving| stored.contains(&moving.tag)) {
                if let Some(place) = results.get_mut(moving.place) {
                    *place = Err(error::lease_lost(&self.hold.queue));
                }
            }
            return;
        }
        state.park();
        state.ack(&stored);
        state.requeue(&failed);
    }

    /// Publishes a copy for which there was no queue: that of the dead letters is made when it is needed first.
    async fn publish_to_new_queue(&self, publication: &Publication<'_>) -> Result<Fate> {
        let queue = &self.hold.queue;
        self.shared.topology.forget();
        if publication.key == names::dead(queue.as_str()) {
            self.shared.topology.declare_dead(queue).await?;
        }
        let again = self.shared.publisher.confirmed(std::slice::from_ref(publication)).await.pop();
        again.unwrap_or_else(|| Err(ErrorKind::Engine.into()))
    }

    /// Puts deliveries back where they were, with a note that the attempt does not count.
    async fn release(&self, fence: u64, released: Vec<(u64, Box<Handed>)>) {
        let news: Vec<_> = released
            .iter()
            .filter_map(|(_, handed)| {
                Some((Written::of(&handed.incoming)?, handed.attempt.saturating_sub(1)))
            })
            .collect();
        self.shared.attempts.write(&self.hold.queue, &news).await;
        let tags: Vec<u64> = released.iter().map(|(tag, _)| *tag).collect();
        let mut state = self.hold.lock();
        if state.generation == fence {
            state.park();
            state.requeue(&tags);
        }
    }
}

#[async_trait]
impl Settler for AmqpSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut others = Vec::new();
        let fence = {
            let now = Instant::now();
            let mut state = self.hold.lock();
            let mut acked = Vec::with_capacity(batch.len());
            let mut late = Vec::new();
            for (place, Settlement { ticket, outcome }) in batch.into_iter().enumerate() {
                results.push(match state.take(ticket) {
                    None => Err(error::lease_lost(&self.hold.queue)),
                    // The process slept over the end, and so did whoever watches over it.
                    Some(handed) if handed.ends_at <= now => {
                        late.push(ticket.key);
                        Err(error::lease_lost(&self.hold.queue))
                    }
                    Some(_) if outcome == Outcome::Ack => {
                        acked.push(ticket.key);
                        Ok(())
                    }
                    Some(handed) => {
                        others.push((place, ticket.key, handed, outcome));
                        Ok(())
                    }
                });
            }
            state.park();
            if !acked.is_empty() {
                state.ack(&acked);
            }
            state.requeue(&late);
            state.generation
        };
        self.hold.changed.notify_one();
        if others.is_empty() {
            return results;
        }
        let mut moving = Vec::new();
        let mut released = Vec::new();
        for (place, tag, handed, outcome) in others {
            if outcome == (Outcome::Release { after: Duration::ZERO }) && handed.incoming_has_id() {
                released.push((tag, handed));
                continue;
            }
            match self.move_for(place, tag, handed, outcome).await {
                Ok(found) => moving.push(found),
                Err(error) => {
                    self.hold.lock().requeue(&[tag]);
                    if let Some(result) = results.get_mut(place) {
                        *result = Err(error);
                    }
                }
            }
        }
        if !released.is_empty() {
            self.release(fence, released).await;
        }
        if !moving.is_empty() {
            self.settle_moving(fence, moving, &mut results).await;
        }
        self.hold.changed.notify_one();
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let now = Instant::now();
        let mut state = self.hold.lock();
        let extend = |ticket: &Ticket| match state.extend(*ticket, now + lease, now) {
            true => Ok(()),
            false => Err(error::lease_lost(&self.hold.queue)),
        };
        let results = tickets.iter().map(extend).collect();
        self.hold.look_at(&mut state, now + lease);
        results
    }

    fn abandon(&self, ticket: Ticket) {
        self.hold.lock().park();
        self.hold.give_back(ticket);
    }
}

impl Drop for AmqpSettler {
    fn drop(&mut self) {
        if let Some(watching) = self.watching.get() {
            watching.abort();
        }
    }
}
