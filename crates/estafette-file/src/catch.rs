//! What one look at a queue took: deliveries, and lines that become dead letters instead.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use estafette_core::{Delivery, Envelope, Failure, QueueName, Reason, Result, Settler, Ticket, wire};

use crate::{
    claim::Taken,
    held::Line,
    line::{self, History},
    name::ClaimName,
    open::OpenQueue,
    order,
    settler::FileSettler,
    sheet::{Folder, Slot},
    writer::Lines,
};

/// No more is taken in one call when the lines have so many bytes.
const BYTES_MAX: usize = 16 << 20;

pub(crate) struct Catch<'a> {
    settler: &'a Arc<FileSettler>,
    lease: Duration,
    pub(crate) deliveries: Vec<Delivery>,
    burials: Vec<Burial>,
    /// Lines without anything on them, which files made by hand have.
    blank: Vec<Ticket>,
    bytes: usize,
}

/// A line that is not handed over but becomes a dead letter.
struct Burial {
    ticket: Ticket,
    envelope: Vec<u8>,
    history: History,
}

impl<'a> Catch<'a> {
    pub(crate) fn new(settler: &'a Arc<FileSettler>, lease: Duration) -> Self {
        let (deliveries, burials, blank) = (Vec::new(), Vec::new(), Vec::new());
        Self { settler, lease, deliveries, burials, blank, bytes: 0 }
    }

    fn queue(&self) -> &'a OpenQueue {
        self.settler.queue()
    }

    fn queue_name(&self) -> &'a QueueName {
        &self.queue().queue.name
    }

    /// How many more lines may be taken when `max` are wanted.
    pub(crate) fn room(&self, max: usize) -> usize {
        if self.bytes < BYTES_MAX { max.saturating_sub(self.deliveries.len()) } else { 0 }
    }

    /// Makes deliveries of claimed lines.
    pub(crate) fn add(&mut self, taken: Taken) {
        let queue = self.queue();
        queue.insert_entries(&taken.rest);
        let Taken { name, lines: read, .. } = taken;
        if read.len() < name.entry.span.count as usize {
            self.report_cut(&name, read.len());
            if read.len() == 0 {
                return;
            }
        }
        let ends_at = Instant::now() + self.lease;
        let mut lines = Vec::with_capacity(read.len());
        let mut decoded = Vec::with_capacity(read.len());
        for (index, number) in (0..read.len()).zip(name.entry.span.first..) {
            let bytes = read.get(index);
            self.bytes += bytes.len();
            let (history, raw) = line::split(bytes);
            let envelope = wire::decode(raw);
            lines.push(Line {
                number,
                offset: read.offset(index),
                attempt: history.attempts + name.entry.attempts,
                first_failed_at: history.first_failed_at,
                key: envelope.as_ref().ok().and_then(order::key_of),
                ends_at,
                is_open: true,
            });
            decoded.push((raw, envelope));
        }
        let claim = name.number;
        queue.held().insert(name, lines.clone());
        let now = queue.store.clock.now();
        for (index, (line, (raw, envelope))) in lines.iter().zip(decoded).enumerate() {
            let ticket = Ticket { key: index as u64, fence: claim };
            let died = |failure: Failure| {
                History::failed(line.first_failed_at.as_deref(), line.attempt - 1, now).dead(failure)
            };
            match envelope {
                Ok(envelope) if envelope.is_expired(now) => {
                    let history = died(Failure::expired(&envelope));
                    self.burials.push(Burial { ticket, envelope: raw.to_vec(), history });
                }
                Ok(envelope) => self.deliver(envelope, line.attempt, ticket),
                Err(_) if raw.trim_ascii().is_empty() => self.blank.push(ticket),
                Err(error) => {
                    let queue = self.queue_name().as_str();
                    let error = error.report();
                    tracing::warn!(queue, error, "a line is no message: it becomes a dead letter");
                    let history = died(Failure::new(Reason::Undecodable, error));
                    let envelope = wire::encode(&Envelope::undecodable(raw.to_vec().into()));
                    self.burials.push(Burial { ticket, envelope, history });
                }
            }
        }
    }

    fn report_cut(&self, name: &ClaimName, found: usize) {
        let (queue, file) = (self.queue(), name.to_string());
        let problem = format!("it was cut short: {found} of {} lines are there", name.entry.span.count);
        if found == 0 {
            let name = self.queue_name().as_str();
            queue.store.set_aside(&queue.folders.claimed, &file, name, &problem);
        } else {
            tracing::warn!(queue = self.queue_name().as_str(), file, problem, "messages are missing");
        }
    }

    fn deliver(&mut self, envelope: Envelope, attempt: u32, ticket: Ticket) {
        self.settler.note_taken();
        let settler = Arc::clone(self.settler) as Arc<dyn Settler>;
        let queue = self.queue_name().clone();
        self.deliveries.push(Delivery::new(Arc::new(envelope), queue, attempt, ticket, settler));
    }

    /// Moves what is not handed over to the dead letters. What cannot be stored comes again when its lease ends.
    pub(crate) async fn bury(&mut self) -> Result<()> {
        let (burials, blank) = (std::mem::take(&mut self.burials), std::mem::take(&mut self.blank));
        let queue = self.queue();
        let mut lines = Lines::default();
        for Burial { envelope, history, .. } in &burials {
            history.write_line(envelope, &mut lines.bytes);
            lines.end_line(queue.dead_slot());
        }
        let mut first_error = Ok(());
        let mut settled: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut settle = |ticket: Ticket| {
            let line = usize::try_from(ticket.key).unwrap_or(usize::MAX);
            settled.entry(ticket.fence).or_default().push(line);
        };
        blank.into_iter().for_each(&mut settle);
        let stored = if lines.is_empty() { Vec::new() } else { queue.writer.store(lines).await };
        for (burial, result) in burials.iter().zip(stored) {
            match result {
                Ok(()) => settle(burial.ticket),
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        for (claim, lines) in settled {
            first_error = first_error.and(queue.held().finish(queue.place(), claim, &lines));
        }
        first_error
    }
}

impl OpenQueue {
    /// Where this queue's dead letters go.
    pub(crate) fn dead_slot(&self) -> Slot {
        let (queues, due) = (Arc::clone(&self.as_set), Some(self.store.clock.tick()));
        Slot { queues, folder: Folder::Dead, due, retrying: false, key: None }
    }
}
