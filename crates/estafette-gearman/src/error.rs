//! The errors of this transport.

use std::time::Duration;

use estafette_core::{Error, ErrorKind, QueueName, Topic};

use crate::{config::Endpoint, protocol::Malformed};

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this Gearman transport was closed")
}

pub(crate) fn hung_up(endpoint: &Endpoint) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{endpoint}: the server closed the connection"))
}

pub(crate) fn broken(endpoint: &Endpoint, source: &std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{endpoint}: {source}"))
}

pub(crate) fn malformed(endpoint: &Endpoint, source: Malformed) -> Error {
    Error::new(ErrorKind::Engine, format!("{endpoint}: {source}"))
}

pub(crate) fn silent(endpoint: &Endpoint, limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{endpoint} did not answer within {limit:?}"))
}

pub(crate) fn late(endpoint: &Endpoint) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{endpoint} did not answer in time; the connection was given up"),
    )
}

pub(crate) fn unknown(limit: Duration) -> Error {
    let sentence = format!("no server confirmed within {limit:?}; whether one has the message is unknown");
    Error::new(ErrorKind::TimedOut, sentence)
}

pub(crate) fn refused(text: &str) -> Error {
    Error::new(ErrorKind::Engine, format!("the server refused: {text}"))
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

pub(crate) fn no_topics() -> Error {
    let sentence = "Gearman knows no topics: send to a queue, or list the subscriptions in the URL, as in \
                    gearman://host?subscribe=billing:order.*,audit:#";
    Error::new(ErrorKind::Unsupported, sentence)
}

pub(crate) fn not_listed(queue: &QueueName, pattern: &dyn std::fmt::Display) -> Error {
    let sentence = format!(
        "Gearman knows no topics: add {queue}:{pattern} to the setting subscribe of the URL, for publishers too"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

pub(crate) fn no_temporary_queues() -> Error {
    Error::new(ErrorKind::Unsupported, "a Gearman queue cannot go away with its consumer; give it a name")
}

pub(crate) fn no_key_order() -> Error {
    let sentence = "Gearman keeps no order by partition key; use a queue per key, or one consumer";
    Error::new(ErrorKind::Unsupported, sentence)
}

pub(crate) fn lease_lost(queue: &QueueName) -> Error {
    let sentence =
        format!("the lease on this message of {queue} ended, or its connection did, before it was settled");
    Error::new(ErrorKind::LeaseLost, sentence)
}
