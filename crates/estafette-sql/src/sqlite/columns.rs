//! Envelopes as rows of `estafette_message`.

use std::rc::Rc;

use estafette_core::{Bytes, Envelope, MessageId, Result, Timestamp, Topic};

use super::{
    raw::{Row, Statement, Value},
    session::Session,
};
use crate::envelope;

/// The columns [`read`] expects, in its order.
macro_rules! envelope_columns {
    () => {
        "m.message_id, m.topic, m.source, m.time, m.content_type, m.partition_key, m.expires_at, m.attributes, m.body"
    };
}
pub(crate) use envelope_columns;

/// How many columns those are.
pub(crate) const COLUMNS: i32 = 9;

const INSERT: &str =
    "INSERT INTO estafette_message (message_id, topic, source, time, content_type, partition_key,
    expires_at, attributes, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Stores envelopes.
pub(crate) struct Insert<'d>(Rc<Statement<'d>>);

impl<'d> Insert<'d> {
    pub(crate) fn new(session: &mut Session<'d>) -> Result<Self> {
        session.statement(INSERT).map(Self)
    }

    /// Stores `envelope`; its row id is the session's last.
    pub(crate) fn insert(&self, envelope: &Envelope) -> Result<()> {
        let attributes = envelope::encode(envelope)?;
        let id = envelope.id.to_string();
        self.0.execute(&[
            id.as_str().into(),
            envelope.topic.as_str().into(),
            (&*envelope.source).into(),
            envelope.time.as_micros().into(),
            envelope.content_type.as_deref().into(),
            envelope.partition_key.as_deref().into(),
            envelope.expires_at.map(Timestamp::as_micros).into(),
            attributes.as_deref().into(),
            Value::Blob(&envelope.body),
        ])?;
        Ok(())
    }
}

/// The envelope in a row, from column `first` on. What is none becomes an undecodable one.
pub(crate) fn read(row: &Row<'_>, first: i32) -> (Envelope, Option<estafette_core::Error>) {
    match read_columns(row, first) {
        Ok(envelope) => (envelope, None),
        Err(error) => {
            let body = Bytes::copy_from_slice(row.bytes(first + COLUMNS - 1));
            (Envelope::undecodable(body), Some(error))
        }
    }
}

fn read_columns(row: &Row<'_>, first: i32) -> Result<Envelope> {
    let boxed = |text: Option<&str>| text.map(Box::from);
    let mut envelope = Envelope {
        id: row.text(first)?.parse::<MessageId>()?,
        topic: Topic::try_from(row.text(first + 1)?)?,
        source: row.text(first + 2)?.into(),
        subject: None,
        time: Timestamp::from_micros(row.integer(first + 3)),
        content_type: boxed(row.optional_text(first + 4)?),
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        partition_key: boxed(row.optional_text(first + 5)?),
        expires_at: row.optional_integer(first + 6).map(Timestamp::from_micros),
        reply_to: None,
        headers: estafette_core::Headers::new(),
        body: Bytes::copy_from_slice(row.bytes(first + 8)),
    };
    if let Some(attributes) = row.optional_text(first + 7)? {
        envelope::decode_into(&mut envelope, attributes)?;
    }
    Ok(envelope)
}
