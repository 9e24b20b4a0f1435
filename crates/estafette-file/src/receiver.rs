//! Taking deliveries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use estafette_core::{Delivery, Error, Lifetime, QueueName, ReceiveOptions, Receiver, Result, async_trait};
use tokio::time::Instant;

use crate::{
    Shared,
    catch::Catch,
    claim::{self, Wanted},
    error,
    name::EntryName,
    open::OpenQueue,
    settler::FileSettler,
};

/// How often the directory is looked at where news do not come by themselves.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// When to ask again for a turn that was somebody else's.
const TURN: Duration = Duration::from_millis(1);

pub(crate) struct FileReceiver {
    shared: Arc<Shared>,
    settler: Arc<FileSettler>,
    options: ReceiveOptions,
    /// Another receiver was taking messages in the order of their keys when this one wanted to.
    waits_for_turn: AtomicBool,
    closed: bool,
}

impl FileReceiver {
    pub(crate) fn open(shared: Arc<Shared>, queue: &QueueName, options: ReceiveOptions) -> Result<Self> {
        let queue = shared.open_queue(queue)?;
        if options.ordered_by_key {
            queue.key_order()?;
            shared.watch_claimed(&queue);
        }
        queue.receivers.fetch_add(1, Ordering::AcqRel);
        let (settler, waits_for_turn) = (Arc::new(FileSettler::new(queue)), AtomicBool::new(false));
        Ok(Self { shared, settler, options, waits_for_turn, closed: false })
    }

    fn queue(&self) -> &Arc<OpenQueue> {
        self.settler.queue()
    }

    fn check(&self) -> Result<()> {
        self.shared.check_open()?;
        if self.closed {
            return Err(error::closed());
        }
        let name = &self.queue().queue.name;
        let known = self.shared.routes.queue(&self.shared.store, name)?;
        let is_same = known.incarnation == self.queue().queue.incarnation;
        if is_same { Ok(()) } else { Err(Error::no_queue(name)) }
    }

    async fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        self.check()?;
        let room = self.options.unsettled_max.saturating_sub(self.settler.unsettled());
        let max = max.min(room);
        if max == 0 {
            return Ok(Vec::new());
        }
        self.queue().keep_up().await?;
        let mut catch = Catch::new(&self.settler, self.options.lease);
        let taken = if self.options.ordered_by_key {
            self.take_ordered(max, &mut catch)
        } else {
            self.take_due(max, &mut catch)
        };
        // However this ends from here on, what was taken is settled, delivered, or dropped, which returns it.
        let buried = catch.bury().await;
        if catch.deliveries.is_empty() {
            taken.and(buried)?;
        }
        Ok(catch.deliveries)
    }

    fn take_due(&self, max: usize, catch: &mut Catch<'_>) -> Result<()> {
        let queue = self.queue();
        while catch.room(max) > 0 {
            let now = queue.store.clock.now();
            let Some(name) = queue.backlog().pop_due(now) else { break };
            let Some(entry) = EntryName::parse(&name) else {
                queue.note_foreign(name);
                continue;
            };
            let wanted = Wanted { skip: 0, max: u32::try_from(catch.room(max)).unwrap_or(u32::MAX) };
            let until = now + self.options.lease;
            match claim::claim(&queue.store, &queue.folders, &entry, wanted, until) {
                Ok(Some(taken)) => catch.add(taken),
                Ok(None) => {}
                Err(error) => {
                    queue.backlog().insert(&name);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn take_ordered(&self, max: usize, catch: &mut Catch<'_>) -> Result<()> {
        let queue = self.queue();
        let until = queue.store.clock.now() + self.options.lease;
        let order = queue.key_order()?;
        let is_our_turn = order.take(queue, max, until, |taken| catch.add(taken))?;
        self.waits_for_turn.store(!is_our_turn, Ordering::Release);
        Ok(())
    }

    fn look_again_at(&self, deadline: Instant) -> Instant {
        if self.waits_for_turn.load(Ordering::Acquire) {
            return deadline.min(Instant::now() + TURN);
        }
        let next = Instant::from_std(self.queue().next_look());
        let next = if self.queue().is_watched() { next } else { next.min(Instant::now() + POLL_EVERY) };
        // At least a little later, whatever is due: what cannot be done now is not tried in a tight loop.
        next.max(Instant::now() + Duration::from_millis(1)).min(deadline)
    }

    fn release_queue(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let queue = self.queue();
        let is_last = queue.receivers.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && queue.queue.lifetime == Lifetime::Temporary {
            // Fails only when somebody else removed it in between, which is as good.
            crate::declare::delete(&queue.store, &queue.queue.name).unwrap_or_default();
        } else {
            queue.arrived.notify_one();
        }
    }
}

#[async_trait]
impl Receiver for FileReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        loop {
            // Registered before looking, so that what arrives in between wakes us.
            let arrived = self.queue().arrived.notified();
            let freed = self.settler.freed().notified();
            let deliveries = self.take(max).await?;
            if !deliveries.is_empty() || max == 0 || Instant::now() >= deadline {
                if !deliveries.is_empty() && self.queue().backlog().next_due().is_some() {
                    self.queue().arrived.notify_one();
                }
                return Ok(deliveries);
            }
            let look_again_at = self.look_again_at(deadline);
            tokio::select! {
                () = arrived => {}
                () = freed => {}
                () = tokio::time::sleep_until(look_again_at) => {
                    if !self.queue().is_watched() {
                        self.queue().backlog().doubt();
                    }
                }
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.release_queue();
        Ok(())
    }
}

impl Drop for FileReceiver {
    fn drop(&mut self) {
        self.release_queue();
    }
}
