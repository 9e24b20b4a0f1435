//! Taking deliveries.
//!
//! A receiver fetches as much as it is asked for, and ahead when it is asked again at once. What nobody asks for goes back
//! after a moment, so that no consumer starves beside a full buffer.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    Delivery, Error, ErrorKind, Failure, Lifetime, QueueName, Reason, ReceiveOptions, Receiver, Result,
    Settler, Ticket, Timestamp, async_trait,
};
use tokio::{task::AbortHandle, time::Instant};

use crate::{
    Shared,
    attempts::{Claim, Suspect},
    config::QueueType,
    envelope, error,
    hold::{Consumer, Handed, Hold, Inbox, State},
    link::Incoming,
    marks,
    protocol::{Properties, request},
    settler::AmqpSettler,
    watch,
};

/// How soon after one call the next shows that more is wanted than was asked for.
const HOT: Duration = Duration::from_millis(5);

/// How long the last look at an empty queue may take.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) struct AmqpReceiver {
    shared: Arc<Shared>,
    settler: Arc<AmqpSettler>,
    hold: Arc<Hold>,
    options: ReceiveOptions,
    lifetime: Lifetime,
    /// How much is fetched ahead, as learned.
    ahead: usize,
    /// Whether the last call returned all that was asked for.
    filled: bool,
    closed: bool,
    watching: AbortHandle,
}

/// Says that a call waits, until it is dropped.
struct Receiving(Arc<Hold>);

impl Receiving {
    fn new(hold: &Arc<Hold>) -> Self {
        hold.lock().receiving = true;
        Self(Arc::clone(hold))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiving = false;
        let now = Instant::now();
        state.received_at = Some(now);
        if !state.fresh.is_empty() {
            self.0.look_at(&mut state, now + crate::hold::IDLE);
        }
    }
}

