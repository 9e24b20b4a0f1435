//! The errors of this transport.

use estafette_core::{Error, ErrorKind, QueueName, Topic};

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this memory transport was closed")
}

pub(crate) fn too_large(bytes: usize, max: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the body has {bytes} bytes; the limit body_max is {max}"))
}

pub(crate) fn full(queue: &QueueName, max: usize) -> Error {
    Error::new(ErrorKind::Full, format!("queue {queue} holds {max} messages, the limit messages_max"))
}

pub(crate) fn unroutable(topic: &Topic) -> Error {
    Error::new(ErrorKind::Unroutable, format!("no queue is subscribed to {topic}, and one was required"))
}

pub(crate) fn no_such_queue(queue: &QueueName) -> Error {
    Error::new(ErrorKind::Unroutable, format!("queue {queue} does not exist, and it was required to"))
}

pub(crate) fn lease_lost(queue: &QueueName) -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        format!("the lease on this message of {queue} ended before it was settled"),
    )
}

pub(crate) fn lifetime_conflict(queue: &QueueName) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("queue {queue} exists with the other lifetime (durable or temporary)"),
    )
}
