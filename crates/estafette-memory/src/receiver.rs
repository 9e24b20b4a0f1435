//! Taking deliveries and settling them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use estafette_core::{
    Delivery, Error, Lifetime, QueueName, ReceiveOptions, Receiver, Result, Settlement, Settler, Ticket,
    async_trait,
};
use tokio::{sync::Notify, time::Instant};

use crate::{Shared, error, queue::Queue};

pub(crate) struct MemoryReceiver {
    settler: Arc<MemorySettler>,
    options: ReceiveOptions,
    closed: bool,
}

/// Settles what one receiver took.
struct MemorySettler {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    unsettled: AtomicUsize,
    /// A delivery was settled: there may be room for another.
    freed: Notify,
}

impl MemoryReceiver {
    pub(crate) fn open(shared: Arc<Shared>, queue: &QueueName, options: ReceiveOptions) -> Result<Self> {
        let queue = shared.routes.queue(queue)?;
        queue.lock().receivers += 1;
        let settler = MemorySettler { shared, queue, unsettled: AtomicUsize::new(0), freed: Notify::new() };
        Ok(Self { settler: Arc::new(settler), options, closed: false })
    }

    fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        let settler = &self.settler;
        settler.shared.check_open()?;
        if self.closed {
            return Err(error::closed());
        }
        if settler.queue.lock().deleted {
            return Err(Error::no_queue(&settler.queue.name));
        }
        let room = self.options.unsettled_max.saturating_sub(settler.unsettled.load(Ordering::Acquire));
        let taken = settler.queue.take(max.min(room), &self.options, settler.shared.clock.now());
        settler.unsettled.fetch_add(taken.len(), Ordering::AcqRel);
        let deliver = |taken: crate::queue::Taken| {
            let owner = Arc::clone(settler) as Arc<dyn Settler>;
            Delivery::new(taken.envelope, settler.queue.name.clone(), taken.attempt, taken.ticket, owner)
        };
        Ok(taken.into_iter().map(deliver).collect())
    }

    fn has_room(&self) -> bool {
        self.settler.unsettled.load(Ordering::Acquire) < self.options.unsettled_max
    }

    /// When to look again without being woken: at `deadline`, or when the next message becomes ready by itself.
    fn look_again_at(&self, deadline: Instant) -> Instant {
        let next = self.settler.queue.lock().next_event().filter(|_| self.has_room());
        let now = self.settler.shared.clock.now();
        // A millisecond more, so that the look is not too early by the timer's grain.
        next.map_or(deadline, |at| deadline.min(Instant::now() + at.since(now) + Duration::from_millis(1)))
    }

    fn release_queue(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let queue = &self.settler.queue;
        let mut state = queue.lock();
        state.receivers -= 1;
        let is_last = state.receivers == 0 && !state.deleted;
        drop(state);
        if is_last && queue.lifetime == Lifetime::Temporary {
            // Fails only when somebody else removed it in between, which is as good.
            self.settler.shared.routes.remove(&queue.name).unwrap_or_default();
        } else {
            queue.arrived.notify_one();
        }
    }
}

#[async_trait]
impl Receiver for MemoryReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        loop {
            // Registered before looking, so that what arrives in between wakes us.
            let arrived = self.settler.queue.arrived.notified();
            let freed = self.settler.freed.notified();
            let deliveries = self.take(max)?;
            if !deliveries.is_empty() || max == 0 || Instant::now() >= deadline {
                return Ok(deliveries);
            }
            // One that holds all it may does not listen: the wake-up is for another receiver.
            let can_take = self.has_room();
            tokio::select! {
                () = arrived, if can_take => {}
                () = freed => {}
                () = tokio::time::sleep_until(self.look_again_at(deadline)) => {}
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.release_queue();
        Ok(())
    }
}

impl Drop for MemoryReceiver {
    fn drop(&mut self) {
        self.release_queue();
    }
}

impl MemorySettler {
    fn freed(&self, count: usize) {
        self.unsettled.fetch_sub(count, Ordering::AcqRel);
        self.freed.notify_one();
    }
}

#[async_trait]
impl Settler for MemorySettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let count = batch.len();
        let results = self.queue.settle(batch, self.shared.clock.now());
        self.freed(count);
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let now = self.shared.clock.now();
        tickets.iter().map(|&ticket| self.queue.extend(ticket, lease, now)).collect()
    }

    fn abandon(&self, ticket: Ticket) {
        self.queue.abandon(ticket, self.shared.clock.now());
        self.freed(1);
    }
}
