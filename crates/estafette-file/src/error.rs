//! The errors of this transport: what the file system says, by what the caller should do about it.

use std::path::Path;

use estafette_core::{Error, ErrorKind, QueueName, Topic};
use rustix::io::Errno;

/// An engine error with a sentence that says what was being done.
pub(crate) fn io(doing: &str, errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOSPC | Errno::DQUOT => ErrorKind::Full,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::Denied,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::STALE => ErrorKind::Unavailable,
        Errno::FBIG => ErrorKind::TooLarge,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, format!("{doing}: {}", std::io::Error::from(errno)))
}

/// The same for errors of the standard library.
pub(crate) fn std_io(doing: &str, error: &std::io::Error) -> Error {
    match Errno::from_io_error(error) {
        Some(errno) => io(doing, errno),
        None => Error::new(ErrorKind::Engine, format!("{doing}: {error}")),
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this file transport was closed")
}

pub(crate) fn too_large(bytes: usize, max: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the body has {bytes} bytes; the limit body_max is {max}"))
}

pub(crate) fn unroutable(topic: &Topic) -> Error {
    Error::new(ErrorKind::Unroutable, format!("no queue is subscribed to {topic}, and one was required"))
}

pub(crate) fn no_such_queue(queue: &QueueName) -> Error {
    Error::new(ErrorKind::Unroutable, format!("queue {queue} does not exist, and it was required to"))
}

pub(crate) fn lease_lost(queue: &QueueName) -> Error {
    let sentence = format!("the lease on this message of {queue} ended before it was settled");
    Error::new(ErrorKind::LeaseLost, sentence)
}

pub(crate) fn lifetime_conflict(queue: &QueueName) -> Error {
    let sentence = format!("queue {queue} exists with the other lifetime (durable or temporary)");
    Error::new(ErrorKind::Conflict, sentence)
}

pub(crate) fn corrupt(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{}: {problem}", path.display()))
}

/// A task or thread of ours ended without an answer.
pub(crate) fn no_answer(doing: &str) -> Error {
    Error::new(ErrorKind::Engine, format!("{doing}: its thread ended without an answer"))
}
