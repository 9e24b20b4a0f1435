//! Queues and subscriptions: declaring, deleting, counting.

use std::collections::HashMap;

use estafette_core::{
    Envelope, Error, ErrorKind, Lifetime, MessageId, Pattern, QueueName, QueueSpec, QueueStatus, Result,
};

use super::{
    block::{self, Damage, Lines},
    entry::{Entry, entry_columns},
    session::{Session, count, integer, now},
};
use crate::routes::QueueId;

/// Makes sure the queue and its subscriptions exist. `owner` is who owns it when it is temporary.
pub(crate) fn declare(session: &mut Session<'_>, spec: &QueueSpec, owner: &str) -> Result<()> {
    let temporary = spec.lifetime == Lifetime::Temporary;
    let mut changed = false;
    let queue = match find(session, &spec.name)? {
        Some((_, found)) if found != spec.lifetime => {
            let sentence = format!("queue {} exists and is {}", spec.name, word(found));
            return Err(Error::new(ErrorKind::Conflict, sentence));
        }
        Some((queue, _)) => queue,
        None => {
            changed = true;
            let insert = session.statement("INSERT INTO estafette_queue (name, owner) VALUES (?1, ?2)")?;
            insert.execute(&[spec.name.as_str().into(), temporary.then_some(owner).into()])?;
            session.last_insert_rowid()
        }
    };
    let subscribe =
        session.statement("INSERT OR IGNORE INTO estafette_subscription (queue, pattern) VALUES (?1, ?2)")?;
    for pattern in &spec.patterns {
        changed |= subscribe.execute(&[queue.into(), pattern.as_str().into()])? > 0;
    }
    if changed { session.change_generation() } else { Ok(()) }
}

fn word(lifetime: Lifetime) -> &'static str {
    match lifetime {
        Lifetime::Durable => "durable",
        Lifetime::Temporary => "temporary",
    }
}

/// A queue's row id and lifetime.
pub(crate) fn find(session: &mut Session<'_>, name: &QueueName) -> Result<Option<(QueueId, Lifetime)>> {
    let mut found = None;
    let select = session.statement("SELECT id, owner FROM estafette_queue WHERE name = ?1")?;
    select.query(&[name.as_str().into()], |row| {
        let lifetime = if row.is_null(1) { Lifetime::Durable } else { Lifetime::Temporary };
        found = Some((row.integer(0), lifetime));
        Ok(())
    })?;
    Ok(found)
}

/// Ends a subscription.
pub(crate) fn unsubscribe(session: &mut Session<'_>, name: &QueueName, pattern: &Pattern) -> Result<()> {
    let queue = session.queue(name)?;
    let delete = session.statement("DELETE FROM estafette_subscription WHERE queue = ?1 AND pattern = ?2")?;
    let changed = delete.execute(&[queue.into(), pattern.as_str().into()])? > 0;
    if changed { session.change_generation() } else { Ok(()) }
}

/// Deletes a queue whose messages are few or gone, with everything that belongs to it.
pub(crate) fn delete(session: &mut Session<'_>, queue: QueueId) -> Result<()> {
    let mut entries = Vec::new();
    session.statement(SELECT_ALL)?.query(&[queue.into()], |row| {
        entries.push(Entry::read(row)?);
        Ok(())
    })?;
    for entry in &entries {
        remove_entry(session, entry)?;
    }
    for sql in [
        "DELETE FROM estafette_dead WHERE queue = ?1",
        "DELETE FROM estafette_subscription WHERE queue = ?1",
        "DELETE FROM estafette_queue WHERE id = ?1",
    ] {
        session.statement(sql)?.execute(&[queue.into()])?;
    }
    session.change_generation()
}

const SELECT_ALL: &str = concat!("SELECT ", entry_columns!(), " FROM estafette_entry e WHERE e.queue = ?1");
const SELECT_SOME: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM estafette_entry e WHERE e.queue = ?1 AND e.block <= ?2 AND NOT (e.state = 2 AND e.due > ?3) LIMIT ?4"
);
const SELECT_DELAYED: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM estafette_entry e WHERE e.queue = ?1 AND e.due > ?2 AND e.state = 0"
);

fn remove_entry(session: &mut Session<'_>, entry: &Entry) -> Result<()> {
    entry.delete(session)?;
    block::let_go(session, entry.block, entry.count())
}

/// Which messages to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those nobody holds.
    Free,
    /// All.
    All,
}

