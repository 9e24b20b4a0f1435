//! The tables, and how a database gets them.
//!
//! Every name begins with `estafette_`, so that the tables can live in the application's own database. What a queue holds
//! is split in two. `estafette_block` holds envelopes, as many as were published together, written once and deleted once: a
//! row for each would cost more than everything else. `estafette_entry` is the small part that changes as messages are claimed,
//! retried and settled; one row stands for a whole run of a block's messages as long as they share their fate, and falls
//! apart when they do not. Entries are kept in the very order in which they are claimed. So claiming is a range of one tree,
//! touches one row for many messages, and moves no body, however large.

use std::time::Duration;

use estafette_core::{Error, ErrorKind, Result};
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::error::from_sqlx;

/// Each step takes the schema one version further. Steps that were released are never edited.
const STEPS: [&str; 1] = [VERSION_1];

const VERSION_1: &str = "
CREATE TABLE estafette_schema (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    version INTEGER NOT NULL,
    -- Counts changes of queues and subscriptions: who remembers them compares.
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO estafette_schema (only, version, generation) VALUES (1, 0, 0);

CREATE TABLE estafette_queue (
    -- Never used twice: whoever holds the id of a deleted queue must not find another one.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    -- Who consumes it, when it is temporary.
    owner TEXT
) STRICT;
CREATE INDEX estafette_queue_owner ON estafette_queue (owner) WHERE owner IS NOT NULL;

CREATE TABLE estafette_subscription (
    queue INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    PRIMARY KEY (queue, pattern)
) STRICT, WITHOUT ROWID;

-- Messages as they were published together, one envelope after the other.
CREATE TABLE estafette_block (
    id INTEGER PRIMARY KEY,
    -- How many messages queues held of it at first, each queue's counted; before the envelopes, so that it is read without them.
    messages INTEGER NOT NULL,
    envelopes BLOB NOT NULL
) STRICT;

-- How many messages of a block are still in some queue; no row means all of them: most blocks go as they came, at once.
CREATE TABLE estafette_left (
    block INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL
) STRICT;

-- Messages of a queue that share everything below: a run of the lines of a block, counted from 0.
CREATE TABLE estafette_entry (
    queue INTEGER NOT NULL,
    -- When they may be claimed (again), in microseconds since 1970. While they are leased this is the end of the lease, and
    -- the fence too: no two hand-overs of a message end at the same time.
    due INTEGER NOT NULL,
    block INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    -- 0 fresh, 1 handed over before, 2 leased.
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    -- What `due` was before they were claimed: where they go when they are put back.
    place INTEGER,
    -- A message with a key is a run of its own.
    partition_key TEXT,
    first_failed_at INTEGER,
    last_error TEXT,
    PRIMARY KEY (queue, due, block, first)
) STRICT, WITHOUT ROWID;
CREATE INDEX estafette_entry_key ON estafette_entry (queue, partition_key, block, first, state)
    WHERE partition_key IS NOT NULL;

CREATE TABLE estafette_dead (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_failed_at INTEGER NOT NULL,
    last_failed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX estafette_dead_queue ON estafette_dead (queue, id);

-- Processes that own temporary queues, and until when they are known to live.
CREATE TABLE estafette_owner (
    name TEXT PRIMARY KEY,
    alive_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// How long to wait before asking again for a lock that SQLite does not wait for itself.
const PAUSE: Duration = Duration::from_millis(5);

/// Brings the database to the newest version. Any number of processes may do so at once.
pub(crate) async fn migrate(connection: &mut SqliteConnection, busy_max: Duration) -> Result<()> {
    use_wal(connection, busy_max).await?;
    if version(connection).await? == STEPS.len() {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(from_sqlx)?;
    // Another process may have been first: only now, alone, the version is certain.
    let version = version(&mut transaction).await?;
    for step in STEPS.iter().skip(version) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(from_sqlx)?;
    }
    let newest = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let update = sqlx::query("UPDATE estafette_schema SET version = ?").bind(newest);
    update.execute(&mut *transaction).await.map_err(from_sqlx)?;
    transaction.commit().await.map_err(from_sqlx)
}

/// Switches the file to write-ahead logging, which it then stays in. SQLite takes the lock for that without waiting for it.
async fn use_wal(connection: &mut SqliteConnection, busy_max: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + busy_max;
    loop {
        let switched = sqlx::query("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await;
        match switched.map_err(from_sqlx) {
            Ok(row) if row.try_get::<&str, _>(0).is_ok_and(|mode| mode.eq_ignore_ascii_case("wal")) => {
                return Ok(());
            }
            Ok(_other) => {
                let sentence = "the database cannot use write-ahead logging; is it on a network file system?";
                return Err(Error::new(ErrorKind::Unsupported, sentence));
            }
            Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
            Err(_busy) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The schema's version; 0 for a database without our tables.
async fn version(connection: &mut SqliteConnection) -> Result<usize> {
    let exists =
        sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'estafette_schema'");
    if exists.fetch_optional(&mut *connection).await.map_err(from_sqlx)?.is_none() {
        return Ok(0);
    }
    let version = sqlx::query("SELECT version FROM estafette_schema");
    let row = version.fetch_one(&mut *connection).await.map_err(from_sqlx)?;
    let version: i64 = row.try_get(0).map_err(from_sqlx)?;
    match usize::try_from(version) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => {
            let sentence = format!(
                "the database has schema version {version}, this program knows {}; use a newer one",
                STEPS.len()
            );
            Err(Error::new(ErrorKind::Conflict, sentence))
        }
    }
}
