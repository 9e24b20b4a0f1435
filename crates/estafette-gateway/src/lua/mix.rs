//! The table `mix` and `print`: what a script can do beside its connection.

use std::sync::Arc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Value, Variadic};
use serde_json::value::RawValue;

use super::{connection, encoding, json, machine::nil_and};
use crate::{core, mesh::ConnectionId, queues::QueueMessage, settings::ServerSettings};

/// Bytes of one line in the log.
const LINE_MAX: usize = 4_096;

/// Levels of [`log`], as scripts name them.
const LEVELS: [(&str, u8); 4] = [("DEBUG", 0), ("INFO", 1), ("WARN", 2), ("ERROR", 3)];

pub(crate) fn table(lua: &Lua, server: &Arc<ServerSettings>) -> mlua::Result<Table> {
    let mix = lua.create_table()?;
    for (name, level) in LEVELS {
        mix.set(name, level)?;
    }
    mix.set(
        "log",
        lua.create_function(|lua, (level, text): (u8, Variadic<Value>)| {
            log(lua, level, &line(&text)?);
            Ok(())
        })?,
    )?;
    encoding::register(lua, &mix)?;
    mix.set("server", server_table(lua, server)?)?;
    mix.set("mesh", mesh_table(lua)?)?;
    mix.set("queue", queue_table(lua)?)?;
    Ok(mix)
}

/// `print`, whose lines go to the log with the place in the script.
pub(crate) fn print(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, values: Variadic<Value>| {
        log(lua, 1, &line(&values)?);
        Ok(())
    })
}

fn line(values: &[Value]) -> mlua::Result<String> {
    let parts = values.iter().map(Value::to_string).collect::<mlua::Result<Vec<_>>>()?;
    let mut line = parts.join("\t");
    let mut end = line.len().min(LINE_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    Ok(line)
}

fn log(lua: &Lua, level: u8, text: &str) {
    let place = lua.inspect_stack(1, |caller| {
        let source = caller.source().short_src.map(std::borrow::Cow::into_owned).unwrap_or_default();
        format!("{source}:{}", caller.current_line().unwrap_or(0))
    });
    let place = place.unwrap_or_default();
    match level {
        0 => tracing::debug!(target: "estafette_gateway::script", %place, "{text}"),
        1 => tracing::info!(target: "estafette_gateway::script", %place, "{text}"),
        2 => tracing::warn!(target: "estafette_gateway::script", %place, "{text}"),
        _ => tracing::error!(target: "estafette_gateway::script", %place, "{text}"),
    }
}

fn server_table(lua: &Lua, settings: &Arc<ServerSettings>) -> mlua::Result<Table> {
    let server = lua.create_table()?;
    let settings = Arc::clone(settings);
    let option = move |_: &Lua, name: String| {
        let option = settings.options.iter().find(|(key, _)| *key == name);
        Ok(option.map(|(_, value)| value.clone()))
    };
    server.set("option", lua.create_function(option)?)?;
    Ok(server)
}

fn mesh_table(lua: &Lua) -> mlua::Result<Table> {
    let mesh = lua.create_table()?;
    let send = |_: &Lua, (id, data, kind): (String, Value, Option<String>)| {
        let id: ConnectionId = match id.parse() {
            Ok(id) => id,
            Err(error) => return Ok(Some(format!("{error}"))),
        };
        let sent = connection::payload(&data, kind.as_deref()).and_then(|payload| {
            let sent =
                core::current(|core| core.send_anywhere(id, payload).map_err(|error| error.to_string()));
            sent.unwrap_or_else(|| Err("the gateway stops".into()))
        });
        Ok(sent.err())
    };
    mesh.set("send", lua.create_function(send)?)?;
    let publish =
        |lua: &Lua, (channel, data, kind): (String, Value, Option<String>)| match connection::payload(
            &data,
            kind.as_deref(),
        ) {
            Ok(payload) => {
                let published =
                    core::current(|core| core.publish_everywhere(&channel, &payload)).unwrap_or_default();
                (published.success, published.fail).into_lua_multi(lua)
            }
            Err(reason) => (0, 0, reason).into_lua_multi(lua),
        };
    mesh.set("publish", lua.create_function(publish)?)?;
    Ok(mesh)
}

fn queue_table(lua: &Lua) -> mlua::Result<Table> {
    let queue = lua.create_table()?;
    queue.set("push", lua.create_function(|lua, (name, data): (String, Value)| push(lua, name, &data))?)?;
    // A queue is there when it is used: making one is a word of older scripts, and does nothing.
    queue.set("new", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    Ok(queue)
}

fn push(lua: &Lua, queue: String, data: &Value) -> mlua::Result<MultiValue> {
    let data = match event(data) {
        Ok(data) => data,
        Err(reason) => return nil_and(lua, reason),
    };
    let client_id = connection::running_id();
    let pushed = core::current(|core| {
        let node = core.hub.node().to_owned();
        core.hub.queues().push(QueueMessage { node, client_id, queue, data })
    });
    match pushed {
        Some(Ok(depth)) => depth.into_lua_multi(lua),
        Some(Err(full)) => nil_and(lua, full),
        None => nil_and(lua, "the gateway stops"),
    }
}

/// What consumers get: an object or a list, never a bare value.
fn event(data: &Value) -> Result<Box<RawValue>, String> {
    let json = match data {
        Value::String(text) => text.to_str().map_err(|error| error.to_string())?.to_owned(),
        Value::Table(_) => json::from_lua(data)?.to_string(),
        other => return Err(format!("a {} cannot be pushed: a table or a JSON text", other.type_name())),
    };
    let raw = RawValue::from_string(json).map_err(|error| format!("the text is not JSON: {error}"))?;
    if raw.get().starts_with(['{', '[']) {
        Ok(raw)
    } else {
        Err("what is pushed must be a JSON object or list".into())
    }
}
