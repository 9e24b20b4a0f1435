//! Dead letters: listing, redriving, deleting.

use estafette_core::{DeadLetter, DeadQuery, Envelope, QueueName, Reason, Result, Timestamp};

use super::{
    columns::{COLUMNS, envelope_columns, read},
    publish::Entries,
    session::{Session, corrupt, now},
};
use crate::envelope;

/// The header that counts how often a message was redriven.
const REDRIVEN: &str = "redriven";

const SELECT: &str = concat!(
    "SELECT ",
    envelope_columns!(),
    ", d.reason, d.error, d.attempts, d.first_failed_at, d.last_failed_at, d.id
    FROM estafette_dead d CROSS JOIN estafette_message m ON m.id = d.message
    WHERE d.queue = ?1 AND (?2 IS NULL OR d.reason = ?2) ORDER BY d.id"
);
const FIND: &str = concat!(
    "SELECT ",
    envelope_columns!(),
    ", d.queue, d.message FROM estafette_dead d CROSS JOIN estafette_message m ON m.id = d.message
    WHERE d.id = ?1"
);
const DELETE: &str = "DELETE FROM estafette_dead WHERE id = ?1";
const DELETE_MESSAGE: &str =
    "DELETE FROM estafette_message WHERE id = (SELECT message FROM estafette_dead WHERE id = ?1)";
const SET_ATTRIBUTES: &str = "UPDATE estafette_message SET attributes = ?2 WHERE id = ?1";

/// The dead letters that `query` means, oldest first.
pub(crate) fn list(
    session: &mut Session<'_>,
    name: &QueueName,
    query: &DeadQuery,
) -> Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    walk(session, name, query, |_, letter| letters.push(letter))?;
    Ok(letters)
}

/// The row ids of the dead letters that `query` means, oldest first.
pub(crate) fn ids(session: &mut Session<'_>, name: &QueueName, query: &DeadQuery) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    walk(session, name, query, |id, _| ids.push(id))?;
    Ok(ids)
}

fn walk(
    session: &mut Session<'_>,
    name: &QueueName,
    query: &DeadQuery,
    mut each: impl FnMut(i64, DeadLetter),
) -> Result<()> {
    let queue = session.queue(name)?;
    let reason = query.reason.map(Reason::as_str);
    let (mut skip, mut left) = (query.skip, query.limit.unwrap_or(usize::MAX));
    if left == 0 {
        return Ok(());
    }
    session.statement(SELECT)?.query_while(&[queue.into(), reason.into()], |row| {
        let letter = DeadLetter {
            envelope: read(row, 0).0,
            queue: name.clone(),
            reason: row.text(COLUMNS)?.parse()?,
            error: row.text(COLUMNS + 1)?.to_owned(),
            attempts: u32::try_from(row.integer(COLUMNS + 2)).unwrap_or(u32::MAX),
            first_failed_at: Timestamp::from_micros(row.integer(COLUMNS + 3)),
            last_failed_at: Timestamp::from_micros(row.integer(COLUMNS + 4)),
        };
        if !query.matches(&letter) {
            return Ok(true);
        }
        if skip > 0 {
            skip -= 1;
            return Ok(true);
        }
        each(row.integer(COLUMNS + 5), letter);
        left -= 1;
        Ok(left > 0)
    })
}

/// Puts these dead letters back into their queue, and returns how many there still were.
pub(crate) fn redrive(session: &mut Session<'_>, ids: &[i64]) -> Result<u64> {
    let (find, delete) = (session.statement(FIND)?, session.statement(DELETE)?);
    let set_attributes = session.statement(SET_ATTRIBUTES)?;
    let entries = Entries::new(session)?;
    let due = now();
    let mut redriven = 0;
    for &id in ids {
        let mut found = None;
        find.query(&[id.into()], |row| {
            let (envelope, damage) = read(row, 0);
            found = Some((row.integer(COLUMNS), row.integer(COLUMNS + 1), envelope, damage));
            Ok(())
        })?;
        let Some((queue, message, mut envelope, damage)) = found else { continue };
        if let Some(damage) = damage {
            return Err(corrupt(format!("a dead letter cannot be redriven: {}", damage.report())));
        }
        count_redrive(&mut envelope)?;
        set_attributes.execute(&[message.into(), envelope::encode(&envelope)?.as_deref().into()])?;
        entries.enter(queue, due, message, envelope.partition_key.as_deref())?;
        delete.execute(&[id.into()])?;
        redriven += 1;
    }
    Ok(redriven)
}

fn count_redrive(envelope: &mut Envelope) -> Result<()> {
    let before = envelope.headers.get(REDRIVEN).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    envelope.headers.insert(REDRIVEN, &(before + 1).to_string())
}

/// Deletes these dead letters, and returns how many there still were.
pub(crate) fn purge(session: &mut Session<'_>, ids: &[i64]) -> Result<u64> {
    let (message, delete) = (session.statement(DELETE_MESSAGE)?, session.statement(DELETE)?);
    let mut purged = 0;
    for &id in ids {
        message.execute(&[id.into()])?;
        purged += u64::from(delete.execute(&[id.into()])? > 0);
    }
    Ok(purged)
}
