//! SQLite's and sqlx's errors as ours: the one place that maps them.

use std::{error, fmt};

use estafette_core::{Error, ErrorKind};

/// SQLite's primary result codes that have a meaning of their own here, from <https://sqlite.org/rescode.html>.
mod code {
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const AUTH: i32 = 23;
    pub(super) const NOTADB: i32 = 26;
}

/// An error of SQLite: its extended result code and its text.
#[derive(Debug)]
struct SqliteError {
    code: i32,
    text: String,
}

impl fmt::Display for SqliteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (SQLite code {})", self.text, self.code)
    }
}

impl error::Error for SqliteError {}

/// What the caller should do about an extended result code. The low byte is the primary code.
fn kind(code: i32) -> ErrorKind {
    match code & 0xff {
        code::BUSY | code::LOCKED | code::IOERR | code::PROTOCOL => ErrorKind::Unavailable,
        code::FULL => ErrorKind::Full,
        code::READONLY | code::CANTOPEN | code::PERM | code::AUTH => ErrorKind::Denied,
        code::CORRUPT | code::NOTADB => ErrorKind::Corrupt,
        code::TOOBIG => ErrorKind::TooLarge,
        _ => ErrorKind::Engine,
    }
}

/// The error for an extended result code.
pub(crate) fn from_code(code: i32, text: String) -> Error {
    Error::new(kind(code), SqliteError { code, text })
}

/// The error for one of sqlx.
pub(crate) fn from_sqlx(error: sqlx::Error) -> Error {
    let code = match &error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse().ok()),
        _ => None,
    };
    let kind = match (&error, code) {
        (_, Some(code)) => kind(code),
        (sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut, None) => ErrorKind::Unavailable,
        (sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed, None) => ErrorKind::Closed,
        (sqlx::Error::Configuration(_), None) => ErrorKind::InvalidInput,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for (code, expected) in [
            (5, ErrorKind::Unavailable),
            (5 | (2 << 8), ErrorKind::Unavailable),
            (13, ErrorKind::Full),
            (8 | (1 << 8), ErrorKind::Denied),
            (14, ErrorKind::Denied),
            (11, ErrorKind::Corrupt),
            (26, ErrorKind::Corrupt),
            (1, ErrorKind::Engine),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }
}
