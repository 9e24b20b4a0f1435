//! Dead letters: listing, redriving, deleting.

use estafette_core::{
    DeadLetter, DeadQuery, Destination, Envelope, Outgoing, QueueName, Reason, Result, Timestamp, wire,
};

use super::{
    connection::{Connection, Row, Value},
    integer,
    publish::{Batch, Known, Within, publish},
    queues,
};

/// The header that counts how often a message was redriven.
const REDRIVEN: &str = "redriven";

/// How many dead letters are read at a time.
const PAGE: usize = 500;

const COLUMNS: &str = "id, envelope, reason, error, attempts, first_failed_at, last_failed_at";

/// The dead letters that `query` means with their row ids, oldest first.
pub(crate) async fn list(
    connection: &mut Connection,
    name: &QueueName,
    query: &DeadQuery,
) -> Result<Vec<(i64, DeadLetter)>> {
    let queue = queues::queue(connection, name).await?;
    let (mut skip, limit) = (query.skip, query.limit.unwrap_or(usize::MAX));
    let reason = query.reason.map(Reason::as_str);
    let (mut letters, mut last) = (Vec::new(), i64::MIN);
    while letters.len() < limit {
        let of_reason = if reason.is_some() { "AND reason = ?" } else { "" };
        let select = format!(
            "SELECT {COLUMNS} FROM estafette_dead WHERE queue = ? AND id > ? {of_reason} ORDER BY id LIMIT ?"
        );
        let mut values = vec![Value::from(queue), last.into()];
        values.extend(reason.map(Value::from));
        values.push(integer(PAGE).into());
        let rows = connection.rows(&select, &values).await?;
        for row in &rows {
            last = row.integer(0)?;
            let letter = read(row, name)?;
            if !query.matches(&letter) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
            } else if letters.len() < limit {
                letters.push((last, letter));
            }
        }
        if rows.len() < PAGE {
            break;
        }
    }
    Ok(letters)
}

fn read(row: &Row, name: &QueueName) -> Result<DeadLetter> {
    Ok(DeadLetter {
        envelope: envelope(row.text(1)?),
        queue: name.clone(),
        reason: row.text(2)?.parse()?,
        error: row.text(3)?.to_owned(),
        attempts: u32::try_from(row.integer(4)?).unwrap_or(u32::MAX),
        first_failed_at: Timestamp::from_micros(row.integer(5)?),
        last_failed_at: Timestamp::from_micros(row.integer(6)?),
    })
}

/// The envelope of a dead letter; one that somebody damaged is shown as its bytes.
fn envelope(json: &str) -> Envelope {
    let undecodable = || Envelope::undecodable(json.as_bytes().to_vec().into());
    wire::decode(json.as_bytes()).unwrap_or_else(|_damage| undecodable())
}

/// A dead letter of that row id, locked until the end of the transaction.
const TAKE: &str = "SELECT envelope FROM estafette_dead WHERE id = ? FOR UPDATE";

/// Puts these dead letters back into their queue, and returns how many there still were.
pub(crate) async fn redrive(
    connection: &mut Connection,
    known: &Known,
    name: &QueueName,
    ids: &[i64],
) -> Result<u64> {
    connection.begin().await?;
    let mut letters = Vec::with_capacity(ids.len());
    for &id in ids {
        if let Some(row) = connection.row(TAKE, &[id.into()]).await? {
            let mut envelope = envelope(row.text(0)?);
            count_redrive(&mut envelope)?;
            letters.push(Outgoing {
                destination: Destination::Queue(name.clone()),
                // Making one would need a transaction of its own.
                require_queue: true,
                ..Outgoing::publish(envelope)
            });
            delete(connection, id).await?;
        }
    }
    let count = u64::try_from(letters.len()).unwrap_or(u64::MAX);
    let stored = publish(connection, known, &Batch::new(letters)?, Within::Transaction).await?;
    stored.receipts.into_iter().collect::<Result<Vec<_>>>()?;
    connection.commit().await?;
    Ok(count)
}

fn count_redrive(envelope: &mut Envelope) -> Result<()> {
    let before = envelope.headers.get(REDRIVEN).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    envelope.headers.insert(REDRIVEN, &(before + 1).to_string())
}

async fn delete(connection: &mut Connection, id: i64) -> Result<u64> {
    connection.execute("DELETE FROM estafette_dead WHERE id = ?", &[id.into()]).await
}

/// Deletes these dead letters, and returns how many there still were.
pub(crate) async fn purge(connection: &mut Connection, ids: &[i64]) -> Result<u64> {
    connection.begin().await?;
    let mut purged = 0;
    for &id in ids {
        purged += delete(connection, id).await?;
    }
    connection.commit().await?;
    Ok(purged)
}
