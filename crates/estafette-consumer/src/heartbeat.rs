//! Keeping the leases of what is being handled.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{Delivery, ErrorKind, Settler, Ticket};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

/// Extends the leases of every unsettled delivery three times a lease, from a task of its own, so that a handler that
/// occupies its thread keeps its lease too.
pub(crate) struct Heartbeat {
    registry: Registry,
    task: Option<JoinHandle<()>>,
    lease: Duration,
}

/// The deliveries whose leases are kept.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    settler: Option<Arc<dyn Settler>>,
    tickets: HashSet<Ticket>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops keeping the leases of what is about to be settled.
    pub(crate) fn remove(&self, tickets: impl Iterator<Item = Ticket>) {
        let mut held = self.lock();
        for ticket in tickets {
            held.tickets.remove(&ticket);
        }
    }
}

impl Heartbeat {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { registry: Registry::default(), task: None, lease }
    }

    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Starts the task. It has had its first turn when this returns: were it still in this thread's queue, a handler that
    /// occupies the thread would keep it there.
    pub(crate) async fn start(&mut self) {
        self.task.get_or_insert_with(|| tokio::spawn(beat(self.registry.clone(), self.lease)));
        tokio::task::yield_now().await;
    }

    /// Begins to keep the leases of `deliveries`.
    pub(crate) fn add(&self, deliveries: &[Delivery]) {
        let Some(settler) = deliveries.first().and_then(Delivery::settler) else { return };
        let mut held = self.registry.lock();
        held.settler.get_or_insert_with(|| Arc::clone(settler));
        held.tickets.extend(deliveries.iter().map(Delivery::ticket));
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn beat(registry: Registry, lease: Duration) {
    let mut ticks = tokio::time::interval((lease / 3).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (settler, tickets) = {
            let held = registry.lock();
            (held.settler.clone(), held.tickets.iter().copied().collect::<Vec<_>>())
        };
        let Some(settler) = settler.filter(|_| !tickets.is_empty()) else { continue };
        let results = settler.extend(&tickets, lease).await;
        let mut held = registry.lock();
        for (ticket, result) in tickets.iter().zip(results) {
            match result {
                // Nothing to keep any more: settled meanwhile, or another consumer has it.
                Err(error) if error.kind() == ErrorKind::LeaseLost => {
                    held.tickets.remove(ticket);
                }
                // As the transport's guarantees say: trying again does not help.
                Err(error) if error.kind() == ErrorKind::Unsupported => return,
                Err(error) => tracing::warn!(error = error.report(), "a lease could not be extended"),
                Ok(()) => {}
            }
        }
    }
}
