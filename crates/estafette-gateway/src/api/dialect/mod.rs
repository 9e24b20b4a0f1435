//! What the management API's requests say, and how answers and events are written: pure, no I/O.
//!
//! Two dialects are spoken. The short one (`m`, `p`, `i`) is that of the documents and the newest published client, the
//! long one (`method`, `params`, `id`) that of the older clients. A request's keys say which it is. Where the
//! published clients and the documents disagree about a shape, every shape is accepted in both dialects.
//!
//! Reading order: `request` (the frame around it), `params` (what each method takes), `answer` (what is written back).
//! `table` is the test that has every recorded request beside its answer.

mod answer;
mod params;
mod request;
#[cfg(test)]
mod table;

use std::fmt;

pub(crate) use answer::{Outcome, answer, event, http_answer};
pub(crate) use params::{publish, send};
pub(crate) use request::parse;

use crate::mesh::{Call, ConnectionId, Payload};

/// The keys a request is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `m`, `p`, `i`.
    Short,
    /// `method`, `params`, `id`.
    Long,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    /// A sign of life.
    Ping,
    /// Messages of these queues, to be acknowledged or not.
    Consume { queues: Vec<String>, acknowledging: bool },
    /// The messages of these tags are settled.
    Acknowledge { tags: Vec<u64> },
    /// No more messages; names are only checked against what is consumed.
    Cancel { queues: Vec<String> },
    /// To be done to a connection, one after the other.
    Call { id: ConnectionId, calls: Vec<Call> },
    /// To a connection.
    Send { id: ConnectionId, payload: Payload },
    /// To the subscribers of a channel.
    Publish { channel: String, payload: Payload },
    /// To the connection of this number if it is open, else to the channel of that name.
    SendOrPublish { id: ConnectionId, payload: Payload },
}

/// The code of an error, as the published clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The request is not as it should be.
    BadParameter,
    /// The queues cannot be consumed.
    Consume,
    /// The connection consumes already.
    AlreadyConsuming,
    /// Nothing to cancel, or not as asked.
    Cancel,
    /// A call to a connection had no effect.
    Call,
    /// A send had no effect.
    Send,
    /// The user may not do this.
    Denied,
}

impl Code {
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::BadParameter => 101,
            Self::Consume => 201,
            Self::AlreadyConsuming => 202,
            Self::Cancel => 203,
            Self::Call => 301,
            Self::Send => 401,
            Self::Denied => 403,
        }
    }
}

/// Why a request is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(crate) fn parameter(message: impl fmt::Display) -> Self {
        Self::new(Code::BadParameter, message)
    }
}
