//! Storing messages: a row for each queue that takes one.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use estafette_core::{Destination, Error, ErrorKind, Outgoing, Pattern, QueueName, Receipt, Result, Routing};

#[cfg(feature = "mysql")]
use super::mysql;
#[cfg(feature = "postgres")]
use super::postgres;
use super::{connection::Connection, micros, queues};
use crate::{
    frame,
    routes::{QueueId, Routes},
    store::Stored,
};

/// A row that is to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<'b> {
    pub(crate) queue: QueueId,
    /// Microseconds.
    pub(crate) delay: i64,
    pub(crate) key: Option<i64>,
    pub(crate) envelope: &'b [u8],
}

/// What storing takes place in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    /// A transaction that is open already.
    Transaction,
    Nothing,
}

/// What is to be stored: messages, and their envelopes as bytes.
pub(crate) struct Batch {
    messages: Vec<Outgoing>,
    bytes: Vec<u8>,
    envelopes: Vec<Range<usize>>,
}

impl Batch {
    /// Encodes the envelopes.
    pub(crate) fn new(messages: Vec<Outgoing>) -> Result<Self> {
        let size = messages.iter().map(|message| message.envelope.body.len() + 128).sum();
        let mut bytes = Vec::with_capacity(size);
        let mut envelopes = Vec::with_capacity(messages.len());
        for message in &messages {
            let start = bytes.len();
            frame::encode_into(&message.envelope, None, &mut bytes)?;
            // The row knows its length.
            envelopes.push(start + size_of::<u32>()..bytes.len());
        }
        Ok(Self { messages, bytes, envelopes })
    }
}

/// The queues and subscriptions as they were last read.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    generation: Option<i64>,
    queues: HashMap<QueueName, QueueId>,
    routes: Routes,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads them. What changes meanwhile belongs to a later generation, and will be read again.
    async fn refresh(&self, connection: &mut Connection) -> Result<()> {
        let generation = queues::generation(connection).await?;
        let mut queues = HashMap::new();
        for row in connection.rows("SELECT id, name FROM estafette_queue", &[]).await? {
            queues.insert(QueueName::try_from(row.text(1)?)?, row.integer(0)?);
        }
        let mut all = Vec::new();
        for row in connection.rows("SELECT pattern, queue FROM estafette_subscription", &[]).await? {
            all.push((Pattern::try_from(row.text(0)?)?, row.integer(1)?));
        }
        let mut inner = self.lock();
        inner.routes.replace(generation, all);
        inner.queues = queues;
        inner.generation = Some(generation);
        Ok(())
    }

    fn forget(&self) {
        self.lock().generation = None;
    }
}

/// How often a batch is routed anew because queues or subscriptions change all the time.
const TRIES_MAX: usize = 100;

/// Stores a batch as a whole. Within a transaction it is part of that, and must make no queue.
pub(crate) async fn publish(
    connection: &mut Connection,
    known: &Known,
    batch: &Batch,
    within: Within,
) -> Result<Stored> {
    for _ in 0..TRIES_MAX {
        if known.lock().generation.is_none() {
            known.refresh(connection).await?;
        }
        let routed = route(&mut known.lock(), batch);
        if !routed.missing.is_empty() {
            // A queue keeps what is sent to it before anybody consumes.
            for name in &routed.missing {
                queues::create(connection, name).await?;
            }
            known.forget();
            continue;
        }
        let Some(generation) = routed.generation else { continue };
        let is_current = match routed.rows.is_empty() {
            true => queues::generation(connection).await? == generation,
            false => insert(connection, generation, &routed, within).await?,
        };
        if is_current {
            return Ok(Stored { receipts: routed.receipts, queues: routed.queues });
        }
        known.forget();
    }
    Err(Error::new(ErrorKind::Unavailable, "queues and subscriptions change all the time"))
}

async fn insert(
    connection: &mut Connection,
    generation: i64,
    routed: &Routed<'_>,
    within: Within,
) -> Result<bool> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => {
            // One statement in any case.
            let _ = within;
            postgres::insert(connection, generation, &routed.rows, &routed.queues).await
        }
        #[cfg(feature = "mysql")]
        Connection::MySql(connection) => mysql::insert(connection, generation, &routed.rows, within).await,
    }
}

/// Where everything goes.
#[derive(Default)]
struct Routed<'b> {
    generation: Option<i64>,
    rows: Vec<New<'b>>,
    receipts: Vec<Result<Receipt>>,
    /// Those that take any of it.
    queues: Vec<QueueId>,
    /// Those that have to be made first.
    missing: Vec<QueueName>,
}

fn route<'b>(known: &mut Inner, batch: &'b Batch) -> Routed<'b> {
    let mut routed = Routed { generation: known.generation, ..Routed::default() };
    for (outgoing, range) in batch.messages.iter().zip(&batch.envelopes) {
        let queues: Arc<[QueueId]> = match &outgoing.destination {
            Destination::Topic => known.routes.queues(&outgoing.envelope.topic),
            Destination::Queue(name) => match known.queues.get(name) {
                Some(queue) => Arc::new([*queue]),
                None if outgoing.require_queue => Arc::default(),
                None => {
                    if !routed.missing.contains(name) {
                        routed.missing.push(name.clone());
                    }
                    continue;
                }
            },
        };
        routed.receipts.push(receipt(outgoing, queues.len()));
        let key = outgoing.envelope.partition_key.as_deref().map(number_of_key);
        let envelope = batch.bytes.get(range.clone()).unwrap_or_default();
        for &queue in &*queues {
            routed.rows.push(New { queue, delay: micros(outgoing.delay), key, envelope });
            if !routed.queues.contains(&queue) {
                routed.queues.push(queue);
            }
        }
    }
    routed
}

/// FNV-1a, which is the same in every version and on every machine.
fn number_of_key(key: &str) -> i64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_number_never_changes() {
        assert_eq!(number_of_key(""), 0xcbf2_9ce4_8422_2325_u64.cast_signed());
        assert_eq!(number_of_key("a"), 0xaf63_dc4c_8601_ec8c_u64.cast_signed());
    }
}
