//! The story of a test, for the message of a failed assertion.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use estafette_core::{Destination, Envelope, Outcome, QueueStatus, Receipt, Result, Routing};

use super::record::{Event, Fate, Handled, Log, Mishap};

/// How many lines are told at most, the last ones.
const LINES_MAX: usize = 100;

/// How much of a body is shown.
const BODY_CHARACTERS_MAX: usize = 60;

/// What happened and what is there now, as two tables.
pub(super) fn tell(log: &Log, statuses: &[QueueStatus]) -> String {
    let mut text = String::from("what happened:\n");
    let left_out = log.events.len().saturating_sub(LINES_MAX);
    if left_out > 0 {
        line(&mut text, format_args!("  … {left_out} lines before"));
    }
    let rows: Vec<[String; 4]> = log.events.iter().skip(left_out).map(row).collect();
    if rows.is_empty() {
        text.push_str("  nothing\n");
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (at_width, place_width, message_width) = (width(0), width(1), width(2));
    for [at, place, message, fate] in &rows {
        let cells =
            format_args!("  {at:<at_width$}  {place:<place_width$}  {message:<message_width$}  {fate}");
        line(&mut text, cells);
    }
    let name_width = statuses.iter().map(|status| status.name.as_str().len()).max().unwrap_or(0).max(6);
    line(&mut text, format_args!("  {:<name_width$}  ready  delayed  leased  dead", "queues"));
    for QueueStatus { name, ready, delayed, leased, dead, .. } in statuses {
        line(
            &mut text,
            format_args!("  {name:<name_width$}  {ready:>5}  {delayed:>7}  {leased:>6}  {dead:>4}"),
        );
    }
    text
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

/// When, where, what, and what became of it.
fn row(event: &Event) -> [String; 4] {
    match event {
        Event::Published { at, outgoing, receipt } => {
            let (verb, to) = match &outgoing.destination {
                Destination::Topic => ("published", None),
                Destination::Queue(queue) => ("sent", Some(queue)),
            };
            let mut fate = match to {
                Some(queue) if receipt.is_ok() => format!("to {queue}"),
                _ => taken_by(receipt),
            };
            if !outgoing.delay.is_zero() {
                write!(fate, ", delayed by {:?}", outgoing.delay).unwrap_or_default();
            }
            [moment(*at), verb.to_owned(), message(&outgoing.envelope), fate]
        }
        Event::Handled(Handled { at, queue, envelope, attempt, fate }) => {
            [moment(*at), format!("{queue} #{attempt}"), message(envelope), fate.to_string()]
        }
        Event::Mishap { at, queue, envelope, mishap } => {
            let fate = match mishap {
                Mishap::Duplicated => "duplicated by a fault".to_owned(),
                Mishap::Delayed(late) => format!("delayed by a fault for {late:?}"),
            };
            [moment(*at), queue.to_string(), message(envelope), fate]
        }
    }
}

fn moment(at: Duration) -> String {
    if at.is_zero() { "+0s".to_owned() } else { format!("+{at:?}") }
}

fn message(envelope: &Envelope) -> String {
    let text = String::from_utf8_lossy(&envelope.body);
    let excerpt: String = text.chars().take(BODY_CHARACTERS_MAX).collect();
    let more = if excerpt.len() < text.len() { "…" } else { "" };
    format!("{} {}{more}", envelope.topic, excerpt.replace('\n', " "))
}

fn taken_by(receipt: &Result<Receipt>) -> String {
    match receipt {
        Ok(Receipt { routing: Routing::Unrouted, .. }) => "no queue takes it".to_owned(),
        Ok(Receipt { routing: Routing::Queues(1), .. }) => "into 1 queue".to_owned(),
        Ok(Receipt { routing: Routing::Queues(count), .. }) => format!("into {count} queues"),
        Ok(_) => "into some queue".to_owned(),
        Err(error) => format!("failed: {}", error.report()),
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AckLost => formatter.write_str("acked, but a fault lost the ack"),
            Self::Settled(Outcome::Ack) => formatter.write_str("acked"),
            Self::Settled(Outcome::Retry { after, error }) => {
                write!(formatter, "retry after {after:?}: {}", error.as_deref().unwrap_or("no error"))
            }
            Self::Settled(Outcome::Reject(failure)) => {
                write!(formatter, "dead, {}: {}", failure.reason, failure.error)
            }
            Self::Settled(Outcome::Release { after }) => write!(formatter, "released for {after:?}"),
        }
    }
}
