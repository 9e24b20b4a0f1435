//! Claiming: what is due becomes leased, in the order in which it is due.

use std::time::Duration;

use estafette_core::{Envelope, Error, Failure, QueueName, Reason, Result, Ticket, Timestamp};

use super::{
    columns::{envelope_columns, read},
    publish::state,
    session::{Session, now},
    settle::{Death, bury},
};
use crate::routes::QueueId;

/// What a receiver wants.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) queue: QueueId,
    pub(crate) name: QueueName,
    pub(crate) max: usize,
    pub(crate) lease: Duration,
    pub(crate) ordered_by_key: bool,
}

/// A message that was claimed.
pub(crate) struct Claimed {
    pub(crate) envelope: Envelope,
    pub(crate) attempt: u32,
    pub(crate) ticket: Ticket,
}

/// What a claim came to.
pub(crate) struct Taken {
    pub(crate) messages: Vec<Claimed>,
    /// When something that is not due yet will be.
    pub(crate) next_due: Option<Timestamp>,
}

/// An entry that is due, and its message.
struct Due {
    due: i64,
    message: i64,
    attempt: i64,
    place: i64,
    first_failed_at: Option<i64>,
    envelope: Envelope,
    damage: Option<Error>,
}

/// The most bytes of bodies in one claim, its last message apart, so that claiming big messages does not fill the memory.
const BODY_BYTES_MAX: usize = 32 << 20;

const IS_DUE: &str = "SELECT 1 FROM estafette_entry WHERE queue = ?1 AND due <= ?2 LIMIT 1";
const NEXT_DUE: &str = "SELECT due FROM estafette_entry WHERE queue = ?1 AND due > ?2 ORDER BY due LIMIT 1";
const QUEUE_EXISTS: &str = "SELECT 1 FROM estafette_queue WHERE id = ?1";

/// In the order of the entries' tree: a range from its first entry of the queue on.
pub(crate) const SELECT: &str = concat!(
    "SELECT e.due, e.message, e.state, e.attempt, e.place, e.first_failed_at, ",
    envelope_columns!(),
    " FROM estafette_entry e CROSS JOIN estafette_message m ON m.id = e.message
    WHERE e.queue = ?1 AND e.due <= ?2 ORDER BY e.due, e.message LIMIT ?3"
);

/// The same, without messages that have to wait for another of their key: one that is held, one that was handed over before,
/// or, among messages never handed over, one that came earlier. A delay asked for by the publisher is not waited for.
pub(crate) const SELECT_ORDERED: &str = concat!(
    "SELECT e.due, e.message, e.state, e.attempt, e.place, e.first_failed_at, ",
    envelope_columns!(),
    " FROM estafette_entry e CROSS JOIN estafette_message m ON m.id = e.message
    WHERE e.queue = ?1 AND e.due <= ?2 AND (e.partition_key IS NULL OR (
        NOT EXISTS (SELECT 1 FROM estafette_entry o WHERE o.queue = e.queue AND o.partition_key = e.partition_key
            AND o.message < e.message AND (o.state > 0 OR (e.state = 0 AND o.due <= ?2)))
        AND NOT EXISTS (SELECT 1 FROM estafette_entry o WHERE o.queue = e.queue AND o.partition_key = e.partition_key
            AND o.message > e.message AND o.state > 0 AND (e.state = 0 OR (o.state = 2 AND o.due > ?2)))))
    ORDER BY e.due, e.message LIMIT ?3"
);

const LEASE: &str = "UPDATE estafette_entry SET due = ?4, state = 2, attempt = ?5, place = ?6
    WHERE queue = ?1 AND due = ?2 AND message = ?3";

/// What to answer without a transaction, when nothing is due: most looks at an idle queue.
pub(crate) fn probe(session: &mut Session<'_>, claim: &Claim) -> Result<Option<Taken>> {
    let now = now().as_micros();
    if session.statement(IS_DUE)?.integer(&[claim.queue.into(), now.into()])?.is_some() {
        return Ok(None);
    }
    if session.statement(QUEUE_EXISTS)?.integer(&[claim.queue.into()])?.is_none() {
        return Err(Error::no_queue(&claim.name));
    }
    nothing(session, claim, now).map(Some)
}

fn nothing(session: &mut Session<'_>, claim: &Claim, now: i64) -> Result<Taken> {
    let next_due = session.statement(NEXT_DUE)?.integer(&[claim.queue.into(), now.into()])?;
    Ok(Taken { messages: Vec::new(), next_due: next_due.map(Timestamp::from_micros) })
}

/// Claims up to `max` messages. Expired ones go to the dead letters instead.
pub(crate) fn claim(session: &mut Session<'_>, claim: &Claim) -> Result<Taken> {
    let now = now();
    let until = now + claim.lease;
    let mut messages = Vec::new();
    loop {
        let due = select(session, claim, claim.max - messages.len(), now)?;
        if due.is_empty() {
            break;
        }
        let mut buried = false;
        let lease = session.statement(LEASE)?;
        for entry in due {
            if let Some(failure) = entry.failure(now) {
                entry.bury(session, claim.queue, &failure, now)?;
                buried = true;
                continue;
            }
            let place =
                [claim.queue, entry.due, entry.message, until.as_micros(), entry.attempt + 1, entry.place];
            lease.execute(&place.map(Into::into))?;
            messages.push(entry.claimed(until));
        }
        if !buried {
            break;
        }
    }
    if messages.is_empty() {
        nothing(session, claim, now.as_micros())
    } else {
        Ok(Taken { messages, next_due: None })
    }
}

fn select(session: &mut Session<'_>, claim: &Claim, max: usize, now: Timestamp) -> Result<Vec<Due>> {
    let select = session.statement(if claim.ordered_by_key { SELECT_ORDERED } else { SELECT })?;
    let mut found = Vec::with_capacity(max.min(1000));
    let mut bytes = 0;
    let max = super::session::integer(max);
    select.query_while(&[claim.queue.into(), now.as_micros().into(), max.into()], |row| {
        let due = row.integer(0);
        let leased = row.integer(2) == state::LEASED;
        let (envelope, damage) = read(row, 6);
        bytes += envelope.body.len();
        found.push(Due {
            due,
            message: row.integer(1),
            attempt: row.integer(3),
            // Of a lease that ended, the place it was claimed from is kept.
            place: if leased { row.optional_integer(4).unwrap_or(due) } else { due },
            first_failed_at: row.optional_integer(5),
            envelope,
            damage,
        });
        Ok(bytes < BODY_BYTES_MAX)
    })?;
    Ok(found)
}

impl Due {
    /// Why it is not to be handed over.
    fn failure(&self, now: Timestamp) -> Option<Failure> {
        if let Some(damage) = &self.damage {
            return Some(Failure::new(Reason::Undecodable, damage.report()));
        }
        self.envelope.is_expired(now).then(|| Failure::expired(&self.envelope))
    }

    fn bury(
        &self,
        session: &mut Session<'_>,
        queue: QueueId,
        failure: &Failure,
        now: Timestamp,
    ) -> Result<()> {
        let death = Death {
            queue,
            due: self.due,
            message: self.message,
            attempts: self.attempt,
            first_failed_at: self.first_failed_at,
        };
        bury(session, &death, failure, now)
    }

    fn claimed(self, until: Timestamp) -> Claimed {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        Claimed {
            envelope: self.envelope,
            attempt: u32::try_from(self.attempt + 1).unwrap_or(u32::MAX),
            ticket: Ticket { key: unsigned(self.message), fence: unsigned(until.as_micros()) },
        }
    }
}
