//! `php_pack` and `php_unpack`: numbers and texts in bytes, by the codes that PHP has for them.
//!
//! Known: `a A H` (text padded with zeros or blanks, hexadecimal digits), `c C` (one byte), `n v s S` (two), `N V l L` (four),
//! `J P q Q` (eight), `x` (a zero byte). `s S l L q Q` are little-endian. A count or `*` repeats.

use mlua::{Lua, LuaString, Table, Value};

/// A code and how often it stands; `None` is `*`.
type Code = (u8, Option<usize>);

/// The most a repetition makes.
const REPEAT_MAX: usize = 1 << 20;

/// The most bytes of one result.
const RESULT_MAX: usize = 8 << 20;

/// The next code of a format, and what follows it.
fn code(format: &[u8]) -> Result<Option<(Code, &[u8])>, String> {
    let Some((letter, rest)) = format.split_first() else { return Ok(None) };
    if let Some(rest) = rest.strip_prefix(b"*") {
        return Ok(Some(((*letter, None), rest)));
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (count, rest) = rest.split_at(digits);
    let count = std::str::from_utf8(count).unwrap_or_default();
    let count = if count.is_empty() { Ok(1) } else { count.parse() };
    match count {
        Ok(count) if count <= REPEAT_MAX => Ok(Some(((*letter, Some(count)), rest))),
        _ => Err("the count is too large".to_owned()),
    }
}

/// Bytes of a number's code, and whether the most significant comes first.
fn width(letter: u8) -> Option<(usize, bool)> {
    Some(match letter {
        b'c' | b'C' => (1, false),
        b'n' => (2, true),
        b'v' | b's' | b'S' => (2, false),
        b'N' => (4, true),
        b'V' | b'l' | b'L' => (4, false),
        b'J' => (8, true),
        b'P' | b'q' | b'Q' => (8, false),
        _ => return None,
    })
}

/// The values in bytes.
///
/// # Errors
/// A sentence.
pub(crate) fn pack(format: &[u8], values: &[Value]) -> Result<Vec<u8>, String> {
    let (mut out, mut format, mut values) = (Vec::new(), format, values.iter());
    while let Some(((letter, count), rest)) = code(format)? {
        format = rest;
        if out.len() > RESULT_MAX {
            return Err("the result would be too long".into());
        }
        if letter == b'x' {
            out.resize(out.len() + count.unwrap_or(0), 0);
        } else if let Some((width, is_big)) = width(letter) {
            for _ in 0..count.unwrap_or_else(|| values.len()) {
                let value = values.next().ok_or("there are fewer values than codes")?;
                out.extend(number_bytes(value, width, is_big)?);
            }
        } else {
            let value = values.next().ok_or("there are fewer values than codes")?;
            let Value::String(text) = value else { return Err("a text code needs a text".into()) };
            text_bytes(&mut out, (letter, count), &text.as_bytes())?;
        }
    }
    Ok(out)
}

fn number_bytes(value: &Value, width: usize, is_big: bool) -> Result<Vec<u8>, String> {
    let number = match value {
        Value::Integer(number) => *number,
        #[allow(clippy::cast_possible_truncation, reason = "it saturates, and is cut to the width as in PHP")]
        Value::Number(number) => *number as i64,
        other => return Err(format!("a {} is no number", other.type_name())),
    };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.truncate(width);
    if is_big {
        bytes.reverse();
    }
    Ok(bytes)
}

fn text_bytes(out: &mut Vec<u8>, (letter, count): Code, text: &[u8]) -> Result<(), String> {
    match letter {
        b'a' | b'A' => {
            let count = count.unwrap_or(text.len());
            let pad = if letter == b'a' { 0 } else { b' ' };
            out.extend(text.iter().copied().chain(std::iter::repeat(pad)).take(count));
            Ok(())
        }
        b'H' => {
            let digits =
                text.iter().take(count.unwrap_or(text.len())).map(|digit| char::from(*digit).to_digit(16));
            let digits = digits.collect::<Option<Vec<u32>>>().ok_or("H needs hexadecimal digits")?;
            let byte = |pair: &[u32]| match pair {
                [high, low] => high << 4 | low,
                [high] => high << 4,
                _ => 0,
            };
            out.extend(digits.chunks(2).filter_map(|pair| u8::try_from(byte(pair)).ok()));
            Ok(())
        }
        other => Err(format!("the code {} is not known", char::from(other))),
    }
}

/// The values in bytes, by the names after their codes: `Nlength/a4name`. Without a name they are counted from 1.
///
/// # Errors
/// A sentence.
pub(crate) fn unpack(lua: &Lua, format: &[u8], data: &[u8]) -> mlua::Result<Result<Table, String>> {
    let values = lua.create_table()?;
    let mut data = data;
    for part in format.split(|byte| *byte == b'/') {
        let ((letter, count), name) = match code(part) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Err("a code is missing".into())),
            Err(reason) => return Ok(Err(reason)),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let Some((width, is_big)) = width(letter) else {
            let Some((value, rest)) = text(letter, count, data) else {
                return Ok(Err("the data is too short, or the code is not known".into()));
            };
            values.raw_set(if name.is_empty() { "1".to_owned() } else { name }, lua.create_string(value)?)?;
            data = rest;
            continue;
        };
        let count = count.unwrap_or(data.len() / width);
        for number in 1..=count {
            let Some((bytes, rest)) = data.split_at_checked(width) else {
                return Ok(Err("the data is too short".into()));
            };
            data = rest;
            let value = number_value(letter, bytes, is_big);
            match (name.is_empty(), count) {
                (true, _) => values.raw_set(number, value)?,
                (false, 1) => values.raw_set(name.as_str(), value)?,
                (false, _) => values.raw_set(format!("{name}{number}"), value)?,
            }
        }
    }
    Ok(Ok(values))
}

fn number_value(letter: u8, bytes: &[u8], is_big: bool) -> f64 {
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    let number = if is_big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
    let unused = 64 - 8 * u32::try_from(bytes.len()).unwrap_or(8);
    if matches!(letter, b'c' | b's' | b'l' | b'q') {
        return ((number << unused).cast_signed() >> unused) as f64;
    }
    number as f64
}

fn text(letter: u8, count: Option<usize>, data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match letter {
        b'a' | b'A' => {
            let (value, rest) = data.split_at_checked(count.unwrap_or(data.len()))?;
            let value = if letter == b'A' { value.trim_ascii_end() } else { value };
            Some((value.to_vec(), rest))
        }
        b'H' => {
            let digits = count.unwrap_or(data.len() * 2);
            let (value, rest) = data.split_at_checked(digits.div_ceil(2))?;
            let mut text: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            text.truncate(digits);
            Some((text.into_bytes(), rest))
        }
        b'x' => Some((Vec::new(), data.split_at_checked(count.unwrap_or(0))?.1)),
        _ => None,
    }
}

/// A format or a text of a script.
pub(crate) fn bytes(text: &LuaString) -> Vec<u8> {
    text.as_bytes().to_vec()
}
