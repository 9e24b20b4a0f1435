//! What the suite found out, as a table, as JSON and as Markdown.

use std::{fmt::Write as _, time::Duration};

use estafette_core::Guarantees;
use serde_json::{Value, json};

use crate::{Behaviour, run::Verdict};

/// What was found out about one behaviour, and how long that took.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub behaviour: &'static Behaviour,
    /// What was found out.
    pub verdict: Verdict,
    /// How long that took.
    pub took: Duration,
}

/// What the suite found out about a transport.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the transport promises.
    pub guarantees: Guarantees,
    /// One for each behaviour, in the order of the list.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// The verdict in one word or two.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Violated(_) => "VIOLATED",
            Self::NotPromised(_) => "not promised",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether there is nothing to complain about.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        matches!(self, Self::Holds | Self::NotPromised(_))
    }

    /// What there is to say beyond the word.
    fn detail(&self) -> String {
        match self {
            Self::Holds => String::new(),
            Self::Violated(sentence) | Self::Unknown(sentence) => sentence.clone(),
            Self::NotPromised(need) => need.to_string(),
        }
    }
}

impl Report {
    /// Whether every behaviour holds that the transport promises.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict.is_fine())
    }

    /// Those behaviours that do not hold, or about which nothing could be found out.
    pub fn complaints(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.verdict.is_fine())
    }

    fn count(&self, word: &str) -> usize {
        self.findings.iter().filter(|finding| finding.verdict.as_str() == word).count()
    }

    /// One line that says how many behaviours hold.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts = ["holds", "VIOLATED", "unknown", "not promised"].map(|word| self.count(word));
        let [hold, violated, unknown, not_promised] = counts;
        format!("{hold} hold, {violated} violated, {unknown} unknown, {not_promised} not promised")
    }

    /// A table for people: the behaviours by group, and the summary as its last line.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = String::new();
        let width = self.findings.iter().map(|finding| finding.behaviour.name.len()).max().unwrap_or(0);
        let mut group = "";
        for Finding { behaviour, verdict, took } in &self.findings {
            if behaviour.group != group {
                group = behaviour.group;
                line(&mut table, format_args!("{group}"));
            }
            let (name, word, detail) = (behaviour.name, verdict.as_str(), verdict.detail());
            let seconds = took.as_secs_f64();
            let row = format!("  {name:width$}  {word:12}  {seconds:6.2} s  {detail}");
            line(&mut table, format_args!("{}", row.trim_end()));
        }
        line(&mut table, format_args!("{}", self.summary()));
        table
    }

    /// The report for machines: `guarantees`, `behaviours` (an object each), `passed`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.guarantees.rows().map(|(name, value)| (name.to_owned(), Value::from(value)));
        let behaviours: Vec<Value> = self.findings.iter().map(Finding::to_json).collect();
        json!({
            "passed": self.passed(),
            "guarantees": serde_json::Map::from_iter(rows),
            "behaviours": behaviours,
        })
    }
}

