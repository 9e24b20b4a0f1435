//! SeaORM: its transaction, and its connection for what needs none.

use estafette_core::{Error, ErrorKind, Result, async_trait};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, Statement,
};

use super::{Dialect, Executor, Value};

macro_rules! executor {
    ($connection:ty) => {
        #[async_trait]
        impl Executor for $connection {
            fn dialect(&self) -> Dialect {
                dialect(self.get_database_backend())
            }

            async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
                execute(self, sql, values).await
            }
        }
    };
}

executor!(DatabaseTransaction);
executor!(DatabaseConnection);

async fn execute<C: ConnectionTrait>(connection: &C, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
    let values = values.iter().map(|value| match *value {
        Value::Integer(number) => sea_orm::Value::from(number),
        Value::Text(text) => sea_orm::Value::from(text.map(str::to_owned)),
        Value::Bytes(bytes) => sea_orm::Value::from(bytes.to_vec()),
    });
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    connection.execute_raw(statement).await.map(|done| done.rows_affected()).map_err(from_seaorm)
}

fn dialect(backend: DbBackend) -> Dialect {
    match backend {
        DbBackend::Postgres => Dialect::Postgres,
        DbBackend::MySql => Dialect::MySql,
        // SQLite; the enum is open, and what comes next would have to say that it speaks something else.
        _ => Dialect::Sqlite,
    }
}

fn from_seaorm(error: DbErr) -> Error {
    let kind = match &error {
        DbErr::Conn(RuntimeErr::Internal(_)) | DbErr::ConnectionAcquire(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, error)
}
