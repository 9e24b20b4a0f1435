//! Errors of no engine.

use estafette_core::{Error, ErrorKind};

/// The error after closing.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this transport was closed; connect again")
}
