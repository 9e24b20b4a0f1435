//! PostgreSQL by hand: one connection, prepared statements, a table of bodies. A message is consumed in one transaction that
//! selects with `FOR UPDATE SKIP LOCKED` and deletes: no lease, no attempts, and a flush for each batch.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::body;
use crate::case::Rate;

const TABLE: &str = "DROP TABLE IF EXISTS estafette_bench_floor;
    CREATE TABLE estafette_bench_floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)";

/// The URL of the server.
///
/// # Errors
///
/// When the environment does not say it.
pub fn url() -> anyhow::Result<String> {
    std::env::var("ESTAFETTE_TEST_POSTGRES_URL").context(
        "this benchmark needs PostgreSQL: run `scripts/services up`, then `eval \"$(scripts/services env)\"`",
    )
}

/// Makes the schema that Estafette's loops use empty.
///
/// # Errors
///
/// Those of the database.
pub async fn clear(schema: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&url()?).await?;
    let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn open() -> anyhow::Result<PgConnection> {
    let mut connection = PgConnection::connect(&url()?).await?;
    sqlx::raw_sql(TABLE).execute(&mut connection).await?;
    Ok(connection)
}

async fn insert(connection: &mut PgConnection, count: u32, batch: u32) -> anyhow::Result<()> {
    let mut next = 0;
    while next < count {
        if batch == 1 {
            let insert = sqlx::query("INSERT INTO estafette_bench_floor (body) VALUES ($1)");
            insert.bind(body(next)).execute(&mut *connection).await?;
        } else {
            let bodies: Vec<Vec<u8>> = (next..count.min(next + batch)).map(body).collect();
            let insert = "INSERT INTO estafette_bench_floor (body) SELECT unnest($1::bytea[])";
            sqlx::query(insert).bind(bodies).execute(&mut *connection).await?;
        }
        next += batch;
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

/// Takes and deletes `count` bodies that were there before, `batch` in each transaction.
///
/// # Errors
///
/// Those of the database, or when a body is missing.
pub async fn consume(count: u32, batch: u32) -> anyhow::Result<Rate> {
    let mut connection = open().await?;
    insert(&mut connection, count, 100).await?;
    let mut left = count;
    let started = Instant::now();
    while left > 0 {
        let mut transaction = connection.begin().await?;
        let select = "SELECT id, body FROM estafette_bench_floor ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED";
        let rows = sqlx::query(select).bind(i64::from(batch)).fetch_all(&mut *transaction).await?;
        ensure!(!rows.is_empty(), "{left} of {count} messages are missing");
        let mut ids: Vec<i64> = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get(0)?);
            std::hint::black_box(row.try_get::<&[u8], _>(1)?);
        }
        left -= u32::try_from(ids.len())?;
        let delete = sqlx::query("DELETE FROM estafette_bench_floor WHERE id = ANY ($1)");
        delete.bind(ids).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    let rate = Rate::of(count, started.elapsed());
    connection.close().await?;
    Ok(rate)
}
