//! What came of the demo.

use std::{collections::BTreeMap, path::Path, time::Duration};

use console::style;
use estafette::DeadLetter;
use indicatif::HumanCount;
use serde_json::json;

use super::{
    messages::QUEUES,
    tally::{QueueTally, Tally},
};
use crate::table::table;

/// What was heard, and what is in the store at the end.
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) was_killed: bool,
    pub(super) took: Duration,
}

impl Outcome {
    /// The queues with what was heard about them and their dead letters.
    fn queues(&self) -> impl Iterator<Item = (&'static str, &QueueTally, Vec<&DeadLetter>)> {
        QUEUES.iter().zip(&self.tally.queues).map(|((name, _), tally)| {
            (*name, tally, self.dead.iter().filter(|letter| letter.queue.as_str() == *name).collect())
        })
    }

    /// Copies that were neither handled nor are dead letters, by their ids; and those that are in no queue at all.
    pub(super) fn missing(&self) -> u64 {
        let by_queue = self.queues().map(|(_, tally, dead)| missing(tally, &dead));
        by_queue.sum::<u64>() + self.tally.misrouted
    }
}

fn missing(queue: &QueueTally, dead: &[&DeadLetter]) -> u64 {
    let dead: std::collections::HashSet<String> =
        dead.iter().map(|letter| letter.envelope.id.to_string()).collect();
    let is_missing = |id: &&String| !queue.handled.contains_key(*id) && !dead.contains(*id);
    queue.copies.iter().filter(is_missing).count() as u64
}

/// The summary for people.
pub(super) fn text(outcome: &Outcome, directory: &Path) -> String {
    let sections = [queues(outcome), verdict(outcome), dead(outcome), look_around(directory)];
    format!("\n{}\n", sections.map(|section| indent(&section)).join("\n\n"))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

fn queues(outcome: &Outcome) -> String {
    let mut rows: Vec<[String; 6]> = outcome
        .queues()
        .map(|(name, tally, dead)| {
            let counts = [
                tally.copies.len() as u64,
                tally.handled.len() as u64,
                dead.len() as u64,
                missing(tally, &dead),
                tally.retried,
            ];
            let [copies, handled, dead, missing, retried] = counts.map(count);
            [name.to_owned(), copies, handled, dead, missing, retried]
        })
        .collect();
    let tally = &outcome.tally;
    let retried = tally.sum(|queue| queue.retried);
    let totals =
        [tally.copies(), tally.handled(), outcome.dead.len() as u64, outcome.missing(), retried].map(count);
    let [copies, handled, dead, missing, retried] = totals;
    rows.push(["together".into(), copies, handled, dead, missing, retried]);
    let title = format!(
        "{} messages published, {} copies for {} queues, in {:.1} s",
        count(tally.published),
        count(tally.copies()),
        QUEUES.len(),
        outcome.took.as_secs_f64(),
    );
    let table = table(["queue", "copies", "acked", "dead", "missing", "retries"], &rows);
    format!("{}\n\n{table}", style(title).bold())
}

fn verdict(outcome: &Outcome) -> String {
    let copies = count(outcome.tally.copies());
    let mut lines = vec![match outcome.missing() {
        0 => format!(
            "{} Nothing is lost: each of the {copies} copies was acknowledged or is a dead\n  letter (compared by their ids).",
            style("✓").green().bold()
        ),
        missing => format!("{} {missing} of the {copies} copies are lost.", style("✗").red().bold()),
    }];
    if outcome.was_killed {
        let repeated = outcome.tally.sum(QueueTally::repeated);
        lines.push(format!(
            "  A worker was killed with SIGKILL half way: what it held came again\n  ({} handled twice).",
            match repeated {
                0 => "none was".to_owned(),
                1 => "1 message was".to_owned(),
                count => format!("{count} messages were"),
            }
        ));
    }
    lines.join("\n")
}

fn dead(outcome: &Outcome) -> String {
    let mut groups: BTreeMap<(&str, &str), (u64, &str)> = BTreeMap::new();
    for letter in &outcome.dead {
        let key = (letter.queue.as_str(), letter.reason.as_str());
        groups.entry(key).or_insert((0, &letter.error)).0 += 1;
    }
    let rows: Vec<[String; 4]> = groups
        .into_iter()
        .map(|((queue, reason), (number, error))| {
            let mut shown: String = error.chars().take(40).collect();
            if shown.len() < error.len() {
                shown.push('…');
            }
            [queue.to_owned(), reason.to_owned(), count(number), shown]
        })
        .collect();
    let title = style("Dead letters, kept with their reasons").bold();
    format!("{title}\n\n{}", table(["queue", "reason", "count", "the first one's error"], &rows))
}

fn look_around(directory: &Path) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "estafette".into());
    let mail = super::mail(directory);
    let (mail, directory) = (mail.display(), directory.display());
    let lines = [
        format!("export ESTAFETTE_URL=file:{mail}"),
        format!("{program} queues"),
        format!("{program} dead list orders"),
        format!("{program} dead redrive orders --reason attempts_exhausted"),
        format!("{program} consume orders --until-empty | head -3"),
        format!("ls -R {mail} | less"),
        format!("cat {directory}/worker-1.log"),
        format!("rm -r {directory}"),
    ];
    format!("{}\n\n  {}", style("Look around").bold(), lines.join("\n  "))
}

/// The summary for machines.
pub(super) fn json(outcome: &Outcome) -> serde_json::Value {
    let tally = &outcome.tally;
    json!({
        "published": tally.published,
        "copies": tally.copies(),
        "acked": tally.handled(),
        "retried": tally.sum(|queue| queue.retried),
        "dead": outcome.dead.len(),
        "missing": outcome.missing(),
        "handled_twice": tally.sum(QueueTally::repeated),
        "seconds": outcome.took.as_secs_f64(),
    })
}
