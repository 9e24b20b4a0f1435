//! A row of the table, on its way in and on its way out.

use estafette_core::{
    Bytes, Envelope, Error, ErrorKind, Outgoing, QueueName, Result, Timestamp, wire::attributes as list,
    wire::from_attributes,
};

use crate::{Dialect, Value};

/// The header in which an entry's exchange goes along.
pub const EXCHANGE_HEADER: &str = "exchange";

/// A row about to be inserted.
pub(crate) struct NewRow {
    pub(crate) id: String,
    pub(crate) envelope: Envelope,
    pub(crate) attributes: String,
    pub(crate) subject_type: Option<Box<str>>,
    pub(crate) subject_id: Option<Box<str>>,
    pub(crate) lane: Option<String>,
    pub(crate) queue: Option<QueueName>,
    pub(crate) exchange: Option<Box<str>>,
    pub(crate) created_at: Timestamp,
    pub(crate) due_at: Timestamp,
}

impl NewRow {
    /// The statement for [`values`](Self::values).
    pub(crate) fn insert(dialect: Dialect) -> &'static str {
        dialect.choose(INSERT_NUMBERED, INSERT, INSERT)
    }

    pub(crate) fn values(&self) -> [Value<'_>; 12] {
        [
            Value::Text(Some(&self.id)),
            Value::Text(self.subject_type.as_deref()),
            Value::Text(self.subject_id.as_deref()),
            Value::Text(self.lane.as_deref()),
            Value::Text(Some(self.envelope.topic.as_str())),
            Value::Text(self.queue.as_ref().map(QueueName::as_str)),
            Value::Text(self.exchange.as_deref()),
            Value::Bytes(&self.envelope.body),
            Value::Text(Some(&self.attributes)),
            Value::Integer(self.created_at.as_micros()),
            Value::Integer(self.created_at.as_micros()),
            Value::Integer(self.due_at.as_micros()),
        ]
    }
}

macro_rules! insert {
    ($values:literal) => {
        concat!(
            "INSERT INTO estafette_outbox (id, subject_type, subject_id, lane, topic, queue, exchange, payload, ",
            "attributes, created_at, updated_at, due_at) VALUES (",
            $values,
            ")"
        )
    };
}

const INSERT: &str = insert!("?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?");
const INSERT_NUMBERED: &str = insert!("$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12");

/// The envelope without its body, as a JSON object of texts: attributes by their CloudEvents names, then headers.
pub(crate) fn attributes(envelope: &Envelope) -> String {
    let object: serde_json::Map<String, serde_json::Value> = list(envelope)
        .into_iter()
        .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
        .collect();
    serde_json::Value::Object(object).to_string()
}

/// The envelope in a row.
pub(crate) fn envelope(attributes: &str, payload: Bytes) -> Result<Envelope> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(attributes).map_err(|error| Error::new(ErrorKind::Undecodable, error))?;
    let texts = object.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    from_attributes(texts, payload)
}

/// A row a relay has claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) seq: i64,
    pub(crate) lane: Option<String>,
    /// The row of the same lane that comes before it and is not sent.
    pub(crate) previous: Option<i64>,
    pub(crate) attempts: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) queue: Option<String>,
    pub(crate) exchange: Option<String>,
    pub(crate) attributes: String,
    pub(crate) payload: Vec<u8>,
}

impl Claimed {
    /// What is handed to the transport.
    pub(crate) fn outgoing(&mut self, require_queue: bool) -> Result<Outgoing> {
        let mut envelope = envelope(&self.attributes, std::mem::take(&mut self.payload).into())?;
        if let Some(exchange) = &self.exchange {
            envelope.headers.insert(EXCHANGE_HEADER, exchange)?;
        }
        let outgoing = match &self.queue {
            Some(queue) => Outgoing::send(queue.as_str().try_into()?, envelope),
            None => Outgoing::publish(envelope),
        };
        Ok(Outgoing { require_queue, ..outgoing })
    }
}
