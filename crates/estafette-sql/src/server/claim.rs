//! Claiming: what is due becomes leased, in the order in which it is due.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{Envelope, Error, Failure, Reason, Result, Ticket, Timestamp};
use tokio::time::Instant;

#[cfg(feature = "mysql")]
use super::mysql;
#[cfg(feature = "postgres")]
use super::postgres;
use super::{connection::Connection, integer, micros};
use crate::{
    frame,
    routes::QueueId,
    store::{Claim, Claimed},
};

/// Leaves out messages that have to wait for another of their key: one that is held, one that was handed over before, or,
/// among messages never handed over, one that came earlier. A delay asked for by the publisher is not waited for.
pub(crate) const NOT_WAITING_FOR_ITS_KEY: &str = "AND (e.partition_key IS NULL OR (
    NOT EXISTS (SELECT 1 FROM estafette_message o WHERE o.queue = e.queue AND o.partition_key = e.partition_key
        AND o.id < e.id AND (o.state > 0 OR (e.state = 0 AND o.due <= {now})))
    AND NOT EXISTS (SELECT 1 FROM estafette_message o WHERE o.queue = e.queue AND o.partition_key = e.partition_key
        AND o.id > e.id AND o.state > 0 AND (e.state = 0 OR (o.state = 2 AND o.due > {now})))))";

/// Which messages to claim.
pub(crate) struct Window {
    pub(crate) queue: QueueId,
    /// Due not before that.
    pub(crate) from: i64,
    pub(crate) max: i64,
    /// Microseconds.
    pub(crate) lease: i64,
    pub(crate) ordered_by_key: bool,
}

/// A message as it was found, leased now.
pub(crate) struct Found {
    pub(crate) id: i64,
    /// When the lease ends.
    pub(crate) end: i64,
    pub(crate) attempt: i64,
    pub(crate) place: Option<i64>,
    pub(crate) first_failed_at: Option<i64>,
    pub(crate) content: Content,
    /// The server's time.
    pub(crate) now: i64,
}

/// An envelope, or why it is none.
pub(crate) struct Content {
    pub(crate) envelope: Envelope,
    pub(crate) bytes: usize,
    damage: Option<Error>,
}

impl Content {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let (envelope, damage) = match frame::decode(bytes, None) {
            Ok(envelope) => (envelope, None),
            Err(error) => (Envelope::undecodable(bytes.to_vec().into()), Some(error)),
        };
        Self { envelope, bytes: bytes.len(), damage }
    }
}

impl Found {
    /// Why it is not to be handed over, if it is not.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if let Some(error) = &self.content.damage {
            return Some(Failure::new(Reason::Undecodable, error.report()));
        }
        let envelope = &self.content.envelope;
        envelope.is_expired(Timestamp::from_micros(self.now)).then(|| Failure::expired(envelope))
    }

    pub(crate) fn into_claimed(self) -> Claimed {
        Claimed {
            envelope: self.content.envelope,
            attempt: u32::try_from(self.attempt).unwrap_or(u32::MAX),
            ticket: Ticket {
                key: u64::try_from(self.id).unwrap_or(0),
                fence: u64::try_from(self.end).unwrap_or(0),
            },
        }
    }
}

/// The most bytes that a claim is to read, so that claiming big messages does not fill the memory.
const BYTES_MAX: usize = 32 << 20;

/// How many messages the first claim of a queue takes at most, before their size is known, and any claim.
const FIRST_MAX: usize = 32;
const MESSAGES_MAX: usize = 1000;

/// How often a claim looks from the very beginning of a queue.
///
/// What was claimed and settled there lately leaves traces in the index until the server has swept them up, and each look
/// from the beginning passes them all. So most looks begin where the last claim ended. What comes back to an earlier place, from
/// another process or a transaction that took long, is found by the next look from the beginning.
const FROM_THE_BEGINNING: Duration = Duration::from_millis(200);

/// What is remembered of the queues that were claimed from.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<HashMap<QueueId, Mark>>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where the last claim ended, and when one last looked from the beginning.
    from: i64,
    looked: Instant,
    /// How many messages to claim at most.
    max: usize,
}