impl Finding {
    fn to_json(&self) -> Value {
        json!({
            "group": self.behaviour.group,
            "name": self.behaviour.name,
            "sentence": self.behaviour.sentence,
            "verdict": self.verdict.as_str().to_lowercase(),
            "detail": self.verdict.detail(),
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// The page `docs/guarantees.md`: what each of these transports promises, and which behaviours it showed. The same input
/// gives the same text: no times, no machine.
#[must_use]
pub fn guarantees_markdown(transports: &[(&str, Guarantees, Report)]) -> String {
    let mut page = String::from(
        "# Guarantees\n\nWhat each transport promises, and which behaviours of the conformance suite it showed when \
         this page was generated.\nGenerated from the suite's results; do not edit.\n\n## Promises\n\n",
    );
    let names = transports.iter().map(|(name, ..)| format!("`{name}:`"));
    header(&mut page, "", names.clone());
    let promises: Vec<_> = transports.iter().map(|(_, guarantees, _)| guarantees.rows()).collect();
    let rows = promises.first().map(|rows| rows.len()).unwrap_or_default();
    for row in 0..rows {
        let name = promises.first().and_then(|rows| rows.get(row)).map_or("", |(name, _)| name);
        let values = promises.iter().map(|rows| rows.get(row).map_or("", |(_, value)| value));
        line(&mut page, format_args!("| {name} | {} |", values.collect::<Vec<_>>().join(" | ")));
    }
    line(
        &mut page,
        format_args!("\n## Behaviours\n\n✓ holds · – not promised · ✗ does not hold · ? not found out"),
    );
    let mut group = "";
    for behaviour in crate::BEHAVIOURS {
        if behaviour.group != group {
            group = behaviour.group;
            line(&mut page, format_args!("\n### {}\n", group.replace('_', " ")));
            header(&mut page, "behaviour", names.clone());
        }
        let signs = transports.iter().map(|(.., report)| sign(report, behaviour)).collect::<Vec<_>>();
        line(&mut page, format_args!("| {} | {} |", behaviour.sentence, signs.join(" | ")));
    }
    page
}

fn header(page: &mut String, first: &str, names: impl ExactSizeIterator<Item = String>) {
    let rule = vec!["---"; names.len() + 1].join("|");
    line(page, format_args!("| {first} | {} |\n|{rule}|", names.collect::<Vec<_>>().join(" | ")));
}

fn sign(report: &Report, behaviour: &Behaviour) -> &'static str {
    let is_it = |finding: &&Finding| {
        (finding.behaviour.group, finding.behaviour.name) == (behaviour.group, behaviour.name)
    };
    let found = report.findings.iter().find(is_it);
    match found.map(|finding| &finding.verdict) {
        Some(Verdict::Holds) => "✓",
        Some(Verdict::NotPromised(_)) => "–",
        Some(Verdict::Violated(_)) => "✗",
        Some(Verdict::Unknown(_)) | None => "?",
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if text.write_fmt(arguments).is_ok() {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BEHAVIOURS, Need, Options, Subject};

    async fn report_on_memory() -> Report {
        let subject = Subject::new(estafette_memory::connect, "memory:");
        let options = Options { only: vec!["admin::lists_queues".into()], ..Options::default() };
        crate::run(subject, options).await.unwrap()
    }

    fn with(report: &Report, verdicts: [Verdict; 3]) -> Report {
        let took = Duration::from_millis(1234);
        let finding = |(behaviour, verdict)| Finding { behaviour, verdict, took };
        let findings = BEHAVIOURS.iter().zip(verdicts).map(finding).collect();
        Report { guarantees: report.guarantees, findings }
    }

    #[tokio::test]
    async fn a_report_has_a_row_for_each_behaviour_and_ends_with_the_counts() {
        let report = report_on_memory().await;
        assert!(report.passed());
        let verdicts =
            [Verdict::Holds, Verdict::Violated("it lied".into()), Verdict::NotPromised(Need::Persistent)];
        let report = with(&report, verdicts);
        assert!(!report.passed());
        assert_eq!(report.complaints().count(), 1);
        let table = report.to_table();
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(table.contains("VIOLATED        1.23 s  it lied"), "{table}");
        assert!(table.ends_with("1 hold, 1 violated, 0 unknown, 1 not promised\n"), "{table}");
        let json = report.to_json();
        assert_eq!(json["passed"], false);
        assert_eq!(json["behaviours"][1]["detail"], "it lied");
        assert_eq!(json["behaviours"][2]["verdict"], "not promised");
        assert_eq!(json["guarantees"]["order"], "key");
    }

    #[tokio::test]
    async fn the_page_has_a_column_for_each_transport_and_no_times() {
        let report = report_on_memory().await;
        let some = with(&report, [Verdict::Holds, Verdict::Unknown(String::new()), Verdict::Holds]);
        let page =
            guarantees_markdown(&[("one", report.guarantees, some), ("two", report.guarantees, report)]);
        assert!(
            page.contains("|  | `one:` | `two:` |\n|---|---|---|\n| durability | process | process |"),
            "{page}"
        );
        let row = format!("| {} | ✓ | ? |", BEHAVIOURS[0].sentence);
        assert!(page.contains(&row), "{page}");
        assert!(!page.contains(" s |"), "{page}");
    }
}
