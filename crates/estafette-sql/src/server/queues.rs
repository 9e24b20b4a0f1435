//! Queues and subscriptions: declaring, deleting, counting.

use std::collections::HashMap;

use estafette_core::{
    Error, ErrorKind, Lifetime, MessageId, Pattern, QueueName, QueueSpec, QueueStatus, Result,
};

use super::{
    claim::Content,
    connection::{Connection, Row, Value},
    integer,
};
use crate::routes::QueueId;

/// How many changes of queues and subscriptions there were.
pub(crate) async fn generation(connection: &mut Connection) -> Result<i64> {
    Ok(connection.integer("SELECT generation FROM estafette_schema", &[]).await?.unwrap_or(0))
}

/// Begins to change queues or subscriptions, within a transaction: one at a time.
async fn begin_change(connection: &mut Connection) -> Result<()> {
    connection.integer("SELECT generation FROM estafette_schema FOR UPDATE", &[]).await.map(drop)
}

async fn change_generation(connection: &mut Connection) -> Result<()> {
    connection.execute("UPDATE estafette_schema SET generation = generation + 1", &[]).await.map(drop)
}

/// Makes sure the queue and its subscriptions exist. `owner` is who owns it when it is temporary.
pub(crate) async fn declare(connection: &mut Connection, spec: &QueueSpec, owner: &str) -> Result<()> {
    if is_declared(connection, spec).await? {
        return Ok(());
    }
    connection.begin().await?;
    begin_change(connection).await?;
    let queue = match find(connection, &spec.name).await? {
        Some((queue, found)) => check_lifetime(spec, found).map(|()| queue)?,
        None => {
            let owner = Some(owner).filter(|_| spec.lifetime == Lifetime::Temporary);
            connection.insert_queue(spec.name.as_str(), owner).await?
        }
    };
    let known = patterns(connection, queue).await?;
    for pattern in spec.patterns.iter().filter(|pattern| !known.contains(pattern)) {
        let insert = "INSERT INTO estafette_subscription (queue, pattern) VALUES (?, ?)";
        connection.execute(insert, &[queue.into(), pattern.as_str().into()]).await?;
    }
    change_generation(connection).await?;
    connection.commit().await
}

/// Whether there is nothing to do, which is so most times.
async fn is_declared(connection: &mut Connection, spec: &QueueSpec) -> Result<bool> {
    let Some((queue, found)) = find(connection, &spec.name).await? else { return Ok(false) };
    check_lifetime(spec, found)?;
    let known = if spec.patterns.is_empty() { Vec::new() } else { patterns(connection, queue).await? };
    Ok(spec.patterns.iter().all(|pattern| known.contains(pattern)))
}

fn check_lifetime(spec: &QueueSpec, found: Lifetime) -> Result<()> {
    if spec.lifetime == found {
        return Ok(());
    }
    let found = match found {
        Lifetime::Durable => "durable",
        Lifetime::Temporary => "temporary",
    };
    Err(Error::new(ErrorKind::Conflict, format!("queue {} exists and is {found}", spec.name)))
}

async fn patterns(connection: &mut Connection, queue: QueueId) -> Result<Vec<Pattern>> {
    let select = "SELECT pattern FROM estafette_subscription WHERE queue = ?";
    let rows = connection.rows(select, &[queue.into()]).await?;
    rows.iter().map(|row| Pattern::try_from(row.text(0)?)).collect()
}

/// A durable queue, made when there is none of that name.
pub(crate) async fn create(connection: &mut Connection, name: &QueueName) -> Result<()> {
    declare(connection, &QueueSpec::durable(name.clone()), "").await
}

/// A queue's row id and lifetime.
pub(crate) async fn find(
    connection: &mut Connection,
    name: &QueueName,
) -> Result<Option<(QueueId, Lifetime)>> {
    let select = "SELECT id, owner FROM estafette_queue WHERE name = ?";
    let Some(row) = connection.row(select, &[name.as_str().into()]).await? else { return Ok(None) };
    Ok(Some((row.integer(0)?, lifetime(&row, 1)?)))
}

/// The row id of a queue that must exist.
pub(crate) async fn queue(connection: &mut Connection, name: &QueueName) -> Result<QueueId> {
    let found = find(connection, name).await?;
    found.map(|(queue, _)| queue).ok_or_else(|| Error::no_queue(name))
}

fn lifetime(row: &Row, owner: usize) -> Result<Lifetime> {
    let owner = row.optional_text(owner)?;
    Ok(if owner.is_none() { Lifetime::Durable } else { Lifetime::Temporary })
}

/// Ends a subscription.
pub(crate) async fn unsubscribe(
    connection: &mut Connection,
    name: &QueueName,
    pattern: &Pattern,
) -> Result<()> {
    let queue = queue(connection, name).await?;
    connection.begin().await?;
    begin_change(connection).await?;
    let delete = "DELETE FROM estafette_subscription WHERE queue = ? AND pattern = ?";
    connection.execute(delete, &[queue.into(), pattern.as_str().into()]).await?;
    change_generation(connection).await?;
    connection.commit().await
}

/// Deletes a queue with its subscriptions: nothing is stored in it from then on.
pub(crate) async fn delete(connection: &mut Connection, queue: QueueId) -> Result<()> {
    connection.begin().await?;
    begin_change(connection).await?;
    for sql in
        ["DELETE FROM estafette_subscription WHERE queue = ?", "DELETE FROM estafette_queue WHERE id = ?"]
    {
        connection.execute(sql, &[queue.into()]).await?;
    }
    change_generation(connection).await?;
    connection.commit().await
}

