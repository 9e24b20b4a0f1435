//! Errors of this crate: the sentences, and how kinds travel between processes.

use std::{error::Error as StdError, fmt, io};

use estafette_core::{Error, ErrorKind};

use crate::Address;

/// Why a listener refused a request: the source of the error that the requester gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerError {
    /// Who answered.
    pub from: Address,
    /// What the listener said.
    pub message: String,
}

impl fmt::Display for ListenerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} answered: {}", describe(&self.from), self.message)
    }
}

impl StdError for ListenerError {}

/// How a sentence names a participant.
pub(crate) fn describe(address: &Address) -> String {
    match address {
        Address::Worker(id) => format!("worker {id}"),
        Address::Process(name) => format!("process {name}"),
        Address::Supervisor => "the supervisor".into(),
        Address::Outside(pid) => format!("outside process {pid}"),
    }
}

/// The kind whose words are `name`; kinds this version does not know become [`ErrorKind::Engine`].
pub(crate) fn kind_from_name(name: &str) -> ErrorKind {
    const KINDS: &[ErrorKind] = &[
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::InvalidInput,
        ErrorKind::TooLarge,
        ErrorKind::Unroutable,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::Undecodable,
        ErrorKind::Denied,
        ErrorKind::Full,
        ErrorKind::Corrupt,
        ErrorKind::Closed,
    ];
    KINDS.iter().copied().find(|kind| kind.as_str() == name).unwrap_or(ErrorKind::Engine)
}

/// An error of the operating system, with what was being done.
pub(crate) fn system(doing: &str, source: impl Into<io::Error>) -> Error {
    let source = source.into();
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::StorageFull => ErrorKind::Full,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, io::Error::new(source.kind(), format!("{doing}: {source}")))
}

/// An argument that cannot work.
pub(crate) fn invalid(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, sentence.into())
}

/// The connection to `address` ended.
pub(crate) fn gone(address: &Address) -> Error {
    let who = describe(address);
    Error::new(
        ErrorKind::Closed,
        format!("{who} went away before it answered; whether it handled the request is unknown"),
    )
}
