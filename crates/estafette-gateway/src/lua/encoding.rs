//! The functions of `mix` without effects: JSON, base64, digests, texts and URLs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::Md5;
use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value, Variadic};
use sha1::{Digest as _, Sha1};

use super::{json, machine::nil_and, pack};
use crate::websocket::handshake::percent_decode;

pub(crate) fn register(lua: &Lua, mix: &Table) -> mlua::Result<()> {
    mix.set("json_encode", lua.create_function(|lua, value: Value| json_encode(lua, &value))?)?;
    mix.set("json_decode", lua.create_function(|lua, text: LuaString| json_decode(lua, &text))?)?;
    mix.set(
        "base64_encode",
        lua.create_function(|_, text: LuaString| Ok(STANDARD.encode(&*text.as_bytes())))?,
    )?;
    mix.set("base64_decode", lua.create_function(|lua, text: LuaString| base64_decode(lua, &text))?)?;
    register_digests(lua, mix)?;
    let pack = |lua: &Lua, (format, values): (LuaString, Variadic<Value>)| php_pack(lua, &format, &values);
    mix.set("php_pack", lua.create_function(pack)?)?;
    let unpack = |lua: &Lua, (format, data): (LuaString, LuaString)| php_unpack(lua, &format, &data);
    mix.set("php_unpack", lua.create_function(unpack)?)?;
    mix.set("str_split", lua.create_function(str_split)?)?;
    mix.set("parse_str", lua.create_function(|lua, text: String| parse_str(lua, &text))?)?;
    mix.set("parse_url", lua.create_function(|lua, text: String| parse_url(lua, &text))?)?;
    mix.set("url_parse", lua.create_function(|lua, text: String| parse_url(lua, &text))?)?;
    mix.set("bytes_tostring", lua.create_function(|lua, bytes: Vec<u8>| lua.create_string(bytes))?)
}

fn php_pack(lua: &Lua, format: &LuaString, values: &[Value]) -> mlua::Result<MultiValue> {
    match pack::pack(&pack::bytes(format), values) {
        Ok(bytes) => lua.create_string(bytes)?.into_lua_multi(lua),
        Err(reason) => nil_and(lua, reason),
    }
}

fn php_unpack(lua: &Lua, format: &LuaString, data: &LuaString) -> mlua::Result<MultiValue> {
    match pack::unpack(lua, &pack::bytes(format), &pack::bytes(data))? {
        Ok(values) => values.into_lua_multi(lua),
        Err(reason) => nil_and(lua, reason),
    }
}

fn json_encode(lua: &Lua, value: &Value) -> mlua::Result<MultiValue> {
    match json::from_lua(value) {
        Ok(json) => json.to_string().into_lua_multi(lua),
        Err(reason) => nil_and(lua, reason),
    }
}

fn json_decode(lua: &Lua, text: &LuaString) -> mlua::Result<MultiValue> {
    // Its own limit of nesting is 128 levels.
    match serde_json::from_slice::<serde_json::Value>(&text.as_bytes()) {
        Ok(value) => json::to_lua(lua, &value)?.into_lua_multi(lua),
        Err(error) => nil_and(lua, error),
    }
}

fn base64_decode(lua: &Lua, text: &LuaString) -> mlua::Result<MultiValue> {
    match STANDARD.decode(&*text.as_bytes()) {
        Ok(bytes) => lua.create_string(bytes)?.into_lua_multi(lua),
        Err(error) => nil_and(lua, error),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(out, "{byte:02x}");
        out
    })
}

fn register_digests(lua: &Lua, mix: &Table) -> mlua::Result<()> {
    let md5 = |text: &LuaString| Md5::digest(&*text.as_bytes());
    let sha1 = |text: &LuaString| Sha1::digest(&*text.as_bytes());
    mix.set("md5", lua.create_function(move |_, text: LuaString| Ok(hex(&md5(&text))))?)?;
    mix.set("md5_bin", lua.create_function(move |lua, text: LuaString| lua.create_string(md5(&text)))?)?;
    mix.set("sha1", lua.create_function(move |_, text: LuaString| Ok(hex(&sha1(&text))))?)?;
    mix.set("sha1_bin", lua.create_function(move |lua, text: LuaString| lua.create_string(sha1(&text)))?)
}

/// The parts between separators, or every byte without one.
fn str_split(lua: &Lua, (text, separator): (LuaString, Option<LuaString>)) -> mlua::Result<Table> {
    let text = text.as_bytes();
    let separator = separator.map(|separator| separator.as_bytes().to_vec()).unwrap_or_default();
    let parts = lua.create_table()?;
    if separator.is_empty() {
        for byte in text.iter() {
            parts.raw_push(lua.create_string([*byte])?)?;
        }
        return Ok(parts);
    }
    let (mut start, mut place) = (0, 0);
    while let Some(window) = text.get(place..place + separator.len()) {
        if window == separator {
            parts.raw_push(lua.create_string(text.get(start..place).unwrap_or_default())?)?;
            place += separator.len();
            start = place;
        } else {
            place += 1;
        }
    }
    parts.raw_push(lua.create_string(text.get(start..).unwrap_or_default())?)?;
    Ok(parts)
}

/// The parameters of a query.
fn parse_str(lua: &Lua, text: &str) -> mlua::Result<Table> {
    let values = lua.create_table()?;
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        values.raw_set(percent_decode(key), percent_decode(value))?;
    }
    Ok(values)
}

/// The parts of a URL that are there: scheme, user, pass, host, port, path, query, fragment.
fn parse_url(lua: &Lua, text: &str) -> mlua::Result<Table> {
    let parts = lua.create_table()?;
    let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, part)| (rest, Some(part)));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, part)| (rest, Some(part)));
    let (scheme, rest) = rest.split_once("://").map_or((None, rest), |(part, rest)| (Some(part), rest));
    let mut path = rest;
    if scheme.is_some() {
        let (authority, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        path = after;
        let (login, host) =
            authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
        if let Some(login) = login {
            let (user, pass) = login.split_once(':').map_or((login, None), |(user, pass)| (user, Some(pass)));
            parts.raw_set("user", user)?;
            parts.raw_set("pass", pass)?;
        }
        let port = host.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        parts.raw_set("host", port.map_or(host, |(host, _)| host))?;
        parts.raw_set("port", port.map(|(_, port)| port))?;
    }
    parts.raw_set("scheme", scheme)?;
    parts.raw_set("path", (!path.is_empty()).then_some(path))?;
    parts.raw_set("query", query)?;
    parts.raw_set("fragment", fragment)?;
    Ok(parts)
}
