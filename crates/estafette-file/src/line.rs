//! What is on a line of a message file: an envelope, and before it, where there is one, its history.
//!
//! ```text
//! {"specversion":"1.0","id":…}
//! {"attempts":2,"first_failed_at":"…"}<TAB>{"specversion":"1.0","id":…}
//! ```
//!
//! JSON written by us has no tab outside of the body, so the first one ends the history.

use estafette_core::{DeadLetter, Envelope, Failure, QueueName, Reason, Result, Timestamp, wire};
use serde::{Deserialize, Serialize};

/// What happened to a message before: kept with retried messages and dead letters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    /// How many times it was handed over, those counted in the entry's name apart.
    pub(crate) attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) first_failed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) last_failed_at: Option<String>,
    /// Why it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
}

/// How every history begins.
const HISTORY_START: &[u8] = b"{\"attempts\":";

impl History {
    /// The history after a failed hand-over: the `attempt`-th, at `now`.
    pub(crate) fn failed(first_failed_at: Option<&str>, attempt: u32, now: Timestamp) -> Self {
        let now = now.to_string();
        Self {
            attempts: attempt,
            first_failed_at: Some(first_failed_at.unwrap_or(&now).to_owned()),
            last_failed_at: Some(now),
            ..Self::default()
        }
    }

    /// The history of a dead letter.
    pub(crate) fn dead(self, failure: Failure) -> Self {
        Self { reason: Some(failure.reason.as_str().to_owned()), error: Some(failure.error), ..self }
    }

    /// Appends a whole line: this history and an envelope's JSON.
    pub(crate) fn write_line(&self, envelope: &[u8], line: &mut Vec<u8>) {
        // Plain texts and a number: writing them to memory cannot fail.
        serde_json::to_writer(&mut *line, self).unwrap_or_default();
        line.push(b'\t');
        line.extend_from_slice(envelope);
        line.push(b'\n');
    }
}

/// The history and the envelope's JSON of a line without its line feed.
pub(crate) fn split(line: &[u8]) -> (History, &[u8]) {
    let parsed = line.starts_with(HISTORY_START).then(|| {
        let tab = line.iter().position(|&byte| byte == b'\t')?;
        let (history, envelope) = line.split_at_checked(tab)?;
        Some((serde_json::from_slice(history).ok()?, envelope.get(1..)?))
    });
    parsed.flatten().unwrap_or_else(|| (History::default(), line))
}

/// The dead letter on a line.
pub(crate) fn dead_letter(line: &[u8], queue: &QueueName) -> Result<DeadLetter> {
    let (history, envelope) = split(line);
    let envelope = wire::decode(envelope)?;
    let at = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    let last_failed_at = at(history.last_failed_at.as_ref()).unwrap_or(envelope.time);
    Ok(DeadLetter {
        queue: queue.clone(),
        reason: history.reason.and_then(|text| text.parse().ok()).unwrap_or(Reason::Rejected),
        error: history.error.unwrap_or_default(),
        attempts: history.attempts,
        first_failed_at: at(history.first_failed_at.as_ref()).unwrap_or(last_failed_at),
        last_failed_at,
        envelope,
    })
}

/// Appends an envelope as a line without a history.
pub(crate) fn write(envelope: &Envelope, lines: &mut Vec<u8>) {
    wire::encode_into(envelope, lines);
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_reads_back() {
        let envelope = Envelope::new("a.b".parse().unwrap(), "{\"tab\":\t1}".into());
        let queue: QueueName = "q".parse().unwrap();
        let now = Timestamp::from_micros(5_000_000);
        let history = History::failed(Some("1970-01-01T00:00:01Z"), 3, now)
            .dead(Failure::new(Reason::AttemptsExhausted, "tab\tand\nline"));
        let mut line = Vec::new();
        history.write_line(&wire::encode(&envelope), &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        let letter = dead_letter(&line, &queue).unwrap();
        assert_eq!(letter.envelope, envelope);
        assert_eq!((letter.attempts, letter.reason), (3, Reason::AttemptsExhausted));
        assert_eq!(letter.error, "tab\tand\nline");
        assert_eq!(letter.first_failed_at, Timestamp::from_micros(1_000_000));
        assert_eq!(letter.last_failed_at, now);
    }

    #[test]
    fn a_line_without_history_is_all_envelope() {
        let (history, envelope) = split(b"{\"id\":\"\t\"}");
        assert_eq!(history, History::default());
        assert_eq!(envelope, b"{\"id\":\"\t\"}");
        assert_eq!(split(b"{\"attempts\":oops}\tx").1, b"{\"attempts\":oops}\tx");
    }
}