impl AmqpReceiver {
    pub(crate) async fn open(
        shared: Arc<Shared>,
        queue: &QueueName,
        options: ReceiveOptions,
    ) -> Result<Self> {
        shared.check_open()?;
        if options.ordered_by_key {
            let sentence = "RabbitMQ keeps no order by partition key; use a queue per key, or one consumer";
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        shared.desk.must_exist(queue).await?;
        let lifetime = shared.topology.spec(queue).map_or(Lifetime::Durable, |spec| spec.lifetime);
        let hold = Arc::new(Hold::new(queue.clone(), lifetime == Lifetime::Temporary));
        shared.register(&hold);
        let settler = Arc::new(AmqpSettler::new(Arc::clone(&shared), Arc::clone(&hold)));
        let watching = tokio::spawn(watch::watch(Arc::downgrade(&settler))).abort_handle();
        settler.own(watching.clone());
        let mut receiver = Self {
            shared,
            settler,
            hold,
            options,
            lifetime,
            ahead: 0,
            filled: false,
            closed: false,
            watching,
        };
        if lifetime == Lifetime::Temporary {
            // From now on the queue goes away with us.
            let deadline = receiver.shared.desk.deadline();
            receiver.consume(1, deadline).await?;
        }
        Ok(receiver)
    }

    /// Makes sure that there is a channel and a consumer that fetches enough for `max` more.
    async fn consume(&mut self, max: usize, deadline: Instant) -> Result<()> {
        loop {
            if let Some(error) = self.shared.closed_error() {
                return Err(error);
            }
            if self.start_consumer(max)? {
                return Ok(());
            }
            self.open_channel(deadline.max(Instant::now() + Duration::from_secs(1))).await?;
        }
    }

    /// Starts a consumer unless there is one that fetches enough; false when there is no channel.
    fn start_consumer(&self, max: usize) -> Result<bool> {
        let mut state = self.hold.lock();
        if state.cancelled {
            return Err(Error::no_queue(&self.hold.queue));
        }
        let Some(channel) = state.channel.clone().filter(|channel| channel.is_open()) else {
            return Ok(false);
        };
        let most = usize::from(self.shared.config.prefetch).min(self.options.unsettled_max).max(1);
        let wanted = match self.shared.config.queue_type {
            QueueType::Classic if self.lifetime == Lifetime::Durable => {
                (state.out + max).max(self.ahead).clamp(1, most)
            }
            // Replacing a consumer of a quorum queue returns what is on its way to it, and changes the order; a temporary
            // queue would go away.
            QueueType::Classic | QueueType::Quorum => most,
        };
        // One that has not started cannot be replaced yet.
        if state.consumer.as_ref().is_some_and(|consumer| consumer.prefetch >= wanted || !consumer.started) {
            return Ok(true);
        }
        // In this order: two consumers at once would get the messages in an order of their own.
        state.end_consumer();
        let count = u16::try_from(wanted).unwrap_or(u16::MAX);
        let tag = format!("estafette.{}", fastrand::u64(..));
        let queue = self.hold.queue.as_str();
        // The answer comes, or the channel's end does; nobody has to wait for it.
        drop(channel.start(|out, id| request::basic_qos(out, id, count)));
        channel.write(|out, id| request::basic_consume(out, id, queue, &tag));
        state.consumer = Some(Consumer { tag, prefetch: wanted, started: false });
        Ok(true)
    }

    async fn open_channel(&self, deadline: Instant) -> Result<()> {
        let (error, generation) = {
            let state = self.hold.lock();
            (state.error.clone(), state.generation + 1)
        };
        if let Some(error) = error {
            self.recover(&error).await?;
        }
        let events = Arc::new(Inbox { hold: Arc::downgrade(&self.hold), generation });
        let channel = Arc::new(self.shared.desk.channel(events, deadline).await?);
        self.hold.lock().begin(channel);
        Ok(())
    }

    /// After a channel has ended: makes the queue again when its connection broke, and gives up when it was deleted.
    async fn recover(&self, error: &Error) -> Result<()> {
        match error.kind() {
            ErrorKind::NotFound => return Err(Error::no_queue(&self.hold.queue)),
            ErrorKind::Denied | ErrorKind::Conflict => return Err(error.clone()),
            _ => {}
        }
        tracing::info!(queue = %self.hold.queue, error = error.report(), "consuming again on a new channel");
        match self.shared.topology.spec(&self.hold.queue) {
            Some(spec) => self.shared.topology.declare(&spec).await,
            None => Ok(()),
        }
    }

    /// Hands over what has come, up to `max`.
    fn take(&mut self, max: usize) -> Taken {
        let now = Instant::now();
        let wall = Timestamp::now();
        let mut taken = Taken::default();
        let mut guard = self.hold.lock();
        let state = &mut *guard;
        let room = self.options.unsettled_max.saturating_sub(state.out).min(max);
        while taken.count() < room {
            let Some(incoming) = state.fresh.pop_front() else { break };
            self.take_one(state, incoming, (now, wall), &mut taken);
        }
        if taken.count() > 0 {
            self.hold.look_at(state, now + self.options.lease);
        }
        taken
    }

    fn take_one(&self, state: &mut State, incoming: Incoming, now: (Instant, Timestamp), taken: &mut Taken) {
        let (now, wall) = now;
        let read = envelope::read(&incoming.content, &incoming.origin);
        let failure = match &read {
            Ok(envelope) if envelope.is_expired(wall) => Some(Failure::expired(envelope)),
            Ok(_) => None,
            Err(error) => Some(Failure::new(Reason::Undecodable, error.report())),
        };
        let envelope = Arc::new(read.unwrap_or_else(|_| envelope::undecoded(incoming.content.body.clone())));
        let properties = Properties::read(&incoming.content.header).unwrap_or_default();
        let spent = marks::attempts(properties.fields());
        let was_counted = incoming.redelivered && !state.unspent.remove(&envelope.id);
        let attempt = spent + 1;
        let suspect = was_counted.then(|| Suspect {
            spent,
            redriven: envelope.headers.get(marks::REDRIVEN).and_then(|text| text.parse().ok()).unwrap_or(0),
            counted_by_broker: marks::delivery_count(properties.fields()),
        });
        let handed =
            Handed { incoming, envelope: Arc::clone(&envelope), attempt, ends_at: now + self.options.lease };
        let ticket = state.hand_over(handed);
        let claim = Claim::new(Arc::clone(&self.settler), envelope, attempt, ticket);
        match (failure, suspect) {
            (Some(failure), _) => taken.failed.push((claim, failure)),
            (None, Some(suspect)) => taken.suspects.push((claim, suspect)),
            (None, None) => taken.claims.push(claim),
        }
    }

    async fn deliver(&mut self, taken: Taken) -> Vec<Delivery> {
        let Taken { mut claims, suspects, failed } = taken;
        for (claim, failure) in failed {
            let delivery = claim.into_delivery();
            if let Err(error) = delivery.reject(failure).await {
                tracing::warn!(queue = %self.hold.queue, error = error.report(), "a message that cannot be handled could not be moved to the dead letters; it comes again");
            }
        }
        if !suspects.is_empty() {
            // In the order they came: redelivered ones come before the others.
            let mut counted = self.shared.attempts.count(&self.hold.queue, suspects).await;
            counted.append(&mut claims);
            claims = counted;
        }
        claims.into_iter().map(Claim::into_delivery).collect()
    }

    /// Learns how much is wanted: twice as much when a full hand is followed by the next call at once.
    fn learn(&mut self, max: usize) {
        let hot = {
            let state = self.hold.lock();
            self.filled && state.received_at.is_some_and(|at| at.elapsed() < HOT)
        };
        let most = usize::from(self.shared.config.prefetch).min(self.options.unsettled_max).max(1);
        if hot {
            self.ahead = (self.ahead.max(max) * 2).min(most);
        } else if !self.filled {
            self.ahead = 0;
        }
    }
}

/// What was handed over, by what is still to be done.
#[derive(Default)]
struct Taken {
    claims: Vec<Claim>,
    /// Redelivered: how often they were handed over must be found out.
    suspects: Vec<(Claim, Suspect)>,
    /// Not to be handled.
    failed: Vec<(Claim, Failure)>,
}

impl Taken {
    fn count(&self) -> usize {
        self.claims.len() + self.suspects.len() + self.failed.len()
    }
}

#[async_trait]
impl Receiver for AmqpReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        if self.closed {
            return Err(error::closed());
        }
        let deadline = Instant::now() + wait;
        self.learn(max);
        let hold = Arc::clone(&self.hold);
        let receiving = Receiving::new(&hold);
        let mut looked = false;
        loop {
            let changed = hold.changed.notified();
            self.consume(max, deadline).await?;
            let taken = self.take(max);
            if taken.count() > 0 {
                drop(receiving);
                let deliveries = self.deliver(taken).await;
                if !deliveries.is_empty() {
                    self.filled = deliveries.len() == max;
                    return Ok(deliveries);
                }
                return Box::pin(self.receive(max, deadline.saturating_duration_since(Instant::now()))).await;
            }
            let now = Instant::now();
            if max == 0 || (now >= deadline && (looked || !wait.is_zero())) {
                self.filled = false;
                // A queue that was deleted is not merely empty.
                let exists = self.shared.desk.must_exist(&hold.queue);
                return match tokio::time::timeout(LOOK, exists).await {
                    Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Err(error),
                    _ => Ok(Vec::new()),
                };
            }
            // Looking only: as long as the broker needs to answer.
            let until = if wait.is_zero() { now + self.look().await? } else { deadline };
            looked = true;
            // A time-out ends the loop on its next turn.
            drop(tokio::time::timeout_at(until, changed).await);
        }
    }

    async fn close(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let closed = self.settler.end_receiving().await;
        if self.lifetime == Lifetime::Temporary && !self.shared.connector_is_closed() {
            match self.shared.topology.delete(&self.hold.queue).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        closed
    }
}

impl AmqpReceiver {
    /// How long to wait for what the broker has, when asked only to look: not at all when it has nothing.
    async fn look(&self) -> Result<Duration> {
        let (ready, _) = self.shared.desk.must_exist(&self.hold.queue).await?;
        // What it has is on its way already, or another consumer's.
        Ok(if ready > 0 || !self.hold.lock().fresh.is_empty() {
            Duration::from_millis(100)
        } else {
            Duration::ZERO
        })
    }
}

impl Drop for AmqpReceiver {
    fn drop(&mut self) {
        if !self.closed {
            // The watching task does what closing would have done, and ends.
            let mut state = self.hold.lock();
            state.dropped = true;
            drop(state);
            self.settler.delete_at_end(self.lifetime);
            self.hold.watch.notify_one();
        } else if self.hold.lock().out == 0 {
            self.watching.abort();
        }
    }
}

/// A settler's ticket, for the claims.
pub(crate) fn deliver(claim: &Claim, ticket: Ticket, settler: Arc<dyn Settler>) -> Delivery {
    Delivery::new(Arc::clone(&claim.envelope), claim.queue().clone(), claim.attempt, ticket, settler)
}
