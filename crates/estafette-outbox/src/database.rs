//! A pool of connections to any of the three databases, and statements written once for all of them.
//!
//! Parameters are question marks; `{now}` is the database's own time in microseconds since 1970.

use std::{str::FromStr as _, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
#[cfg(feature = "sqlx-mysql")]
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlRow};
#[cfg(feature = "sqlx-postgres")]
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
#[cfg(feature = "sqlx-sqlite")]
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::{Dialect, Value, error::from_sqlx};

/// Connections of one relay: it needs one at a time, and `status` one beside.
const CONNECTIONS_MAX: u32 = 4;
/// How long to wait for a connection before the database counts as unavailable.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process that writes.
#[cfg(feature = "sqlx-sqlite")]
const BUSY_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) enum Database {
    #[cfg(feature = "sqlx-postgres")]
    Postgres(PgPool),
    #[cfg(feature = "sqlx-mysql")]
    MySql(MySqlPool),
    #[cfg(feature = "sqlx-sqlite")]
    Sqlite(SqlitePool),
}

pub(crate) enum Row {
    #[cfg(feature = "sqlx-postgres")]
    Postgres(PgRow),
    #[cfg(feature = "sqlx-mysql")]
    MySql(MySqlRow),
    #[cfg(feature = "sqlx-sqlite")]
    Sqlite(SqliteRow),
}

/// Does the same with whichever pool or row there is.
macro_rules! each {
    ($kind:ident, $value:expr, $name:ident => $body:expr) => {
        match $value {
            #[cfg(feature = "sqlx-postgres")]
            $kind::Postgres($name) => $body,
            #[cfg(feature = "sqlx-mysql")]
            $kind::MySql($name) => $body,
            #[cfg(feature = "sqlx-sqlite")]
            $kind::Sqlite($name) => $body,
        }
    };
}

/// The query with its parameters bound.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for value in $values {
            query = match *value {
                Value::Integer(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}
#[cfg(feature = "sqlx-mysql")]
pub(crate) use bound;

impl Database {
    /// A pool for `url`. Connects when it is first used.
    pub(crate) fn open(url: &str) -> Result<Self> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            #[cfg(feature = "sqlx-postgres")]
            "postgres" | "postgresql" => {
                // A claim or a mark that a crash of the server loses costs a duplicate, which a crash may cost anyway.
                let options = PgConnectOptions::from_str(url)
                    .map_err(from_sqlx)?
                    // A claim takes a millisecond; compiling it, which its estimated cost suggests, thirty.
                    .options([("synchronous_commit", "off"), ("jit", "off")]);
                let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_MAX);
                Ok(Self::Postgres(pool.connect_lazy_with(options)))
            }
            #[cfg(feature = "sqlx-mysql")]
            "mysql" | "mariadb" => {
                let options = MySqlConnectOptions::from_str(url).map_err(from_sqlx)?;
                let pool = MySqlPoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(ACQUIRE_MAX)
                    .after_connect(|connection, _| {
                        Box::pin(async move {
                            // Without it a claim locks gaps that applications want to insert into.
                            sqlx::raw_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                                .execute(connection)
                                .await
                                .map(drop)
                        })
                    });
                Ok(Self::MySql(pool.connect_lazy_with(options)))
            }
            #[cfg(feature = "sqlx-sqlite")]
            "sqlite" => {
                let options = SqliteConnectOptions::from_str(url)
                    .map_err(from_sqlx)?
                    .journal_mode(SqliteJournalMode::Wal)
                    .busy_timeout(BUSY_MAX)
                    .create_if_missing(true);
                let pool =
                    SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_MAX);
                Ok(Self::Sqlite(pool.connect_lazy_with(options)))
            }
            _ => {
                let sentence = format!(
                    "{scheme}: is no database this program was built for; it looks like postgres://HOST/DB, \
                     mysql://HOST/DB or sqlite:PATH"
                );
                Err(Error::new(ErrorKind::InvalidInput, sentence))
            }
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "sqlx-postgres")]
            Self::Postgres(_) => Dialect::Postgres,
            #[cfg(feature = "sqlx-mysql")]
            Self::MySql(_) => Dialect::MySql,
            #[cfg(feature = "sqlx-sqlite")]
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Executes a statement and returns how many rows it touched.
    pub(crate) async fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let sql = translate(self.dialect(), sql);
        each!(Self, self, pool => bound!(sql, values).execute(pool).await.map(|done| done.rows_affected()))
            .map_err(from_sqlx)
    }

    /// Executes a statement and returns its rows.
    pub(crate) async fn rows(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let sql = translate(self.dialect(), sql);
        match self {
            #[cfg(feature = "sqlx-postgres")]
            Self::Postgres(pool) => {
                let rows = bound!(sql, values).fetch_all(pool).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            #[cfg(feature = "sqlx-mysql")]
            Self::MySql(pool) => {
                let rows = bound!(sql, values).fetch_all(pool).await;
                rows.map(|rows| rows.into_iter().map(Row::MySql).collect())
            }
            #[cfg(feature = "sqlx-sqlite")]
            Self::Sqlite(pool) => {
                let rows = bound!(sql, values).fetch_all(pool).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
        }
        .map_err(from_sqlx)
    }

    /// Executes statements without parameters, as they are.
    pub(crate) async fn script(&self, sql: &'static str) -> Result<()> {
        each!(Self, self, pool => sqlx::raw_sql(sql).execute(pool).await.map(drop)).map_err(from_sqlx)
    }

    pub(crate) async fn close(&self) {
        each!(Self, self, pool => pool.close().await);
    }
}

impl Row {
    pub(crate) fn integer(&self, column: usize) -> Result<i64> {
        Ok(self.optional_integer(column)?.unwrap_or(0))
    }

    pub(crate) fn optional_integer(&self, column: usize) -> Result<Option<i64>> {
        each!(Self, self, row => row.try_get(column)).map_err(from_sqlx)
    }

    pub(crate) fn text(&self, column: usize) -> Result<String> {
        Ok(self.optional_text(column)?.unwrap_or_default())
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<String>> {
        each!(Self, self, row => row.try_get(column)).map_err(from_sqlx)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>> {
        each!(Self, self, row => row.try_get(column)).map_err(from_sqlx)
    }
}

/// A statement as the database reads it.
pub(crate) fn translate(dialect: Dialect, sql: &str) -> String {
    let sql = sql.replace("{now}", dialect.now());
    if dialect != Dialect::Postgres {
        return sql;
    }
    let mut numbered = String::with_capacity(sql.len() + 16);
    for (number, part) in sql.split('?').enumerate() {
        if number > 0 {
            numbered.push('$');
            numbered.push_str(&number.to_string());
        }
        numbered.push_str(part);
    }
    numbered
}
