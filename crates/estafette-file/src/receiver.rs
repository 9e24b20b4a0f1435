//! Taking deliveries.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use estafette_core::{
    Delivery, Envelope, Error, Failure, Lifetime, QueueName, Reason, ReceiveOptions, Receiver, Result,
    Settler, Ticket, async_trait, wire,
};
use tokio::time::Instant;

use crate::{
    Shared,
    claim::{self, Taken, Wanted},
    error,
    held::Line,
    line::{self, History},
    name::EntryName,
    open::OpenQueue,
    settler::FileSettler,
    sheet::{Folder, Slot},
    writer::Lines,
};

/// No more is taken in one call when the lines have so many bytes.
const TAKE_BYTES_MAX: usize = 16 << 20;

/// How often the directory is looked at where news do not come by themselves.
const POLL_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct FileReceiver {
    shared: Arc<Shared>,
    settler: Arc<FileSettler>,
    options: ReceiveOptions,
    closed: bool,
}

/// A line that is not handed over but becomes a dead letter.
struct Burial {
    ticket: Ticket,
    envelope: Vec<u8>,
    history: History,
}

/// What one look took.
#[derive(Default)]
struct Catch {
    deliveries: Vec<Delivery>,
    burials: Vec<Burial>,
    bytes: usize,
}

impl FileReceiver {
    pub(crate) fn open(shared: Arc<Shared>, queue: &QueueName, options: ReceiveOptions) -> Result<Self> {
        let queue = shared.open_queue(queue)?;
        queue.receivers.fetch_add(1, Ordering::AcqRel);
        Ok(Self { shared, settler: Arc::new(FileSettler::new(queue)), options, closed: false })
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
        let queue = self.queue();
        queue.keep_up().await?;
        let mut catch = Catch::default();
        let taken = self.take_due(max, &mut catch);
        // In whatever way this ends from here on, what was taken is settled, delivered or dropped, which returns it.
        let buried = self.bury(catch.burials).await;
        if catch.deliveries.is_empty() {
            taken?;
            buried?;
        }
        Ok(catch.deliveries)
    }

    fn take_due(&self, max: usize, catch: &mut Catch) -> Result<()> {
        let queue = self.queue();
        while catch.deliveries.len() < max && catch.bytes < TAKE_BYTES_MAX {
            let now = queue.store.clock.now();
            let Some(name) = queue.backlog().pop_due(now) else { break };
            let Some(entry) = EntryName::parse(&name) else {
                queue.note_foreign(name);
                continue;
            };
            let left = u32::try_from(max - catch.deliveries.len()).unwrap_or(u32::MAX);
            let wanted = Wanted { skip: 0, max: left };
            let until = now + self.options.lease;
            match claim::claim(&queue.store, &queue.folders, &entry, wanted, until) {
                Ok(Some(taken)) => self.hand_over(taken, catch),
                Ok(None) => {}
                Err(error) => {
                    queue.backlog().insert(&name);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes deliveries of claimed lines.
    fn hand_over(&self, taken: Taken, catch: &mut Catch) {
        let queue = self.queue();
        queue.note_entries(&taken.rest);
        let Taken { name, lines: read, .. } = taken;
        if read.len() == 0 {
            queue.store.set_aside(
                &queue.folders.claimed,
                &name.to_string(),
                queue.queue.name.as_str(),
                "it was cut short: the lines it should have are missing",
            );
            return;
        }
        let ends_at = std::time::Instant::now() + self.options.lease;
        let mut lines = Vec::with_capacity(read.len());
        let mut found = Vec::with_capacity(read.len());
        for (index, number) in (0..read.len()).zip(name.entry.span.first..) {
            let bytes = read.get(index);
            catch.bytes += bytes.len();
            let (history, envelope) = line::split(bytes);
            let attempt = history.attempts + name.entry.attempts;
            lines.push(Line {
                number,
                offset: read.offset(index),
                attempt,
                first_failed_at: history.first_failed_at.clone(),
                ends_at,
                is_open: true,
            });
            let ticket = Ticket { key: index as u64, fence: name.number };
            found.push((ticket, attempt, history, envelope));
        }
        queue.held().insert(name, lines);
        let now = queue.store.clock.now();
        for (ticket, attempt, history, raw) in found {
            let failed = |failure: Failure| {
                History::failed(history.first_failed_at.as_deref(), attempt - 1, now).dead(failure)
            };
            match wire::decode(raw) {
                Ok(envelope) if envelope.is_expired(now) => {
                    let history = failed(Failure::expired(&envelope));
                    catch.burials.push(Burial { ticket, envelope: raw.to_vec(), history });
                }
                Ok(envelope) => catch.deliveries.push(self.delivery(envelope, attempt, ticket)),
                Err(error) => {
                    tracing::warn!(
                        queue = queue.queue.name.as_str(),
                        error = error.report(),
                        "a line does not decode"
                    );
                    let history = failed(Failure::new(Reason::Undecodable, error.report()));
                    let envelope = Envelope::undecodable(raw.to_vec().into());
                    catch.burials.push(Burial { ticket, envelope: wire::encode(&envelope), history });
                }
            }
        }
    }

    fn delivery(&self, envelope: Envelope, attempt: u32, ticket: Ticket) -> Delivery {
        self.settler.note_taken();
        let settler = Arc::clone(&self.settler) as Arc<dyn Settler>;
        Delivery::new(Arc::new(envelope), self.queue().queue.name.clone(), attempt, ticket, settler)
    }

    /// Moves lines to the dead letters. Those that cannot be stored come again when their lease ends.
    async fn bury(&self, burials: Vec<Burial>) -> Result<()> {
        if burials.is_empty() {
            return Ok(());
        }
        let queue = self.queue();
        let mut lines = Lines::default();
        for Burial { envelope, history, .. } in &burials {
            history.write_line(envelope, &mut lines.bytes);
            lines.end_line(queue.dead_slot());
        }
        let stored = queue.writer.store(lines).await;
        let mut first_error = Ok(());
        let mut settled: HashMap<u64, Vec<usize>> = HashMap::new();
        for (burial, result) in burials.iter().zip(stored) {
            match result {
                Ok(()) => settled
                    .entry(burial.ticket.fence)
                    .or_default()
                    .push(usize::try_from(burial.ticket.key).unwrap_or(usize::MAX)),
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        for (claim, lines) in settled {
            first_error = first_error.and(queue.held().finish(queue.place(), claim, &lines));
        }
        first_error
    }

    fn look_again_at(&self, deadline: Instant) -> Instant {
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

impl OpenQueue {
    /// Where this queue's dead letters go.
    pub(crate) fn dead_slot(&self) -> Slot {
        Slot {
            queues: Arc::clone(&self.as_set),
            folder: Folder::Dead,
            due: Some(self.store.clock.tick()),
            retrying: false,
            key: None,
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
