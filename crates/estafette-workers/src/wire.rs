//! One of the two forms of the protocol, chosen by the first byte a connection carries.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use estafette_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::{
    frame::{self, Action, Body, Form, Frame, View},
    lines,
};

/// The form a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Length-prefixed frames.
    Frames,
    /// One JSON object a line.
    Lines,
}

impl Wire {
    /// The form of a connection whose first byte is `first`.
    ///
    /// A frame begins with the high byte of its length; `{` there would announce two gigabytes, which no limit allows.
    pub(crate) fn of_first_byte(first: u8) -> Self {
        if first == b'{' { Self::Lines } else { Self::Frames }
    }

    /// Appends `frame`. On an error nothing is appended.
    pub(crate) fn encode(self, frame: &Frame, into: &mut BytesMut) -> Result<()> {
        self.encode_with(into, |into| match self {
            Self::Frames => {
                frame::encode(frame, into);
                Ok(())
            }
            Self::Lines => lines::encode(frame, into),
        })
    }

    /// Appends what `encode` does. On an error nothing is appended.
    pub(crate) fn encode_with(
        self,
        into: &mut BytesMut,
        encode: impl FnOnce(&mut BytesMut) -> Result<()>,
    ) -> Result<()> {
        let before = into.len();
        let encoded = encode(into);
        if encoded.is_err() {
            into.truncate(before);
        }
        encoded
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    wire: Wire,
    bytes_max: usize,
    /// How many bytes at the start of the buffer hold no end of a line.
    searched: usize,
}

impl Decoder {
    pub(crate) fn new(wire: Wire, bytes_max: usize) -> Self {
        Self { wire, bytes_max, searched: 0 }
    }

    /// The message or request at the start of `buffer` with its length, when it is whole and can be read where it lies.
    ///
    /// `None` says nothing: [`decode`](Self::decode) knows.
    pub(crate) fn view<'a>(&self, buffer: &'a [u8]) -> Option<(View<'a>, usize)> {
        if self.wire == Wire::Lines {
            return None;
        }
        frame::view(buffer).filter(|(_, length)| *length <= self.bytes_max)
    }

    /// The next whole frame at the start of `buffer`, if it is there.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>> {
        match self.wire {
            Wire::Frames => frame::decode(buffer, self.bytes_max),
            Wire::Lines => lines::decode(buffer, &mut self.searched, self.bytes_max),
        }
    }
}

/// A message or request on its way to one or many: encoded once, whoever gets it.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    action_bytes: usize,
    form: Form,
    /// Everything of the frame behind its head: form, action, data.
    rest: Rest,
}

/// Small ones are copied into each queue, large ones are shared between all.
#[derive(Clone, Debug)]
pub(crate) enum Rest {
    Small(Vec<u8>),
    Large(Bytes),
}

/// From this size on a parcel is shared.
const LARGE_BYTES_MIN: usize = 16 << 10;

/// Where the action begins in the rest of a frame.
const ACTION_AT: usize = 2;

