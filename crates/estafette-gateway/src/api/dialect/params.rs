//! What each method takes: every shape that a published client sends or a document shows.

use base64::{Engine as _, alphabet, engine::general_purpose};
use serde_json::{Map, Value};

use super::{Dialect, Fault, Operation};
use crate::mesh::{Call, ConnectionId, Payload};

/// Names of queues in one consume request.
const QUEUES_MAX: usize = 100;

/// Bytes of a queue's or a channel's name.
const NAME_BYTES_MAX: usize = 512;

/// Takes base64 with or without its padding: clients differ.
const BASE64: general_purpose::GeneralPurpose = general_purpose::GeneralPurpose::new(
    &alphabet::STANDARD,
    general_purpose::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// `["foo"]`, `"foo"`, `{"t":["foo"]}`, either with `ack`.
pub(super) fn consume(params: Value) -> Result<Operation, Fault> {
    let (names, acknowledging) = match unwrap(params) {
        Value::Object(mut object) => {
            let acknowledging = match take(&mut object, &["ack", "a"]) {
                None | Some(Value::Bool(false) | Value::Null) => false,
                Some(Value::Bool(true)) => true,
                Some(_) => return Err(Fault::parameter("ack must be true or false")),
            };
            (take(&mut object, &["t", "topics", "queues", "queue"]).unwrap_or_default(), acknowledging)
        }
        names => (names, false),
    };
    let queues = self::names(names, "queue")?;
    if queues.is_empty() {
        return Err(Fault::parameter("at least one queue must be named"));
    }
    if queues.len() > QUEUES_MAX {
        return Err(Fault::parameter(format_args!("at most {QUEUES_MAX} queues can be consumed at once")));
    }
    Ok(Operation::Consume { queues, acknowledging })
}

/// `{}`, `[]`, nothing; or the names of what is consumed.
pub(super) fn cancel(params: Value) -> Result<Operation, Fault> {
    let names = match unwrap(params) {
        Value::Object(mut object) => {
            take(&mut object, &["t", "topics", "queues", "queue"]).unwrap_or(Value::Null)
        }
        names => names,
    };
    let queues = if names.is_null() { Vec::new() } else { self::names(names, "queue")? };
    Ok(Operation::Cancel { queues })
}

/// `[1,2]`, or `{"a":1}` and the like.
pub(super) fn acknowledge(params: &Value) -> Result<Operation, Fault> {
    let wrong = || Fault::parameter("tags must be the numbers that came with the messages");
    let tags = match params {
        Value::Object(object) => {
            ["a", "tag", "tags"].iter().find_map(|key| object.get(*key)).ok_or_else(wrong)?
        }
        tags => tags,
    };
    let tags = match tags {
        Value::Array(tags) => tags.iter().map(Value::as_u64).collect(),
        tag => tag.as_u64().map(|tag| vec![tag]),
    };
    Ok(Operation::Acknowledge { tags: tags.ok_or_else(wrong)? })
}

/// `{"c","f","a"}`, `{"client_id","func","args"}`, `{"client_id","method","params"}`.
pub(super) fn call(params: Value) -> Result<Operation, Fault> {
    let mut object = object(params)?;
    let id = connection(&take(&mut object, &["c", "client_id"]).unwrap_or_default())?;
    let function = match take(&mut object, &["f", "func", "method"]) {
        Some(Value::String(function)) => function,
        _ => return Err(Fault::parameter("the function's name is missing")),
    };
    let arguments = take(&mut object, &["a", "args", "params"]).unwrap_or_default();
    let calls = match function.as_str() {
        "set_context_value" => context_values(arguments)?,
        "set_context" => vec![Call::SetContext(context(arguments)?)],
        "subscribe" => some_channels(arguments)?.map(Call::Subscribe).into_iter().collect(),
        "unsubscribe" => some_channels(arguments)?.map(Call::Unsubscribe).into_iter().collect(),
        "close" => vec![Call::Close],
        _ => return Err(Fault::parameter("there is no such function of a connection")),
    };
    Ok(Operation::Call { id, calls })
}

/// `{"c","d","t"}` or `{"client_id","data"}`; to a channel when that is what it names.
pub(crate) fn send(dialect: Dialect, params: Value) -> Result<Operation, Fault> {
    let mut object = object(params)?;
    let payload = payload(&mut object)?;
    if let Some(channel) = object.get("channel").filter(|_| !object.contains_key("client_id")) {
        return Ok(Operation::Publish { channel: channel_name(channel)?, payload });
    }
    let target = take(&mut object, &["c", "client_id"]).unwrap_or_default();
    match (dialect, &target, connection(&target)) {
        // The short dialect's blocking client has but this method for both.
        (Dialect::Short, Value::String(_), Ok(id)) => Ok(Operation::SendOrPublish { id, payload }),
        (Dialect::Short, Value::String(_), Err(_)) => {
            Ok(Operation::Publish { channel: channel_name(&target)?, payload })
        }
        (_, _, id) => Ok(Operation::Send { id: id?, payload }),
    }
}

/// `{"c","d","t"}` or `{"channel","data"}`.
pub(crate) fn publish(params: Value) -> Result<Operation, Fault> {
    let mut object = object(params)?;
    let payload = payload(&mut object)?;
    let channel = take(&mut object, &["c", "channel"]).unwrap_or_default();
    Ok(Operation::Publish { channel: channel_name(&channel)?, payload })
}

/// The documents wrap an object in a list of one, and PHP writes `{}` as `[]`.
fn unwrap(params: Value) -> Value {
    match params {
        Value::Array(mut list) if list.len() == 1 && list.iter().all(Value::is_object) => {
            list.pop().unwrap_or_default()
        }
        params => params,
    }
}

fn object(params: Value) -> Result<Map<String, Value>, Fault> {
    match unwrap(params) {
        Value::Object(object) => Ok(object),
        _ => Err(Fault::parameter("the parameters must be an object")),
    }
}

/// Removes the first of these keys that is there.
fn take(object: &mut Map<String, Value>, keys: &[&str]) -> Option<Value> {
    keys.iter().find_map(|key| object.remove(*key))
}

/// A number or a string, exact up to 2^63 - 1: never by way of a float.
fn connection(value: &Value) -> Result<ConnectionId, Fault> {
    match value {
        Value::Number(number) => number.as_u64().and_then(ConnectionId::from_number),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| Fault::parameter("a connection id is a decimal number from 1 to 2^63 - 1"))
}

fn payload(object: &mut Map<String, Value>) -> Result<Payload, Fault> {
    let data = match take(object, &["d", "data"]) {
        Some(Value::String(data)) => data,
        None | Some(Value::Null) => return Err(Fault::parameter("the data is missing")),
        Some(value) => value.to_string(),
    };
    match take(object, &["t", "type"]) {
        None | Some(Value::Null) => Ok(Payload::text(data)),
        Some(Value::String(kind)) if kind.is_empty() || kind == "text" => Ok(Payload::text(data)),
        Some(Value::String(kind)) if kind == "binary" => {
            let bytes = BASE64.decode(data);
            bytes.map(Payload::binary).map_err(|error| Fault::parameter(format_args!("not base64: {error}")))
        }
        Some(_) => Err(Fault::parameter("the type must be text or binary")),
    }
}

/// `[k,v]`, or an object whose every pair is set.
fn context_values(arguments: Value) -> Result<Vec<Call>, Fault> {
    let wrong = || Fault::parameter("set_context_value takes a key and a value");
    match unwrap(arguments) {
        Value::Array(list) => match <[Value; 2]>::try_from(list) {
            Ok([Value::String(key), value]) => Ok(vec![Call::SetContextValue(key, value)]),
            _ => Err(wrong()),
        },
        Value::Object(pairs) if !pairs.is_empty() => {
            Ok(pairs.into_iter().map(|(key, value)| Call::SetContextValue(key, value)).collect())
        }
        _ => Err(wrong()),
    }
}

/// `[{…}]` or `{…}`; `[[]]` and `[]` are PHP's empty ones.
fn context(arguments: Value) -> Result<Map<String, Value>, Fault> {
    let argument = match arguments {
        Value::Array(mut list) if list.len() <= 1 => list.pop().unwrap_or_default(),
        argument => argument,
    };
    match argument {
        Value::Object(context) => Ok(context),
        Value::Array(list) if list.is_empty() => Ok(Map::new()),
        Value::Null => Ok(Map::new()),
        _ => Err(Fault::parameter("set_context takes an object")),
    }
}

/// `None` for no channels: a call without effect, which succeeds.
fn some_channels(arguments: Value) -> Result<Option<Vec<String>>, Fault> {
    let channels = if arguments.is_null() { Vec::new() } else { names(arguments, "channel")? };
    Ok((!channels.is_empty()).then_some(channels))
}

fn channel_name(value: &Value) -> Result<String, Fault> {
    name(value, "channel")
}

/// One name or a list of them.
fn names(value: Value, what: &str) -> Result<Vec<String>, Fault> {
    match value {
        Value::Array(list) => list.iter().map(|value| name(value, what)).collect(),
        Value::Object(object) if object.is_empty() => Ok(Vec::new()),
        value => Ok(vec![name(&value, what)?]),
    }
}

/// A name; PHP writes one that is all digits as a number when it was an array's key.
fn name(value: &Value, what: &str) -> Result<String, Fault> {
    let name = match value {
        Value::String(name) => name.clone(),
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return Err(Fault::parameter(format_args!("the name of a {what} must be a string"))),
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Fault::parameter(format_args!(
            "the name of a {what} has 1 to {NAME_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(name)
}
