//! Claiming: what is due becomes leased, in the order in which it is due.

use estafette_core::{Envelope, Error, Failure, Reason, Result, Ticket, Timestamp};

use super::{
    block::{Damage, Lines, key},
    entry::{Entry, entry_columns, state},
    session::{Session, integer, now},
    settle::bury,
};
use crate::store::{Claim, Claimed};

/// What a claim came to.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) messages: Vec<Claimed>,
    /// When something that is not due yet will be.
    pub(crate) next_due: Option<Timestamp>,
}

/// The most bytes read in one claim, its last block apart, so that claiming big messages does not fill the memory.
const BYTES_MAX: usize = 32 << 20;

const IS_DUE: &str = "SELECT 1 FROM estafette_entry WHERE queue = ?1 AND due <= ?2 LIMIT 1";
const NEXT_DUE: &str = "SELECT due FROM estafette_entry WHERE queue = ?1 AND due > ?2 ORDER BY due LIMIT 1";
const QUEUE_EXISTS: &str = "SELECT 1 FROM estafette_queue WHERE id = ?1";

/// In the order of the entries' tree: a range from its first entry of the queue on.
pub(crate) const SELECT: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM estafette_entry e WHERE e.queue = ?1 AND e.due <= ?2 ORDER BY e.due, e.block, e.first LIMIT ?3"
);

/// The same, without messages that have to wait for another of their key: one that is held, one that was handed over before,
/// or, among messages never handed over, one that came earlier. A delay asked for by the publisher is not waited for.
pub(crate) const SELECT_ORDERED: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM estafette_entry e WHERE e.queue = ?1 AND e.due <= ?2 AND (e.partition_key IS NULL OR (
        NOT EXISTS (SELECT 1 FROM estafette_entry o WHERE o.queue = e.queue AND o.partition_key = e.partition_key
            AND (o.block, o.first) < (e.block, e.first) AND (o.state > 0 OR (e.state = 0 AND o.due <= ?2)))
        AND NOT EXISTS (SELECT 1 FROM estafette_entry o WHERE o.queue = e.queue AND o.partition_key = e.partition_key
            AND (o.block, o.first) > (e.block, e.first) AND o.state > 0
            AND (e.state = 0 OR (o.state = 2 AND o.due > ?2)))))
    ORDER BY e.due, e.block, e.first LIMIT ?3"
);

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
    let mut hand =
        Hand { until: now + claim.lease, now, lines: Lines::default(), bytes: 0, messages: Vec::new() };
    loop {
        let entries = select(session, claim, claim.max - hand.messages.len(), now)?;
        let buried = hand.take_all(session, &entries, claim.max)?;
        if !buried || hand.is_full(claim.max) {
            break;
        }
    }
    if hand.messages.is_empty() {
        return nothing(session, claim, now.as_micros());
    }
    Ok(Taken { messages: hand.messages, next_due: None })
}

/// The first entries that are due, as many as hold `max` messages.
fn select(session: &mut Session<'_>, claim: &Claim, max: usize, now: Timestamp) -> Result<Vec<Entry>> {
    let select = session.statement(if claim.ordered_by_key { SELECT_ORDERED } else { SELECT })?;
    let mut found = Vec::new();
    let mut missing = integer(max);
    select.query_while(&[claim.queue.into(), now.as_micros().into(), missing.into()], |row| {
        let entry = Entry::read(row)?;
        missing -= entry.count();
        found.push(entry);
        Ok(missing > 0)
    })?;
    Ok(found)
}

/// What a claim has taken so far.
struct Hand {
    now: Timestamp,
    until: Timestamp,
    lines: Lines,
    bytes: usize,
    messages: Vec<Claimed>,
}

impl Hand {
    fn is_full(&self, max: usize) -> bool {
        self.messages.len() >= max || self.bytes >= BYTES_MAX
    }

    /// Takes the messages of `entries`, and says whether any of them was buried instead.
    fn take_all(&mut self, session: &mut Session<'_>, entries: &[Entry], max: usize) -> Result<bool> {
        let mut buried = false;
        for entry in entries {
            if self.is_full(max) {
                break;
            }
            let room = integer(max - self.messages.len());
            let last = entry.last.min(entry.first + room - 1);
            let taken = entry.cut(session, entry.first, last)?;
            buried |= self.take(session, &taken)?;
        }
        Ok(buried)
    }

    /// Takes the messages of an entry that was cut out, and says whether any of them was buried instead.
    fn take(&mut self, session: &mut Session<'_>, entry: &Entry) -> Result<bool> {
        let envelopes = self.lines.read(session, entry.block, (entry.first, entry.last))?;
        self.bytes += self.lines.bytes();
        let leased = Entry {
            due: self.until.as_micros(),
            state: state::LEASED,
            attempt: entry.attempt + 1,
            // Of a lease that ended, the place it was claimed from is kept.
            place: Some(if entry.state == state::LEASED { entry.place() } else { entry.due }),
            ..entry.clone()
        };
        let mut first = entry.first;
        for (line, envelope) in (entry.first..).zip(envelopes) {
            let (envelope, failure) = judge(envelope, self.now);
            if let Some(failure) = failure {
                if first < line {
                    leased.run(first, line - 1).insert(session)?;
                }
                first = line + 1;
                bury(session, &entry.run(line, line), &envelope, &failure, self.now)?;
            } else {
                self.messages.push(Claimed {
                    envelope,
                    attempt: u32::try_from(leased.attempt).unwrap_or(u32::MAX),
                    ticket: Ticket {
                        key: key::join(entry.block, line),
                        fence: u64::try_from(leased.due).unwrap_or(0),
                    },
                });
            }
        }
        if first <= entry.last {
            leased.run(first, entry.last).insert(session)?;
        }
        Ok(first > entry.first)
    }
}

/// The envelope, and why it is not to be handed over, if it is not.
fn judge(envelope: Result<Envelope, Box<Damage>>, now: Timestamp) -> (Envelope, Option<Failure>) {
    match envelope {
        Ok(envelope) => {
            let failure = envelope.is_expired(now).then(|| Failure::expired(&envelope));
            (envelope, failure)
        }
        Err(damage) => {
            let Damage { envelope, error } = *damage;
            (envelope, Some(Failure::new(Reason::Undecodable, error.report())))
        }
    }
}
