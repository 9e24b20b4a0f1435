//! What Estafette notes about a message in its headers, and what the broker does.

use estafette_core::{Reason, Timestamp};

use crate::protocol::{
    Properties,
    fields::{Fields, Value, put_i64_field, put_text_field, values},
};

/// The routing key a foreign message was first published with.
pub(crate) const KEY: &str = "x-estafette-key";
const ATTEMPTS: &str = "x-estafette-attempts";
const FIRST_FAILED: &str = "x-estafette-first-failed";
const LAST_FAILED: &str = "x-estafette-last-failed";
const ERROR: &str = "x-estafette-error";
const REASON: &str = "x-estafette-reason";
/// The envelope's header that counts how often a message was redriven.
pub(crate) const REDRIVEN: &str = "redriven";

/// Whether a header is a note about the message, and no header of its own.
pub(crate) fn is_mark(name: &str) -> bool {
    name.starts_with("x-estafette-")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
        || matches!(name, "x-death" | "x-delivery-count" | "x-acquired-count")
}

/// What is noted about a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// How many attempts it has had.
    pub(crate) attempts: u32,
    pub(crate) first_failed_at: Option<Timestamp>,
    pub(crate) last_failed_at: Option<Timestamp>,
    /// The last error's text.
    pub(crate) error: Option<String>,
    /// Why it is a dead letter.
    pub(crate) reason: Option<Reason>,
    /// The routing key it was first published with, when that is its topic.
    pub(crate) key: Option<String>,
}

impl Marks {
    pub(crate) fn read(fields: Fields<'_>) -> Self {
        let time = |name| fields.get(name).and_then(Value::to_int).map(Timestamp::from_micros);
        Self {
            attempts: attempts(fields),
            first_failed_at: time(FIRST_FAILED),
            last_failed_at: time(LAST_FAILED),
            error: fields.text(ERROR).map(Into::into),
            reason: fields.text(REASON).and_then(|text| text.parse().ok()),
            key: fields.text(KEY).map(Into::into),
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        if self.attempts > 0 {
            put_i64_field(out, ATTEMPTS, i64::from(self.attempts));
        }
        if let Some(at) = self.first_failed_at {
            put_i64_field(out, FIRST_FAILED, at.as_micros());
        }
        if let Some(at) = self.last_failed_at {
            put_i64_field(out, LAST_FAILED, at.as_micros());
        }
        if let Some(error) = &self.error {
            put_text_field(out, ERROR, error);
        }
        if let Some(reason) = self.reason {
            put_text_field(out, REASON, reason.as_str());
        }
        if let Some(key) = &self.key {
            put_text_field(out, KEY, key);
        }
    }
}

/// How many attempts a message says it has had.
pub(crate) fn attempts(fields: Fields<'_>) -> u32 {
    fields.get(ATTEMPTS).and_then(Value::to_int).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

/// How many times a quorum queue has handed the message over before.
pub(crate) fn delivery_count(fields: Fields<'_>) -> Option<u32> {
    let count = fields.get("x-delivery-count")?;
    u32::try_from(count.to_int()?).ok()
}

/// Why and where the broker itself dead-lettered a message.
pub(crate) struct Death {
    pub(crate) reason: String,
    pub(crate) at: Option<Timestamp>,
    /// The routing keys it had there.
    pub(crate) key: Option<String>,
}

impl Death {
    /// The last time the broker dead-lettered the message out of `queue`.
    pub(crate) fn read(fields: Fields<'_>, queue: &str) -> Option<Self> {
        let Value::Array(deaths) = fields.get("x-death")? else { return None };
        // The most recent comes first.
        let tables = values(deaths).filter_map(|value| match value {
            Value::Table(table) => Some(Fields(table)),
            _ => None,
        });
        let mut here = tables.filter(|table| table.text("queue").as_deref() == Some(queue));
        let table = here.next()?;
        let key = match table.get("routing-keys") {
            Some(Value::Array(keys)) => values(keys).next().and_then(Value::to_text).map(Into::into),
            _ => None,
        };
        let seconds = table.get("time").and_then(Value::to_int);
        Some(Self {
            reason: table.text("reason").unwrap_or_default().into_owned(),
            at: seconds.map(|seconds| Timestamp::from_micros(seconds.saturating_mul(1_000_000))),
            key,
        })
    }

    /// Why, in our words.
    pub(crate) fn reason(&self) -> Reason {
        match &*self.reason {
            "expired" => Reason::Expired,
            "delivery_limit" => Reason::AttemptsExhausted,
            _ => Reason::Rejected,
        }
    }
}

/// Appends a message's own headers without any notes, and without those named in `except`.
pub(crate) fn put_own(out: &mut Vec<u8>, properties: &Properties<'_>, except: &[&str]) {
    for field in properties.fields() {
        let name = std::str::from_utf8(field.name).unwrap_or_default();
        if !is_mark(name) && !except.contains(&name) {
            out.extend_from_slice(field.raw);
        }
    }
}
