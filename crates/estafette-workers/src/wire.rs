//! One of the two forms of the protocol, chosen by the first byte a connection carries.

use bytes::{Bytes, BytesMut};
use estafette_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::{
    frame::{self, Action, Body, Form, Frame},
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
        let before = into.len();
        let encoded = match self {
            Self::Frames => {
                frame::encode(frame, into);
                Ok(())
            }
            Self::Lines => lines::encode(frame, into),
        };
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
    rest: Bytes,
}

/// Where the action begins in the rest of a frame.
const ACTION_AT: usize = 2;

impl Parcel {
    /// `data` as JSON, under `action`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an empty or too long action and for data without a JSON form;
    /// [`ErrorKind::TooLarge`] above `bytes_max`.
    pub(crate) fn json<T: Serialize + ?Sized>(action: &str, data: &T, bytes_max: usize) -> Result<Self> {
        Action::check(action)?;
        let mut rest = Vec::with_capacity(512);
        rest.push(0);
        rest.push(u8::try_from(action.len()).unwrap_or(u8::MAX));
        rest.extend_from_slice(action.as_bytes());
        if let Err(source) = serde_json::to_writer(&mut rest, data) {
            return Err(Error::new(ErrorKind::InvalidInput, source));
        }
        Self::checked(action.len(), Form::Json, rest.into(), bytes_max)
    }

    /// A body that is encoded already, under `action`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an empty or too long action; [`ErrorKind::TooLarge`] above `bytes_max`.
    pub(crate) fn body(action: &str, body: &Body, bytes_max: usize) -> Result<Self> {
        Action::check(action)?;
        let mut rest = BytesMut::with_capacity(ACTION_AT + action.len() + body.data.len());
        frame::encode_rest(action, body, &mut rest);
        Self::checked(action.len(), body.form, rest.freeze(), bytes_max)
    }

    fn checked(action_bytes: usize, form: Form, rest: Bytes, bytes_max: usize) -> Result<Self> {
        // The head within the length: kind and id.
        let bytes = rest.len() + 9;
        if bytes > bytes_max {
            let sentence = format!("a message of {bytes} bytes; the limit is {bytes_max}");
            return Err(Error::new(ErrorKind::TooLarge, sentence));
        }
        Ok(Self { action_bytes, form, rest })
    }

    /// The rest of the frame behind its head.
    pub(crate) fn rest(&self) -> &Bytes {
        &self.rest
    }

    /// The action and the body, as whoever receives them sees them.
    pub(crate) fn open(&self) -> Result<(Action, Body)> {
        let data_at = ACTION_AT + self.action_bytes;
        let action = Action::new(self.rest.slice(ACTION_AT..data_at))?;
        Ok((action, Body { form: self.form, data: self.rest.slice(data_at..) }))
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
            prop_assert_eq!(decoder.decode(&mut encoded).unwrap(), Some(frame));
            prop_assert!(encoded.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_incomplete_but_never_a_panic(garbage: Vec<u8>, lines: bool) {
            let wire = if lines { Wire::Lines } else { Wire::Frames };
            let mut decoder = Decoder::new(wire, 64);
            let mut buffer = BytesMut::from(&garbage[..]);
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
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
        let (action, body) = parcel.open().unwrap();
        assert_eq!(action.as_str(), "job.start");
        assert_eq!(body, Body { form: Form::Json, data: Bytes::from_static(b"[1,2]") });
        assert!(Parcel::json("", &1, 1024).is_err());
        assert_eq!(Parcel::json("a", &"x".repeat(1024), 1024).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
