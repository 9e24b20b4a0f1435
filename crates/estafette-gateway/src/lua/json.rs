//! Values between Lua and JSON.
//!
//! A table with the keys 1 to n is a list, and so is an empty one, as the reference has it. `null` is nil: a key of that
//! value is not there. Numbers are doubles in Lua, so whole ones beyond 2^53 lose their last digits; ids are strings.

use mlua::{Lua, LuaString, Table, Value};
use serde_json::{Map, Number, Value as Json};

/// Levels of nesting; a cyclic table reaches them too.
const DEPTH_MAX: usize = 64;

/// Values in one conversion.
const VALUES_MAX: usize = 100_000;

/// The largest whole number that a double holds with all its neighbours.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

pub(crate) fn to_lua(lua: &Lua, json: &Json) -> mlua::Result<Value> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(values) => {
            let table = lua.create_table_with_capacity(values.len(), 0)?;
            for (place, value) in values.iter().enumerate() {
                table.raw_set(place + 1, to_lua(lua, value)?)?;
            }
            Value::Table(table)
        }
        Json::Object(values) => Value::Table(object_to_lua(lua, values)?),
    })
}

pub(crate) fn object_to_lua(lua: &Lua, values: &Map<String, Json>) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, values.len())?;
    for (key, value) in values {
        table.raw_set(key.as_str(), to_lua(lua, value)?)?;
    }
    Ok(table)
}

/// The value as JSON, or why it is none.
///
/// # Errors
/// A sentence.
pub(crate) fn from_lua(value: &Value) -> Result<Json, String> {
    let mut left = VALUES_MAX;
    convert(value, DEPTH_MAX, &mut left)
}

fn convert(value: &Value, depth: usize, left: &mut usize) -> Result<Json, String> {
    *left = left.checked_sub(1).ok_or("the value is too large")?;
    match value {
        Value::Nil => Ok(Json::Null),
        Value::Boolean(value) => Ok(Json::Bool(*value)),
        Value::Integer(number) => Ok(Json::Number((*number).into())),
        Value::Number(number) => number_from_lua(*number),
        Value::String(text) => text_from_lua(text).map(Json::String),
        Value::Table(table) => {
            let depth = depth.checked_sub(1).ok_or("the value is nested too deeply or contains itself")?;
            table_from_lua(table, depth, left)
        }
        other => Err(format!("a {} cannot be written as JSON", other.type_name())),
    }
}

fn number_from_lua(number: f64) -> Result<Json, String> {
    if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        #[allow(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        return Ok(Json::Number((number as i64).into()));
    }
    Number::from_f64(number).map(Json::Number).ok_or_else(|| format!("{number} cannot be written as JSON"))
}

fn text_from_lua(text: &LuaString) -> Result<String, String> {
    String::from_utf8(text.as_bytes().to_vec()).map_err(|_invalid| "a text is not UTF-8".to_owned())
}

fn table_from_lua(table: &Table, depth: usize, left: &mut usize) -> Result<Json, String> {
    let length = table.raw_len();
    let mut list = Vec::new();
    let mut object = Map::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        let json = convert(&value, depth, left)?;
        let number = match &key {
            Value::Integer(number) => usize::try_from(*number).ok(),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "only used if it is whole"
            )]
            Value::Number(number) if number.fract() == 0.0 && *number >= 1.0 => Some(*number as usize),
            _ => None,
        };
        match (number, &key) {
            (Some(number), _) if number == list.len() + 1 && number <= length => list.push(json),
            (_, Value::String(key)) => drop(object.insert(text_from_lua(key)?, json)),
            (_, Value::Integer(number)) => drop(object.insert(number.to_string(), json)),
            (_, Value::Number(number)) => drop(object.insert(number.to_string(), json)),
            (_, other) => return Err(format!("a {} cannot be a key in JSON", other.type_name())),
        }
    }
    if object.is_empty() {
        return Ok(Json::Array(list));
    }
    for (place, value) in list.into_iter().enumerate() {
        object.insert((place + 1).to_string(), value);
    }
    Ok(Json::Object(object))
}
