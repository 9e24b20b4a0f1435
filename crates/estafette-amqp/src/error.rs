//! The errors of this transport, and the broker's codes in our words.

use std::time::Duration;

use estafette_core::{Error, ErrorKind, QueueName, Topic};

use crate::{
    config::AmqpConfig,
    protocol::{Malformed, method::Closed},
};

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this RabbitMQ transport was closed")
}

pub(crate) fn hung_up() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker closed the connection")
}

pub(crate) fn broken(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, source)
}

pub(crate) fn silent(heartbeat: Duration) -> Error {
    let sentence =
        format!("the broker sent nothing for two heartbeats of {heartbeat:?}; the connection counts as lost");
    Error::new(ErrorKind::Unavailable, sentence)
}

pub(crate) fn malformed(source: Malformed) -> Error {
    Error::new(ErrorKind::Engine, source)
}

pub(crate) fn denied(config: &AmqpConfig) -> Error {
    let sentence =
        format!("the broker does not accept the user {:?} or the password in the URL", config.user);
    Error::new(ErrorKind::Denied, sentence)
}

/// The error for a connection that was refused while it was opened.
pub(crate) fn refused(config: &AmqpConfig, closed: &Closed) -> Error {
    match closed.code {
        403 => denied(config),
        530 => {
            let sentence = format!("vhost {:?}: {}", config.vhost, closed.text);
            Error::new(ErrorKind::Denied, sentence)
        }
        _ => closed_by_broker(closed),
    }
}

/// The error for a channel or connection the broker closed. Codes: the specification's "Reply Constants".
pub(crate) fn closed_by_broker(closed: &Closed) -> Error {
    let kind = match closed.code {
        403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        // Locked by another connection; exists with other settings.
        405 | 406 if is_about_settings(&closed.text) => ErrorKind::Conflict,
        311 | 501 => ErrorKind::TooLarge,
        320 | 541 => ErrorKind::Unavailable,
        _ => ErrorKind::Engine,
    };
    Error::new(kind, closed.text.clone())
}

/// Whether a refusal is about an object's settings: an unknown delivery tag is a 406 too, and our own mistake.
fn is_about_settings(text: &str) -> bool {
    !text.contains("delivery tag")
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
    let sentence =
        format!("the lease on this message of {queue} ended, or its connection did, before it was settled");
    Error::new(ErrorKind::LeaseLost, sentence)
}

pub(crate) fn refused_by_broker() -> Error {
    Error::new(ErrorKind::Full, "the broker refused the message: a queue is full or failed")
}

pub(crate) fn unconfirmed(limit: Duration) -> Error {
    let sentence =
        format!("the broker did not confirm within {limit:?}; whether it has the message is unknown");
    Error::new(ErrorKind::TimedOut, sentence)
}

pub(crate) fn blocked(limit: Duration) -> Error {
    let sentence = format!("the broker takes no publications (low on memory or disk); waited {limit:?}");
    Error::new(ErrorKind::Unavailable, sentence)
}
