//! Dead letters as text and as JSON.

use estafette::{DeadLetter, wire};
use serde_json::{Value, json};

use crate::table::table;

/// The longest error in a table, in characters.
const ERROR_CHARACTERS_MAX: usize = 60;

/// How much is shown of each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What became of it.
    Line,
    /// The message, too.
    Message,
}

/// A page of dead letters to be printed.
pub(super) fn text(letters: &[DeadLetter], detail: Detail, json: bool) -> String {
    if json {
        let objects = letters.iter().map(|letter| object(letter, detail).to_string());
        return objects.collect::<Vec<_>>().join("\n");
    }
    match detail {
        Detail::Line => {
            let rows: Vec<_> = letters.iter().map(row).collect();
            table(["id", "topic", "reason", "attempts", "last failed", "error"], &rows)
        }
        Detail::Message => letters.iter().map(page).collect::<Vec<_>>().join("\n\n"),
    }
}

/// A dead letter for machines. With its message, that is a `CloudEvents` object.
fn object(letter: &DeadLetter, detail: Detail) -> Value {
    let mut object = json!({
        "id": letter.envelope.id.to_string(),
        "topic": letter.envelope.topic.as_str(),
        "queue": letter.queue.as_str(),
        "reason": letter.reason.as_str(),
        "error": letter.error,
        "attempts": letter.attempts,
        "first_failed_at": letter.first_failed_at.to_string(),
        "last_failed_at": letter.last_failed_at.to_string(),
    });
    if detail == Detail::Message
        && let Some(fields) = object.as_object_mut()
    {
        let message = serde_json::from_slice(&wire::encode(&letter.envelope)).unwrap_or(Value::Null);
        fields.insert("message".into(), message);
    }
    object
}

fn row(letter: &DeadLetter) -> [String; 6] {
    let mut error: String = letter.error.chars().take(ERROR_CHARACTERS_MAX).collect();
    if error.len() < letter.error.len() {
        error.push('…');
    }
    [
        letter.envelope.id.to_string(),
        letter.envelope.topic.to_string(),
        letter.reason.to_string(),
        letter.attempts.to_string(),
        seconds(&letter.last_failed_at.to_string()),
        error.replace(char::is_control, " "),
    ]
}

/// A time without its fraction of a second.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

fn page(letter: &DeadLetter) -> String {
    let envelope = &letter.envelope;
    let mut lines = vec![
        field("id", &envelope.id),
        field("topic", &envelope.topic),
        field("queue", &letter.queue),
        field("reason", &letter.reason),
        field("error", &letter.error.replace('\n', "\n              ")),
        field("attempts", &letter.attempts),
        field("first failed", &letter.first_failed_at),
        field("last failed", &letter.last_failed_at),
        field("published", &envelope.time),
        field("source", &envelope.source),
    ];
    lines.extend(envelope.content_type.iter().map(|value| field("type", value)));
    lines.extend(envelope.partition_key.iter().map(|value| field("key", value)));
    lines.extend(envelope.headers.iter().map(|(name, value)| field("header", &format!("{name}={value}"))));
    lines.push(match std::str::from_utf8(&envelope.body) {
        Ok("") => field("body", &"(empty)"),
        Ok(text) => field("body", &text),
        Err(_binary) => {
            field("body", &format!("({} bytes that are no text; --json shows them)", envelope.body.len()))
        }
    });
    lines.join("\n")
}

fn field(name: &str, value: &dyn std::fmt::Display) -> String {
    format!("{name:<12}  {value}")
}
