//! The tables on a server, and how a database gets them.
//!
//! The idea is SQLite's: names that begin with `estafette_`, and messages kept in the order in which they are due, where a lease is
//! a message that is due at the lease's end, which is its fence too. Unlike there, each message is a row of its own: rows are
//! what servers lock, and so many consumers can claim at once.
//!
//! Steps that were released are never edited; a change is a new step.

use estafette_core::{Error, ErrorKind, Result};

#[cfg(feature = "mysql")]
use super::mysql;
#[cfg(feature = "postgres")]
use super::postgres;
use super::{
    config::{Engine, ServerConfig},
    connection::Connection,
    connector,
    pool::Flush,
};

/// The steps from an empty database to the newest version, in order.
fn steps(engine: Engine) -> &'static [&'static str] {
    match engine {
        #[cfg(feature = "postgres")]
        Engine::Postgres => &postgres::STEPS,
        #[cfg(feature = "mysql")]
        Engine::MySql => &mysql::STEPS,
    }
}

/// The SQL that makes or updates the tables, to be run by another tool: every step, each with the version it leads to.
#[must_use]
pub fn migrations(config: &ServerConfig) -> Vec<(usize, String)> {
    let schema = config
        .schema
        .iter()
        .map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {schema};\nSET search_path = {schema};\n"));
    let mut opening: String = schema.collect();
    let number = |(version, step): (usize, &&str)| {
        let update = format!("UPDATE estafette_schema SET version = {version};\n");
        (version, std::mem::take(&mut opening) + step.trim_start() + &update)
    };
    (1..).zip(steps(config.engine)).map(number).collect()
}

/// Brings a server's database to the newest version, and returns the versions before and after.
///
/// # Errors
///
/// Those of [`SqlTransport::connect_to_server`](crate::SqlTransport::connect_to_server).
pub async fn migrate(config: &ServerConfig) -> Result<(usize, usize)> {
    let mut connection = connector::connect(config, Flush::Server).await?;
    let migrated = bring_up_to_date(&mut connection, config).await;
    connection.close().await?;
    migrated
}

/// The same on a connection. Any number of processes may do so at once.
pub(crate) async fn bring_up_to_date(
    connection: &mut Connection,
    config: &ServerConfig,
) -> Result<(usize, usize)> {
    let steps = steps(config.engine);
    if let Ok(found) = version(connection, steps.len()).await
        && found == steps.len()
    {
        return Ok((found, found));
    }
    lock(connection, Lock::Take).await?;
    let migrated = take_steps(connection, config, steps).await;
    lock(connection, Lock::LetGo).await?;
    migrated
}

async fn take_steps(
    connection: &mut Connection,
    config: &ServerConfig,
    steps: &[&str],
) -> Result<(usize, usize)> {
    if let Some(schema) = &config.schema {
        connection.script(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
    }
    // Another process may have been first: only now, alone, the version is certain.
    let found = version(connection, steps.len()).await?;
    for (number, step) in (1..).zip(steps).skip(found) {
        // In one transaction where the engine can do that with tables; on MySQL a step that broke off is taken again.
        let update = format!("BEGIN;\n{step}\nUPDATE estafette_schema SET version = {number};\nCOMMIT;");
        connection.script(&update).await?;
    }
    Ok((found, steps.len()))
}

/// Fails unless the database has the newest version.
pub(crate) async fn check(connection: &mut Connection, config: &ServerConfig) -> Result<()> {
    let newest = steps(config.engine).len();
    let found = version(connection, newest).await?;
    if found == newest {
        return Ok(());
    }
    let sentence = format!(
        "the database has schema version {found}, this program needs {newest}, and migrate=off; run `estafette migrate`"
    );
    Err(Error::new(ErrorKind::NotFound, sentence))
}

/// The schema's version; 0 for a database without our tables.
async fn version(connection: &mut Connection, newest: usize) -> Result<usize> {
    let here = match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(_) => "current_schema()",
        #[cfg(feature = "mysql")]
        Connection::MySql(_) => "database()",
    };
    let exists = format!(
        "SELECT CAST(count(*) AS {{int}}) FROM information_schema.tables
        WHERE table_schema = {here} AND table_name = 'estafette_schema'"
    );
    if connection.integer(&exists, &[]).await?.unwrap_or(0) == 0 {
        return Ok(0);
    }
    let version = connection.integer("SELECT version FROM estafette_schema", &[]).await?.unwrap_or(0);
    match usize::try_from(version) {
        Ok(version) if version <= newest => Ok(version),
        _ => {
            let sentence = format!(
                "the database has schema version {version}, this program knows {newest}; use a newer one"
            );
            Err(Error::new(ErrorKind::Conflict, sentence))
        }
    }
}

/// What to do with the lock of those who migrate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Take,
    LetGo,
}

/// A lock of the session, so that it ends with the connection whatever happens.
async fn lock(connection: &mut Connection, what: Lock) -> Result<()> {
    let sql = match (connection as &Connection, what) {
        #[cfg(feature = "postgres")]
        (Connection::Postgres(_), Lock::Take) => "SELECT 1::bigint FROM pg_advisory_lock(7310575217)",
        #[cfg(feature = "postgres")]
        (Connection::Postgres(_), Lock::LetGo) => "SELECT 1::bigint FROM pg_advisory_unlock(7310575217)",
        #[cfg(feature = "mysql")]
        (Connection::MySql(_), Lock::Take) => "SELECT get_lock(concat('estafette ', database()), 60)",
        #[cfg(feature = "mysql")]
        (Connection::MySql(_), Lock::LetGo) => "SELECT release_lock(concat('estafette ', database()))",
    };
    if connection.integer(sql, &[]).await? == Some(1) {
        return Ok(());
    }
    let sentence = "another program has been changing the tables for a minute";
    Err(Error::new(ErrorKind::Unavailable, sentence))
}
