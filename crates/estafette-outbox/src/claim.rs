//! What a relay does with rows: claims them, marks them sent, gives them back.
//!
//! A claim is a number of its own and an end of its time, so no transaction is open while the transport works. A row is
//! claimable when it waits, is due, nobody holds it, and the first row of its lane is not failed, held or to be tried later.
//! One look at that row is enough: a lane goes out from its front. Asked with NOT EXISTS, PostgreSQL reads the whole table.
//! Between that check and the lock another relay may have taken the row before; `Claimed::previous` tells, and such a row is
//! given back.

use std::time::Duration;

use estafette_core::{Result, Timestamp};

use crate::{
    Store, Value,
    database::{Database, Row},
    row::Claimed,
};

/// Rows that are claimable, oldest first, and the parameter that says how many.
macro_rules! claimable {
    ($columns:literal, $limit:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM estafette_outbox o WHERE o.status = 'waiting' AND o.due_at <= {now} AND o.claimed_until <= {now} ",
            "AND COALESCE((SELECT CASE WHEN h.status = 'failed' OR h.due_at > {now} OR h.claimed_until > {now} THEN 1 ",
            "ELSE 0 END FROM estafette_outbox h WHERE h.lane = o.lane AND h.seq < o.seq ORDER BY h.seq LIMIT 1), 0) = 0 ",
            "ORDER BY o.seq LIMIT ",
            $limit
        )
    };
}

#[cfg(feature = "sqlx-postgres")]
const CLAIM_POSTGRES: &str = concat!(
    "WITH candidate AS (",
    claimable!(
        "o.seq, (SELECT max(p.seq) FROM estafette_outbox p WHERE p.lane = o.lane AND p.seq < o.seq) AS previous",
        "?"
    ),
    " FOR UPDATE OF o SKIP LOCKED) UPDATE estafette_outbox t SET claim = ?, claimed_until = {now} + ? ",
    "FROM candidate c WHERE t.seq = c.seq ",
    "RETURNING t.seq, t.lane, c.previous, t.attempts, t.created_at, t.queue, t.exchange, t.attributes, t.payload"
);

#[cfg(feature = "sqlx-sqlite")]
const CLAIM_SQLITE: &str = concat!(
    "UPDATE estafette_outbox AS t SET claim = ?2, claimed_until = {now} + ?3 WHERE t.seq IN (",
    claimable!("o.seq", "?1"),
    ") ",
    "RETURNING seq, lane, (SELECT max(p.seq) FROM estafette_outbox p WHERE p.lane = estafette_outbox.lane ",
    "AND p.seq < estafette_outbox.seq), attempts, created_at, queue, exchange, attributes, payload"
);

#[cfg(feature = "sqlx-mysql")]
const LOCK_MYSQL: &str = concat!(
    claimable!(
        "o.seq, o.lane, (SELECT max(p.seq) FROM estafette_outbox p WHERE p.lane = o.lane AND p.seq < o.seq), \
         o.attempts, o.created_at, o.queue, o.exchange, o.attributes, o.payload",
        "?"
    ),
    " FOR UPDATE SKIP LOCKED"
);

/// The rows one relay holds for a while.
pub(crate) struct Claim {
    /// Tells them from those of every other claim.
    pub(crate) token: i64,
    /// Oldest first.
    pub(crate) rows: Vec<Claimed>,
}

