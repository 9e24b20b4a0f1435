//! Taking deliveries and settling them.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    Delivery, ErrorKind, Lifetime, Outcome, QueueName, ReceiveOptions, Receiver, Result, Settlement, Settler,
    Ticket, Timestamp, async_trait,
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    LEASE_MIN, Shared, error,
    leases::{Lease, Leases},
    routes::QueueId,
    store::{Claim, Claimed, Fate},
};

pub(crate) struct SqlReceiver {
    settler: Arc<SqlSettler>,
    options: ReceiveOptions,
    lifetime: Lifetime,
    arrived: Arc<Notify>,
    closed: bool,
}

/// Settles what one receiver took.
pub(crate) struct SqlSettler {
    shared: Arc<Shared>,
    queue: QueueId,
    name: QueueName,
    leases: Arc<Leases>,
    /// Whether settling one message may let another be taken that waited for it.
    ordered_by_key: bool,
}

impl SqlReceiver {
    pub(crate) async fn open(shared: Arc<Shared>, name: &QueueName, options: ReceiveOptions) -> Result<Self> {
        let (queue, lifetime) = shared.store.consume(name).await?;
        if lifetime == Lifetime::Temporary {
            shared.owns_queues.store(true, std::sync::atomic::Ordering::Release);
        }
        let arrived = shared.wake.enter(queue);
        let settler = Arc::new(SqlSettler {
            shared: Arc::clone(&shared),
            queue,
            name: name.clone(),
            leases: Arc::default(),
            ordered_by_key: options.ordered_by_key,
        });
        let mut settlers = shared.settlers();
        settlers.retain(|settler| settler.strong_count() > 0);
        settlers.push(Arc::downgrade(&settler));
        drop(settlers);
        Ok(Self { settler, options, lifetime, arrived, closed: false })
    }

    fn check_open(&self) -> Result<()> {
        if self.closed { Err(error::closed()) } else { self.settler.shared.check_open() }
    }

    /// How many more deliveries may be out.
    fn room(&self) -> usize {
        self.options.unsettled_max.saturating_sub(self.settler.leases.count())
    }

    /// Claims up to `max`, and says when to look again without being woken.
    async fn take(&self, max: usize) -> Result<(Vec<Delivery>, Option<Timestamp>)> {
        let claim = Claim {
            queue: self.settler.queue,
            name: self.settler.name.clone(),
            max,
            lease: self.options.lease.max(LEASE_MIN),
            ordered_by_key: self.options.ordered_by_key,
        };
        // Deliveries are made where they are claimed: when this future is dropped meanwhile they are too, and return.
        let settler = Arc::clone(&self.settler);
        let deliver = Box::new(move |claimed: Claimed| settler.deliver(claimed));
        let delivered = self.settler.shared.store.claim(claim, deliver).await?;
        if delivered.deliveries.len() >= max {
            // There may be more, for another receiver.
            self.arrived.notify_one();
        }
        Ok((delivered.deliveries, delivered.next_due))
    }

    /// Waits for something to take, at most until `deadline`.
    async fn wait(&self, arrived: impl Future<Output = ()>, next_due: Option<Timestamp>, deadline: Instant) {
        // A millisecond more, so that the look is not too early by the timer's grain.
        let due_in = |due: Timestamp| due.since(Timestamp::now()) + Duration::from_millis(1);
        let next = next_due.map_or(deadline, |due| deadline.min(Instant::now() + due_in(due)));
        let waiting = self.settler.shared.wake.wait();
        tokio::select! {
            () = arrived => {}
            () = tokio::time::sleep_until(next) => {}
        }
        drop(waiting);
    }
}

#[async_trait]
impl Receiver for SqlReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        loop {
            self.check_open()?;
            let room = self.room();
            if room == 0 {
                // Not waiting for messages meanwhile: who is woken for one must be able to take it.
                let freed = tokio::time::timeout_at(deadline, self.settler.leases.freed.notified()).await;
                if freed.is_err() {
                    return Ok(Vec::new());
                }
                continue;
            }
            // Registered before looking, so that what arrives in between wakes us.
            let arrived = self.arrived.notified();
            let (deliveries, next_due) = match max.min(room) {
                0 => return Ok(Vec::new()),
                max => self.take(max).await?,
            };
            if !deliveries.is_empty() || Instant::now() >= deadline {
                return Ok(deliveries);
            }
            self.wait(arrived, next_due, deadline).await;
        }
    }

    async fn close(&mut self) -> Result<()> {
        if self.leave() {
            self.settler.shared.store.remove_temporary(&self.settler.name).await?;
        }
        Ok(())
    }
}

impl SqlReceiver {
    /// Leaves the queue, and says whether it is to go away.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.closed, true) {
            return false;
        }
        let left = self.settler.shared.wake.leave(self.settler.queue);
        left == 0 && self.lifetime == Lifetime::Temporary
    }
}

impl Drop for SqlReceiver {
    fn drop(&mut self) {
        if self.leave() {
            self.settler.shared.store.remove_temporary_later(&self.settler.name);
        }
    }
}

impl SqlSettler {
    fn deliver(self: &Arc<Self>, claimed: Claimed) -> Delivery {
        self.leases.add(claimed.ticket);
        let owner = Arc::clone(self) as Arc<dyn Settler>;
        Delivery::new(Arc::new(claimed.envelope), self.name.clone(), claimed.attempt, claimed.ticket, owner)
    }

    /// The leases that are out, to be put back: settling them is too late now.
    pub(crate) fn take_all(&self) -> (QueueId, Vec<Lease>) {
        (self.queue, self.leases.take_all())
    }
}

#[async_trait]
impl Settler for SqlSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let leases = self.leases.take(batch.iter().map(|settlement| &settlement.ticket));
        let mut results: Vec<Result<()>> = Vec::with_capacity(batch.len());
        let mut held = Vec::with_capacity(batch.len());
        let mut wakes = self.ordered_by_key;
        for (lease, settlement) in leases.into_iter().zip(batch) {
            results.push(if lease.is_some() { Ok(()) } else { Err(ErrorKind::LeaseLost.into()) });
            wakes |= !matches!(settlement.outcome, Outcome::Ack);
            held.extend(lease.map(|lease| (lease, Fate::Settled(settlement.outcome))));
        }
        if held.is_empty() {
            return results;
        }
        let settled = self.shared.store.settle(self.queue, held, wakes).await;
        if wakes {
            self.shared.wake.arrived(&[self.queue]);
        }
        let mut settled = match settled {
            Ok(settled) => settled.into_iter(),
            Err(error) => return results.into_iter().map(|lost| lost.and(Err(error.clone()))).collect(),
        };
        let missing = || Err(ErrorKind::Engine.into());
        results.into_iter().map(|lost| lost.and_then(|()| settled.next().unwrap_or_else(missing))).collect()
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let lease = lease.max(LEASE_MIN);
        let extended =
            self.shared.store.extend(self.queue, Arc::clone(&self.leases), tickets.to_vec(), lease).await;
        extended.unwrap_or_else(|error| vec![Err(error); tickets.len()])
    }

    fn abandon(&self, ticket: Ticket) {
        if let Some(lease) = self.leases.take([ticket].iter()).pop().flatten() {
            let (wake, queue) = (Arc::clone(&self.shared.wake), self.queue);
            self.shared.store.put_back(self.queue, lease, Box::new(move || wake.arrived(&[queue])));
        }
    }
}
