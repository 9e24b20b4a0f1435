//! Answers and events, written key by key: clients were recorded with exactly these bytes.

use std::fmt::Write as _;

use super::{Dialect, Fault};
use crate::{mesh::Published, queues::QueueMessage};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done.
    Done,
    /// It went to this many connections.
    Published(Published),
    /// A sign of life in return.
    Pong,
}

/// The answer to the request of this id, which is JSON already.
pub(crate) fn answer(dialect: Dialect, id: &str, outcome: &Result<Outcome, Fault>) -> String {
    match (dialect, outcome) {
        (Dialect::Short, Ok(outcome)) => format!(r#"{{"E":null,"r":{},"i":{id}}}"#, short_result(*outcome)),
        (Dialect::Short, Err(fault)) => format!(r#"{{"E":{},"i":{id}}}"#, short_error(fault)),
        (Dialect::Long, Ok(outcome)) => {
            format!(r#"{{"error":null,"result":{},"id":{id}}}"#, long_result(*outcome))
        }
        (Dialect::Long, Err(fault)) => {
            let Fault { code, message } = fault;
            let (code, message) = (code.number(), quote(message));
            format!(r#"{{"error":{{"code":{code},"message":{message}}},"id":{id}}}"#)
        }
    }
}

/// The body of an HTTP answer: the short dialect without an id.
pub(crate) fn http_answer(outcome: &Result<Outcome, Fault>) -> String {
    match outcome {
        Ok(outcome) => format!(r#"{{"E":null,"r":{}}}"#, short_result(*outcome)),
        Err(fault) => format!(r#"{{"E":{}}}"#, short_error(fault)),
    }
}

/// A message of a queue, with its tag if it is to be acknowledged.
pub(crate) fn event(dialect: Dialect, message: &QueueMessage, tag: Option<u64>) -> String {
    // A string, exact for every client whose numbers are floats. Published clients convert it and the node to
    // integers, so that neither may be empty or a name; no connection has the number 0.
    let (client, node) = message.client_id.map_or((0, 0), |id| (id.number(), id.node()));
    let (queue, data) = (quote(&message.queue), message.data.get());
    let mut text = String::with_capacity(data.len() + queue.len() + 128);
    // Writing to a string cannot fail.
    let _infallible = match dialect {
        Dialect::Short => {
            write!(text, r#"{{"e":"queue.pop","p":{{"n":{node},"c":"{client}","t":{queue},"d":{data}"#)
        }
        Dialect::Long => write!(
            text,
            r#"{{"event":"queue.consume","result":{{"client_id":"{client}","queue":{queue},"data":{data}"#
        ),
    };
    let _infallible = match (dialect, tag) {
        (Dialect::Short, Some(tag)) => write!(text, r#","a":{tag}"#),
        (Dialect::Long, Some(tag)) => write!(text, r#","tag":{tag}"#),
        (_, None) => Ok(()),
    };
    text.push_str(match dialect {
        Dialect::Short => r#"},"i":null}"#,
        Dialect::Long => r#"},"id":null}"#,
    });
    text
}

fn short_result(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => r#"{"s":true}"#.into(),
        Outcome::Published(Published { success, fail }) => format!(r#"{{"s":{success},"f":{fail}}}"#),
        Outcome::Pong => r#"{"s":"server.pong"}"#.into(),
    }
}

fn long_result(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => r#"{"success":true,"fail":0,"total":1}"#.into(),
        Outcome::Published(Published { success, fail }) => {
            format!(r#"{{"success":{},"fail":{fail},"total":{}}}"#, success > 0, success + fail)
        }
        Outcome::Pong => r#"{"status":"server.pong"}"#.into(),
    }
}

fn short_error(fault: &Fault) -> String {
    format!(r#"{{"c":{},"m":{}}}"#, fault.code.number(), quote(&fault.message))
}

/// As a JSON string.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
