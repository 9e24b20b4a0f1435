//! Between worker processes: round trips, one direction, and one message for many.
//!
//! A round trip is shown as a rate, of how many would fit into a second if each took as long as the median (p50), or as the
//! slowest of the fastest 99 % (p99).

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use estafette::workers::{Context, Output, To, Worker, Workers};
use serde_json::{Value, json};

use super::Size;
use crate::{
    case::{Case, Loop, Rate, Target},
    floor, peer,
};

/// The argument that makes this program a group of workers.
pub const AGENT: &str = "agent-workers";

/// How many workers get a broadcast.
const MANY: u32 = 16;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// On which processors the two processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each on its own.
    Apart,
    /// Both on the same.
    Together,
    /// Where the system puts them.
    Free,
}

impl Placement {
    /// Moves this thread, the `index`th process, to its place.
    ///
    /// # Errors
    ///
    /// When `taskset` is missing.
    pub fn apply(self, index: u32) -> anyhow::Result<()> {
        let processors = match self {
            Self::Apart => (index % 2).to_string(),
            Self::Together => "0".into(),
            Self::Free => "0-1".into(),
        };
        // The thread's own id: a process of several threads is not moved as a whole.
        let thread = fs::read_link("/proc/thread-self")?;
        let thread = thread.file_name().context("no thread id")?.to_owned();
        let moved =
            Command::new("taskset").args(["-pc", &processors]).arg(thread).stdout(Stdio::null()).status()?;
        anyhow::ensure!(moved.success(), "taskset failed");
        Ok(())
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Apart => "apart",
            Self::Together => "together",
            Self::Free => "free",
        })
    }
}

impl FromStr for Placement {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        [Self::Apart, Self::Together, Self::Free]
            .into_iter()
            .find(|placement| placement.to_string() == text)
            .context("no such placement")
    }
}

/// How long round trips took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The median.
    pub p50: Duration,
    /// The slowest of the fastest 99 %.
    pub p99: Duration,
}

impl Times {
    /// Those of `times`.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn of(mut times: Vec<Duration>) -> anyhow::Result<Self> {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().context("no times");
        Ok(Self { p50: at(50)?, p99: at(99)? })
    }

    fn rate(self, percentile: Percentile) -> Rate {
        Rate::of(1, if percentile == Percentile::P50 { self.p50 } else { self.p99 })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Percentile {
    P50,
    P99,
}

/// The jobs of worker processes.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let trips = size.of(50_000);
    let mut cases = Vec::new();
    for (placement, p50_aim, p99_aim) in [
        (Placement::Apart, Target::RatioMin(1.0 / 1.3), Target::RatioMin(0.5)),
        (Placement::Together, Target::Shown, Target::Shown),
    ] {
        for (percentile, name, aim) in [(Percentile::P50, "p50", p50_aim), (Percentile::P99, "p99", p99_aim)]
        {
            let floor = Loop::blocking(move |directory| {
                Ok(floor::workers::round_trips(directory, trips, placement)?.rate(percentile))
            });
            let name = format!("workers: request and reply, {placement}, {name}");
            cases.push(Case::new(name, floor).ours(round_trips(trips, placement, percentile), aim));
        }
    }
    let messages = size.of(2_000_000);
    let floor = Loop::blocking(move |directory| {
        Ok(Rate::of(messages, floor::workers::one_way(directory, messages)?))
    });
    let ours = job("one-way", 2, messages, Placement::Apart, move |result| rate(result, messages));
    cases.push(Case::new("workers: one way", floor).ours(ours, Target::per_second_min(2_000_000)));
    let rounds = size.of(20_000);
    let one_by_one = job("to-each", MANY + 1, rounds, Placement::Free, move |result| rate(result, rounds));
    let at_once = job("to-others", MANY + 1, rounds, Placement::Free, move |result| rate(result, rounds));
    cases.push(Case::new("workers: to 16, one by one / at once", one_by_one).ours(at_once, Target::Shown));
    cases.extend(peers(trips));
    cases
}

/// Other ways to do it, as far as they are installed.
fn peers(trips: u32) -> impl Iterator<Item = Case> {
    peer::round_trips::installed().map(move |other| {
        let name = format!("workers: request and reply, free, p50; {}", other.name);
        let theirs = Loop::blocking(move |directory| other.p50(directory, trips));
        Case::new(name, theirs).ours(round_trips(trips, Placement::Free, Percentile::P50), Target::Shown)
    })
}

fn round_trips(trips: u32, placement: Placement, percentile: Percentile) -> Loop {
    job("round-trips", 2, trips, placement, move |result| {
        let time = |name: &str| result[name].as_u64().map(Duration::from_nanos).context("no time");
        Ok(Times { p50: time("p50")?, p99: time("p99")? }.rate(percentile))
    })
}

