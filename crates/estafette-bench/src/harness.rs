//! Runs a case: floor and ours in turns, each round in a fresh directory.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::runtime::Runtime;

use crate::case::{Case, Loop, Rate, Target};

/// How cases are run.
pub struct Settings {
    /// How often each loop runs; the median counts.
    pub rounds: u32,
    /// Where the loops get their directories: on the file system to measure. They are left there, for the caller to remove
    /// when everything has run: ext4 passes over what was deleted in the last minute whenever it makes a file, so that
    /// tidying up after one loop would slow down the next.
    pub directory: PathBuf,
}

/// What a case came to.
#[derive(Debug)]
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// The floor's rates, one per round.
    pub floor: Vec<Rate>,
    /// Ours, one per round; empty when the case has only a floor.
    pub ours: Vec<Rate>,
    /// What is aimed for.
    pub target: Target,
}

impl Outcome {
    /// The floor's median.
    #[must_use]
    pub fn floor_median(&self) -> Option<Rate> {
        median(&self.floor)
    }

    /// Our median.
    #[must_use]
    pub fn ours_median(&self) -> Option<Rate> {
        median(&self.ours)
    }

    /// Our median divided by the floor's.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        Some(self.ours_median()?.per_second() / self.floor_median()?.per_second())
    }

    /// Whether the target was met; `None` when only the floor ran.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        Some(self.target.is_met(self.floor_median()?, self.ours_median()?))
    }
}

/// Runs `case` as `settings` say.
///
/// The loop that goes first changes from round to round, so that neither always finds the caches warm.
///
/// # Errors
///
/// When a loop fails, or its directory cannot be made or removed.
pub fn run(mut case: Case, settings: &Settings, runtime: &Runtime) -> anyhow::Result<Outcome> {
    let mut outcome =
        Outcome { name: case.name.clone(), floor: Vec::new(), ours: Vec::new(), target: case.target };
    for round in 0..settings.rounds {
        let ours_first = round % 2 == 1;
        if !ours_first {
            outcome.floor.push(run_floor(&mut case, settings, runtime)?);
        }
        if let Some(ours) = &mut case.ours {
            let rate = run_loop(ours, &settings.directory, runtime);
            outcome.ours.push(rate.with_context(|| format!("{}: ours", case.name))?);
        }
        if ours_first {
            outcome.floor.push(run_floor(&mut case, settings, runtime)?);
        }
    }
    Ok(outcome)
}

fn run_floor(case: &mut Case, settings: &Settings, runtime: &Runtime) -> anyhow::Result<Rate> {
    let rate = run_loop(&mut case.floor, &settings.directory, runtime);
    rate.with_context(|| format!("{}: the floor", case.name))
}

fn run_loop(work: &mut Loop, parent: &Path, runtime: &Runtime) -> anyhow::Result<Rate> {
    let directory = tempfile::tempdir_in(parent)?.keep();
    match work {
        Loop::Blocking(work) => work(&directory),
        Loop::Async(work) => runtime.block_on(work(directory)),
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(rates: &[Rate]) -> Option<Rate> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(|left, right| left.per_second().total_cmp(&right.per_second()));
    let above = *sorted.get(sorted.len() / 2)?;
    let below = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(below.midpoint(above))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;

    fn rate(messages: u32) -> Rate {
        Rate::of(messages, Duration::from_secs(1))
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[rate(9), rate(1), rate(5)]), Some(rate(5)));
        assert_eq!(median(&[rate(4), rate(2)]), Some(rate(3)));
    }

    #[test]
    fn floor_and_ours_take_turns_and_swap_places() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let recorder = |name: &'static str, messages| {
            let order = Rc::clone(&order);
            Loop::blocking(move |directory: &Path| {
                assert!(directory.read_dir()?.next().is_none());
                order.borrow_mut().push(name);
                Ok(rate(messages))
            })
        };
        let case = Case::new("job", recorder("floor", 100)).ours(recorder("ours", 80), Target::RatioMin(0.7));
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { rounds: 3, directory: directory.path().to_owned() };
        let outcome = run(case, &settings, &Runtime::new().unwrap()).unwrap();

        assert_eq!(*order.borrow(), ["floor", "ours", "ours", "floor", "floor", "ours"]);
        assert_eq!(outcome.ratio(), Some(0.8));
        assert_eq!(outcome.is_met(), Some(true));
        assert_eq!(directory.path().read_dir().unwrap().count(), 6, "left for the caller to remove");
    }

    #[test]
    fn a_case_without_ours_has_no_ratio() {
        let case =
            Case::new("job", Loop::asynchronous(|_| async { Ok(Rate::of(1, Duration::from_secs(1))) }));
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { rounds: 1, directory: directory.path().to_owned() };
        let outcome = run(case, &settings, &Runtime::new().unwrap()).unwrap();
        assert_eq!((outcome.ratio(), outcome.is_met()), (None, None));
    }
}
