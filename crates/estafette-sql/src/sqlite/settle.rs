//! Settling: what becomes of leased messages. A lease is found by where it stands: queue, its end, block and line.

use std::time::Duration;

use estafette_core::{Envelope, ErrorKind, Failure, Outcome, Result, Timestamp, wire};

use super::{
    block::{self, Lines, key},
    entry::{Entry, state},
    session::{Session, now},
};
use crate::{leases::Lease, routes::QueueId, store::Fate};

const BURY: &str = "INSERT INTO estafette_dead
    (queue, envelope, reason, error, attempts, first_failed_at, last_failed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Whether messages of this fate need not be looked at one by one.
fn is_shared(fate: &Fate) -> bool {
    match fate {
        Fate::Settled(Outcome::Ack | Outcome::Release { .. }) | Fate::Dropped | Fate::LeasedUntil(_) => true,
        Fate::Settled(Outcome::Retry { .. } | Outcome::Reject(_)) => false,
    }
}

/// Settles a batch: for each, in order, the end of the lease that stood, or none when it was lost.
pub(crate) fn settle(
    session: &mut Session<'_>,
    queue: QueueId,
    batch: &[(Lease, Fate)],
) -> Result<Vec<Option<i64>>> {
    let now = now();
    let mut ends = vec![None; batch.len()];
    let mut items: Vec<usize> = (0..batch.len()).collect();
    // Lines that follow each other in a block are settled together, whatever order they are given in.
    items.sort_by_key(|&item| batch.get(item).map(|(lease, _)| lease.key));
    let mut items = items.as_slice();
    while let Some((&item, rest)) = items.split_first() {
        let Some((lease, fate)) = batch.get(item) else { break };
        let (block, line) = key::split(lease.key);
        let alike = |(&other, offset): (&usize, u64)| {
            is_shared(fate)
                && batch.get(other).is_some_and(|other| other.0.follows(lease, offset) && other.1 == *fate)
        };
        let following = rest.iter().zip(1..).take_while(|&next| alike(next)).count();
        let last = line + super::session::integer(following);
        let mut found = None;
        for due in lease.ends() {
            if found.is_none() {
                found = Entry::find_leased(session, queue, due, (block, line))?;
            }
        }
        let Some(entry) = found else {
            // Lost. The lines that follow may not be: each is looked for by itself.
            items = rest;
            continue;
        };
        let run = entry.cut(session, line, last.min(entry.last))?;
        let (settled, left) = items.split_at(usize::try_from(run.count()).unwrap_or(1).min(items.len()));
        for &item in settled {
            if let Some(end) = ends.get_mut(item) {
                *end = Some(entry.due);
            }
        }
        settle_run(session, run, fate, now)?;
        items = left;
    }
    Ok(ends)
}

/// Settles messages that were cut out.
fn settle_run(session: &mut Session<'_>, run: Entry, fate: &Fate, now: Timestamp) -> Result<()> {
    match fate {
        Fate::Settled(Outcome::Ack) => block::let_go(session, run.block, run.count()),
        Fate::Settled(Outcome::Retry { after, error }) => Entry {
            due: (now + *after).as_micros(),
            state: state::STARTED,
            place: None,
            first_failed_at: run.first_failed_at.or(Some(now.as_micros())),
            last_error: error.as_deref().map(|error| shorten(error).into()).or(run.last_error),
            ..run
        }
        .insert(session),
        Fate::Settled(Outcome::Reject(failure)) => {
            let envelopes = Lines::default().read(session, run.block, (run.first, run.last))?;
            for (line, envelope) in (run.first..).zip(envelopes) {
                let envelope = envelope.unwrap_or_else(|damage| damage.envelope);
                bury(session, &run.run(line, line), &envelope, failure, now)?;
            }
            Ok(())
        }
        Fate::Settled(Outcome::Release { after }) => put_back(run, Some(*after), now).insert(session),
        Fate::Dropped => put_back(run, None, now).insert(session),
        Fate::LeasedUntil(until) => Entry { due: until.as_micros(), ..run }.insert(session),
    }
}

/// The entry put back: released as if it had not been claimed, dropped so that the attempt counts.
fn put_back(run: Entry, release: Option<Duration>, now: Timestamp) -> Entry {
    let attempt = if release.is_some() { (run.attempt - 1).max(0) } else { run.attempt };
    let delay = release.filter(|after| !after.is_zero());
    let started = attempt > 0 || delay.is_some();
    Entry {
        due: delay.map_or(run.place(), |after| (now + after).as_micros()),
        state: if started { state::STARTED } else { state::FRESH },
        attempt,
        place: None,
        ..run
    }
}

/// Makes a message that was cut out a dead letter.
pub(crate) fn bury(
    session: &mut Session<'_>,
    entry: &Entry,
    envelope: &Envelope,
    failure: &Failure,
    now: Timestamp,
) -> Result<()> {
    let now = now.as_micros();
    session.statement(BURY)?.execute(&[
        entry.queue.into(),
        wire::encode(envelope).as_slice().into(),
        failure.reason.as_str().into(),
        shorten(&failure.error).into(),
        entry.attempt.into(),
        entry.first_failed_at.unwrap_or(now).into(),
        now.into(),
    ])?;
    block::let_go(session, entry.block, 1)
}

/// The end of a longer error is cut off.
fn shorten(error: &str) -> &str {
    error.get(..error.floor_char_boundary(Failure::ERROR_BYTES_MAX)).unwrap_or_default()
}

/// One result for each lease that stood or did not.
pub(crate) fn results(ends: Vec<Option<i64>>) -> Vec<Result<()>> {
    ends.into_iter().map(|end| end.map(|_stood| ()).ok_or_else(|| ErrorKind::LeaseLost.into())).collect()
}
