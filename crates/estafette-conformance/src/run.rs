//! Running the suite.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use estafette_core::Result;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    BEHAVIOURS, Behaviour, Need, Subject, Violation,
    report::{Finding, Report},
    stage::{PATIENCE, Stage, Surroundings},
};

/// How the suite is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only behaviours whose `group::name` contains one of these texts; all when empty.
    pub only: Vec<String>,
    /// How long something that must happen is waited for; 20 seconds by default, since a busy machine is no violation.
    pub patience: Duration,
    /// The longest time for one behaviour; 90 seconds by default.
    pub time_max: Duration,
    /// How many behaviours run at the same time; 4 by default.
    pub concurrency: usize,
}

impl Options {
    pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
    pub(crate) const TIME_MAX: Duration = Duration::from_secs(90);
}

impl Default for Options {
    fn default() -> Self {
        Self { only: Vec::new(), patience: Self::PATIENCE, time_max: Self::TIME_MAX, concurrency: 4 }
    }
}

/// What was found out about one behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The transport shows it.
    Holds,
    /// The transport did something else; the sentence says what.
    Violated(String),
    /// It cannot be asked for: this is missing.
    NotPromised(Need),
    /// It could not be found out; the sentence says why.
    Unknown(String),
}

/// Asks the subject for every behaviour, several at a time, and reports on each in the order of the list.
///
/// Every queue made is deleted again. Dropping the future stops the suite; queues may be left then.
///
/// # Errors
///
/// Those of connecting: then nothing was found out.
pub async fn run(subject: Subject, options: Options) -> Result<Report> {
    let transport = subject.connect().await?;
    let guarantees = transport.guarantees();
    transport.close().await?;

    let subject = Arc::new(subject);
    let turns = Arc::new(Semaphore::new(options.concurrency.max(1)));
    let is_asked = |behaviour: &&Behaviour| {
        let name = format!("{}::{}", behaviour.group, behaviour.name);
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    let mut running = JoinSet::new();
    for (place, behaviour) in BEHAVIOURS.iter().filter(is_asked).enumerate() {
        let subject = Arc::clone(&subject);
        let turns = Arc::clone(&turns);
        let options = options.clone();
        running.spawn(async move {
            // Never closed, so there is always a turn.
            let _turn = turns.acquire().await;
            let started = Instant::now();
            let verdict = try_out(behaviour, subject, Surroundings::Shared, &options).await;
            (place, Finding { behaviour, verdict, took: started.elapsed() })
        });
    }
    let mut findings = running.join_all().await;
    findings.sort_by_key(|(place, _)| *place);
    Ok(Report { guarantees, findings: findings.into_iter().map(|(_, finding)| finding).collect() })
}

/// Asks the subject for one behaviour.
pub(crate) async fn try_out(
    behaviour: &'static Behaviour,
    subject: Arc<Subject>,
    surroundings: Surroundings,
    options: &Options,
) -> Verdict {
    // A task of its own, so that a panic inside the transport is this behaviour's failure and not the suite's.
    let mut task = JoinSet::new();
    task.spawn(PATIENCE.scope(options.patience, play(behaviour, subject, surroundings, options.time_max)));
    match task.join_next().await {
        Some(Ok(verdict)) => verdict,
        Some(Err(panic)) => Verdict::Violated(format!("it panicked: {panic}")),
        None => Verdict::Unknown("the task was lost".into()),
    }
}

async fn play(
    behaviour: &'static Behaviour,
    subject: Arc<Subject>,
    surroundings: Surroundings,
    time_max: Duration,
) -> Verdict {
    let opening = Stage::open(Arc::clone(&subject), surroundings);
    let stage = match tokio::time::timeout(time_max, opening).await {
        Ok(Ok(stage)) => stage,
        Ok(Err(violation)) => return Verdict::Unknown(violation.sentence().to_owned()),
        Err(_) => return Verdict::Unknown(format!("connecting took longer than {time_max:?}")),
    };
    let missing = behaviour.missing(&subject, &stage.guarantees());
    let checked = match missing {
        Some(_) => Ok(()),
        None => match tokio::time::timeout(time_max, (behaviour.check)(&stage)).await {
            Ok(checked) => checked,
            Err(_) => Err(Violation::timed_out(time_max)),
        },
    };
    let cleaned = match tokio::time::timeout(time_max, stage.clean_up()).await {
        Ok(cleaned) => cleaned,
        Err(_) => Err(format!("cleaning up took longer than {time_max:?}")),
    };
    match (checked, cleaned) {
        (Ok(()), Ok(())) => missing.map_or(Verdict::Holds, Verdict::NotPromised),
        (Ok(()), Err(sentence)) => Verdict::Violated(sentence),
        (Err(Violation::Broken(sentence)), _) => Verdict::Violated(sentence),
        (Err(Violation::Unknown(sentence)), _) => Verdict::Unknown(sentence),
    }
}
