//! The frame around a request: its dialect, its id, its method.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Dialect, Fault, Operation, params};

/// Bytes of an id that are echoed; a longer one is refused.
const ID_BYTES_MAX: usize = 256;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The dialect of its answer.
    pub(crate) dialect: Dialect,
    /// Its id as it was written: a number, a string or `null`.
    pub(crate) id: Box<str>,
    /// What it asks for, or why that is not known.
    pub(crate) operation: Result<Operation, Fault>,
}

/// The keys of both dialects. Unknown keys are ignored.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    m: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    p: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    i: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// Reads one text frame. What cannot be read at all is answered in the dialect `last` spoken.
pub(crate) fn parse(text: &str, last: Dialect) -> Request {
    let frame: Frame<'_> = match serde_json::from_str(text) {
        Ok(frame) => frame,
        Err(error) => {
            let fault = Fault::parameter(format_args!("not a request: {error}"));
            return Request { dialect: last, id: "null".into(), operation: Err(fault) };
        }
    };
    let (dialect, method) = match (&frame.m, &frame.method) {
        (Some(method), _) => (Dialect::Short, method.as_ref()),
        (None, Some(method)) => (Dialect::Long, method.as_ref()),
        (None, None) => (last, ""),
    };
    let (id, params) = match dialect {
        Dialect::Short => (frame.i.or(frame.id), frame.p.or(frame.params)),
        Dialect::Long => (frame.id.or(frame.i), frame.params.or(frame.p)),
    };
    match echo(id) {
        Ok(id) => Request { dialect, id, operation: operation(dialect, method, params) },
        Err(fault) => Request { dialect, id: "null".into(), operation: Err(fault) },
    }
}

/// The id as the answer repeats it, byte for byte.
fn echo(id: Option<&RawValue>) -> Result<Box<str>, Fault> {
    let Some(id) = id.map(RawValue::get) else { return Ok("null".into()) };
    if id.len() > ID_BYTES_MAX || id.starts_with(['{', '[']) {
        return Err(Fault::parameter("the id must be a short number or string"));
    }
    Ok(id.into())
}

fn operation(dialect: Dialect, method: &str, params: Option<&RawValue>) -> Result<Operation, Fault> {
    let params: Value = match params {
        Some(raw) => serde_json::from_str(raw.get()).map_err(Fault::parameter)?,
        None => Value::Null,
    };
    match method {
        "server.ping" => Ok(Operation::Ping),
        "queue.pop" | "queue.consume" => params::consume(params),
        "queue.unpop" | "queue.unconsume" => params::cancel(params),
        "queue.ack" => params::acknowledge(&params),
        "conn.call" => params::call(params),
        "mesh.send" => params::send(dialect, params),
        "mesh.publish" => params::publish(params),
        "" => Err(Fault::parameter("the request has no method")),
        _ => Err(Fault::parameter("there is no such method")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (Dialect, String, u16) {
        let request = parse(text, Dialect::Long);
        let code = request.operation.unwrap_err().code.number();
        (request.dialect, request.id.into(), code)
    }

    #[test]
    fn what_is_no_request_is_answered_in_the_dialect_spoken_last() {
        for text in ["", "{", "[]", "null", "7", "{\"m\":1}", "{\"m\":\"a\",\"m\":\"b\"}"] {
            assert_eq!(fault(text), (Dialect::Long, "null".into(), 101), "{text}");
        }
        assert_eq!(fault("{\"id\":7}"), (Dialect::Long, "7".into(), 101));
    }

    #[test]
    fn an_id_is_echoed_as_it_was_written() {
        let id = |id: &str| parse(&format!("{{\"m\":\"server.ping\",\"i\":{id}}}"), Dialect::Short).id;
        for written in ["0", "-1", "1.50", "9223372036854775808", "\"\\u0416\\/\"", "null"] {
            assert_eq!(&*id(written), written);
        }
        assert_eq!(&*id("[1]"), "null");
        assert_eq!(&*id(&format!("\"{}\"", "x".repeat(300))), "null");
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let deep =
            format!("{{\"m\":\"queue.pop\",\"p\":{}{},\"i\":3}}", "[".repeat(10_000), "]".repeat(10_000));
        let request = parse(&deep, Dialect::Short);
        assert_eq!((request.operation.unwrap_err().code.number(), &*request.id), (101, "3"));
    }
}
