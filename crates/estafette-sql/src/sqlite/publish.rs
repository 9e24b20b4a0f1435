//! Storing messages: an envelope row and an entry row for every queue that takes one.

use std::rc::Rc;

use estafette_core::{
    Destination, Envelope, Error, ErrorKind, Outgoing, QueueName, Receipt, Result, Routing, Timestamp,
};

use super::{
    columns::Insert,
    raw::Statement,
    session::{Session, now},
};
use crate::routes::QueueId;

/// The states of an entry, as stored.
pub(crate) mod state {
    /// Never handed over, or put back as if it never was.
    pub(crate) const FRESH: i64 = 0;
    /// Handed over before; waits for its turn or for a retry.
    pub(crate) const STARTED: i64 = 1;
    /// A consumer holds it, until it is due.
    pub(crate) const LEASED: i64 = 2;
}

/// What storing a batch came to.
pub(crate) struct Stored {
    /// One for each message, in order.
    pub(crate) receipts: Vec<Result<Receipt>>,
    /// The queues that took any of them.
    pub(crate) queues: Vec<QueueId>,
}

const INSERT_ENTRY: &str = "INSERT INTO estafette_entry (queue, due, message, state, attempt, partition_key)
    VALUES (?1, ?2, ?3, 0, 0, ?4)";

/// Inserts entries of a transaction.
pub(crate) struct Entries<'d> {
    message: Insert<'d>,
    entry: Rc<Statement<'d>>,
}

impl<'d> Entries<'d> {
    pub(crate) fn new(session: &mut Session<'d>) -> Result<Self> {
        Ok(Self { message: Insert::new(session)?, entry: session.statement(INSERT_ENTRY)? })
    }

    /// Stores `envelope` in `queue`, to be claimed from `due` on.
    fn insert(
        &self,
        session: &Session<'_>,
        queue: QueueId,
        due: Timestamp,
        envelope: &Envelope,
    ) -> Result<()> {
        self.message.insert(envelope)?;
        self.enter(queue, due, session.last_insert_rowid(), envelope.partition_key.as_deref())
    }

    /// Enters a stored message into `queue`.
    pub(crate) fn enter(
        &self,
        queue: QueueId,
        due: Timestamp,
        message: i64,
        key: Option<&str>,
    ) -> Result<()> {
        self.entry.execute(&[queue.into(), due.as_micros().into(), message.into(), key.into()])?;
        Ok(())
    }
}

/// Stores a batch.
pub(crate) fn publish(session: &mut Session<'_>, batch: &[Outgoing]) -> Result<Stored> {
    // Taken inside the transaction: what commits later is due later, so that a queue is first in, first out.
    let now = now();
    let entries = Entries::new(session)?;
    let mut stored = Stored { receipts: Vec::with_capacity(batch.len()), queues: Vec::new() };
    let mut queues = Vec::new();
    for outgoing in batch {
        route(session, outgoing, &mut queues)?;
        stored.receipts.push(receipt(outgoing, queues.len()));
        for &queue in &queues {
            entries.insert(session, queue, now + outgoing.delay, &outgoing.envelope)?;
            if !stored.queues.contains(&queue) {
                stored.queues.push(queue);
            }
        }
    }
    Ok(stored)
}

/// Puts the queues that take `outgoing` into `queues`.
fn route(session: &mut Session<'_>, outgoing: &Outgoing, queues: &mut Vec<QueueId>) -> Result<()> {
    queues.clear();
    match &outgoing.destination {
        Destination::Topic => {
            queues.extend_from_slice(session.routes()?.queues(&outgoing.envelope.topic));
        }
        Destination::Queue(name) => queues.push(find_or_create(session, name)?),
    }
    Ok(())
}

fn receipt(outgoing: &Outgoing, queues: usize) -> Result<Receipt> {
    let routing = Routing::to_queues(queues);
    let envelope = &outgoing.envelope;
    if outgoing.require_queue && !routing.is_routed() {
        let sentence = format!("no queue is subscribed to {}", envelope.topic);
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