impl Store {
    /// Claims up to `max` rows for `lease`.
    pub(crate) async fn claim(&self, max: usize, lease: Duration) -> Result<Claim> {
        let token = fastrand::i64(1..);
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4);
        let values = [Value::Integer(max), Value::Integer(token), Value::Integer(lease)];
        let rows = match self.database() {
            #[cfg(feature = "sqlx-postgres")]
            Database::Postgres(_) => self.database().rows(CLAIM_POSTGRES, &values).await?,
            #[cfg(feature = "sqlx-mysql")]
            Database::MySql(pool) => claim_mysql(pool, &values).await?,
            #[cfg(feature = "sqlx-sqlite")]
            Database::Sqlite(_) => self.database().rows(CLAIM_SQLITE, &values).await?,
        };
        let mut rows = rows.iter().map(claimed).collect::<Result<Vec<Claimed>>>()?;
        rows.sort_unstable_by_key(|row| row.seq);
        Ok(Claim { token, rows })
    }

    /// Marks rows of a claim sent, and returns how many still belonged to it.
    pub(crate) async fn mark_sent(&self, token: i64, rows: &[i64]) -> Result<u64> {
        let change = "status = 'sent', sent_at = {now}, updated_at = {now}, lane = NULL, last_error = NULL, \
                      attempts = attempts + 1, claim = 0, claimed_until = 0";
        self.change(change, &[], token, rows).await
    }

    /// Gives rows of a claim back as they are.
    pub(crate) async fn release(&self, token: i64, rows: &[i64]) -> Result<u64> {
        self.change("claim = 0, claimed_until = 0", &[], token, rows).await
    }

    /// Gives rows back because of `error`, which is not theirs.
    pub(crate) async fn interrupt(&self, token: i64, rows: &[i64], error: &str) -> Result<u64> {
        let change = "last_error = ?, updated_at = {now}, claim = 0, claimed_until = 0";
        self.change(change, &[Value::Text(Some(error))], token, rows).await
    }

    /// Gives a row back to be tried again after `delay`, or for good without one.
    pub(crate) async fn fail(
        &self,
        token: i64,
        row: i64,
        error: &str,
        delay: Option<Duration>,
    ) -> Result<u64> {
        let status = if delay.is_some() { "waiting" } else { "failed" };
        let delay = i64::try_from(delay.unwrap_or_default().as_micros()).unwrap_or(i64::MAX / 4);
        let change = "status = ?, last_error = ?, due_at = {now} + ?, attempts = attempts + 1, updated_at = {now}, \
                      claim = 0, claimed_until = 0";
        let values = [Value::Text(Some(status)), Value::Text(Some(error)), Value::Integer(delay)];
        self.change(change, &values, token, &[row]).await
    }

    async fn change(&self, change: &str, values: &[Value<'_>], token: i64, rows: &[i64]) -> Result<u64> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(0) };
        let mut values = values.to_vec();
        values.push(Value::Integer(token));
        let rows = if rows.len() == 1 {
            values.push(Value::Integer(*first));
            "seq = ?".to_owned()
        } else {
            values.extend([Value::Integer(*first), Value::Integer(*last)]);
            format!("seq BETWEEN ? AND ?{}", exactly(rows, *last - *first))
        };
        let sql = format!("UPDATE estafette_outbox SET {change} WHERE claim = ? AND {rows}");
        self.database().execute(&sql, &values).await
    }
}

/// Narrows a range of rows to exactly those given. Where every row of a claim is meant the range and the claim say
/// enough, and the statement stays the same one, which databases prepare once; the caller orders `rows`.
fn exactly(rows: &[i64], span: i64) -> String {
    if usize::try_from(span).is_ok_and(|span| span + 1 == rows.len()) {
        return String::new();
    }
    format!(" AND seq IN ({})", rows.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
}

#[cfg(feature = "sqlx-mysql")]
async fn claim_mysql(pool: &sqlx::MySqlPool, values: &[Value<'_>; 3]) -> Result<Vec<Row>> {
    use crate::{
        database::{bound, translate},
        error::from_sqlx,
    };
    use sqlx::AssertSqlSafe;

    let [max, token, lease] = values;
    let mut transaction = pool.begin().await.map_err(from_sqlx)?;
    let sql = translate(crate::Dialect::MySql, LOCK_MYSQL);
    let rows = bound!(sql, [max]).fetch_all(&mut *transaction).await.map_err(from_sqlx)?;
    let rows: Vec<Row> = rows.into_iter().map(Row::MySql).collect();
    if rows.is_empty() {
        return Ok(rows);
    }
    let numbers = rows.iter().map(|row| row.integer(0)).collect::<Result<Vec<i64>>>()?;
    let first = numbers.iter().min().copied().unwrap_or_default();
    let last = numbers.iter().max().copied().unwrap_or_default();
    let sql = format!(
        "UPDATE estafette_outbox SET claim = ?, claimed_until = {{now}} + ? WHERE seq BETWEEN ? AND ?{}",
        exactly(&numbers, last - first)
    );
    let sql = translate(crate::Dialect::MySql, &sql);
    let values = [token, lease, &Value::Integer(first), &Value::Integer(last)];
    bound!(sql, values).execute(&mut *transaction).await.map_err(from_sqlx)?;
    transaction.commit().await.map_err(from_sqlx)?;
    Ok(rows)
}

fn claimed(row: &Row) -> Result<Claimed> {
    Ok(Claimed {
        seq: row.integer(0)?,
        lane: row.optional_text(1)?,
        previous: row.optional_integer(2)?,
        attempts: row.integer(3)?,
        created_at: Timestamp::from_micros(row.integer(4)?),
        queue: row.optional_text(5)?,
        exchange: row.optional_text(6)?,
        attributes: row.text(7)?,
        payload: row.bytes(8)?,
    })
}
