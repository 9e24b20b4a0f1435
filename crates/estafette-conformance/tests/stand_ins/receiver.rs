//! The stand-in's receivers and settlers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use estafette_core::{
    Delivery, Outcome, ReceiveOptions, Receiver, Result, Settlement, Settler, Ticket, async_trait,
};
use tokio::time::Instant;

use crate::{faults::Fault, transport::Shared};

pub(crate) struct BrokenReceiver {
    shared: Arc<Shared>,
    inner: Option<Box<dyn Receiver>>,
    options: ReceiveOptions,
    settler: Arc<BrokenSettler>,
    /// Fetched and not handed over yet.
    ahead: VecDeque<Delivery>,
}

impl BrokenReceiver {
    pub(crate) fn new(shared: Arc<Shared>, inner: Box<dyn Receiver>, options: ReceiveOptions) -> Self {
        let settler = BrokenSettler {
            shared: Arc::clone(&shared),
            held: Arc::default(),
            quiet_until: Mutex::default(),
        };
        Self { shared, inner: Some(inner), options, settler: Arc::new(settler), ahead: VecDeque::new() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.shared.fault == fault
    }

    async fn take(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let Some(inner) = self.inner.as_mut() else { return Ok(Vec::new()) };
        if self.shared.fault == Fault::FetchesAhead {
            if self.ahead.is_empty() {
                self.ahead.extend(inner.receive(max.max(50).min(self.options.unsettled_max), wait).await?);
            }
            let count = max.min(self.ahead.len());
            return Ok(self.ahead.drain(..count).collect());
        }
        inner.receive(max, wait).await
    }

    /// A delivery of this stand-in in the place of a correct one.
    fn replace(&self, delivery: Delivery) -> Delivery {
        let id = delivery.envelope().id.to_string();
        let counted = self.shared.counts.lock().unwrap().get(&id).copied().unwrap_or_default();
        let attempt = match self.shared.fault {
            Fault::ForgetsAttempts => 1,
            Fault::CountsOnlyRetries => counted + 1,
            Fault::RedrivesKeepingAttempts => counted + delivery.attempt(),
            _ => delivery.attempt(),
        };
        let (envelope, queue, ticket) =
            (Arc::clone(delivery.envelope()), delivery.queue().clone(), delivery.ticket());
        let owner = (Arc::clone(&self.settler.held), ticket);
        self.shared.owners.lock().unwrap().insert(ticket.key, owner);
        self.settler.held.lock().unwrap().insert(ticket, delivery);
        let settler = Arc::clone(&self.settler) as Arc<dyn Settler>;
        Delivery::new(envelope, queue, attempt, ticket, settler)
    }
}

#[async_trait]
impl Receiver for BrokenReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let quiet_until = *self.settler.quiet_until.lock().unwrap();
        if let Some(until) = quiet_until {
            tokio::time::sleep_until(until).await;
        }
        let wait = match self.shared.fault {
            Fault::NeverWaits => Duration::ZERO,
            Fault::AlwaysWaits => wait.max(Duration::from_secs(2)),
            Fault::NoticesLate => {
                tokio::time::sleep(wait).await;
                Duration::ZERO
            }
            _ => wait,
        };
        let max = max + usize::from(self.has(Fault::TakesOneMore));
        let deliveries = self.take(max, wait).await?;
        if self.has(Fault::AcksWhenReceived) {
            let mut replaced = Vec::new();
            for delivery in deliveries {
                replaced.push(self.replace(delivery));
            }
            let held = std::mem::take(&mut *self.settler.held.lock().unwrap());
            for delivery in held.into_values() {
                delivery.ack().await?;
                // Where it can be cancelled.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return Ok(replaced);
        }
        Ok(deliveries.into_iter().map(|delivery| self.replace(delivery)).collect())
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(inner) = self.inner.as_mut() {
            inner.close().await?;
        }
        Ok(())
    }
}

/// The correct deliveries that stand behind the broken ones.
pub(crate) type Held = Arc<Mutex<HashMap<Ticket, Delivery>>>;

