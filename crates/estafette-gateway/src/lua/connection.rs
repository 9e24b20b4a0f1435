//! What a script can do with a connection: the functions behind `conn:send(…)` and the others.

use std::{cell::RefCell, rc::Rc};

use mlua::{FromLuaMulti, IntoLua, IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value, Variadic};

use super::{Abi, json, machine::nil_and};
use crate::{
    core::{self, Core, connection::Connection, connection::Prepared},
    mesh::{Kind, Payload},
    stats::CloseReason,
    websocket::close::CloseCode,
};

thread_local! {
    /// The connection of the running callback: one that closes is in no table any more.
    static RUNNING: RefCell<Option<Rc<Connection>>> = const { RefCell::new(None) };
}

/// Runs a callback of a connection; one may run within another.
pub(crate) fn running<T>(connection: &Rc<Connection>, callback: impl FnOnce() -> T) -> T {
    let before = RUNNING.replace(Some(Rc::clone(connection)));
    let result = callback();
    RUNNING.set(before);
    result
}

/// The running callback's connection, as queue messages name it.
pub(crate) fn running_id() -> Option<crate::ConnectionId> {
    RUNNING.with_borrow(|running| running.as_ref().map(|connection| connection.id))
}

fn find(core: &Core, number: u64) -> Option<Rc<Connection>> {
    let running =
        RUNNING.with_borrow(|running| running.clone().filter(|running| running.id.sequence() == number));
    running.or_else(|| core.find_sequence(number))
}

/// A function whose first argument is a connection's number. Without the connection it returns nil and a reason.
fn function<A, R>(
    lua: &Lua,
    host: &Table,
    name: &str,
    work: impl Fn(&Lua, &Core, &Rc<Connection>, A) -> mlua::Result<R> + 'static,
) -> mlua::Result<()>
where
    A: FromLuaMulti,
    R: IntoLuaMulti,
{
    let function = lua.create_function(move |lua, mut arguments: MultiValue| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "numbers are made by the host"
        )]
        let number = match arguments.pop_front() {
            Some(Value::Number(number)) => number as u64,
            Some(Value::Integer(number)) => number as u64,
            _ => 0,
        };
        let arguments = A::from_lua_multi(arguments, lua)?;
        let found = core::current(|core| {
            find(core, number).map(|connection| work(lua, core, &connection, arguments))
        });
        match found.flatten() {
            Some(result) => result?.into_lua_multi(lua),
            None => nil_and(lua, "the connection has ended"),
        }
    })?;
    host.set(name, function)
}

/// Nil when it went well, or the reason: how functions without a result report.
fn outcome<E: std::fmt::Display>(lua: &Lua, result: Result<(), E>) -> mlua::Result<Value> {
    match result {
        Ok(()) => Ok(Value::Nil),
        Err(error) => error.to_string().into_lua(lua),
    }
}

pub(crate) fn register(lua: &Lua, host: &Table, abi: Abi) -> mlua::Result<()> {
    let id = |_: &Lua, _: &Core, connection: &Rc<Connection>, (): ()| Ok(connection.id.to_string());
    function(lua, host, "id", id)?;
    function(lua, host, "client_id", id)?;
    function(lua, host, "remote_addr", |_, _, connection, (): ()| Ok(connection.peer.to_string()))?;
    register_context(lua, host)?;
    function(lua, host, "subscribe", |lua, core, connection, names: Variadic<String>| {
        outcome(lua, core.subscribe(connection, &names))
    })?;
    function(lua, host, "unsubscribe", |_, core, connection, names: Variadic<String>| {
        core.unsubscribe(connection, &names);
        Ok(())
    })?;
    function(lua, host, "send", move |lua, core, connection, (data, kind): (Value, Option<String>)| {
        let is_raw = abi == Abi::V1 && !connection.is_websocket();
        send(lua, core, connection, (&data, kind.as_deref()), is_raw)
    })?;
    function(lua, host, "send_raw", |lua, core, connection, data: LuaString| {
        outcome(lua, core.send_raw(connection, bytes::Bytes::copy_from_slice(&data.as_bytes())))
    })?;
    function(lua, host, "close", |_, core, connection, (): ()| {
        core.close(connection, CloseReason::Closed, CloseCode::NORMAL, "");
        Ok(())
    })?;
    function(lua, host, "clear_buffer", |_, _, connection, (): ()| {
        connection.buffer.borrow_mut().clear();
        Ok(())
    })?;
    function(lua, host, "buffer_length", |_, _, connection, (): ()| Ok(connection.buffer.borrow().len()))?;
    function(lua, host, "buffer", |lua, _, connection, (from, count): (usize, i64)| {
        let buffer = connection.buffer.borrow();
        let rest = buffer.get(from..).unwrap_or_default();
        let count = usize::try_from(count).unwrap_or(rest.len());
        match rest.get(..count) {
            Some(bytes) => lua.create_string(bytes)?.into_lua_multi(lua),
            None => nil_and(lua, "the buffer holds fewer bytes"),
        }
    })
}

