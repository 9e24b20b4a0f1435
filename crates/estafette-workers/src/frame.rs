//! What travels between participants, and its binary form: a length, a kind, and the kind's fields.
//!
//! `docs/workers-protocol.md` specifies it; [`lines`](crate::lines) has the form of one JSON object a line.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use estafette_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::error::invalid;

/// The version of the protocol this crate speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// The longest action, in bytes: its length is one byte.
pub(crate) const ACTION_BYTES_MAX: usize = 255;

const LENGTH_BYTES: usize = 4;
const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const SEND: u8 = 4;
const REQUEST: u8 = 5;
const REPLY: u8 = 6;
const FAILURE: u8 = 7;
const GOODBYE: u8 = 8;

const FORM_JSON: u8 = 0;
const FORM_BYTES: u8 = 1;

/// How the bytes of a body are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Bytes,
}

impl Form {
    fn byte(self) -> u8 {
        match self {
            Self::Json => FORM_JSON,
            Self::Bytes => FORM_BYTES,
        }
    }

    fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            FORM_JSON => Ok(Self::Json),
            FORM_BYTES => Ok(Self::Bytes),
            other => Err(undecodable(format!("a body of unknown form {other}"))),
        }
    }
}

/// The data of a message, request or reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) form: Form,
    pub(crate) data: Bytes,
}

impl Body {
    /// This body as the data of a message.
    pub(crate) fn view<'a>(&'a self, id: Option<u64>, action: &'a Action) -> View<'a> {
        View { id, action: action.as_str(), form: self.form, data: &self.data }
    }

    /// The reply of a listener that has nothing to say.
    pub(crate) const NULL: Self = Self { form: Form::Json, data: Bytes::from_static(b"null") };
}

/// The first thing a caller says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    /// Who calls, as an address in text.
    pub(crate) from: String,
    /// Who is called; the callee refuses when it is somebody else.
    pub(crate) to: String,
    /// Which start of the caller this is: the supervisor counts all starts of a group.
    #[serde(default)]
    pub(crate) incarnation: u64,
}

/// The callee's consent; the caller sends nothing before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) from: String,
    #[serde(default)]
    pub(crate) incarnation: u64,
}

/// Why something failed: a kind's words and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let message = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Self { kind: error.kind().as_str().to_owned(), message }
    }
}

/// Everything that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Refused(Refusal),
    Send {
        action: Action,
        body: Body,
    },
    Request {
        id: u64,
        action: Action,
        body: Body,
    },
    Reply {
        id: u64,
        body: Body,
    },
    Failure {
        id: u64,
        refusal: Refusal,
    },
    /// The callee is leaving: send nothing more, and close your writing side.
    Goodbye,
}

/// The name of what a message is about: 1 to 255 bytes of text, a view into the frame it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action(Bytes);

impl Action {
    pub(crate) fn check(text: &str) -> Result<()> {
        if (1..=ACTION_BYTES_MAX).contains(&text.len()) {
            return Ok(());
        }
        Err(invalid(format!("an action of {} bytes; 1 to {ACTION_BYTES_MAX} are allowed", text.len())))
    }