/// The newest block, so that what comes later is left alone.
pub(crate) fn newest_block(session: &mut Session<'_>) -> Result<i64> {
    Ok(session.statement("SELECT max(id) FROM estafette_block")?.integer(&[])?.unwrap_or(0))
}

/// Removes messages of a queue from blocks not newer than `newest`, at most `entries_max` entries of them. Returns how many
/// entries and how many messages.
pub(crate) fn remove(
    session: &mut Session<'_>,
    queue: QueueId,
    which: Which,
    newest: i64,
    entries_max: usize,
) -> Result<(usize, u64)> {
    // Everything is free at the end of time.
    let free_at = if which == Which::All { i64::MAX } else { now().as_micros() };
    let values = [queue, newest, free_at, integer(entries_max)].map(Into::into);
    let mut entries = Vec::new();
    session.statement(SELECT_SOME)?.query(&values, |row| {
        entries.push(Entry::read(row)?);
        Ok(())
    })?;
    let mut messages = 0;
    for entry in &entries {
        remove_entry(session, entry)?;
        messages += count(entry.count());
    }
    Ok((entries.len(), messages))
}

/// Deletes a message that waits for its time and was never handed over; false when there is none.
pub(crate) fn cancel(session: &mut Session<'_>, name: &QueueName, id: &MessageId) -> Result<bool> {
    let queue = session.queue(name)?;
    let mut entries = Vec::new();
    session.statement(SELECT_DELAYED)?.query(&[queue.into(), now().as_micros().into()], |row| {
        entries.push(Entry::read(row)?);
        Ok(())
    })?;
    let mut lines = Lines::default();
    for entry in entries {
        let envelopes = lines.read(session, entry.block, (entry.first, entry.last))?;
        let is_meant =
            |envelope: &Result<Envelope, Box<Damage>>| matches!(envelope, Ok(envelope) if envelope.id == *id);
        if let Some(offset) = envelopes.iter().position(is_meant) {
            let line = entry.first + integer(offset);
            let run = entry.cut(session, line, line)?;
            block::let_go(session, run.block, run.count())?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Every queue and what is in it, by name; or only the queue of that row id.
pub(crate) fn statuses(session: &mut Session<'_>, only: Option<QueueId>) -> Result<Vec<QueueStatus>> {
    let only = only.into();
    let mut all: HashMap<QueueId, QueueStatus> = HashMap::new();
    session.statement("SELECT id, name, owner FROM estafette_queue WHERE ?1 IS NULL OR id = ?1")?.query(
        &[only],
        |row| {
            let lifetime = if row.is_null(2) { Lifetime::Durable } else { Lifetime::Temporary };
            let name = QueueName::try_from(row.text(1)?)?;
            all.insert(row.integer(0), QueueStatus::empty(name, Vec::new(), lifetime));
            Ok(())
        },
    )?;
    let patterns = "SELECT queue, pattern FROM estafette_subscription WHERE ?1 IS NULL OR queue = ?1
        ORDER BY queue, pattern";
    session.statement(patterns)?.query(&[only], |row| {
        if let Some(status) = all.get_mut(&row.integer(0)) {
            status.patterns.push(Pattern::try_from(row.text(1)?)?);
        }
        Ok(())
    })?;
    count_entries(session, &mut all)?;
    let mut statuses: Vec<QueueStatus> = all.into_values().collect();
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(statuses)
}

fn count_entries(session: &mut Session<'_>, all: &mut HashMap<QueueId, QueueStatus>) -> Result<()> {
    let entries = session.statement(
        "SELECT sum(last - first + 1),
            sum((due <= ?2) * (last - first + 1)),
            sum((state = 2 AND due > ?2) * (last - first + 1)),
            sum((state = 1 AND due > ?2) * (last - first + 1))
        FROM estafette_entry WHERE queue = ?1",
    )?;
    let dead = session.statement("SELECT count(*) FROM estafette_dead WHERE queue = ?1")?;
    let now = now().as_micros();
    for (&queue, status) in all {
        entries.query(&[queue.into(), now.into()], |row| {
            status.ready = count(row.integer(1));
            status.leased = count(row.integer(2));
            status.retrying = count(row.integer(3));
            status.delayed = count(row.integer(0)).saturating_sub(status.ready + status.leased);
            Ok(())
        })?;
        status.dead = count(dead.integer(&[queue.into()])?.unwrap_or(0));
    }
    Ok(())
}
