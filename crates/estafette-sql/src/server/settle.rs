//! Settling: what becomes of leased messages. A lease is found by where it stands: queue, its end, row id.

use estafette_core::{Envelope, ErrorKind, Failure, Outcome, Result, wire};

#[cfg(feature = "mysql")]
use super::mysql;
#[cfg(feature = "postgres")]
use super::postgres;
use super::{claim::Content, connection::Connection, micros};
use crate::{leases::Lease, routes::QueueId, store::Fate};

/// A lease that may stand: which item of a batch it is for, its end and the message's row id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) item: usize,
    pub(crate) end: i64,
    pub(crate) id: i64,
}

/// Where a leased message goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move<'b> {
    pub(crate) held: Held,
    /// Microseconds from now; back to its place if none.
    pub(crate) after: Option<i64>,
    /// Its state then; if none, fresh or handed over before as the attempts say.
    pub(crate) state: Option<i64>,
    /// Whether the attempt does not count.
    pub(crate) uncount: bool,
    /// Whether this is a failure.
    pub(crate) failed: bool,
    pub(crate) error: Option<&'b str>,
}

/// The states of a message, as stored.
const STARTED: i64 = 1;
const LEASED: i64 = 2;

impl<'b> Move<'b> {
    /// Whether `other` goes from the same lease's end to the same place.
    #[cfg(feature = "mysql")]
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let unheld = |one: &Self| (one.after, one.state, one.uncount, one.failed);
        self.held.end == other.held.end && self.error == other.error && unheld(self) == unheld(other)
    }

    fn of(fate: &'b Fate, held: Held) -> Option<Self> {
        let back =
            Self { held, after: None, state: Some(STARTED), uncount: false, failed: false, error: None };
        match fate {
            Fate::Settled(Outcome::Ack | Outcome::Reject(_)) => None,
            Fate::Settled(Outcome::Retry { after, error }) => Some(Self {
                after: Some(micros(*after)),
                failed: true,
                error: error.as_deref().map(shorten),
                ..back
            }),
            Fate::Settled(Outcome::Release { after }) if after.is_zero() => {
                Some(Self { state: None, uncount: true, ..back })
            }
            Fate::Settled(Outcome::Release { after }) => {
                Some(Self { after: Some(micros(*after)), uncount: true, ..back })
            }
            Fate::Dropped => Some(back),
            Fate::LeasedUntil(from_now) => {
                Some(Self { after: Some(from_now.as_micros()), state: Some(LEASED), ..back })
            }
        }
    }
}

/// Settles a batch: for each, in order, when the message is due now if its lease stood, or none when it was lost.
///
/// Each kind of fate is a statement of its own; between them the batch may be interrupted, as between two batches.
pub(crate) async fn settle(
    connection: &mut Connection,
    queue: QueueId,
    batch: &[(Lease, Fate)],
) -> Result<Vec<Option<i64>>> {
    let mut stood = vec![None; batch.len()];
    // Where a lease stands if the last extension of it failed, only those not found are looked for.
    for turn in 0..2 {
        settle_turn(connection, (queue, turn), batch, &mut stood).await?;
    }
    Ok(stood)
}

async fn settle_turn(
    connection: &mut Connection,
    (queue, turn): (QueueId, usize),
    batch: &[(Lease, Fate)],
    stood: &mut [Option<i64>],
) -> Result<()> {
    let (mut acks, mut moves) = (Vec::new(), Vec::new());
    for (item, (lease, fate)) in batch.iter().enumerate() {
        let is_open = stood.get(item).is_some_and(Option::is_none);
        if let Some(end) = lease.ends().nth(turn).filter(|_| is_open) {
            let held = Held { item, end, id: i64::try_from(lease.key).unwrap_or(0) };
            match (fate, Move::of(fate, held)) {
                (Fate::Settled(Outcome::Ack), _) => acks.push(held),
                (_, Some(one)) => moves.push(one),
                (Fate::Settled(Outcome::Reject(failure)), None) => {
                    if bury_held(connection, queue, held, failure).await? {
                        note(stood, (item, end));
                    }
                }
                (_, None) => {}
            }
        }
    }
    if !acks.is_empty() {
        for item in acknowledge(connection, queue, &acks).await? {
            note(stood, (item, 0));
        }
    }
    if !moves.is_empty() {
        relocate(connection, queue, &moves).await?.into_iter().for_each(|one| note(stood, one));
    }
    Ok(())
}

