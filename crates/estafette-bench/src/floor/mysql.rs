//! MySQL or MariaDB by hand: one connection, prepared statements, a table of bodies. A message is consumed in one transaction
//! that selects with `FOR UPDATE SKIP LOCKED` and deletes: no lease, no attempts, and a flush for each batch. The other loop
//! takes a lease first, which is a transaction and a flush of its own: else the consumer would hold a transaction open while
//! it works.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

use super::body;
use crate::case::Rate;

/// The database of the floor and of Estafette's loops.
pub const DATABASE: &str = "estafette_bench";

/// The URL of the server, with another database.
///
/// # Errors
///
/// When the environment does not say it.
pub fn url(database: &str) -> anyhow::Result<String> {
    let url = std::env::var("ESTAFETTE_TEST_MYSQL_URL").context(
        "this benchmark needs MariaDB: run `scripts/services up`, then `eval \"$(scripts/services env)\"`",
    )?;
    let (server, _database) = url.rsplit_once('/').context("the URL names a database")?;
    Ok(format!("{server}/{database}"))
}

/// Makes the database empty.
///
/// # Errors
///
/// Those of the database.
pub async fn clear() -> anyhow::Result<()> {
    let mut connection = MySqlConnection::connect(&url("")?).await?;
    let sql = format!("DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn open() -> anyhow::Result<MySqlConnection> {
    clear().await?;
    let mut connection = MySqlConnection::connect(&url(DATABASE)?).await?;
    let sql = "CREATE TABLE floor (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, body LONGBLOB NOT NULL,
            due BIGINT NOT NULL DEFAULT 0, KEY (due, id));
        SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
    sqlx::raw_sql(sql).execute(&mut connection).await?;
    Ok(connection)
}

async fn insert(connection: &mut MySqlConnection, count: u32, batch: u32) -> anyhow::Result<()> {
    let mut next = 0;
    while next < count {
        let end = count.min(next + batch);
        let rows = vec!["(?)"; usize::try_from(end - next)?].join(", ");
        let mut insert = sqlx::query(AssertSqlSafe(format!("INSERT INTO floor (body) VALUES {rows}")));
        for number in next..end {
            insert = insert.bind(body(number));
        }
        insert.execute(&mut *connection).await?;
        next = end;
    }
    Ok(())
}

/// Inserts `count` bodies, `batch` in each transaction.
///
/// # Errors
///
/// Those of the database.
pub async fn publish(count: u32, batch: u32) -> anyhow::Result<Rate> {
    let mut connection = open().await?;
    let started = Instant::now();
    insert(&mut connection, count, batch).await?;
    let rate = Rate::of(count, started.elapsed());
    connection.close().await?;
    Ok(rate)
}

/// Whether a consumer holds what it works on by a lease, or by an open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// One transaction from taking to deleting.
    Transaction,
    /// A row is not taken by others before its lease has ended.
    Lease,
}

/// Takes and deletes `count` bodies that were there before, `batch` at a time.
///
/// # Errors
///
/// Those of the database, or when a body is missing.
pub async fn consume(count: u32, batch: u32, hold: Hold) -> anyhow::Result<Rate> {
    let mut connection = open().await?;
    insert(&mut connection, count, 100).await?;
    let mut left = count;
    let started = Instant::now();
    while left > 0 {
        let mut transaction = connection.begin().await?;
        let select =
            "SELECT id, body FROM floor WHERE due <= 1000 ORDER BY due, id LIMIT ? FOR UPDATE SKIP LOCKED";
        let rows = sqlx::query(select).bind(batch).fetch_all(&mut *transaction).await?;
        ensure!(!rows.is_empty(), "{left} of {count} messages are missing");
        let mut ids: Vec<i64> = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get(0)?);
            std::hint::black_box(row.try_get::<&[u8], _>(1)?);
        }
        left -= u32::try_from(ids.len())?;
        if hold == Hold::Lease {
            of_ids("UPDATE floor SET due = 2000 WHERE id IN", &ids, &mut transaction).await?;
            transaction.commit().await?;
            transaction = connection.begin().await?;
        }
        of_ids("DELETE FROM floor WHERE id IN", &ids, &mut transaction).await?;
        transaction.commit().await?;
    }
    let rate = Rate::of(count, started.elapsed());
    connection.close().await?;
    Ok(rate)
}

async fn of_ids(statement: &str, ids: &[i64], connection: &mut MySqlConnection) -> anyhow::Result<()> {
    let marks = vec!["?"; ids.len()].join(", ");
    let mut query = sqlx::query(AssertSqlSafe(format!("{statement} ({marks})")));
    for id in ids {
        query = query.bind(id);
    }
    query.execute(connection).await?;
    Ok(())
}