fn rate(result: &Value, messages: u32) -> anyhow::Result<Rate> {
    let elapsed = result["elapsed"].as_u64().context("no time")?;
    Ok(Rate::of(messages, Duration::from_nanos(elapsed)))
}

/// A job that a group does, and how to read the result its first worker writes.
fn job(
    name: &'static str,
    workers: u32,
    messages: u32,
    placement: Placement,
    read: impl Fn(&Value) -> anyhow::Result<Rate> + 'static,
) -> Loop {
    Loop::blocking(move |directory: &Path| {
        let mut group = Command::new(std::env::current_exe()?);
        group.arg(AGENT).arg(directory).args([name, &workers.to_string(), &messages.to_string()]);
        let status = group.arg(placement.to_string()).status()?;
        anyhow::ensure!(status.success(), "the group failed");
        read(&serde_json::from_slice(&fs::read(directory.join("result"))?)?)
    })
}

/// What a group is to do, as its arguments say.
#[derive(Clone)]
struct Assignment {
    directory: PathBuf,
    job: String,
    messages: u32,
    placement: Placement,
}

/// Becomes a group of workers that does one job.
///
/// # Errors
///
/// When the group fails.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [directory, job, workers, messages, placement] = arguments else { bail!("five arguments, please") };
    let assignment = Assignment {
        directory: directory.into(),
        job: job.clone(),
        messages: messages.parse()?,
        placement: placement.parse()?,
    };
    // The directory of the benchmark is one that others may read.
    let root = Path::new(directory).join("run");
    let group = Workers::builder(workers.parse()?).name("bench").runtime_root(root).output(Output::Prefixed);
    group.run(|worker| work(worker, assignment)).map_err(|error| anyhow::anyhow!(error.report()))
}

async fn work(
    worker: Worker,
    assignment: Assignment,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    assignment.placement.apply(worker.id().unwrap_or_default())?;
    worker.on("echo", |text: String, _: Context| async move { Ok::<_, anyhow::Error>(text) });
    worker.on("message", |message: Sample, _: Context| {
        COUNT.fetch_add(u64::from(message.number > 0), Ordering::Relaxed);
        std::future::ready(())
    });
    worker.on("count", |(): (), _: Context| async { Ok::<_, anyhow::Error>(COUNT.load(Ordering::Relaxed)) });
    if worker.id() == Some(0) {
        let result = measure(&worker, &assignment).await?;
        fs::write(assignment.directory.join("result"), result.to_string())?;
        worker.stop_group().await?;
    }
    worker.stopping().await;
    Ok(())
}

/// A message of 256 bytes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sample {
    number: u64,
    customer: String,
    text: String,
}

async fn measure(worker: &Worker, assignment: &Assignment) -> anyhow::Result<Value> {
    // Everybody is connected and warm before the clock runs.
    for id in 1..worker.count() {
        for _ in 0..100 {
            let _: String = worker.request("echo", "warm", To::One(id), WAIT_MAX).await?;
        }
    }
    if assignment.job == "round-trips" {
        return round_trips_of(worker, assignment.messages).await;
    }
    let sample = Sample { number: 12_345_678, customer: "customer-17".into(), text: "x".repeat(206) };
    debug_assert_eq!(serde_json::to_vec(&sample)?.len(), 256);
    let start = Instant::now();
    for _ in 0..assignment.messages {
        match assignment.job.as_str() {
            "one-way" => {
                worker.send("message", &sample, To::One(1)).await?;
            }
            "to-others" => {
                worker.send("message", &sample, To::Others).await?;
            }
            _ => {
                for id in 1..worker.count() {
                    worker.send("message", &sample, To::One(id)).await?;
                }
            }
        }
    }
    for (_, count) in worker.request_all::<_, u64>("count", &(), To::Others, WAIT_MAX).await? {
        anyhow::ensure!(count? == u64::from(assignment.messages), "messages are missing");
    }
    Ok(json!({ "elapsed": u64::try_from(start.elapsed().as_nanos())? }))
}

async fn round_trips_of(worker: &Worker, count: u32) -> anyhow::Result<Value> {
    let text = "x".repeat(254);
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let _: String = worker.request("echo", &text, To::One(1), WAIT_MAX).await?;
        times.push(start.elapsed());
    }
    let times = Times::of(times)?;
    Ok(json!({ "p50": u64::try_from(times.p50.as_nanos())?, "p99": u64::try_from(times.p99.as_nanos())? }))
}
