//! Why a gateway does not start.

use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot be used; the sentence says why.
    Config(String),
    /// The address cannot be bound: it is taken, or not ours.
    Bind(String),
    /// The certificate or key cannot be used.
    Tls(String),
    /// A script does not load.
    Script(String),
    /// A thread or its runtime does not start.
    Runtime,
}

/// Why a gateway does not start, and what lies behind it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn with(kind: ErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Config(reason) => write!(f, "the configuration cannot be used: {reason}"),
            ErrorKind::Bind(address) => write!(f, "{address} cannot be bound"),
            ErrorKind::Tls(reason) => write!(f, "TLS cannot be set up: {reason}"),
            ErrorKind::Script(reason) => write!(f, "the script does not load: {reason}"),
            ErrorKind::Runtime => f.write_str("a thread of the gateway does not start"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
