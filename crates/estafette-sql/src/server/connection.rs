//! A connection to either kind of server, for the statements both understand.
//!
//! What is frequent has a form of its own for each engine, in `postgres` and `mysql`. The rest is written once: parameters are
//! question marks, `{now}` is the server's time in microseconds since 1970 and `{int}` the name of a 64-bit number in a cast.

#[cfg(feature = "mysql")]
use sqlx::mysql::{MySqlConnection, MySqlRow};
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use estafette_core::{Error, ErrorKind, Result};

#[cfg(feature = "mysql")]
use super::mysql;
#[cfg(feature = "postgres")]
use super::postgres;
use super::{config::Engine, error::from_server};

/// A connection.
pub(crate) enum Connection {
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    #[cfg(feature = "mysql")]
    MySql(MySqlConnection),
}

/// A row of an answer.
pub(crate) enum Row {
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
    #[cfg(feature = "mysql")]
    MySql(MySqlRow),
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    Integer(Option<i64>),
    Text(Option<&'v str>),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'v> From<Option<&'v str>> for Value<'v> {
    fn from(text: Option<&'v str>) -> Self {
        Self::Text(text)
    }
}

/// The query with its parameters bound.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for value in $values {
            query = match *value {
                Value::Integer(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
            };
        }
        query
    }};
}

impl Connection {
    fn engine(&self) -> Engine {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Engine::Postgres,
            #[cfg(feature = "mysql")]
            Self::MySql(_) => Engine::MySql,
        }
    }

    /// Executes a statement and returns how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let sql = translate(self.engine(), sql);
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                bound!(sql, values).execute(connection).await.map(|done| done.rows_affected())
            }
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => {
                bound!(sql, values).execute(connection).await.map(|done| done.rows_affected())
            }
        }
        .map_err(from_server)
    }

    /// Executes a statement and returns its rows.
    pub(crate) async fn rows(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let sql = translate(self.engine(), sql);
        let rows = match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                let rows = bound!(sql, values).fetch_all(connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => {
                let rows = bound!(sql, values).fetch_all(connection).await;
                rows.map(|rows| rows.into_iter().map(Row::MySql).collect())
            }
        };
        rows.map_err(from_server)
    }

    /// The first row, if there is one.
    pub(crate) async fn row(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The number in the first row, if there is one.
    pub(crate) async fn integer(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<i64>> {
        match self.row(sql, values).await? {
            Some(row) => row.optional_integer(0),
            None => Ok(None),
        }
    }

    /// The row id an insert into `estafette_queue` made.
    pub(crate) async fn insert_queue(&mut self, name: &str, owner: Option<&str>) -> Result<i64> {
        let insert = "INSERT INTO estafette_queue (name, owner) VALUES (?, ?)";
        self.execute(insert, &[name.into(), owner.into()]).await?;
        let found = self.integer("SELECT id FROM estafette_queue WHERE name = ?", &[name.into()]).await?;
        found.ok_or_else(|| Error::from(ErrorKind::Engine))
    }

    /// Executes statements without parameters, as they are.
    pub(crate) async fn script(&mut self, sql: &str) -> Result<()> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
            }
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop),
        }
        .map_err(from_server)
    }

    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.script("BEGIN").await
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.script("COMMIT").await
    }

    /// Closes it; what was not committed is undone.
    pub(crate) async fn close(self) -> Result<()> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.close().await,
            #[cfg(feature = "mysql")]
            Self::MySql(connection) => connection.close().await,
        }
        .map_err(from_server)
    }
}

impl Row {
    pub(crate) fn integer(&self, column: usize) -> Result<i64> {
        Ok(self.optional_integer(column)?.unwrap_or(0))
    }

    pub(crate) fn optional_integer(&self, column: usize) -> Result<Option<i64>> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => row.try_get(column),
            #[cfg(feature = "mysql")]
            Self::MySql(row) => row.try_get(column),
        }
        .map_err(from_server)
    }

    pub(crate) fn text(&self, column: usize) -> Result<&str> {
        Ok(self.optional_text(column)?.unwrap_or_default())
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<&str>> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => row.try_get(column),
            #[cfg(feature = "mysql")]
            Self::MySql(row) => row.try_get(column),
        }
        .map_err(from_server)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<&[u8]> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => row.try_get(column),
            #[cfg(feature = "mysql")]
            Self::MySql(row) => row.try_get(column),
        }
        .map_err(from_server)
    }
}

/// A statement as the engine reads it.
fn translate(engine: Engine, sql: &str) -> String {
    match engine {
        #[cfg(feature = "postgres")]
        Engine::Postgres => {
            number_parameters(&sql.replace("{now}", postgres::NOW).replace("{int}", "bigint"))
        }
        #[cfg(feature = "mysql")]
        Engine::MySql => sql.replace("{now}", mysql::NOW).replace("{int}", "SIGNED"),
    }
}

#[cfg(feature = "postgres")]
fn number_parameters(sql: &str) -> String {
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
