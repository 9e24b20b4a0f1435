//! The line form of the protocol: one JSON object a line, for programs in any language.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use estafette_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::frame::{Action, Body, Form, Frame, Hello, Refusal, View, Welcome, undecodable};

/// A line, as serde sees it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Hello(Hello),
    Welcome(Welcome),
    Refused(Refusal),
    Send {
        action: String,
        #[serde(flatten)]
        data: Data,
    },
    Request {
        id: u64,
        action: String,
        #[serde(flatten)]
        data: Data,
    },
    Reply {
        id: u64,
        #[serde(flatten)]
        data: Data,
    },
    Error {
        id: u64,
        #[serde(default)]
        kind: String,
        message: String,
    },
    Goodbye,
}

/// `data` is any JSON value; `data_base64` is for bytes that are none. Without either it is `null`.
///
/// A [`RawValue`] would keep the text as it is, but serde cannot flatten one into a tagged object.
#[derive(Serialize, Deserialize)]
struct Data {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl Data {
    fn into_body(self) -> Result<Body> {
        if let Some(text) = self.data_base64 {
            return match STANDARD.decode(text) {
                Ok(data) => Ok(Body { form: Form::Bytes, data: data.into() }),
                Err(source) => Err(Error::new(ErrorKind::Undecodable, source)),
            };
        }
        match serde_json::to_vec(&self.data) {
            Ok(data) => Ok(Body { form: Form::Json, data: data.into() }),
            Err(source) => Err(Error::new(ErrorKind::Undecodable, source)),
        }
    }
}

/// Takes the next whole line from `buffer`, if it is there. `searched` bytes of it are known to hold no line's end.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] when more than `bytes_max` come without a line's end; [`ErrorKind::Undecodable`] for a line
/// that is none of the protocol's.
pub(crate) fn decode(buffer: &mut BytesMut, searched: &mut usize, bytes_max: usize) -> Result<Option<Frame>> {
    let unsearched = buffer.get(*searched..).unwrap_or_default();
    let Some(end) = unsearched.iter().position(|&byte| byte == b'\n').map(|end| *searched + end) else {
        *searched = buffer.len();
        if buffer.len() > bytes_max {
            let sentence = format!("a line of more than {bytes_max} bytes, which is the limit");
            return Err(Error::new(ErrorKind::TooLarge, sentence));
        }
        return Ok(None);
    };
    *searched = 0;
    let line = buffer.split_to(end);
    buffer.advance(1);
    match serde_json::from_slice::<Line>(&line) {
        Ok(line) => into_frame(line).map(Some),
        Err(source) => Err(Error::new(ErrorKind::Undecodable, source)),
    }
}

fn into_frame(line: Line) -> Result<Frame> {
    let action = |text: String| Action::new(Bytes::from(text));
    Ok(match line {
        Line::Hello(hello) => Frame::Hello(hello),
        Line::Welcome(welcome) => Frame::Welcome(welcome),
        Line::Refused(refusal) => Frame::Refused(refusal),
        Line::Send { action: name, data } => Frame::Send { action: action(name)?, body: data.into_body()? },
        Line::Request { id, action: name, data } => {
            Frame::Request { id, action: action(name)?, body: data.into_body()? }
        }
        Line::Reply { id, data } => Frame::Reply { id, body: data.into_body()? },
        Line::Error { id, kind, message } => Frame::Failure { id, refusal: Refusal { kind, message } },
        Line::Goodbye => Frame::Goodbye,
    })
}

/// Appends `frame` as a line.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when a body that should be JSON is none.
pub(crate) fn encode(frame: &Frame, into: &mut BytesMut) -> Result<()> {
    match frame {
        Frame::Send { action, body } => encode_message(body.view(None, action), into),
        Frame::Request { id, action, body } => encode_message(body.view(Some(*id), action), into),
        Frame::Reply { id, body } => {
            into.put_slice(format!("{{\"type\":\"reply\",\"id\":{id}").as_bytes());
            encode_data(body.form, &body.data, into)
        }
        Frame::Failure { id, refusal: Refusal { kind, message } } => {
            put_line(&Line::Error { id: *id, kind: kind.clone(), message: message.clone() }, into)
        }
        Frame::Hello(hello) => put_line(&Line::Hello(hello.clone()), into),
        Frame::Welcome(welcome) => put_line(&Line::Welcome(welcome.clone()), into),
        Frame::Refused(refusal) => put_line(&Line::Refused(refusal.clone()), into),
        Frame::Goodbye => put_line(&Line::Goodbye, into),
    }
}

/// Appends a send, or a request when it has an id.
pub(crate) fn encode_message(message: View<'_>, into: &mut BytesMut) -> Result<()> {
    let head = match message.id {
        None => "{\"type\":\"send\"".to_owned(),
        Some(id) => format!("{{\"type\":\"request\",\"id\":{id}"),
    };
    into.put_slice(head.as_bytes());
    into.put_slice(b",\"action\":");
    match serde_json::to_vec(message.action) {
        Ok(text) => into.put_slice(&text),
        Err(source) => return Err(Error::new(ErrorKind::InvalidInput, source)),
    }
    encode_data(message.form, message.data, into)
}

/// Appends the data and the end of the line.
fn encode_data(form: Form, data: &[u8], into: &mut BytesMut) -> Result<()> {
    match form {
        Form::Bytes => {
            into.put_slice(b",\"data_base64\":\"");
            into.put_slice(STANDARD.encode(data).as_bytes());
            into.put_slice(b"\"}\n");
        }
        Form::Json => {
            let raw: &RawValue = match serde_json::from_slice(data) {
                Ok(raw) => raw,
                Err(source) => return Err(undecodable(format!("a body that is no JSON: {source}"))),
            };
            into.put_slice(b",\"data\":");
            // A raw line feed within JSON is white space between tokens; as a space it does not end the line.
            let text = raw.get().as_bytes().iter().map(|&byte| if byte == b'\n' { b' ' } else { byte });
            into.extend(text);
            into.put_slice(b"}\n");
        }
    }
    Ok(())
}

fn put_line(line: &Line, into: &mut BytesMut) -> Result<()> {
    match serde_json::to_vec(line) {
        Ok(text) => {
            into.put_slice(&text);
            into.put_u8(b'\n');
            Ok(())
        }
        Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
    }
}
