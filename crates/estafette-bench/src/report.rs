//! Shows outcomes: a table for people, one JSON object a line for machines.

use serde_json::{Value, json};

use crate::case::Rate;
use crate::harness::Outcome;

const HEADINGS: [&str; 5] = ["messages/s", "floor", "estafette", "ratio", "aim"];

/// The outcomes as an aligned table.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(outcomes.iter().map(cells));
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            let padding = " ".repeat(width.unwrap_or(0) - cell.chars().count());
            // Names are read from the left, figures from the right.
            let cell = if column == 0 { format!("{cell}{padding}") } else { format!("   {padding}{cell}") };
            text.push_str(&cell);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn cells(outcome: &Outcome) -> [String; HEADINGS.len()] {
    let aim = match outcome.is_met() {
        Some(false) => format!("{} ✗", outcome.target),
        _ => outcome.target.to_string(),
    };
    [
        outcome.name.clone(),
        outcome.floor_median().map_or_else(dash, grouped),
        outcome.ours_median().map_or_else(dash, grouped),
        outcome.ratio().map_or_else(dash, |ratio| format!("{ratio:.2}")),
        aim,
    ]
}

fn dash() -> String {
    "–".to_owned()
}

/// Whole messages per second, with a comma between thousands.
fn grouped(rate: Rate) -> String {
    let digits = format!("{:.0}", rate.per_second());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The outcome as a JSON object, with the rate of every round.
#[must_use]
pub fn json(outcome: &Outcome) -> Value {
    let rates = |rates: &[Rate]| rates.iter().map(|rate| rate.per_second()).collect::<Vec<_>>();
    json!({
        "name": outcome.name,
        "floor": outcome.floor_median().map(Rate::per_second),
        "ours": outcome.ours_median().map(Rate::per_second),
        "ratio": outcome.ratio(),
        "aim": outcome.target.to_string(),
        "met": outcome.is_met(),
        "floor_rounds": rates(&outcome.floor),
        "ours_rounds": rates(&outcome.ours),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::case::Target;

    fn outcome(name: &str, floor: u32, ours: Option<u32>) -> Outcome {
        let rate = |messages| Rate::of(messages, Duration::from_secs(1));
        let target = if ours.is_some() { Target::RatioMin(0.8) } else { Target::Shown };
        Outcome {
            name: name.to_owned(),
            floor: vec![rate(floor)],
            ours: ours.into_iter().map(rate).collect(),
            target,
        }
    }

    #[test]
    fn the_table_is_aligned_and_marks_what_was_missed() {
        let outcomes = [outcome("one", 1_234_567, None), outcome("a long name", 1000, Some(500))];
        let expected = "\
messages/s        floor   estafette   ratio        aim
one           1,234,567           –       –
a long name       1,000         500    0.50   ≥ 0.80 ✗
";
        assert_eq!(table(&outcomes), expected);
    }

    #[test]
    fn the_json_has_every_round() {
        let object = json(&outcome("one", 100, Some(90)));
        assert_eq!(object["floor_rounds"], json!([100.0]));
        assert_eq!(object["ratio"], json!(0.9));
        assert_eq!(object["met"], json!(true));
    }
}
