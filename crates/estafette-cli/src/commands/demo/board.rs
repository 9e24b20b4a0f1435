//! What is shown while the demo runs: bars on a terminal, a line each second elsewhere.

use std::time::{Duration, Instant};

use console::style;
use estafette::QueueStatus;
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use super::{messages::QUEUES, tally::Tally};
use crate::output;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

pub(super) enum Board {
    Silent,
    Plain { started: Instant, next: Instant },
    Terminal(Box<Bars>),
}

/// A bar for publishing, one for each queue, and the clock.
pub(super) struct Bars {
    // Draws the bars as long as it is there.
    _all: MultiProgress,
    published: ProgressBar,
    queues: [ProgressBar; QUEUES.len()],
    clock: ProgressBar,
}

impl Board {
    pub(super) fn silent() -> Self {
        Self::Silent
    }

    pub(super) fn plain() -> Self {
        let now = Instant::now();
        Self::Plain { started: now, next: now + LINE_EVERY }
    }

    pub(super) fn terminal(messages: u64) -> anyhow::Result<Self> {
        let all = MultiProgress::new();
        let style = |colour: &str| {
            let template = format!("  {{prefix:<9}} {{bar:16.{colour}/black.bright}}  {{msg}}");
            Ok::<_, anyhow::Error>(ProgressStyle::with_template(&template)?.progress_chars("━━─"))
        };
        let bar = |name: &'static str, style: ProgressStyle| {
            all.add(ProgressBar::new(0).with_style(style).with_prefix(name))
        };
        let published = bar("published", style("cyan")?);
        published.set_length(messages);
        let queue_style = style("green")?;
        let queues = QUEUES.map(|(name, _)| bar(name, queue_style.clone()));
        let clock = all.add(ProgressBar::new_spinner());
        clock.set_style(ProgressStyle::with_template("\n  {spinner:.cyan} {elapsed_precise} {msg:.dim}")?);
        clock.enable_steady_tick(Duration::from_millis(100));
        Ok(Self::Terminal(Box::new(Bars { _all: all, published, queues, clock })))
    }

    /// Shows how things are.
    pub(super) fn update(&mut self, tally: &Tally, statuses: &[QueueStatus]) {
        match self {
            Self::Silent => {}
            Self::Plain { started, next } => {
                if Instant::now() >= *next {
                    *next += LINE_EVERY;
                    output::warn(&line(started.elapsed(), tally, statuses));
                }
            }
            Self::Terminal(bars) => bars.update(tally, statuses),
        }
    }

    /// Says that something happened.
    pub(super) fn say(&self, what: &str) {
        match self {
            Self::Silent => {}
            Self::Plain { .. } => output::warn(&format!("  {what}")),
            Self::Terminal(bars) => bars.clock.set_message(what.to_owned()),
        }
    }

    /// Nothing more is going to be shown.
    pub(super) fn finish(&self) {
        let Self::Terminal(bars) = self else { return };
        bars.clock.finish_and_clear();
        for bar in bars.queues.iter().chain([&bars.published]) {
            bar.abandon();
        }
        // The bars stay; what is printed next goes below them.
        output::warn("");
    }
}

impl Bars {
    fn update(&self, tally: &Tally, statuses: &[QueueStatus]) {
        self.published.set_position(tally.published);
        self.published.set_message(format!("{:>6}", HumanCount(tally.published).to_string()));
        for ((bar, (name, _)), queue) in self.queues.iter().zip(QUEUES).zip(&tally.queues) {
            let Some(status) = statuses.iter().find(|status| status.name.as_str() == name) else { continue };
            let handled = queue.handled.len() as u64;
            bar.set_length((queue.copies.len() as u64).max(1));
            bar.set_position(handled + status.dead);
            let count = |count: u64, word: &str| {
                let text = format!("{:>3} {word}", HumanCount(count).to_string());
                if count == 0 { style(text).dim() } else { style(text) }
            };
            bar.set_message(format!(
                "{:>6} done  {}  {}  {}",
                HumanCount(handled).to_string(),
                count(status.ready + status.leased, "waiting"),
                count(status.retrying, "retrying").yellow(),
                count(status.dead, "dead").red(),
            ));
        }
    }
}

fn line(elapsed: Duration, tally: &Tally, statuses: &[QueueStatus]) -> String {
    let sum = |part: fn(&QueueStatus) -> u64| statuses.iter().map(part).sum::<u64>();
    format!(
        "  {:>4.1} s  published {:>5}  done {:>5}  waiting {:>4}  retrying {:>3}  dead {:>3}",
        elapsed.as_secs_f64(),
        tally.published,
        tally.handled(),
        sum(|queue| queue.ready + queue.leased),
        sum(|queue| queue.retrying),
        sum(|queue| queue.dead),
    )
}
