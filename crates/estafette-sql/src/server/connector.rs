//! Making connections, and what is set on each.

use estafette_core::Result;
use sqlx::ConnectOptions as _;
#[cfg(feature = "mysql")]
use sqlx::Executor as _;
#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlConnectOptions;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgConnectOptions;

use super::{
    config::{Engine, ServerConfig},
    connection::Connection,
    error::while_connecting,
    pool::Flush,
};

/// How many prepared statements a connection keeps; batches of different sizes are different statements on MySQL.
const STATEMENTS_MAX: usize = 300;

/// Connects once.
pub(crate) async fn connect(config: &ServerConfig, flush: Flush) -> Result<Connection> {
    match config.engine {
        #[cfg(feature = "postgres")]
        Engine::Postgres => {
            let connection = postgres(config, flush)?.connect().await.map_err(while_connecting)?;
            Ok(Connection::Postgres(connection))
        }
        #[cfg(feature = "mysql")]
        Engine::MySql => {
            let options: MySqlConnectOptions = config.address.parse().map_err(while_connecting)?;
            let options = options.statement_cache_capacity(STATEMENTS_MAX).disable_statement_logging();
            let mut connection = options.connect().await.map_err(while_connecting)?;
            // Without gaps locked, consumers and publishers do not stop each other; a row that cannot be stored as it is must
            // be an error.
            for setting in [
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = 10",
            ] {
                connection.execute(sqlx::raw_sql(setting)).await.map_err(while_connecting)?;
            }
            Ok(Connection::MySql(connection))
        }
    }
}

/// The settings of a connection to PostgreSQL, without those of the work it does.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_address(config: &ServerConfig) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = config.address.parse().map_err(while_connecting)?;
    let options = match &config.schema {
        Some(schema) => options.options([("search_path", schema.as_str())]),
        None => options,
    };
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("estafette") };
    Ok(options.disable_statement_logging())
}

#[cfg(feature = "postgres")]
fn postgres(config: &ServerConfig, flush: Flush) -> Result<PgConnectOptions> {
    let options = postgres_address(config)?.statement_cache_capacity(STATEMENTS_MAX).options([
        // One plan for each statement, by index, whatever the statistics say: they are of another moment, a queue is empty
        // now and long a minute later.
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_bitmapscan", "off"),
        ("jit", "off"),
        // A program that was stopped in the middle must not hold its locks for ever.
        ("idle_in_transaction_session_timeout", "60s"),
    ]);
    Ok(match flush {
        Flush::Server => options,
        Flush::Later => options.options([("synchronous_commit", "off")]),
    })
}
