//! Settling deliveries.
//!
//! Acks are a record in the claim's journal, or the removal of the claim when they are the last. What comes again later or
//! becomes a dead letter is stored first, by the writer's thread and with its flush, and the source settled then; its lease is
//! made long enough for that before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use estafette_core::{Outcome, Result, Settlement, Settler, Ticket, Timestamp, async_trait};
use tokio::sync::Notify;

use crate::{
    error,
    held::PutBack,
    line::{self, History},
    open::OpenQueue,
    sheet::{Folder, Slot},
    writer::Lines,
};

/// A lease that ends sooner is extended before something is stored on its account.
const STORING: Duration = Duration::from_secs(10);

/// Settles what one receiver took.
pub(crate) struct FileSettler {
    queue: Arc<OpenQueue>,
    unsettled: AtomicUsize,
    /// A delivery was settled: there may be room for another.
    freed: Notify,
}

/// Which items of a batch belong to which claim: the item's index and its line's.
type ByClaim = BTreeMap<u64, Vec<(usize, usize)>>;

impl FileSettler {
    pub(crate) fn new(queue: Arc<OpenQueue>) -> Self {
        Self { queue, unsettled: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(crate) fn queue(&self) -> &Arc<OpenQueue> {
        &self.queue
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    pub(crate) fn freed(&self) -> &Notify {
        &self.freed
    }

    pub(crate) fn note_taken(&self) {
        self.unsettled.fetch_add(1, Ordering::AcqRel);
    }

    fn note_freed(&self, count: usize) {
        self.unsettled.fetch_sub(count, Ordering::AcqRel);
        self.freed.notify_one();
    }

    /// Adds an item unless its lease has ended.
    fn group(&self, groups: &mut ByClaim, results: &mut [Result<()>], index: usize, ticket: Ticket) {
        if self.queue.held().line(ticket).is_some() {
            let line = usize::try_from(ticket.key).unwrap_or(usize::MAX);
            groups.entry(ticket.fence).or_default().push((index, line));
        } else if let Some(result) = results.get_mut(index) {
            *result = Err(error::lease_lost(&self.queue.queue.name));
        }
    }

    /// Settles whole groups with `settle`, and gives each item its group's result.
    fn settle_groups(
        groups: &ByClaim,
        results: &mut [Result<()>],
        mut settle: impl FnMut(u64, &[usize]) -> Result<()>,
    ) {
        for (&claim, items) in groups {
            let lines: Vec<usize> = items.iter().map(|&(_, line)| line).collect();
            if let Err(error) = settle(claim, &lines) {
                for &(index, _) in items {
                    if let Some(result) = results.get_mut(index) {
                        *result = Err(error.clone());
                    }
                }
            }
        }
    }

    fn finish(&self, groups: &ByClaim, results: &mut [Result<()>]) {
        let place = self.queue.place();
        let mut held = self.queue.held();
        Self::settle_groups(groups, results, |claim, lines| held.finish(place, claim, lines));
    }

    fn release(&self, batch: &[Settlement], results: &mut [Result<()>]) {
        let mut by_delay: BTreeMap<Duration, ByClaim> = BTreeMap::new();
        for (index, item) in batch.iter().enumerate() {
            if let Outcome::Release { after } = item.outcome {
                self.group(by_delay.entry(after).or_default(), results, index, item.ticket);
            }
        }
        for (after, groups) in by_delay {
            let due = (!after.is_zero()).then(|| self.queue.store.clock.now() + after);
            let mut entries = Vec::new();
            Self::settle_groups(&groups, results, |claim, lines| {
                let how = PutBack { due, counts: false };
                entries.extend(self.queue.held().put_back(self.queue.place(), claim, lines, how)?);
                Ok(())
            });
            self.queue.note_entries(&entries);
        }
    }

    /// Stores retried messages and dead letters, and then settles their sources.
    async fn store_and_finish(&self, batch: &[Settlement], results: &mut [Result<()>]) {
        let mut lines = Lines::default();
        let mut stored: Vec<(usize, Ticket)> = Vec::new();
        for (index, item) in batch.iter().enumerate() {
            let line = match &item.outcome {
                Outcome::Retry { .. } | Outcome::Reject(_) => self.stored_line(item, &mut lines),
                Outcome::Ack | Outcome::Release { .. } => continue,
            };
            match (line, results.get_mut(index)) {
                (Ok(()), _) => stored.push((index, item.ticket)),
                (Err(error), Some(result)) => *result = Err(error),
                (Err(_), None) => {}
            }
        }
        if stored.is_empty() {
            return;
        }
        let answers = self.queue.writer.store(lines).await;
        let mut groups = ByClaim::new();
        for ((index, ticket), answer) in stored.into_iter().zip(answers) {
            match (answer, results.get_mut(index)) {
                (Ok(()), _) => self.group(&mut groups, results, index, ticket),
                (Err(error), Some(result)) => *result = Err(error),
                (Err(_), None) => {}
            }
        }
        self.finish(&groups, results);
    }

    /// Appends the line that will stand for a message from now on.
    fn stored_line(&self, item: &Settlement, lines: &mut Lines) -> Result<()> {
        let place = self.queue.place();
        let now = self.queue.store.clock.now();
        let mut held = self.queue.held();
        let Some(known) = held.line(item.ticket).cloned() else { return Err(place.lost()) };
        if known.ends_at < Instant::now() + STORING {
            let line = usize::try_from(item.ticket.key).unwrap_or(usize::MAX);
            held.extend(place, item.ticket.fence, &[line], STORING)?;
        }
        let bytes = held.read(place, item.ticket)?;
        drop(held);
        let envelope = line::split(&bytes).1;
        let history = History::failed(known.first_failed_at.as_deref(), known.attempt, now);
        let (history, slot) = match &item.outcome {
            Outcome::Reject(failure) => (history.dead(failure.clone()), self.queue.dead_slot()),
            Outcome::Retry { after, error } => {
                let history = History { error: error.clone(), ..history };
                let place = self.queue.held().due(item.ticket).unwrap_or(now);
                (history, self.queue.retry_slot(*after, place, known.key))
            }
            Outcome::Ack | Outcome::Release { .. } => return Ok(()),
        };
        history.write_line(envelope, &mut lines.bytes);
        lines.end_line(slot);
        Ok(())
    }
}

impl OpenQueue {
    /// Where a retried message goes: to its old place when it is not delayed, so that it comes before its successors.
    fn retry_slot(&self, after: Duration, place: Timestamp, key: Option<u32>) -> Slot {
        let retrying = !after.is_zero();
        Slot {
            queues: Arc::clone(&self.as_set),
            folder: Folder::New,
            due: Some(if retrying { self.store.clock.now() + after } else { place }),
            retrying,
            key,
        }
    }
}

#[async_trait]
impl Settler for FileSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = vec![Ok(()); batch.len()];
        self.store_and_finish(&batch, &mut results).await;
        self.release(&batch, &mut results);
        let mut acked = ByClaim::new();
        for (index, item) in batch.iter().enumerate() {
            if item.outcome == Outcome::Ack {
                self.group(&mut acked, &mut results, index, item.ticket);
            }
        }
        self.finish(&acked, &mut results);
        self.note_freed(batch.len());
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let mut results = vec![Ok(()); tickets.len()];
        let mut groups = ByClaim::new();
        for (index, &ticket) in tickets.iter().enumerate() {
            self.group(&mut groups, &mut results, index, ticket);
        }
        let place = self.queue.place();
        let mut held = self.queue.held();
        Self::settle_groups(&groups, &mut results, |claim, lines| held.extend(place, claim, lines, lease));
        let ended = held.put_back_ended(place);
        drop(held);
        self.queue.note_entries(&ended);
        results
    }

    fn abandon(&self, ticket: Ticket) {
        let mut held = self.queue.held();
        if held.line(ticket).is_some() {
            let line = usize::try_from(ticket.key).unwrap_or(usize::MAX);
            let how = PutBack { due: None, counts: true };
            let put_back = held.put_back(self.queue.place(), ticket.fence, &[line], how);
            drop(held);
            // What cannot be put back comes again when its lease ends.
            self.queue.note_entries(&put_back.unwrap_or_default());
        } else {
            drop(held);
        }
        self.note_freed(1);
    }
}