fn note(stood: &mut [Option<i64>], (item, due): (usize, i64)) {
    if let Some(stood) = stood.get_mut(item) {
        *stood = Some(due);
    }
}

async fn acknowledge(connection: &mut Connection, queue: QueueId, held: &[Held]) -> Result<Vec<usize>> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => postgres::acknowledge(connection, queue, held).await,
        #[cfg(feature = "mysql")]
        Connection::MySql(connection) => mysql::acknowledge(connection, queue, held).await,
    }
}

async fn relocate(
    connection: &mut Connection,
    queue: QueueId,
    moves: &[Move<'_>],
) -> Result<Vec<(usize, i64)>> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => postgres::relocate(connection, queue, moves).await,
        #[cfg(feature = "mysql")]
        Connection::MySql(connection) => mysql::relocate(connection, queue, moves).await,
    }
}

/// Makes a leased message a dead letter, and says whether its lease stood.
async fn bury_held(
    connection: &mut Connection,
    queue: QueueId,
    held: Held,
    failure: &Failure,
) -> Result<bool> {
    connection.begin().await?;
    let select = "SELECT attempt, first_failed_at, envelope FROM estafette_message
        WHERE queue = ? AND due = ? AND id = ? AND state = 2 FOR UPDATE";
    let row = connection.row(select, &[queue, held.end, held.id].map(Into::into)).await?;
    if let Some(row) = &row {
        let content = Content::read(row.bytes(2)?);
        let dead = Dead {
            held,
            attempt: row.integer(0)?,
            first_failed_at: row.optional_integer(1)?,
            envelope: &content.envelope,
        };
        bury(connection, queue, &dead, failure).await?;
    }
    connection.commit().await?;
    Ok(row.is_some())
}

/// A leased message that will not be handed over any more.
pub(crate) struct Dead<'m> {
    pub(crate) held: Held,
    pub(crate) attempt: i64,
    pub(crate) first_failed_at: Option<i64>,
    pub(crate) envelope: &'m Envelope,
}

/// Makes a message a dead letter, if its lease stands; within a transaction.
pub(crate) async fn bury(
    connection: &mut Connection,
    queue: QueueId,
    dead: &Dead<'_>,
    failure: &Failure,
) -> Result<()> {
    let delete = "DELETE FROM estafette_message WHERE queue = ? AND due = ? AND id = ? AND state = 2";
    if connection.execute(delete, &[queue, dead.held.end, dead.held.id].map(Into::into)).await? == 0 {
        return Ok(());
    }
    let json = wire::encode(dead.envelope);
    let json = std::str::from_utf8(&json).map_err(|_never| ErrorKind::Engine)?;
    let insert = "INSERT INTO estafette_dead (queue, envelope, reason, error, attempts, first_failed_at, last_failed_at)
        VALUES (?, ?, ?, ?, ?, coalesce(?, {now}), {now})";
    let error = shorten(&failure.error);
    let values = [
        queue.into(),
        json.into(),
        failure.reason.as_str().into(),
        error.into(),
        dead.attempt.into(),
        dead.first_failed_at.into(),
    ];
    connection.execute(insert, &values).await?;
    Ok(())
}

/// The end of a longer error is cut off; so is what follows a zero byte, which PostgreSQL's texts cannot hold.
fn shorten(error: &str) -> &str {
    let error = error.split('\0').next().unwrap_or_default();
    error.get(..error.floor_char_boundary(Failure::ERROR_BYTES_MAX)).unwrap_or_default()
}