    pub(crate) fn new(bytes: Bytes) -> Result<Self> {
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::check(text)?,
            Err(source) => return Err(Error::new(ErrorKind::Undecodable, source)),
        }
        Ok(Self(bytes))
    }

    pub(crate) fn as_str(&self) -> &str {
        // Checked when it was made; checking again is cheaper than unsafe code is worth.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Takes the next whole frame from `buffer`, if it is there.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] for a length above `bytes_max`, before any of it is kept; [`ErrorKind::Undecodable`] for a
/// frame that is none. After an error the stream is useless.
pub(crate) fn decode(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>> {
    let Some((length, _)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > bytes_max {
        let sentence = format!("a frame of {length} bytes was announced; the limit is {bytes_max}");
        return Err(Error::new(ErrorKind::TooLarge, sentence));
    }
    if buffer.len() - LENGTH_BYTES < length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    let mut frame = buffer.split_to(length).freeze();
    let kind = take_u8(&mut frame)?;
    decode_kind(kind, frame).map(Some)
}

/// A send, or a request when it has an id, as it lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View<'a> {
    pub(crate) id: Option<u64>,
    pub(crate) action: &'a str,
    pub(crate) form: Form,
    pub(crate) data: &'a [u8],
}

/// Looks at the frame at the start of `buffer` without taking it, when it is whole and a send or a request; with its length.
///
/// Most frames are, and their data is only read: taking them out as shared bytes would cost more than reading them does.
pub(crate) fn view(buffer: &[u8]) -> Option<(View<'_>, usize)> {
    let (length, rest) = buffer.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (kind, rest) = rest.get(..length)?.split_first()?;
    let (id, rest) = match *kind {
        SEND => (None, rest),
        REQUEST => {
            let (id, rest) = rest.split_first_chunk::<8>()?;
            (Some(u64::from_be_bytes(*id)), rest)
        }
        _ => return None,
    };
    let ([form, action_bytes], rest) = rest.split_first_chunk::<2>()?;
    let (action, data) = rest.split_at_checked(usize::from(*action_bytes))?;
    let form = Form::from_byte(*form).ok()?;
    let action = std::str::from_utf8(action).ok().filter(|action| !action.is_empty())?;
    Some((View { id, action, form, data }, LENGTH_BYTES + length))
}

fn decode_kind(kind: u8, mut rest: Bytes) -> Result<Frame> {
    Ok(match kind {
        SEND => {
            let (form, action) = take_action(&mut rest)?;
            Frame::Send { action, body: Body { form, data: rest } }
        }
        REQUEST => {
            let id = take_u64(&mut rest)?;
            let (form, action) = take_action(&mut rest)?;
            Frame::Request { id, action, body: Body { form, data: rest } }
        }
        REPLY => {
            let id = take_u64(&mut rest)?;
            let form = Form::from_byte(take_u8(&mut rest)?)?;
            Frame::Reply { id, body: Body { form, data: rest } }
        }
        FAILURE => Frame::Failure { id: take_u64(&mut rest)?, refusal: from_json(&rest)? },
        HELLO => Frame::Hello(from_json(&rest)?),
        WELCOME => Frame::Welcome(from_json(&rest)?),
        REFUSED => Frame::Refused(from_json(&rest)?),
        GOODBYE => Frame::Goodbye,
        other => return Err(undecodable(format!("a frame of unknown kind {other}"))),
    })
}

/// The bytes of a send or a request but for its head.
fn encode_rest(action: &str, body: &Body, into: &mut BytesMut) {
    encode_rest_before_data(action, body.form, into);
    into.put_slice(&body.data);
}

/// What comes before the data in the rest of a frame.
pub(crate) fn encode_rest_before_data(action: &str, form: Form, into: &mut impl BufMut) {
    into.put_u8(form.byte());
    into.put_u8(u8::try_from(action.len()).unwrap_or(u8::MAX));
    into.put_slice(action.as_bytes());
}

/// The head of a send, or of a request when it has an id, before `rest_bytes` of rest.
pub(crate) fn encode_head(id: Option<u64>, rest_bytes: usize, into: &mut BytesMut) {
    match id {
        None => {
            put_length(1 + rest_bytes, into);
            into.put_u8(SEND);
        }
        Some(id) => {
            put_length(9 + rest_bytes, into);
            into.put_u8(REQUEST);
            into.put_u64(id);
        }
    }
}

/// Appends `frame`.
pub(crate) fn encode(frame: &Frame, into: &mut BytesMut) {
    match frame {
        Frame::Send { action, body } => {
            encode_head(None, 2 + action.0.len() + body.data.len(), into);
            encode_rest(action.as_str(), body, into);
        }
        Frame::Request { id, action, body } => {
            encode_head(Some(*id), 2 + action.0.len() + body.data.len(), into);
            encode_rest(action.as_str(), body, into);
        }
        Frame::Reply { id, body } => {
            put_length(10 + body.data.len(), into);
            into.put_u8(REPLY);
            into.put_u64(*id);
            into.put_u8(body.form.byte());
            into.put_slice(&body.data);
        }
        Frame::Failure { id, refusal } => {
            let json = to_json(refusal);
            put_length(9 + json.len(), into);
            into.put_u8(FAILURE);
            into.put_u64(*id);
            into.put_slice(&json);
        }
        Frame::Hello(hello) => encode_json(HELLO, hello, into),
        Frame::Welcome(welcome) => encode_json(WELCOME, welcome, into),
        Frame::Refused(refusal) => encode_json(REFUSED, refusal, into),
        Frame::Goodbye => {
            put_length(1, into);
            into.put_u8(GOODBYE);
        }
    }
}

fn encode_json(kind: u8, value: &impl Serialize, into: &mut BytesMut) {
    let json = to_json(value);
    put_length(1 + json.len(), into);
    into.put_u8(kind);
    into.put_slice(&json);
}

fn put_length(length: usize, into: &mut BytesMut) {
    // Frames longer than the limit are refused before they get here, and the limit fits.
    into.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Text and numbers always have a JSON form.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|source| Error::new(ErrorKind::Undecodable, source))
}

fn take_action(rest: &mut Bytes) -> Result<(Form, Action)> {
    let form = Form::from_byte(take_u8(rest)?)?;
    let length = usize::from(take_u8(rest)?);
    if rest.len() < length {
        return Err(undecodable("an action that ends after its frame"));
    }
    Ok((form, Action::new(rest.split_to(length))?))
}

fn take_u8(rest: &mut Bytes) -> Result<u8> {
    rest.try_get_u8().map_err(|source| Error::new(ErrorKind::Undecodable, source))
}

fn take_u64(rest: &mut Bytes) -> Result<u64> {
    rest.try_get_u64().map_err(|source| Error::new(ErrorKind::Undecodable, source))
}

pub(crate) fn undecodable(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::Undecodable, sentence.into())
}
