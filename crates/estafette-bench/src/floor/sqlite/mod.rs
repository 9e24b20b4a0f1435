//! One table, prepared statements, the C interface: WAL, `synchronous = FULL`, so that a commit survives a power cut.
//!
//! [`raw`] is the part of the C interface used here. A pool, an asynchronous driver and typed rows are left out on purpose:
//! what they cost is part of what is compared.

mod raw;

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use self::raw::{Connection, Step};
use super::body;
use crate::case::Rate;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE message (id INTEGER PRIMARY KEY, claimed INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL);
";
const INSERT: &str = "INSERT INTO message (body) VALUES (?1)";
const CLAIM: &str = "UPDATE message SET claimed = 1
    WHERE id IN (SELECT id FROM message WHERE claimed = 0 ORDER BY id LIMIT ?1) RETURNING id, body";
const DELETE: &str = "DELETE FROM message WHERE id = ?1";

/// Inserts `messages`, `batch` in a transaction.
///
/// # Errors
///
/// When SQLite refuses.
pub fn publish(directory: &Path, messages: u32, batch: usize) -> anyhow::Result<Rate> {
    let connection = open(directory)?;
    let bodies: Vec<Vec<u8>> = (0..messages).map(body).collect();
    let started = Instant::now();
    insert(&connection, &bodies, batch)?;
    Ok(Rate::of(messages, started.elapsed()))
}

/// Claims and deletes `messages`, `batch` at a time. Each transaction deletes what the one before it claimed and claims the
/// next: a message is handed out only once its claim is durable, and one flush serves a batch.
///
/// # Errors
///
/// When SQLite refuses, or a message is missing.
pub fn consume(directory: &Path, messages: u32, batch: usize) -> anyhow::Result<Rate> {
    let connection = open(directory)?;
    let bodies: Vec<Vec<u8>> = (0..messages).map(body).collect();
    insert(&connection, &bodies, bodies.len().max(1))?;

    let started = Instant::now();
    let consumed = claim_and_delete(&connection, batch)?;
    let elapsed = started.elapsed();
    ensure!(consumed == bodies.len(), "{consumed} of {messages} messages were consumed");
    Ok(Rate::of(messages, elapsed))
}

fn open(directory: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(&directory.join("queue.sqlite"))?;
    connection.execute(SCHEMA)?;
    Ok(connection)
}

fn insert(connection: &Connection, bodies: &[Vec<u8>], batch: usize) -> anyhow::Result<()> {
    let mut begin = connection.prepare("BEGIN IMMEDIATE")?;
    let mut commit = connection.prepare("COMMIT")?;
    let mut insert = connection.prepare(INSERT)?;
    for batch in bodies.chunks(batch) {
        begin.run()?;
        for body in batch {
            insert.bind_bytes(1, body)?;
            insert.run()?;
        }
        commit.run()?;
    }
    Ok(())
}

/// How many messages were consumed when none was left.
fn claim_and_delete(connection: &Connection, batch: usize) -> anyhow::Result<usize> {
    let mut begin = connection.prepare("BEGIN IMMEDIATE")?;
    let mut commit = connection.prepare("COMMIT")?;
    let mut claim = connection.prepare(CLAIM)?;
    let mut delete = connection.prepare(DELETE)?;
    let mut claimed: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut consumed = 0;
    loop {
        begin.run()?;
        for (id, _) in &claimed {
            delete.bind_integer(1, *id)?;
            delete.run()?;
        }
        consumed += claimed.len();
        claimed.clear();
        claim.bind_integer(1, i64::try_from(batch)?)?;
        while claim.step()? == Step::Row {
            claimed.push((claim.integer(0), claim.bytes(1)));
        }
        claim.reset()?;
        commit.run()?;
        if claimed.is_empty() {
            return Ok(consumed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(directory: &Path) -> Vec<(i64, Vec<u8>)> {
        let connection = Connection::open(&directory.join("queue.sqlite")).unwrap();
        let mut select = connection.prepare("SELECT id, body FROM message ORDER BY id").unwrap();
        let mut rows = Vec::new();
        while select.step().unwrap() == Step::Row {
            rows.push((select.integer(0), select.bytes(1)));
        }
        rows
    }

    #[test]
    fn publishing_stores_every_message() {
        let directory = tempfile::tempdir().unwrap();
        publish(directory.path(), 5, 2).unwrap();
        let rows = stored(directory.path());
        assert_eq!(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(rows[4].1, body(4));
    }

    #[test]
    fn consuming_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        consume(directory.path(), 7, 3).unwrap();
        assert_eq!(stored(directory.path()), []);
    }

    #[test]
    fn a_commit_is_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open(directory.path()).unwrap();
        let mut pragma = connection.prepare("PRAGMA synchronous").unwrap();
        assert_eq!(pragma.step().unwrap(), Step::Row);
        assert_eq!(pragma.integer(0), 2, "FULL");
    }
}
