//! Taking deliveries and settling them, when the test says so and as its faults will have it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{
    Delivery, Error, ErrorKind, Outcome, Outgoing, QueueName, Receiver, Result, Settlement, Settler, Ticket,
    Transport, async_trait,
};
use tokio::time::Instant;

use super::{
    record::{Fate, Handled, Mishap},
    stage::Stage,
    traffic::Watched,
};

/// Out of how many ready messages at most another order is made.
const REORDERED_MAX: usize = 1000;

pub(super) struct TestReceiver {
    receiver: Box<dyn Receiver>,
    /// Taken and not yet handed over, so that their order can be another.
    taken: VecDeque<Delivery>,
    settler: Arc<TestSettler>,
    /// None once closed.
    watched: Option<Watched>,
}

impl TestReceiver {
    pub(super) fn new(stage: Arc<Stage>, receiver: Box<dyn Receiver>, queue: &QueueName) -> Self {
        let watched = Watched::new(&stage.traffic, queue);
        let settler = TestSettler { stage, queue: queue.clone(), held: Mutex::default() };
        Self { receiver, taken: VecDeque::new(), settler: Arc::new(settler), watched: Some(watched) }
    }

    /// Takes what is ready until there is something to hand over, or nothing any more.
    async fn fill(&mut self, max: usize) -> Result<()> {
        while self.taken.is_empty() {
            let max = if self.settler.stage.faults().reorders() { max.max(REORDERED_MAX) } else { max };
            let arrived = self.receiver.receive(max, Duration::ZERO).await?;
            if arrived.is_empty() {
                return Ok(());
            }
            for delivery in arrived {
                self.meet_faults(delivery).await?;
            }
            self.reorder();
        }
        Ok(())
    }

    async fn meet_faults(&mut self, delivery: Delivery) -> Result<()> {
        let TestSettler { stage, queue, .. } = &*self.settler;
        let envelope = Arc::clone(delivery.envelope());
        let duplicates = stage.faults().duplicates(queue, &envelope);
        if duplicates {
            let again = Outgoing::send(queue.clone(), Arc::clone(&envelope));
            stage.memory.publish(&[again]).await.into_iter().collect::<Result<Vec<_>>>()?;
            stage.record.mishap(stage.elapsed(), queue, &envelope, Mishap::Duplicated);
            stage.traffic.change();
        }
        let late = stage.faults().delay_of(queue, &envelope);
        if let Some(after) = late {
            delivery.settle(Outcome::Release { after }).await?;
            stage.record.mishap(stage.elapsed(), queue, &envelope, Mishap::Delayed(after));
            return Ok(());
        }
        self.taken.push_back(delivery);
        Ok(())
    }

    /// Lets those change places that a fault strikes.
    fn reorder(&mut self) {
        let mut faults = self.settler.stage.faults();
        let queue = &self.settler.queue;
        let is_struck = |(place, delivery): (usize, &Delivery)| {
            faults.displaces(queue, delivery.envelope()).then_some(place)
        };
        let places: Vec<usize> = self.taken.iter().enumerate().filter_map(is_struck).collect();
        let mut others = places.clone();
        faults.shuffle(&mut others);
        let mut slots: Vec<Option<Delivery>> = self.taken.drain(..).map(Some).collect();
        let moved: Vec<Option<Delivery>> =
            others.iter().map(|&place| slots.get_mut(place).and_then(Option::take)).collect();
        for (&place, delivery) in places.iter().zip(moved) {
            if let Some(slot) = slots.get_mut(place) {
                *slot = delivery;
            }
        }
        self.taken = slots.into_iter().flatten().collect();
    }

    fn hand_over(&mut self, max: usize) -> Vec<Delivery> {
        let count = self.taken.len().min(max);
        self.settler.stage.traffic.take_in_hand(count);
        self.taken.drain(..count).map(|delivery| TestSettler::hold(&self.settler, delivery)).collect()
    }
}

#[async_trait]
impl Receiver for TestReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        let mut changes = self.settler.stage.traffic.changes();
        loop {
            let change = *changes.borrow_and_update();
            if self.watched.is_none() {
                return Err(ErrorKind::Closed.into());
            }
            if self.settler.stage.traffic.is_running() {
                self.fill(max).await?;
                if !self.taken.is_empty() {
                    return Ok(self.hand_over(max));
                }
                if let Some(watched) = &self.watched {
                    watched.found_nothing(change);
                }
            }
            if max == 0 || Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            tokio::select! {
                // Fails only when the sender is gone, which this receiver keeps alive.
                changed = changes.changed() => changed.map_err(|_gone| Error::from(ErrorKind::Closed))?,
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.watched = None;
        for delivery in self.taken.drain(..) {
            delivery.release().await?;
        }
        let closed = self.receiver.close().await;
        self.settler.stage.traffic.change();
        closed
    }
}

/// Settles what one receiver handed over, and writes it down.
struct TestSettler {
    stage: Arc<Stage>,
    queue: QueueName,
    held: Mutex<HashMap<Ticket, Delivery>>,
}

impl TestSettler {
    fn held(&self) -> MutexGuard<'_, HashMap<Ticket, Delivery>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery to hand over in place of the transport's.
    fn hold(settler: &Arc<Self>, delivery: Delivery) -> Delivery {
        let owner = Arc::clone(settler) as Arc<dyn Settler>;
        let (envelope, queue) = (Arc::clone(delivery.envelope()), delivery.queue().clone());
        let handed_over = Delivery::new(envelope, queue, delivery.attempt(), delivery.ticket(), owner);
        settler.held().insert(delivery.ticket(), delivery);
        handed_over
    }

    async fn settle_one(&self, delivery: Delivery, outcome: Outcome) -> Result<()> {
        let envelope = Arc::clone(delivery.envelope());
        let attempt = delivery.attempt();
        let loses_ack = outcome == Outcome::Ack && self.stage.faults().loses_ack(&self.queue, &envelope);
        let (fate, result) = if loses_ack {
            drop(delivery);
            let sentence = "the test kit lost this acknowledgement";
            (Fate::AckLost, Err(Error::new(ErrorKind::Unavailable, sentence)))
        } else {
            delivery.settle(outcome.clone()).await?;
            (Fate::Settled(outcome), Ok(()))
        };
        // What a consumer that ends has not begun was not handled.
        if fate == Fate::Settled(Outcome::Release { after: Duration::ZERO }) {
            return result;
        }
        let at = self.stage.elapsed();
        self.stage.record.handle(Handled { at, queue: self.queue.clone(), envelope, attempt, fate });
        result
    }
}

#[async_trait]
impl Settler for TestSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        for Settlement { ticket, outcome } in batch {
            let delivery = self.held().remove(&ticket);
            let Some(delivery) = delivery else {
                results.push(Err(ErrorKind::LeaseLost.into()));
                continue;
            };
            results.push(self.settle_one(delivery, outcome).await);
            self.stage.traffic.let_go(1);
        }
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let settler = tickets.iter().find_map(|ticket| self.held().get(ticket)?.settler().cloned());
        match settler {
            Some(settler) => settler.extend(tickets, lease).await,
            None => vec![Err(ErrorKind::LeaseLost.into()); tickets.len()],
        }
    }

    fn abandon(&self, ticket: Ticket) {
        let delivery = self.held().remove(&ticket);
        if let Some(delivery) = delivery {
            drop(delivery);
            self.stage.traffic.let_go(1);
        }
    }
}
