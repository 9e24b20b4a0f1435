//! The properties of a message: what its header frame holds.

use super::{
    Kind, Malformed, Reader,
    fields::Fields,
    frame::put_frame,
    writing::{put_long, put_short, put_u16, put_u64},
};

const BASIC: u16 = 60;

/// The properties of a message, borrowed from its header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Properties<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) content_encoding: Option<&'a str>,
    /// The table of headers; absent when the message has none.
    pub(crate) headers: Option<Fields<'a>>,
    /// 2 is persistent.
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) reply_to: Option<&'a str>,
    /// Milliseconds, as text.
    pub(crate) expiration: Option<&'a str>,
    pub(crate) message_id: Option<&'a str>,
    /// Seconds since 1970.
    pub(crate) timestamp: Option<u64>,
    /// The property `type`.
    pub(crate) kind: Option<&'a str>,
    pub(crate) user_id: Option<&'a str>,
    pub(crate) app_id: Option<&'a str>,
    pub(crate) cluster_id: Option<&'a str>,
}

impl<'a> Properties<'a> {
    /// The properties in a header's payload.
    pub(crate) fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(payload);
        reader.take(12)?;
        let flags = reader.u16()?;
        if flags & 1 != 0 {
            return Err(Malformed("a header with more flags than there are properties"));
        }
        let mut bit = 16;
        let mut is_set = || {
            bit -= 1;
            flags & (1 << bit) != 0
        };
        // Text that is no UTF-8 counts as absent: nothing can be done with it.
        let text = |reader: &mut Reader<'a>| reader.short().map(|bytes| std::str::from_utf8(bytes).ok());
        let mut properties = Self::default();
        if is_set() {
            properties.content_type = text(&mut reader)?;
        }
        if is_set() {
            properties.content_encoding = text(&mut reader)?;
        }
        if is_set() {
            properties.headers = Some(Fields(reader.long()?));
        }
        if is_set() {
            properties.delivery_mode = Some(reader.u8()?);
        }
        if is_set() {
            properties.priority = Some(reader.u8()?);
        }
        if is_set() {
            properties.correlation_id = text(&mut reader)?;
        }
        if is_set() {
            properties.reply_to = text(&mut reader)?;
        }
        if is_set() {
            properties.expiration = text(&mut reader)?;
        }
        if is_set() {
            properties.message_id = text(&mut reader)?;
        }
        if is_set() {
            properties.timestamp = Some(reader.u64()?);
        }
        if is_set() {
            properties.kind = text(&mut reader)?;
        }
        if is_set() {
            properties.user_id = text(&mut reader)?;
        }
        if is_set() {
            properties.app_id = text(&mut reader)?;
        }
        if is_set() {
            properties.cluster_id = text(&mut reader)?;
        }
        Ok(properties)
    }

    /// The headers; empty when the message has none.
    pub(crate) fn fields(&self) -> Fields<'a> {
        self.headers.unwrap_or(Fields(&[]))
    }

    fn flags(&self) -> u16 {
        let present = [
            self.content_type.is_some(),
            self.content_encoding.is_some(),
            self.headers.is_some(),
            self.delivery_mode.is_some(),
            self.priority.is_some(),
            self.correlation_id.is_some(),
            self.reply_to.is_some(),
            self.expiration.is_some(),
            self.message_id.is_some(),
            self.timestamp.is_some(),
            self.kind.is_some(),
            self.user_id.is_some(),
            self.app_id.is_some(),
            self.cluster_id.is_some(),
        ];
        present.iter().fold(0, |flags, &bit| flags << 1 | u16::from(bit)) << 2
    }

    /// Appends the header frame of a message. The fields of `headers` come first, then what `more` appends; both only when
    /// `headers` is there at all.
    pub(crate) fn put_frame(
        &self,
        out: &mut Vec<u8>,
        channel: u16,
        body_size: usize,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        put_frame(out, Kind::Header, channel, |out| {
            put_u16(out, BASIC);
            put_u16(out, 0);
            put_u64(out, body_size as u64);
            put_u16(out, self.flags());
            let text = |out: &mut Vec<u8>, text: Option<&str>| {
                if let Some(text) = text {
                    put_short(out, text);
                }
            };
            text(out, self.content_type);
            text(out, self.content_encoding);
            if let Some(Fields(fields)) = self.headers {
                put_long(out, |out| {
                    out.extend_from_slice(fields);
                    more(out);
                });
            }
            out.extend(self.delivery_mode);
            out.extend(self.priority);
            text(out, self.correlation_id);
            text(out, self.reply_to);
            text(out, self.expiration);
            text(out, self.message_id);
            if let Some(seconds) = self.timestamp {
                put_u64(out, seconds);
            }
            text(out, self.kind);
            text(out, self.user_id);
            text(out, self.app_id);
            text(out, self.cluster_id);
        });
    }
}

/// The size of the body that follows a header.
pub(crate) fn body_size(payload: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader(payload);
    reader.take(4)?;
    reader.u64()
}
