//! Settling: what becomes of leased entries. A lease is found by where it stands: queue, end of the lease, message.

use std::time::Duration;

use estafette_core::{ErrorKind, Failure, Outcome, Result, Timestamp};

use super::session::{Session, now};
use crate::{leases::Lease, routes::QueueId};

const DELETE_ENTRY: &str =
    "DELETE FROM estafette_entry WHERE queue = ?1 AND due = ?2 AND message = ?3 AND state = 2";
const DELETE_MESSAGE: &str = "DELETE FROM estafette_message WHERE id = ?1";
const FIND: &str = "SELECT attempt, first_failed_at, place FROM estafette_entry
    WHERE queue = ?1 AND due = ?2 AND message = ?3 AND state = 2";
const RETRY: &str = "UPDATE estafette_entry SET due = ?4, state = 1, place = NULL,
        first_failed_at = coalesce(first_failed_at, ?5), last_error = coalesce(?6, last_error)
    WHERE queue = ?1 AND due = ?2 AND message = ?3 AND state = 2";
const PUT_BACK: &str = "UPDATE estafette_entry SET due = ?4, state = ?5, attempt = ?6, place = NULL
    WHERE queue = ?1 AND due = ?2 AND message = ?3 AND state = 2";
const EXTEND: &str = "UPDATE estafette_entry SET due = ?4
    WHERE queue = ?1 AND due = ?2 AND message = ?3 AND state = 2";
const BURY: &str = "INSERT INTO estafette_dead
    (queue, message, reason, error, attempts, first_failed_at, last_failed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const DELETE_ANY_ENTRY: &str = "DELETE FROM estafette_entry WHERE queue = ?1 AND due = ?2 AND message = ?3";

/// What becomes of a delivery, dropping it included.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// As the consumer decided.
    Settled(Outcome),
    /// Dropped: back to its place, and the attempt counts.
    Dropped,
}

/// Settles a batch: one result for each, in order.
pub(crate) fn settle(
    session: &mut Session<'_>,
    queue: QueueId,
    batch: &[(Lease, Fate)],
) -> Result<Vec<Result<()>>> {
    let now = now();
    let mut results = Vec::with_capacity(batch.len());
    for (lease, fate) in batch {
        let mut held = false;
        // Of an extended lease the end before and after are known; one of them holds.
        for due in lease.ends() {
            held = held || settle_one(session, (queue, due, lease.message), fate, now)?;
        }
        results.push(if held { Ok(()) } else { Err(ErrorKind::LeaseLost.into()) });
    }
    Ok(results)
}

/// Whether there was such a lease.
fn settle_one(
    session: &mut Session<'_>,
    (queue, due, message): (QueueId, i64, i64),
    fate: &Fate,
    now: Timestamp,
) -> Result<bool> {
    let place = [queue.into(), due.into(), message.into()];
    match fate {
        Fate::Settled(Outcome::Ack) => {
            let acked = session.statement(DELETE_ENTRY)?.execute(&place)? > 0;
            if acked {
                session.statement(DELETE_MESSAGE)?.execute(&[message.into()])?;
            }
            Ok(acked)
        }
        Fate::Settled(Outcome::Retry { after, error }) => {
            let error = error.as_deref().map(|error| shorten(error));
            let [queue, due, message] = place;
            let values = [
                queue,
                due,
                message,
                (now + *after).as_micros().into(),
                now.as_micros().into(),
                error.into(),
            ];
            Ok(session.statement(RETRY)?.execute(&values)? > 0)
        }
        Fate::Settled(Outcome::Reject(failure)) => {
            let Some((attempts, first_failed_at, _)) = find(session, (queue, due, message))? else {
                return Ok(false);
            };
            bury(session, &Death { queue, due, message, attempts, first_failed_at }, failure, now)?;
            Ok(true)
        }
        Fate::Settled(Outcome::Release { after }) => {
            put_back(session, (queue, due, message), Some(*after), now)
        }
        Fate::Dropped => put_back(session, (queue, due, message), None, now),
    }
}

/// The end of a longer error is cut off.
fn shorten(error: &str) -> &str {
    error.get(..error.floor_char_boundary(Failure::ERROR_BYTES_MAX)).unwrap_or_default()
}

/// Puts an entry back: with a delay as if it had not been claimed, without one as dropped, so that the attempt counts.
fn put_back(
    session: &mut Session<'_>,
    (queue, due, message): (QueueId, i64, i64),
    release: Option<Duration>,
    now: Timestamp,
) -> Result<bool> {
    let Some((attempt, _, place)) = find(session, (queue, due, message))? else { return Ok(false) };
    let attempt = if release.is_some() { (attempt - 1).max(0) } else { attempt };
    let delay = release.filter(|after| !after.is_zero());
    let due_then = delay.map_or(place, |after| (now + after).as_micros());
    let state = i64::from(attempt > 0 || delay.is_some());
    let values = [queue, due, message, due_then, state, attempt].map(Into::into);
    Ok(session.statement(PUT_BACK)?.execute(&values)? > 0)
}

/// The attempt, the first failure and the place of a leased entry.
fn find(
    session: &mut Session<'_>,
    (queue, due, message): (QueueId, i64, i64),
) -> Result<Option<(i64, Option<i64>, i64)>> {
    let mut found = None;
    session.statement(FIND)?.query(&[queue.into(), due.into(), message.into()], |row| {
        found = Some((row.integer(0), row.optional_integer(1), row.optional_integer(2).unwrap_or(due)));
        Ok(())
    })?;
    Ok(found)
}

/// Makes leases end at `until`: for each the end that held before, if any did.
pub(crate) fn extend(
    session: &mut Session<'_>,
    queue: QueueId,
    leases: &[Option<Lease>],
    until: Timestamp,
) -> Result<Vec<Option<i64>>> {
    let statement = session.statement(EXTEND)?;
    let mut held = Vec::with_capacity(leases.len());
    for lease in leases {
        let mut end = None;
        for due in lease.iter().flat_map(Lease::ends) {
            let message = lease.as_ref().map_or(0, |lease| lease.message);
            let values = [queue, due, message, until.as_micros()].map(Into::into);
            if end.is_none() && statement.execute(&values)? > 0 {
                end = Some(due);
            }
        }
        held.push(end);
    }
    Ok(held)
}

/// An entry that becomes a dead letter.
pub(crate) struct Death {
    pub(crate) queue: QueueId,
    pub(crate) due: i64,
    pub(crate) message: i64,
    pub(crate) attempts: i64,
    pub(crate) first_failed_at: Option<i64>,
}

/// Makes an entry a dead letter. The envelope stays where it is.
pub(crate) fn bury(
    session: &mut Session<'_>,
    death: &Death,
    failure: &Failure,
    now: Timestamp,
) -> Result<()> {
    let now = now.as_micros();
    session.statement(BURY)?.execute(&[
        death.queue.into(),
        death.message.into(),
        failure.reason.as_str().into(),
        shorten(&failure.error).into(),
        death.attempts.into(),
        death.first_failed_at.unwrap_or(now).into(),
        now.into(),
    ])?;
    let place = [death.queue, death.due, death.message].map(Into::into);
    session.statement(DELETE_ANY_ENTRY)?.execute(&place)?;
    Ok(())
}