/// Settles the correct deliveries that stand behind the broken ones.
struct BrokenSettler {
    shared: Arc<Shared>,
    held: Held,
    quiet_until: Mutex<Option<Instant>>,
}

impl BrokenSettler {
    fn has(&self, fault: Fault) -> bool {
        self.shared.fault == fault
    }

    /// Who holds the delivery that a ticket means: the one it was given to, or whoever has the message now.
    fn owner(&self, ticket: Ticket) -> (Held, Ticket) {
        let known = self.shared.owners.lock().unwrap().get(&ticket.key).cloned();
        known.filter(|_| self.has(Fault::IgnoresFences)).unwrap_or_else(|| (Arc::clone(&self.held), ticket))
    }

    fn release(&self, ticket: Ticket) -> Option<Delivery> {
        let (held, ticket) = self.owner(ticket);
        held.lock().unwrap().remove(&ticket)
    }

    /// What this stand-in makes of an outcome.
    fn spoil(&self, delivery: &Delivery, outcome: Outcome) -> Outcome {
        match (self.shared.fault, outcome) {
            (Fault::ForgetsAcks, Outcome::Ack) => Outcome::Release { after: Duration::ZERO },
            (Fault::LosesRetries, Outcome::Retry { .. }) | (Fault::DeletesRejected, Outcome::Reject(_)) => {
                Outcome::Ack
            }
            (Fault::RetriesAtOnce, Outcome::Retry { error, .. }) => {
                Outcome::Retry { after: Duration::ZERO, error }
            }
            (Fault::RetriesAtOnce, Outcome::Release { .. }) => Outcome::Release { after: Duration::ZERO },
            (Fault::CountsReleases, Outcome::Release { after }) => Outcome::Retry { after, error: None },
            (Fault::StopsDuringRetries, Outcome::Retry { after, error }) => {
                *self.quiet_until.lock().unwrap() = Some(Instant::now() + after);
                Outcome::Retry { after: Duration::ZERO, error }
            }
            (Fault::CountsOnlyRetries, outcome @ Outcome::Retry { .. }) => {
                let mut counts = self.shared.counts.lock().unwrap();
                *counts.entry(delivery.envelope().id.to_string()).or_default() += 1;
                outcome
            }
            (Fault::RedrivesKeepingAttempts, outcome @ Outcome::Reject(_)) => {
                let id = delivery.envelope().id.to_string();
                self.shared.counts.lock().unwrap().insert(id, delivery.attempt());
                outcome
            }
            (_, outcome) => outcome,
        }
    }

    async fn settle_one(&self, settlement: Settlement) -> Result<()> {
        let Settlement { ticket, outcome } = settlement;
        if self.has(Fault::AcksWhenReceived) {
            return Ok(());
        }
        let Some(delivery) = self.release(ticket) else {
            return Err(estafette_core::ErrorKind::LeaseLost.into());
        };
        let outcome = self.spoil(&delivery, outcome);
        delivery.settle(outcome).await
    }
}

#[async_trait]
impl Settler for BrokenSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for (place, settlement) in batch.into_iter().enumerate() {
            if place > 0 && self.has(Fault::SettlesOnlyTheFirst) {
                self.release(settlement.ticket);
                results.push(Ok(()));
            } else {
                results.push(self.settle_one(settlement).await);
            }
        }
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for ticket in tickets {
            let delivery = self.release(*ticket);
            let result = match &delivery {
                _ if self.has(Fault::PretendsToExtend) => Ok(()),
                Some(delivery) => delivery.extend(lease).await,
                None => Err(estafette_core::ErrorKind::LeaseLost.into()),
            };
            results.push(result);
            let (held, ticket) = self.owner(*ticket);
            held.lock().unwrap().extend(delivery.map(|delivery| (ticket, delivery)));
        }
        results
    }

    fn abandon(&self, ticket: Ticket) {
        let Some(delivery) = self.release(ticket) else { return };
        if self.has(Fault::AcksDropped) {
            // The memory transport settles at once, so the first poll is the last.
            let mut acking = Box::pin(delivery.ack());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(acking.as_mut().poll(&mut context).is_ready());
        }
    }
}
