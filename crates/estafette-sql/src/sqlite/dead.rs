//! Dead letters: listing, redriving, deleting.

use estafette_core::{
    DeadLetter, DeadQuery, Destination, Envelope, Outgoing, QueueName, Reason, Result, Timestamp, wire,
};

use super::{
    publish::{Batch, publish},
    raw::Row,
    session::Session,
};

/// The header that counts how often a message was redriven.
const REDRIVEN: &str = "redriven";

const SELECT: &str = "SELECT id, envelope, reason, error, attempts, first_failed_at, last_failed_at
    FROM estafette_dead WHERE queue = ?1 AND (?2 IS NULL OR reason = ?2) ORDER BY id";
const FIND: &str = "SELECT d.envelope, q.name FROM estafette_dead d JOIN estafette_queue q ON q.id = d.queue
    WHERE d.id = ?1";
const DELETE: &str = "DELETE FROM estafette_dead WHERE id = ?1";

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
        let letter = read(row, name)?;
        if !query.matches(&letter) {
            return Ok(true);
        }
        if skip > 0 {
            skip -= 1;
            return Ok(true);
        }
        each(row.integer(0), letter);
        left -= 1;
        Ok(left > 0)
    })
}

fn read(row: &Row<'_>, name: &QueueName) -> Result<DeadLetter> {
    Ok(DeadLetter {
        envelope: envelope(row.bytes(1)),
        queue: name.clone(),
        reason: row.text(2)?.parse()?,
        error: row.text(3)?.to_owned(),
        attempts: u32::try_from(row.integer(4)).unwrap_or(u32::MAX),
        first_failed_at: Timestamp::from_micros(row.integer(5)),
        last_failed_at: Timestamp::from_micros(row.integer(6)),
    })
}

/// The envelope of a dead letter; one that somebody damaged is shown as its bytes.
fn envelope(line: &[u8]) -> Envelope {
    wire::decode(line).unwrap_or_else(|_damage| Envelope::undecodable(line.to_vec().into()))
}

/// Puts these dead letters back into their queue, and returns how many there still were.
pub(crate) fn redrive(session: &mut Session<'_>, ids: &[i64]) -> Result<u64> {
    let (find, delete) = (session.statement(FIND)?, session.statement(DELETE)?);
    let mut letters = Vec::with_capacity(ids.len());
    for &id in ids {
        find.query(&[id.into()], |row| {
            let mut envelope = envelope(row.bytes(0));
            count_redrive(&mut envelope)?;
            letters.push(Outgoing {
                destination: Destination::Queue(QueueName::try_from(row.text(1)?)?),
                ..Outgoing::publish(envelope)
            });
            Ok(())
        })?;
        delete.execute(&[id.into()])?;
    }
    let count = letters.len();
    publish(session, &Batch::new(letters)?)?;
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

fn count_redrive(envelope: &mut Envelope) -> Result<()> {
    let before = envelope.headers.get(REDRIVEN).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    envelope.headers.insert(REDRIVEN, &(before + 1).to_string())
}

/// Deletes these dead letters, and returns how many there still were.
pub(crate) fn purge(session: &mut Session<'_>, ids: &[i64]) -> Result<u64> {
    let delete = session.statement(DELETE)?;
    let mut purged = 0;
    for &id in ids {
        purged += u64::from(delete.execute(&[id.into()])? > 0);
    }
    Ok(purged)
}
