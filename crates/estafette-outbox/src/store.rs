//! The tables: making them, counting what is in them, publishing again, cleaning.

use std::time::Duration;

use estafette_core::{Pattern, Result, Timestamp, async_trait};

use crate::{Dialect, Executor, Value, database::Database};

/// Rows changed or deleted together at most, so that no statement holds many locks for long.
const CHUNK: usize = 1000;

/// The database with the tables `estafette_outbox`, `estafette_inbox` and `estafette_dead_letters`. Clones share its
/// connections.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

/// What is in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxStatus {
    /// Rows to be published, delayed and retried ones included.
    pub waiting: u64,
    /// Those of them that are not due yet.
    pub delayed: u64,
    /// Rows published.
    pub sent: u64,
    /// Rows that were tried as often as allowed. Each blocks the later rows of its subject.
    pub failed: u64,
    /// When the oldest waiting row was written.
    pub oldest: Option<Timestamp>,
    /// How long the oldest row that is due has been waiting.
    pub lag: Duration,
    /// What went wrong with the row that was tried last of those not sent.
    pub last_error: Option<String>,
}

/// Which rows [`Store::retry`] publishes again. Sent and failed ones by default; each field narrows it.
#[derive(Clone, Debug, Default)]
pub struct RetryQuery {
    /// Only rows written at that time or later.
    pub since: Option<Timestamp>,
    /// Only failed ones.
    pub failed: bool,
    /// Only those whose topic matches.
    pub topic: Option<Pattern>,
}

impl Store {
    /// A store at `postgres://…`, `mysql://…` or `sqlite:PATH`. Connects when it is first used, and again whenever
    /// necessary.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](estafette_core::ErrorKind::InvalidInput) for a URL of another kind.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self { database: Database::open(url)? })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The kind of database.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.database.dialect()
    }

    /// The statements that make the tables, for a migration tool of one's own.
    #[must_use]
    pub fn schema(dialect: Dialect) -> &'static str {
        dialect.choose(
            include_str!("schema/postgres.sql"),
            include_str!("schema/mysql.sql"),
            include_str!("schema/sqlite.sql"),
        )
    }

    /// Makes the tables that are not there yet.
    ///
    /// # Errors
    ///
    /// Those of the database; so for all functions here.
    pub async fn init(&self) -> Result<()> {
        self.database.script(Self::schema(self.dialect())).await
    }

    /// Counts what is in the outbox. Reads the whole index; not for every second.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub async fn status(&self) -> Result<OutboxStatus> {
        let sql = "SELECT status, count(*), min(created_at), count(CASE WHEN due_at > {now} THEN 1 END) \
                   FROM estafette_outbox GROUP BY status";
        let (mut waiting, mut delayed, mut sent, mut failed, mut oldest) = (0, 0, 0, 0, None);
        for row in self.database.rows(sql, &[]).await? {
            let count = u64::try_from(row.integer(1)?).unwrap_or(0);
            match row.text(0)?.as_str() {
                "waiting" => {
                    waiting = count;
                    oldest = row.optional_integer(2)?.map(Timestamp::from_micros);
                    delayed = u64::try_from(row.integer(3)?).unwrap_or(0);
                }
                "sent" => sent = count,
                _ => failed = count,
            }
        }
        let sql = "SELECT last_error FROM estafette_outbox WHERE status <> 'sent' AND last_error IS NOT NULL \
                   ORDER BY updated_at DESC LIMIT 1";
        let last_error = match self.database.rows(sql, &[]).await?.first() {
            Some(row) => row.optional_text(0)?,
            None => None,
        };
        Ok(OutboxStatus { waiting, delayed, sent, failed, oldest, lag: self.lag().await?, last_error })
    }

    /// How long the oldest row that is due has been waiting; zero when none is.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub async fn lag(&self) -> Result<Duration> {
        let sql = "SELECT {now} - CASE WHEN due_at > created_at THEN due_at ELSE created_at END \
                   FROM estafette_outbox WHERE status = 'waiting' AND due_at <= {now} ORDER BY seq LIMIT 1";
        let micros = match self.database.rows(sql, &[]).await?.first() {
            Some(row) => row.integer(0)?,
            None => 0,
        };
        Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }

    /// Publishes rows again: they wait again, with all their attempts before them. A row that was sent keeps its id, so that an
    /// inbox knows it. Returns how many there are.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub async fn retry(&self, query: &RetryQuery) -> Result<u64> {
        let lane = self.dialect().choose(
            "subject_type || '/' || subject_id",
            "CONCAT(subject_type, '/', subject_id)",
            "subject_type || '/' || subject_id",
        );
        let statuses = if query.failed { "status = 'failed'" } else { "status IN ('failed', 'sent')" };
        let since = query.since.unwrap_or(Timestamp::from_micros(0)).as_micros();
        let find = format!(
            "SELECT seq, topic FROM estafette_outbox WHERE {statuses} AND created_at >= ? AND seq > ? \
             ORDER BY seq LIMIT {CHUNK}"
        );
        let (mut last, mut changed) = (0, 0);
        loop {
            let found = self.database.rows(&find, &[Value::Integer(since), Value::Integer(last)]).await?;
            let mut meant = Vec::new();
            for row in &found {
                last = row.integer(0)?;
                let topic = row.text(1)?.parse()?;
                if query.topic.as_ref().is_none_or(|pattern| pattern.matches(&topic)) {
                    meant.push(last.to_string());
                }
            }
            if !meant.is_empty() {
                let sql = format!(
                    "UPDATE estafette_outbox SET status = 'waiting', attempts = 0, due_at = 0, claim = 0, \
                     claimed_until = 0, sent_at = NULL, updated_at = {{now}}, lane = {lane} \
                     WHERE {statuses} AND seq IN ({})",
                    meant.join(", ")
                );
                changed += self.database.execute(&sql, &[]).await?;
            }
            if found.len() < CHUNK {
                return Ok(changed);
            }
        }
    }

    /// Deletes rows that were sent longer ago than `age`, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub async fn clean(&self, age: Duration) -> Result<u64> {
        self.delete_in_chunks("estafette_outbox", "status = 'sent' AND sent_at <= ?", age).await
    }

    /// Gives failed rows up that were last tried longer ago than `age`: deletes them, which lets the later rows of their
    /// subjects go. Returns how many.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub async fn discard_failed(&self, age: Duration) -> Result<u64> {
        self.delete_in_chunks("estafette_outbox", "status = 'failed' AND updated_at <= ?", age).await
    }

    async fn delete_in_chunks(&self, table: &str, condition: &str, age: Duration) -> Result<u64> {
        let before = (Timestamp::now() - age).as_micros();
        let find = format!("SELECT seq FROM {table} WHERE {condition} ORDER BY seq LIMIT {CHUNK}");
        let mut deleted = 0;
        loop {
            let found = self.database.rows(&find, &[Value::Integer(before)]).await?;
            if found.is_empty() {
                return Ok(deleted);
            }
            let numbers = found.iter().map(|row| row.integer(0).map(|seq| seq.to_string()));
            let numbers = numbers.collect::<Result<Vec<_>>>()?.join(", ");
            let sql = format!("DELETE FROM {table} WHERE {condition} AND seq IN ({numbers})");
            deleted += self.database.execute(&sql, &[Value::Integer(before)]).await?;
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// Each statement is a transaction of its own: for events that go with no other change.
#[async_trait]
impl Executor for Store {
    fn dialect(&self) -> Dialect {
        self.database.dialect()
    }

    async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        self.database.execute(sql, values).await
    }
}