impl Marks {
    /// Where to look next, and for how many messages; the beginning, if it is time for that.
    fn window(&self, claim: &Claim) -> Window {
        let mark = self.lock().get(&claim.queue).copied();
        let fresh = mark.filter(|mark| !claim.ordered_by_key && mark.looked.elapsed() < FROM_THE_BEGINNING);
        Window {
            queue: claim.queue,
            from: fresh.map_or(i64::MIN, |mark| mark.from),
            max: integer(claim.max.min(mark.map_or(FIRST_MAX, |mark| mark.max))),
            lease: micros(claim.lease),
            ordered_by_key: claim.ordered_by_key,
        }
    }

    /// Notes what was found in a window.
    fn note(&self, window: &Window, found: &[Found]) {
        let bytes: usize = found.iter().map(|found| found.content.bytes).sum();
        let fit = (BYTES_MAX / (bytes / found.len().max(1)).max(1)).clamp(1, MESSAGES_MAX);
        let mut marks = self.lock();
        let now = Instant::now();
        let mark = marks.entry(window.queue).or_insert(Mark { from: i64::MIN, looked: now, max: FIRST_MAX });
        mark.max = fit.min(mark.max.max(found.len()) * 4);
        mark.from = found.iter().filter_map(|found| found.place).max().unwrap_or(i64::MIN);
        if window.from == i64::MIN {
            mark.looked = now;
        }
    }

    /// Something of this queue may stand further to the front again.
    pub(crate) fn forget(&self, queue: QueueId) {
        if let Some(mark) = self.lock().get_mut(&queue) {
            mark.from = i64::MIN;
        }
    }

    /// Queues nobody here consumes any more need no mark.
    pub(crate) fn keep(&self, is_consumed: impl Fn(QueueId) -> bool) {
        self.lock().retain(|queue, _| is_consumed(*queue));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueId, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims up to `max` messages, the earliest first.
pub(crate) async fn claim(connection: &mut Connection, claim: &Claim, marks: &Marks) -> Result<Vec<Found>> {
    loop {
        let window = marks.window(claim);
        let mut found = claim_window(connection, &window).await?;
        marks.note(&window, &found);
        if !found.is_empty() || window.from == i64::MIN {
            found.sort_by_key(|found| (found.place, found.id));
            return Ok(found);
        }
    }
}

async fn claim_window(connection: &mut Connection, window: &Window) -> Result<Vec<Found>> {
    if !needs_transaction(connection, window) {
        return execute(connection, window).await;
    }
    connection.begin().await?;
    if window.ordered_by_key {
        // What may be handed over depends on other rows: one claim at a time.
        let lock = "SELECT id FROM estafette_queue WHERE id = ? FOR UPDATE";
        connection.integer(lock, &[window.queue.into()]).await?;
    }
    let found = execute(connection, window).await?;
    connection.commit().await?;
    Ok(found)
}

fn needs_transaction(connection: &Connection, window: &Window) -> bool {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(_) => window.ordered_by_key,
        #[cfg(feature = "mysql")]
        Connection::MySql(_) => window.ordered_by_key || window.max > 0,
    }
}

async fn execute(connection: &mut Connection, window: &Window) -> Result<Vec<Found>> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => postgres::claim(connection, window).await,
        #[cfg(feature = "mysql")]
        Connection::MySql(connection) => mysql::claim(connection, window).await,
    }
}

/// When the next message will be due, by this machine's clock.
///
/// # Errors
///
/// [`NotFound`](estafette_core::ErrorKind::NotFound) when there is no such queue any more.
pub(crate) async fn next_due(connection: &mut Connection, claim: &Claim) -> Result<Option<Timestamp>> {
    let select = "SELECT {now}, (SELECT m.due FROM estafette_message m WHERE m.queue = q.id AND m.due > {now}
        ORDER BY m.due LIMIT 1) FROM estafette_queue q WHERE q.id = ?";
    let Some(row) = connection.row(select, &[claim.queue.into()]).await? else {
        return Err(Error::no_queue(&claim.name));
    };
    let (now, due) = (row.integer(0)?, row.optional_integer(1)?);
    // Between two machines only lengths of time mean the same.
    Ok(due.map(|due| Timestamp::now() + Duration::from_micros(u64::try_from(due - now).unwrap_or(0))))
}
