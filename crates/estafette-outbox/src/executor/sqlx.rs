//! sqlx: connections and transactions of its three databases.

use estafette_core::{Result, async_trait};
#[cfg(feature = "sqlx-mysql")]
use sqlx::{MySql, mysql::MySqlConnection};
#[cfg(feature = "sqlx-postgres")]
use sqlx::{Postgres, postgres::PgConnection};
#[cfg(feature = "sqlx-sqlite")]
use sqlx::{Sqlite, sqlite::SqliteConnection};

use super::{Dialect, Executor, Value};
use crate::error::from_sqlx;

macro_rules! executor {
    ($feature:literal, $database:ident, $connection:ident, $dialect:ident) => {
        #[cfg(feature = $feature)]
        #[async_trait]
        impl Executor for $connection {
            fn dialect(&self) -> Dialect {
                Dialect::$dialect
            }

            async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
                let mut query = sqlx::query::<$database>(sql);
                for value in values {
                    query = match *value {
                        Value::Integer(number) => query.bind(number),
                        Value::Text(text) => query.bind(text),
                        Value::Bytes(bytes) => query.bind(bytes),
                    };
                }
                query.execute(self).await.map(|done| done.rows_affected()).map_err(from_sqlx)
            }
        }

        #[cfg(feature = $feature)]
        #[async_trait]
        impl Executor for sqlx::Transaction<'_, $database> {
            fn dialect(&self) -> Dialect {
                Dialect::$dialect
            }

            async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
                let connection: &mut $connection = self;
                Executor::execute(connection, sql, values).await
            }
        }
    };
}

executor!("sqlx-postgres", Postgres, PgConnection, Postgres);
executor!("sqlx-mysql", MySql, MySqlConnection, MySql);
executor!("sqlx-sqlite", Sqlite, SqliteConnection, Sqlite);
