//! A server's errors as ours: the one place that maps them.

use estafette_core::{Error, ErrorKind};

/// The error for one of sqlx, on a connection that was there.
pub(crate) fn from_server(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Database(database) => {
            kind(database.code().as_deref().unwrap_or_default(), number(&**database))
        }
        // The connection broke: what was being done may have been done.
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => ErrorKind::TimedOut,
        sqlx::Error::Tls(_) => ErrorKind::Denied,
        sqlx::Error::Configuration(_) => ErrorKind::InvalidInput,
        sqlx::Error::PoolClosed => ErrorKind::Closed,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, error)
}

/// The error for one of sqlx while connecting: nothing was asked for yet.
pub(crate) fn while_connecting(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => Error::new(ErrorKind::Unavailable, error),
        other => from_server(other),
    }
}

#[cfg(feature = "mysql")]
fn number(error: &dyn sqlx::error::DatabaseError) -> Option<u16> {
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number())
}

#[cfg(not(feature = "mysql"))]
fn number(_error: &dyn sqlx::error::DatabaseError) -> Option<u16> {
    None
}

/// What the caller should do about an error: MySQL's own number where there is one, from
/// <https://mariadb.com/docs/server/reference/error-codes>, or else the SQLSTATE, from
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn kind(state: &str, number: Option<u16>) -> ErrorKind {
    match number {
        // Deadlock, lock wait timeout, too many connections, shutting down, killed, read only.
        Some(1213 | 1205 | 1040 | 1053 | 1203 | 1290 | 1836 | 1927 | 1317) => ErrorKind::Unavailable,
        Some(1044 | 1045 | 1142 | 1227 | 1698 | 1370) => ErrorKind::Denied,
        Some(1049) => ErrorKind::NotFound,
        Some(1153) => ErrorKind::TooLarge,
        Some(1021 | 1114) => ErrorKind::Full,
        Some(1034 | 1035 | 1712 | 1877) => ErrorKind::Corrupt,
        Some(_) => ErrorKind::Engine,
        None => match state {
            // Of the class "insufficient resources".
            "53100" | "53200" => ErrorKind::Full,
            "3D000" | "42P01" => ErrorKind::NotFound,
            "42501" => ErrorKind::Denied,
            "54000" => ErrorKind::TooLarge,
            "XX001" | "XX002" => ErrorKind::Corrupt,
            "25006" => ErrorKind::Unavailable,
            state => match state.get(..2) {
                // Connections, rolled back transactions, resources, operators' doings, files.
                Some("08" | "40" | "53" | "57" | "58") => ErrorKind::Unavailable,
                Some("28") => ErrorKind::Denied,
                _ => ErrorKind::Engine,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for (state, number, expected) in [
            ("57P03", None, ErrorKind::Unavailable),
            ("40P01", None, ErrorKind::Unavailable),
            ("53300", None, ErrorKind::Unavailable),
            ("53100", None, ErrorKind::Full),
            ("28P01", None, ErrorKind::Denied),
            ("3D000", None, ErrorKind::NotFound),
            ("22003", None, ErrorKind::Engine),
            ("40001", Some(1213), ErrorKind::Unavailable),
            ("28000", Some(1045), ErrorKind::Denied),
            ("08S01", Some(1153), ErrorKind::TooLarge),
            ("42000", Some(1064), ErrorKind::Engine),
        ] {
            assert_eq!(kind(state, number), expected, "{state} {number:?}");
        }
    }
}
