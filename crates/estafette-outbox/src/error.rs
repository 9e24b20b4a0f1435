//! The databases' errors as ours: the one place that maps sqlx's.

use estafette_core::{Error, ErrorKind};

/// The error for one of sqlx.
///
/// A statement that met a lost connection may have been executed; in a transaction that is then never committed that
/// makes no difference, and everything the relay executes can be executed again.
pub(crate) fn from_sqlx(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        sqlx::Error::Tls(_) => ErrorKind::Denied,
        sqlx::Error::Configuration(_) => ErrorKind::InvalidInput,
        sqlx::Error::PoolClosed => ErrorKind::Closed,
        sqlx::Error::Database(error) => by_code(error.code().as_deref().unwrap_or_default()),
        _ => ErrorKind::Engine,
    };
    Error::new(kind, error)
}

/// The kind for a SQLSTATE (PostgreSQL, MySQL) or a result code (SQLite).
fn by_code(code: &str) -> ErrorKind {
    match code {
        // No such table or database: PostgreSQL's, then MySQL's.
        "42P01" | "3D000" | "42S02" => ErrorKind::NotFound,
        "42501" => ErrorKind::Denied,
        "53100" => ErrorKind::Full,
        // SQLite: full; busy and locked, with their extended forms.
        "13" => ErrorKind::Full,
        "5" | "6" | "261" | "517" | "262" => ErrorKind::Unavailable,
        // Connections, deadlocks, resources, operators' doings.
        _ if ["08", "40", "53", "57", "58", "70"]
            .iter()
            .any(|class| code.len() == 5 && code.starts_with(class)) =>
        {
            ErrorKind::Unavailable
        }
        _ if code.starts_with("28") => ErrorKind::Denied,
        _ => ErrorKind::Engine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for (code, kind) in [
            ("57P01", ErrorKind::Unavailable),
            ("40001", ErrorKind::Unavailable),
            ("5", ErrorKind::Unavailable),
            ("42S02", ErrorKind::NotFound),
            ("28000", ErrorKind::Denied),
            ("22003", ErrorKind::Engine),
        ] {
            assert_eq!(by_code(code), kind, "{code}");
        }
    }
}
