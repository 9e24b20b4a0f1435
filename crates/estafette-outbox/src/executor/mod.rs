//! The seam to a caller's transaction: anything that can execute one statement with parameters.
//!
//! Implemented for the connections and transactions of sqlx, SeaORM and Diesel, a file each. An application with another
//! library implements [`Executor`] itself: two functions.

#[cfg(any(feature = "diesel-postgres", feature = "diesel-mysql", feature = "diesel-sqlite"))]
mod diesel;
#[cfg(feature = "seaorm")]
mod seaorm;
mod sqlx;

use estafette_core::{Result, async_trait};

/// A kind of database, for what differs in its SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 14 or newer; parameters are `$1`, `$2` ….
    Postgres,
    /// MySQL 8 or MariaDB 10.6 or newer; parameters are `?`.
    MySql,
    /// SQLite 3.42 or newer; parameters are `?`.
    Sqlite,
}

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'v> {
    /// A 64-bit number.
    Integer(i64),
    /// A text, or NULL.
    Text(Option<&'v str>),
    /// Bytes.
    Bytes(&'v [u8]),
}

/// A transaction that is open: what [`Outbox`](crate::Outbox) and [`Inbox`](crate::Inbox) write in.
///
/// A connection without a transaction does, too; each statement is one of its own then.
#[async_trait]
pub trait Executor: Send {
    /// The database behind it.
    fn dialect(&self) -> Dialect;

    /// Executes a statement, and returns how many rows it touched.
    ///
    /// # Errors
    ///
    /// Those of the database.
    async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64>;
}

/// As [`Executor`], for libraries that block the thread.
pub trait BlockingExecutor {
    /// The database behind it.
    fn dialect(&self) -> Dialect;

    /// Executes a statement, and returns how many rows it touched.
    ///
    /// # Errors
    ///
    /// Those of the database.
    fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64>;
}

impl Dialect {
    /// One of three texts.
    pub(crate) fn choose(
        self,
        postgres: &'static str,
        mysql: &'static str,
        sqlite: &'static str,
    ) -> &'static str {
        match self {
            Self::Postgres => postgres,
            Self::MySql => mysql,
            Self::Sqlite => sqlite,
        }
    }

    /// The database's own time, in microseconds since 1970: leases and delays are counted by one clock.
    pub(crate) fn now(self) -> &'static str {
        self.choose(
            "(extract(epoch from statement_timestamp()) * 1000000)::bigint",
            "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
            "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        )
    }
}