thread_local! {
    /// The buffer of the last small parcel, for the next one.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Parcel {
    /// `data` as JSON, under `action`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an empty or too long action and for data without a JSON form;
    /// [`ErrorKind::TooLarge`] above `bytes_max`.
    pub(crate) fn json<T: Serialize + ?Sized>(action: &str, data: &T, bytes_max: usize) -> Result<Self> {
        Action::check(action)?;
        let mut rest = SPARE.take();
        frame::encode_rest_before_data(action, Form::Json, &mut rest);
        if let Err(source) = serde_json::to_writer(&mut rest, data) {
            return Err(Error::new(ErrorKind::InvalidInput, source));
        }
        Self::checked(action.len(), Form::Json, rest, bytes_max)
    }

    /// A body that is encoded already, under `action`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an empty or too long action; [`ErrorKind::TooLarge`] above `bytes_max`.
    pub(crate) fn body(action: &str, body: &Body, bytes_max: usize) -> Result<Self> {
        Action::check(action)?;
        let mut rest = SPARE.take();
        frame::encode_rest_before_data(action, body.form, &mut rest);
        rest.extend_from_slice(&body.data);
        Self::checked(action.len(), body.form, rest, bytes_max)
    }

    fn checked(action_bytes: usize, form: Form, rest: Vec<u8>, bytes_max: usize) -> Result<Self> {
        // The head within the length: kind and id.
        let bytes = rest.len() + 9;
        if bytes > bytes_max {
            let sentence = format!("a message of {bytes} bytes; the limit is {bytes_max}");
            return Err(Error::new(ErrorKind::TooLarge, sentence));
        }
        let rest = if rest.len() < LARGE_BYTES_MIN { Rest::Small(rest) } else { Rest::Large(rest.into()) };
        Ok(Self { action_bytes, form, rest })
    }

    /// The rest of the frame behind its head.
    pub(crate) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// How long the rest is.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        match &self.rest {
            Rest::Small(bytes) => bytes,
            Rest::Large(bytes) => bytes,
        }
    }

    /// The message, or the request when it has an id, as whoever receives it sees it.
    pub(crate) fn view(&self, id: Option<u64>) -> Option<View<'_>> {
        let (action, data) = self.bytes().get(ACTION_AT..)?.split_at_checked(self.action_bytes)?;
        Some(View { id, action: std::str::from_utf8(action).ok()?, form: self.form, data })
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Rest::Small(bytes) = &mut self.rest {
            bytes.clear();
            SPARE.set(std::mem::take(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Hello, Refusal};

    fn frames() -> impl Strategy<Value = Frame> {
        let action = "[a-z.é]{1,40}".prop_map(|text| Action::new(text.into()).unwrap());
        let json = "[a-z \"\n\\\\]{0,40}".prop_map(|text| serde_json::to_vec(&text).unwrap());
        let body = prop_oneof![
            json.prop_map(|data| Body { form: Form::Json, data: data.into() }),
            proptest::collection::vec(any::<u8>(), 0..40)
                .prop_map(|data| Body { form: Form::Bytes, data: data.into() }),
        ];
        prop_oneof![
            (action.clone(), body.clone()).prop_map(|(action, body)| Frame::Send { action, body }),
            (any::<u64>(), action, body.clone()).prop_map(|(id, action, body)| Frame::Request {
                id,
                action,
                body
            }),
            (any::<u64>(), body).prop_map(|(id, body)| Frame::Reply { id, body }),
            (any::<u64>(), ".{0,20}", ".{0,20}")
                .prop_map(|(id, kind, message)| Frame::Failure { id, refusal: Refusal { kind, message } }),
            (".{0,20}", any::<u64>()).prop_map(|(from, incarnation)| {
                Frame::Hello(Hello { protocol: 1, from, to: "0".into(), incarnation })
            }),
            Just(Frame::Goodbye),
        ]
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded_however_it_is_cut(frame in frames(), lines: bool, cut: usize) {
            let wire = if lines { Wire::Lines } else { Wire::Frames };
            let mut encoded = BytesMut::new();
            wire.encode(&frame, &mut encoded).unwrap();
            prop_assert_eq!(Wire::of_first_byte(encoded[0]), wire);
            let end = encoded.split_off(cut % encoded.len());
            let mut decoder = Decoder::new(wire, 1 << 20);
            prop_assert_eq!(decoder.decode(&mut encoded).unwrap(), None);
            encoded.unsplit(end);
            let viewed = decoder.view(&encoded).map(|(view, length)| (view.id, view.action.to_owned(), length));
            let length = encoded.len();
            let decoded = decoder.decode(&mut encoded).unwrap().unwrap();
            if wire == Wire::Frames {
                let expected = match &decoded {
                    Frame::Send { action, .. } => Some((None, action.as_str().to_owned(), length)),
                    Frame::Request { id, action, .. } => Some((Some(*id), action.as_str().to_owned(), length)),
                    _ => None,
                };
                prop_assert_eq!(viewed, expected);
            }
            prop_assert_eq!(decoded, frame);
            prop_assert!(encoded.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_incomplete_but_never_a_panic(garbage: Vec<u8>, lines: bool) {
            let wire = if lines { Wire::Lines } else { Wire::Frames };
            let mut decoder = Decoder::new(wire, 64);
            let mut buffer = BytesMut::from(&garbage[..]);
            loop {
                decoder.view(&buffer);
                let Ok(Some(_)) = decoder.decode(&mut buffer) else { break };
            }
        }
    }

    #[test]
    fn a_length_of_a_gibibyte_is_refused_before_anything_is_kept() {
        let mut buffer = BytesMut::from(&[0x40, 0, 0, 0][..]);
        let error = Decoder::new(Wire::Frames, 16 << 20).decode(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_parcel_opens_to_what_was_put_in() {
        let parcel = Parcel::json("job.start", &[1, 2], 1024).unwrap();
        let view = parcel.view(Some(7)).unwrap();
        assert_eq!(view, View { id: Some(7), action: "job.start", form: Form::Json, data: b"[1,2]" });
        assert!(Parcel::json("", &1, 1024).is_err());
        assert_eq!(Parcel::json("a", &"x".repeat(1024), 1024).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
