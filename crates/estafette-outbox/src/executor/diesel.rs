//! Diesel: its connections that block. A transaction of Diesel's is its connection between `BEGIN` and `COMMIT`.

use diesel::{
    RunQueryDsl as _,
    result::{DatabaseErrorKind, Error as DieselError},
    sql_query,
    sql_types::{BigInt, Binary, Nullable, Text},
};
use estafette_core::{Error, ErrorKind, Result};

use super::{BlockingExecutor, Dialect, Value};

macro_rules! executor {
    ($feature:literal, $connection:ty, $dialect:ident) => {
        #[cfg(feature = $feature)]
        impl BlockingExecutor for $connection {
            fn dialect(&self) -> Dialect {
                Dialect::$dialect
            }

            fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
                let mut query = sql_query(sql).into_boxed();
                for value in values {
                    query = match *value {
                        Value::Integer(number) => query.bind::<BigInt, _>(number),
                        Value::Text(text) => query.bind::<Nullable<Text>, _>(text.map(str::to_owned)),
                        Value::Bytes(bytes) => query.bind::<Binary, _>(bytes.to_vec()),
                    };
                }
                match query.execute(self) {
                    Ok(count) => Ok(count as u64),
                    Err(error) => Err(from_diesel(error)),
                }
            }
        }
    };
}

executor!("diesel-postgres", diesel::PgConnection, Postgres);
executor!("diesel-mysql", diesel::MysqlConnection, MySql);
executor!("diesel-sqlite", diesel::SqliteConnection, Sqlite);

fn from_diesel(error: DieselError) -> Error {
    let kind = match &error {
        DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::SerializationFailure,
            _,
        ) => ErrorKind::Unavailable,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, error)
}
