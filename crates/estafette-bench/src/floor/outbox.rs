//! An outbox by hand on PostgreSQL: one transaction that locks a batch of rows, publishes them with confirmation and updates
//! them. No lease, no order of subjects, no attempts; a slow broker keeps the transaction open.

use std::time::Instant;

use anyhow::Context as _;
use estafette::{Envelope, Outgoing, Transport, outbox::Store};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::postgres;
use crate::case::Rate;

/// The database of both loops.
const DATABASE: &str = "estafette_bench_outbox";

/// A row of the size of an outbox's, in a table without anything around it.
const PLAIN: &str = "CREATE TABLE orders (id bigint PRIMARY KEY);
    CREATE TABLE plain (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id varchar(255) NOT NULL,
        subject_type varchar(255), subject_id varchar(255), topic varchar(255) NOT NULL, payload bytea NOT NULL,
        attributes text NOT NULL, created_at bigint NOT NULL)";

/// Rows of the application, written with one statement: what is measured is publishing them.
const FILL: &str = r#"INSERT INTO estafette_outbox
        (id, subject_type, subject_id, lane, topic, payload, attributes, created_at, updated_at)
    SELECT id, 'order', n::text, 'order/' || n, 'bench.message', convert_to(repeat('x', 256), 'UTF8'),
        '{"specversion":"1.0","id":"' || id || '","source":"bench","type":"bench.message",'
            || '"time":"2026-11-21T05:00:00Z","subject":"' || n || '"}', 0, 0
    FROM (SELECT n, gen_random_uuid()::text AS id FROM generate_series(1, $1) AS n) AS rows"#;

/// A new database with the tables, and its URL.
///
/// # Errors
///
/// Those of the database.
pub async fn database() -> anyhow::Result<String> {
    let server = postgres::url()?;
    let mut connection = PgConnection::connect(&server).await?;
    for sql in
        [format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"), format!("CREATE DATABASE {DATABASE}")]
    {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    connection.close().await?;
    let (host, _) = server.rsplit_once('/').context("the URL names no database")?;
    let url = format!("{host}/{DATABASE}");
    let store = Store::open(&url)?;
    store.init().await?;
    store.close().await;
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::raw_sql(PLAIN).execute(&mut connection).await?;
    connection.close().await?;
    Ok(url)
}

/// Writes `count` rows to be published.
///
/// # Errors
///
/// Those of the database.
pub async fn fill(url: &str, count: u32) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(FILL).bind(i64::from(count)).execute(&mut connection).await?;
    sqlx::raw_sql("VACUUM ANALYZE estafette_outbox").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Publishes `count` rows, `batch` in each transaction.
///
/// # Errors
///
/// Those of the database and of the transport.
pub async fn relay(transport: &dyn Transport, count: u32, batch: i64) -> anyhow::Result<Rate> {
    let url = database().await?;
    fill(&url, count).await?;
    let mut connection = PgConnection::connect(&url).await?;
    let started = Instant::now();
    loop {
        let mut transaction = connection.begin().await?;
        let select = "SELECT seq, topic, payload FROM estafette_outbox WHERE status = 'waiting' ORDER BY seq \
                      LIMIT $1 FOR UPDATE SKIP LOCKED";
        let rows = sqlx::query(select).bind(batch).fetch_all(&mut *transaction).await?;
        if rows.is_empty() {
            break;
        }
        let (mut numbers, mut messages) = (Vec::new(), Vec::new());
        for row in &rows {
            numbers.push(row.try_get::<i64, _>(0)?);
            let topic = row.try_get::<&str, _>(1)?.parse()?;
            messages.push(Outgoing::publish(Envelope::new(topic, row.try_get::<Vec<u8>, _>(2)?.into())));
        }
        transport.publish(&messages).await.into_iter().collect::<estafette::Result<Vec<_>>>()?;
        let update = "UPDATE estafette_outbox SET status = 'sent', sent_at = 1 WHERE seq = ANY($1)";
        sqlx::query(update).bind(numbers).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    let rate = Rate::of(count, started.elapsed());
    connection.close().await?;
    Ok(rate)
}

/// Commits `count` transactions of an order and a row of the size of its event.
///
/// # Errors
///
/// Those of the database.
pub async fn insert(count: u32) -> anyhow::Result<Rate> {
    let mut connection = PgConnection::connect(&database().await?).await?;
    let attributes = r#"{"id":"01a1fc72-14c4-70a8-824e-f41e4c46a933","source":"bench","specversion":"1.0","subject":"12345","time":"2026-11-21T05:00:00.123456Z","type":"bench.message"}"#;
    let body = vec![b'x'; 256];
    let started = Instant::now();
    for number in 0..i64::from(count) {
        let mut transaction = connection.begin().await?;
        sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(number).execute(&mut *transaction).await?;
        let insert = "INSERT INTO plain (id, subject_type, subject_id, topic, payload, attributes, created_at) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(insert)
            .bind("01a1fc72-14c4-70a8-824e-f41e4c46a933")
            .bind("order")
            .bind(number.to_string())
            .bind("bench.message")
            .bind(&body)
            .bind(attributes)
            .bind(0_i64)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    let rate = Rate::of(count, started.elapsed());
    connection.close().await?;
    Ok(rate)
}