/// Which messages to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those nobody holds.
    Free,
    /// All.
    All,
}

/// The newest message, so that what comes later is left alone.
pub(crate) async fn newest(connection: &mut Connection, queue: QueueId) -> Result<i64> {
    let newest = "SELECT max(id) FROM estafette_message WHERE queue = ?";
    Ok(connection.integer(newest, &[queue.into()]).await?.unwrap_or(0))
}

/// Removes messages of a queue that are not newer than `newest`, at most `max`, and returns how many.
pub(crate) async fn remove(
    connection: &mut Connection,
    (queue, which): (QueueId, Which),
    newest: i64,
    max: usize,
) -> Result<u64> {
    let free = match which {
        Which::Free => "AND NOT (state = 2 AND due > {now})",
        Which::All => "",
    };
    let (start, end) = match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(_) => (
            "DELETE FROM estafette_message WHERE ctid = ANY (ARRAY(SELECT ctid FROM estafette_message",
            "FOR UPDATE))",
        ),
        #[cfg(feature = "mysql")]
        Connection::MySql(_) => ("DELETE FROM estafette_message", ""),
    };
    let delete = format!("{start} WHERE queue = ? AND id <= ? {free} LIMIT ? {end}");
    connection.execute(&delete, &[queue.into(), newest.into(), integer(max).into()]).await
}

/// Removes everything that belongs to a queue that is gone.
pub(crate) async fn sweep(connection: &mut Connection, queue: QueueId, max: usize) -> Result<()> {
    while remove(connection, (queue, Which::All), i64::MAX, max).await? > 0 {}
    connection.execute("DELETE FROM estafette_dead WHERE queue = ?", &[queue.into()]).await.map(drop)
}

/// Deletes a message that waits for its time and was never handed over; false when there is none.
pub(crate) async fn cancel(connection: &mut Connection, name: &QueueName, id: &MessageId) -> Result<bool> {
    const PAGE: usize = 500;
    let queue = queue(connection, name).await?;
    let (mut due, mut last) = (i64::MIN, i64::MIN);
    loop {
        let select =
            "SELECT due, id, envelope FROM estafette_message WHERE queue = ? AND due > {now} AND state = 0
            AND (due > ? OR (due = ? AND id > ?)) ORDER BY due, id LIMIT ?";
        let values = [queue, due, due, last, integer(PAGE)].map(Value::from);
        let rows = connection.rows(select, &values).await?;
        for row in &rows {
            (due, last) = (row.integer(0)?, row.integer(1)?);
            if Content::read(row.bytes(2)?).envelope.id == *id {
                let delete =
                    "DELETE FROM estafette_message WHERE queue = ? AND due = ? AND id = ? AND state = 0";
                let deleted = connection.execute(delete, &[queue, due, last].map(Into::into)).await?;
                return Ok(deleted > 0);
            }
        }
        if rows.len() < PAGE {
            return Ok(false);
        }
    }
}

/// Every queue and what is in it, by name; or only the queue of that row id.
pub(crate) async fn statuses(connection: &mut Connection, only: Option<QueueId>) -> Result<Vec<QueueStatus>> {
    let mut all: HashMap<QueueId, QueueStatus> = HashMap::new();
    let (which, values) =
        (|column: &str| only.map_or(String::new(), |_| format!("WHERE {column} = ?")), only);
    let values: Vec<Value<'_>> = values.into_iter().map(Into::into).collect();
    let select = format!("SELECT id, name, owner FROM estafette_queue {}", which("id"));
    for row in connection.rows(&select, &values).await? {
        let name = QueueName::try_from(row.text(1)?)?;
        all.insert(row.integer(0)?, QueueStatus::empty(name, Vec::new(), lifetime(&row, 2)?));
    }
    let select = format!("SELECT queue, pattern FROM estafette_subscription {}", which("queue"));
    for row in connection.rows(&select, &values).await? {
        if let Some(status) = all.get_mut(&row.integer(0)?) {
            status.patterns.push(Pattern::try_from(row.text(1)?)?);
        }
    }
    let select = format!(
        "SELECT queue, count(*), CAST(sum(CASE WHEN due <= {{now}} THEN 1 ELSE 0 END) AS {{int}}),
            CAST(sum(CASE WHEN state = 2 AND due > {{now}} THEN 1 ELSE 0 END) AS {{int}}),
            CAST(sum(CASE WHEN state = 1 AND due > {{now}} THEN 1 ELSE 0 END) AS {{int}})
        FROM estafette_message {} GROUP BY queue",
        which("queue")
    );
    for row in connection.rows(&select, &values).await? {
        if let Some(status) = all.get_mut(&row.integer(0)?) {
            status.ready = count(row.integer(2)?);
            status.leased = count(row.integer(3)?);
            status.retrying = count(row.integer(4)?);
            status.delayed = count(row.integer(1)?).saturating_sub(status.ready + status.leased);
        }
    }
    let select = format!("SELECT queue, count(*) FROM estafette_dead {} GROUP BY queue", which("queue"));
    for row in connection.rows(&select, &values).await? {
        if let Some(status) = all.get_mut(&row.integer(0)?) {
            status.dead = count(row.integer(1)?);
        }
    }
    let mut statuses: Vec<QueueStatus> = all.into_values().collect();
    for status in &mut statuses {
        status.patterns.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    }
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(statuses)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
