//! Storing messages: blocks of envelopes, and for every queue the runs of lines it takes.

use std::sync::Arc;

use estafette_core::{Destination, Error, ErrorKind, Outgoing, QueueName, Receipt, Result, Routing};

use super::{
    block::{self, Encoded},
    entry::{Entry, state},
    session::{Session, now},
};
use crate::{routes::QueueId, store::Stored};

/// What is to be stored.
pub(crate) struct Batch {
    pub(crate) messages: Vec<Outgoing>,
    pub(crate) encoded: Encoded,
}

impl Batch {
    /// Encodes the envelopes.
    pub(crate) fn new(messages: Vec<Outgoing>) -> Result<Self> {
        let mut encoded = Encoded::default();
        encoded.reserve(messages.iter().map(|message| message.envelope.body.len() + 128).sum());
        messages.iter().try_for_each(|message| encoded.push(&message.envelope))?;
        Ok(Self { messages, encoded })
    }
}

/// Stores a batch.
pub(crate) fn publish(session: &mut Session<'_>, batch: &Batch) -> Result<Stored> {
    // Taken inside the transaction: what commits later is due later, so that a queue is first in, first out.
    let now = now();
    session.refresh_routes()?;
    let mut stored = Stored { receipts: Vec::with_capacity(batch.messages.len()), queues: Vec::new() };
    let mut queues: Arc<[QueueId]> = Arc::default();
    let mut before: Option<&Outgoing> = None;
    for lines in batch.encoded.blocks() {
        let mut runs = Runs::default();
        for (line, outgoing) in (0..).zip(batch.messages.get(lines.clone()).unwrap_or_default()) {
            // Most batches are all of one topic.
            if !before.replace(outgoing).is_some_and(|before| goes_where(outgoing, before)) {
                route(session, outgoing, &mut queues)?;
            }
            stored.receipts.push(receipt(outgoing, queues.len()));
            let due = (now + outgoing.delay).as_micros();
            let key = outgoing.envelope.partition_key.as_deref();
            for &queue in &*queues {
                runs.add(line, queue, due, key);
                if !stored.queues.contains(&queue) {
                    stored.queues.push(queue);
                }
            }
        }
        runs.store(session, batch.encoded.lines(lines)?)?;
    }
    Ok(stored)
}

/// What queues take of a block. A line that none takes stays in it, unused, as long as it lives.
#[derive(Default)]
struct Runs(Vec<Entry>);

impl Runs {
    /// Adds a line, the next one, to what `queue` takes.
    fn add(&mut self, line: i64, queue: QueueId, due: i64, key: Option<&str>) {
        let run = self.0.iter_mut().rev().find(|run| run.queue == queue);
        match run {
            Some(run) if key.is_none() && run.key.is_none() && run.due == due && run.last == line - 1 => {
                run.last = line;
            }
            _ => self.0.push(Entry {
                queue,
                due,
                block: 0,
                first: line,
                last: line,
                state: state::FRESH,
                attempt: 0,
                place: None,
                key: key.map(Into::into),
                first_failed_at: None,
                last_error: None,
            }),
        }
    }

    /// Stores them and the block, if any queue takes any of it.
    fn store(self, session: &mut Session<'_>, envelopes: &[u8]) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let block = block::insert(session, envelopes, self.0.iter().map(Entry::count).sum())?;
        self.0.into_iter().try_for_each(|run| Entry { block, ..run }.insert(session))
    }
}

/// Whether `outgoing` goes to the queues that `before` went to.
fn goes_where(outgoing: &Outgoing, before: &Outgoing) -> bool {
    match (&outgoing.destination, &before.destination) {
        (Destination::Topic, Destination::Topic) => outgoing.envelope.topic == before.envelope.topic,
        // Requiring a queue decides whether it is made.
        (Destination::Queue(name), Destination::Queue(other)) => {
            name == other && outgoing.require_queue == before.require_queue
        }
        _ => false,
    }
}

/// Puts the queues that take `outgoing` into `queues`.
fn route(session: &mut Session<'_>, outgoing: &Outgoing, queues: &mut Arc<[QueueId]>) -> Result<()> {
    *queues = match &outgoing.destination {
        Destination::Topic => session.routes().queues(&outgoing.envelope.topic),
        Destination::Queue(name) if outgoing.require_queue => session.find_queue(name)?.into_iter().collect(),
        Destination::Queue(name) => Arc::new([find_or_create(session, name)?]),
    };
    Ok(())
}

fn receipt(outgoing: &Outgoing, queues: usize) -> Result<Receipt> {
    let routing = Routing::to_queues(queues);
    let envelope = &outgoing.envelope;
    if outgoing.require_queue && !routing.is_routed() {
        let sentence = match &outgoing.destination {
            Destination::Topic => {
                format!("no queue is subscribed to {}, and one was required", envelope.topic)
            }
            Destination::Queue(name) => format!("queue {name} does not exist, and it was required to"),
        };
        return Err(Error::new(ErrorKind::Unroutable, sentence));
    }
    Ok(Receipt { id: envelope.id.clone(), routing })
}

/// The queue of that name, made durable when there is none: a queue keeps what is sent to it before anybody consumes.
fn find_or_create(session: &mut Session<'_>, name: &QueueName) -> Result<QueueId> {
    if let Some(queue) = session.find_queue(name)? {
        return Ok(queue);
    }
    session.statement("INSERT INTO estafette_queue (name) VALUES (?1)")?.execute(&[name.as_str().into()])?;
    let queue = session.last_insert_rowid();
    session.change_generation()?;
    Ok(queue)
}
