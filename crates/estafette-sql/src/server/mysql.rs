//! MySQL and MariaDB: their tables, and their form of what is frequent.
//!
//! Tried with MariaDB 10.11. What both lack is an update that returns rows: a claim is a transaction of two statements.

use std::collections::BTreeMap;

use estafette_core::Result;
use sqlx::{
    AssertSqlSafe, Row as _,
    mysql::{MySqlConnection, MySqlDatabaseError, MySqlRow},
};

use super::{
    claim::{self, Content, Found, Window},
    error::from_server,
    publish::{New, Within},
    settle::{Held, Move},
};
use crate::routes::QueueId;

/// The time of the statement, in microseconds since 1970.
pub(crate) const NOW: &str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

pub(crate) const STEPS: [&str; 1] = [VERSION_1];

// Tables are made outside of any transaction here: what is there already was made by a try that broke off.
const VERSION_1: &str = "
CREATE TABLE IF NOT EXISTS estafette_queue (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL UNIQUE,
    -- Who consumes it, when it is temporary.
    owner VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin,
    KEY estafette_queue_owner (owner)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS estafette_subscription (
    queue BIGINT NOT NULL,
    pattern VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    PRIMARY KEY (queue, pattern)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS estafette_message (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    queue BIGINT NOT NULL,
    -- When it may be claimed (again), in microseconds since 1970. While it is leased this is the end of the lease, and the fence
    -- too: no two hand-overs of a message end at the same time.
    due BIGINT NOT NULL,
    -- 0 fresh, 1 handed over before, 2 leased.
    state BIGINT NOT NULL DEFAULT 0,
    attempt BIGINT NOT NULL DEFAULT 0,
    -- What due was before it was claimed: where it goes when it is put back.
    place BIGINT,
    -- Of the partition key a number: two keys that share one only wait for each other more than they must.
    partition_key BIGINT,
    first_failed_at BIGINT,
    last_error TEXT CHARACTER SET utf8mb4,
    envelope LONGBLOB NOT NULL,
    -- In the order of claiming.
    KEY estafette_message_due (queue, due, id),
    KEY estafette_message_key (queue, partition_key, id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS estafette_dead (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    queue BIGINT NOT NULL,
    -- A CloudEvent in JSON.
    envelope LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    reason VARCHAR(40) CHARACTER SET ascii NOT NULL,
    error TEXT CHARACTER SET utf8mb4 NOT NULL,
    attempts BIGINT NOT NULL,
    first_failed_at BIGINT NOT NULL,
    last_failed_at BIGINT NOT NULL,
    KEY estafette_dead_queue (queue, id)
) ENGINE = InnoDB;

-- Processes that own temporary queues, and until when they are known to live.
CREATE TABLE IF NOT EXISTS estafette_owner (
    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    alive_until BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS estafette_schema (
    version BIGINT NOT NULL,
    -- Counts changes of queues and subscriptions: who remembers them compares.
    generation BIGINT NOT NULL
) ENGINE = InnoDB;
INSERT INTO estafette_schema (version, generation) SELECT 0, 0 FROM DUAL
    WHERE NOT EXISTS (SELECT 1 FROM estafette_schema);
";

/// How many rows and about how many bytes one statement inserts: statements must fit `max_allowed_packet`.
const ROWS_MAX: usize = 100;
const BYTES_MAX: usize = 2 << 20;

/// The error when a column must not be null, of a statement whose `generation` was not the current one.
const IS_NULL: u16 = 1048;

/// Stores messages, all or none, and says whether `generation` was the current one; else nothing is stored.
///
/// Nobody is told: other processes look for themselves.
pub(crate) async fn insert(
    connection: &mut MySqlConnection,
    generation: i64,
    messages: &[New<'_>],
    within: Within,
) -> Result<bool> {
    let parts = parts(messages);
    // A statement that stands alone needs no transaction, which would be two journeys more.
    let begins = within == Within::Nothing && parts.len() > 1;
    if begins {
        script(connection, "BEGIN").await?;
    }
    let mut guard = Some(generation);
    for part in parts {
        if !insert_part(connection, guard.take(), part).await? {
            if begins {
                script(connection, "ROLLBACK").await?;
            }
            return Ok(false);
        }
    }
    if begins {
        script(connection, "COMMIT").await?;
    }
    Ok(true)
}

/// Cut so that each part fits a statement.
fn parts<'m, 'b>(mut messages: &'m [New<'b>]) -> Vec<&'m [New<'b>]> {
    let mut parts = Vec::new();
    while !messages.is_empty() {
        let mut bytes = 0;
        let fits = |message: &&New<'_>| {
            bytes += message.envelope.len();
            bytes <= BYTES_MAX
        };
        let count = messages.iter().take(ROWS_MAX).take_while(fits).count().max(1);
        let (part, rest) = messages.split_at(count);
        parts.push(part);
        messages = rest;
    }
    parts
}

/// Stores rows, if `guard`, where there is one, is the current generation: else the first row's queue is null.
async fn insert_part(connection: &mut MySqlConnection, guard: Option<i64>, part: &[New<'_>]) -> Result<bool> {
    let mut sql = "INSERT INTO estafette_message (queue, due, partition_key, envelope) VALUES ".to_owned();
    for row in 0..part.len() {
        let queue = match (row, guard) {
            (0, Some(_)) => "((SELECT ? FROM estafette_schema WHERE generation = ?), ",
            (0, None) => "(?, ",
            _ => ", (?, ",
        };
        sql.extend([queue, NOW, " + ?, ?, ?)"]);
    }
    let mut query = sqlx::query(AssertSqlSafe(sql));
    let mut guard = guard;
    for message in part {
        query = query.bind(message.queue);
        if let Some(generation) = guard.take() {
            query = query.bind(generation);
        }
        query = query.bind(message.delay).bind(message.key).bind(message.envelope);
    }
    match query.execute(connection).await {
        Ok(_done) => Ok(true),
        Err(sqlx::Error::Database(error))
            if error
                .try_downcast_ref::<MySqlDatabaseError>()
                .is_some_and(|error| error.number() == IS_NULL) =>
        {
            Ok(false)
        }
        Err(error) => Err(from_server(error)),
    }
}

/// Claims the first messages that are due; within a transaction.
pub(crate) async fn claim(connection: &mut MySqlConnection, window: &Window) -> Result<Vec<Found>> {
    let which = if window.ordered_by_key { claim::NOT_WAITING_FOR_ITS_KEY } else { "" };
    let select = format!(
        "SELECT e.id, e.due, e.state, e.attempt, e.place, e.first_failed_at, e.envelope, {{now}}
        FROM estafette_message e FORCE INDEX (estafette_message_due)
        WHERE e.queue = ? AND e.due >= ? AND e.due <= {{now}} {which}
        ORDER BY e.due, e.id LIMIT ? FOR UPDATE SKIP LOCKED"
    );
    let query = sqlx::query(AssertSqlSafe(select.replace("{now}", NOW)));
    let query = query.bind(window.queue).bind(window.from).bind(window.max);
    let rows = query.fetch_all(&mut *connection).await.map_err(from_server)?;
    let read = |row: &MySqlRow| -> sqlx::Result<Found> {
        let (due, state): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        let (place, now): (Option<i64>, i64) = (row.try_get(4)?, row.try_get(7)?);
        let attempt: i64 = row.try_get(3)?;
        Ok(Found {
            id: row.try_get(0)?,
            end: now.saturating_add(window.lease),
            attempt: attempt + 1,
            // Of a lease that ended, the place it was claimed from is kept.
            place: if state == 2 { place.or(Some(due)) } else { Some(due) },
            first_failed_at: row.try_get(5)?,
            content: Content::read(row.try_get(6)?),
            now,
        })
    };
    let found = rows.iter().map(read).collect::<sqlx::Result<Vec<_>>>().map_err(from_server)?;
    if let Some(first) = found.first() {
        let ids: Vec<i64> = found.iter().map(|found| found.id).collect();
        let update =
            "UPDATE estafette_message SET place = CASE WHEN state = 2 THEN coalesce(place, due) ELSE due END,
            due = ?, attempt = attempt + 1, state = 2 WHERE";
        let (sql, ids) = of_ids(update, &ids);
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(first.end);
        for id in ids {
            query = query.bind(id);
        }
        query.execute(connection).await.map_err(from_server)?;
    }
    Ok(found)
}

/// A statement about the rows of so many ids, which are repeated so that there are not too many different statements.
fn of_ids(statement: &str, ids: &[i64]) -> (String, Vec<i64>) {
    let count = ids.len().next_power_of_two();
    let last = ids.last().copied();
    let ids = ids.iter().copied().chain(last.into_iter().cycle()).take(count).collect();
    let marks = vec!["?"; count].join(", ");
    (format!("{statement} id IN ({marks})"), ids)
}

/// Leases that end at the same time, by their end.
fn by_end(held: impl IntoIterator<Item = Held>) -> BTreeMap<i64, Vec<Held>> {
    let mut groups: BTreeMap<i64, Vec<Held>> = BTreeMap::new();
    for one in held {
        groups.entry(one.end).or_default().push(one);
    }
    groups
}

/// Deletes messages whose leases stand, and returns which those were.
pub(crate) async fn acknowledge(
    connection: &mut MySqlConnection,
    queue: QueueId,
    held: &[Held],
) -> Result<Vec<usize>> {
    let mut stood = Vec::new();
    for (end, group) in by_end(held.iter().copied()) {
        let ids: Vec<i64> = group.iter().map(|held| held.id).collect();
        let begins = ids.len() > 1;
        if begins {
            script(connection, "BEGIN").await?;
        }
        let deleted = delete(connection, (queue, end), &ids).await?;
        if deleted < ids.len() && begins {
            // Nobody knows which: undone, and done to those that stand.
            script(connection, "ROLLBACK").await?;
            script(connection, "BEGIN").await?;
            let standing = standing(connection, (queue, end), &ids).await?;
            delete(connection, (queue, end), &standing).await?;
            stood.extend(group.iter().filter(|held| standing.contains(&held.id)).map(|held| held.item));
        } else if deleted == ids.len() {
            stood.extend(group.iter().map(|held| held.item));
        }
        if begins {
            script(connection, "COMMIT").await?;
        }
    }
    Ok(stood)
}

async fn delete(
    connection: &mut MySqlConnection,
    (queue, end): (QueueId, i64),
    ids: &[i64],
) -> Result<usize> {
    if ids.is_empty() {
        return Ok(0);
    }
    let (sql, ids) =
        of_ids("DELETE FROM estafette_message WHERE queue = ? AND due = ? AND state = 2 AND", ids);
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(queue).bind(end);
    for id in ids {
        query = query.bind(id);
    }
    let done = query.execute(connection).await.map_err(from_server)?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

/// Which of these leases stand, locked until the end of the transaction.
async fn standing(
    connection: &mut MySqlConnection,
    (queue, end): (QueueId, i64),
    ids: &[i64],
) -> Result<Vec<i64>> {
    let (sql, ids) =
        of_ids("SELECT id FROM estafette_message WHERE queue = ? AND due = ? AND state = 2 AND", ids);
    let mut query = sqlx::query_scalar(AssertSqlSafe(sql + " FOR UPDATE")).bind(queue).bind(end);
    for id in ids {
        query = query.bind(id);
    }
    query.fetch_all(connection).await.map_err(from_server)
}

/// Moves messages whose leases stand, and returns which those were and when they are due now; 0 for those put back.
pub(crate) async fn relocate(
    connection: &mut MySqlConnection,
    queue: QueueId,
    moves: &[Move<'_>],
) -> Result<Vec<(usize, i64)>> {
    let mut moved = Vec::new();
    for group in moves.chunk_by(|one, other| one.is_like(other)) {
        let Some(first) = group.first() else { continue };
        let ids: Vec<i64> = group.iter().map(|one| one.held.id).collect();
        script(connection, "BEGIN").await?;
        let ids = standing(connection, (queue, first.held.end), &ids).await?;
        if !ids.is_empty() {
            let due = put(connection, &ids, first).await?;
            let stand = group.iter().filter(|one| ids.contains(&one.held.id));
            moved.extend(stand.map(|one| (one.held.item, due)));
        }
        script(connection, "COMMIT").await?;
    }
    Ok(moved)
}

/// Puts these rows where `to` says, and returns when they are due then.
async fn put(connection: &mut MySqlConnection, ids: &[i64], to: &Move<'_>) -> Result<i64> {
    let now = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {NOW}")));
    let now: i64 = now.fetch_one(&mut *connection).await.map_err(from_server)?;
    let due = to.after.map(|after| now + after);
    // From left to right: each sees what those before it have set.
    let update = "UPDATE estafette_message SET first_failed_at = coalesce(first_failed_at, ?),
        last_error = coalesce(?, last_error), state = coalesce(?, CASE WHEN attempt > 1 THEN 1 ELSE 0 END),
        attempt = greatest(attempt - ?, 0), due = coalesce(?, place, due),
        place = CASE WHEN state = 2 THEN place END WHERE";
    let (sql, ids) = of_ids(update, ids);
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(to.failed.then_some(now))
        .bind(to.error)
        .bind(to.state)
        .bind(i64::from(to.uncount))
        .bind(due);
    for id in ids {
        query = query.bind(id);
    }
    query.execute(connection).await.map_err(from_server)?;
    Ok(due.unwrap_or(0))
}

async fn script(connection: &mut MySqlConnection, sql: &'static str) -> Result<()> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop).map_err(from_server)
}
