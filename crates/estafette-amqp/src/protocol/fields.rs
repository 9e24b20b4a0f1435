//! Field tables: names and typed values, as in headers and arguments.

use std::borrow::Cow;

use super::{
    Malformed, Reader,
    writing::{put_long, put_short},
};

/// The value of a field, as far as this transport looks into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    /// Any whole number.
    Int(i64),
    Float(f64),
    /// A long string.
    Text(&'a [u8]),
    /// A table: the fields in it.
    Table(&'a [u8]),
    /// An array: the values in it, each with its type.
    Array(&'a [u8]),
    /// Nothing, or a type that is only carried along.
    Other,
}

impl<'a> Value<'a> {
    /// The value as text: a string as it is, numbers and truth values in words; none for the rest.
    pub(crate) fn to_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes)),
            Self::Bool(value) => Some(value.to_string().into()),
            Self::Int(value) => Some(value.to_string().into()),
            Self::Float(value) => Some(value.to_string().into()),
            Self::Table(_) | Self::Array(_) | Self::Other => None,
        }
    }

    pub(crate) fn to_int(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value),
            Self::Text(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Takes a value with its type.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            b't' => Self::Bool(reader.u8()? != 0),
            b'b' => Self::Int(i64::from(reader.u8()?.cast_signed())),
            b'B' => Self::Int(i64::from(reader.u8()?)),
            b's' => Self::Int(i64::from(reader.u16()?.cast_signed())),
            b'u' => Self::Int(i64::from(reader.u16()?)),
            b'I' => Self::Int(i64::from(reader.u32()?.cast_signed())),
            b'i' => Self::Int(i64::from(reader.u32()?)),
            b'l' | b'L' | b'T' => Self::Int(reader.i64()?),
            b'f' => Self::Float(f64::from(f32::from_bits(reader.u32()?))),
            b'd' => Self::Float(f64::from_bits(reader.u64()?)),
            b'D' => {
                reader.take(5)?;
                Self::Other
            }
            b'S' => Self::Text(reader.long()?),
            b'F' => Self::Table(reader.long()?),
            b'A' => Self::Array(reader.long()?),
            b'x' => {
                reader.long()?;
                Self::Other
            }
            b'V' => Self::Other,
            _ => return Err(Malformed("a table field of an unknown type")),
        })
    }
}

/// A field of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: Value<'a>,
    /// The whole field as it was read, to be carried along unchanged.
    pub(crate) raw: &'a [u8],
}

/// The fields of a table, from its bytes without the length. Ends at the first malformed one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn get(self, name: &str) -> Option<Value<'a>> {
        let mut fields = self;
        fields.find(|field| field.name == name.as_bytes()).map(|field| field.value)
    }

    pub(crate) fn text(self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.to_text()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.0;
        let mut reader = Reader(start);
        let read = |reader: &mut Reader<'a>| Ok::<_, Malformed>((reader.short()?, Value::read(reader)?));
        let Ok((name, value)) = read(&mut reader) else {
            self.0 = &[];
            return None;
        };
        self.0 = reader.0;
        let raw = start.get(..start.len() - reader.0.len())?;
        Some(Field { name, value, raw })
    }
}

/// The values of an array, from its bytes without the length. Ends at the first malformed one.
pub(crate) fn values(array: &[u8]) -> impl Iterator<Item = Value<'_>> {
    let mut reader = Reader(array);
    std::iter::from_fn(move || if reader.is_empty() { None } else { Value::read(&mut reader).ok() })
}

pub(crate) fn put_text_field(out: &mut Vec<u8>, name: &str, value: &str) {
    put_short(out, name);
    out.push(b'S');
    put_long(out, |out| out.extend_from_slice(value.as_bytes()));
}

pub(crate) fn put_i32_field(out: &mut Vec<u8>, name: &str, value: i32) {
    put_short(out, name);
    out.push(b'I');
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_i64_field(out: &mut Vec<u8>, name: &str, value: i64) {
    put_short(out, name);
    out.push(b'l');
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_bool_field(out: &mut Vec<u8>, name: &str, value: bool) {
    put_short(out, name);
    out.push(b't');
    out.push(u8::from(value));
}