fn register_context(lua: &Lua, host: &Table) -> mlua::Result<()> {
    function(lua, host, "context", |lua, _, connection, (): ()| {
        json::object_to_lua(lua, &connection.context.borrow())
    })?;
    function(lua, host, "context_value", |lua, _, connection, key: String| {
        let context = connection.context.borrow();
        context.get(&key).map_or(Ok(Value::Nil), |value| json::to_lua(lua, value))
    })?;
    function(lua, host, "has_context_value", |_, _, connection, key: String| {
        Ok(connection.context.borrow().contains_key(&key))
    })?;
    function(lua, host, "set_context_value", |lua, core, connection, (key, value): (String, Value)| {
        let set = json::from_lua(&value).and_then(|value| {
            core.set_context_value(connection, &key, value).map_err(|error| error.to_string())
        });
        outcome(lua, set)
    })?;
    function(lua, host, "set_context", |lua, core, connection, values: Value| {
        let set = json::from_lua(&values).and_then(|values| match values {
            serde_json::Value::Object(values) => Ok(values),
            serde_json::Value::Array(list) if list.is_empty() => Ok(serde_json::Map::new()),
            _ => Err("a context is a table with names".to_owned()),
        });
        let set =
            set.and_then(|values| core.set_context(connection, values).map_err(|error| error.to_string()));
        outcome(lua, set)
    })
}

fn send(
    lua: &Lua,
    core: &Core,
    connection: &Rc<Connection>,
    what: (&Value, Option<&str>),
    is_raw: bool,
) -> mlua::Result<Value> {
    let sent = payload(what.0, what.1).and_then(|payload| {
        let sent = if is_raw {
            core.send_raw(connection, payload.data)
        } else {
            core.send(connection, &Prepared::new(payload))
        };
        sent.map_err(|error| error.to_string())
    });
    outcome(lua, sent)
}

/// What a script wants to send: a string or a number, as text unless it says "binary".
///
/// # Errors
/// A sentence, when the data cannot be sent, or is text that is not UTF-8.
pub(crate) fn payload(data: &Value, kind: Option<&str>) -> Result<Payload, String> {
    let bytes = match data {
        Value::String(text) => bytes::Bytes::copy_from_slice(&LuaString::as_bytes(text)),
        Value::Number(_) | Value::Integer(_) => {
            bytes::Bytes::from(data.to_string().map_err(|error| error.to_string())?)
        }
        other => return Err(format!("a {} cannot be sent", other.type_name())),
    };
    match kind {
        Some("binary") => Ok(Payload { data: bytes, kind: Kind::Binary }),
        None | Some("text") if std::str::from_utf8(&bytes).is_ok() => {
            Ok(Payload { data: bytes, kind: Kind::Text })
        }
        // A script that names no kind must not break its client's connection.
        None => Ok(Payload { data: bytes, kind: Kind::Binary }),
        Some("text") => Err("the text is not UTF-8".into()),
        Some(other) => Err(format!("{other} is no kind of message: text or binary")),
    }
}
