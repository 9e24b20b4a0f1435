//! One message on its way to an exchange: what is written for it.

use std::borrow::Cow;

use estafette_core::{Envelope, MessageId};

use crate::{
    config::Compat,
    envelope,
    link::Content,
    marks::{self, Marks, REDRIVEN},
    protocol::{
        Properties,
        fields::{Fields, put_text_field},
        frame::put_body,
        request,
    },
};

/// A message to be published.
pub(crate) struct Publication<'a> {
    pub(crate) exchange: Cow<'a, str>,
    pub(crate) key: Cow<'a, str>,
    pub(crate) what: What<'a>,
}

/// Where the message comes from.
pub(crate) enum What<'a> {
    /// A new one.
    New {
        envelope: &'a Envelope,
        compat: Compat,
        /// Whether the broker is told when it expires: not while it waits, or the wait would end early.
        expires: bool,
    },
    /// One that was received, with new notes.
    Copy(Copied<'a>),
}

/// A message that was received, to be written again.
pub(crate) struct Copied<'a> {
    pub(crate) content: Cow<'a, Content>,
    /// Its id; a foreign message may have had none.
    pub(crate) id: MessageId,
    pub(crate) marks: Marks,
    /// How often it was redriven, when it now is.
    pub(crate) redriven: Option<u64>,
}

impl Publication<'_> {
    pub(crate) fn id(&self) -> &MessageId {
        match &self.what {
            What::New { envelope, .. } => &envelope.id,
            What::Copy(copied) => &copied.id,
        }
    }

    /// Appends the frames.
    pub(crate) fn put(&self, out: &mut Vec<u8>, channel: u16, frame_max: usize) {
        request::basic_publish(out, channel, &self.exchange, &self.key);
        match &self.what {
            What::New { envelope, compat, expires } => {
                let expiration = if *expires { envelope::expiration(envelope) } else { None };
                envelope::put_header(out, channel, envelope, *compat, expiration.as_deref());
                put_body(out, channel, &envelope.body, frame_max);
            }
            What::Copy(copied) => {
                copied.put_header(out, channel);
                put_body(out, channel, &copied.content.body, frame_max);
            }
        }
    }
}

impl Copied<'_> {
    fn put_header(&self, out: &mut Vec<u8>, channel: u16) {
        // It was read before; what cannot be read again has no properties.
        let read = Properties::read(&self.content.header).unwrap_or_default();
        let id = self.id.to_string();
        let properties = Properties {
            headers: Some(Fields(&[])),
            delivery_mode: Some(2),
            message_id: Some(&id),
            // Its time runs on in the envelope; the broker would begin anew.
            expiration: None,
            // The broker checks that it is the publisher's, and that may be another by now.
            user_id: None,
            ..read
        };
        properties.put_frame(out, channel, self.content.body.len(), |out| {
            let except: &[&str] = if self.redriven.is_some() { &[REDRIVEN] } else { &[] };
            marks::put_own(out, &read, except);
            if let Some(times) = self.redriven {
                put_text_field(out, REDRIVEN, &times.to_string());
            }
            self.marks.put(out);
        });
    }
}
