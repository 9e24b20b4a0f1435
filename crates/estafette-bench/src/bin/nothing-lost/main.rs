//! Kills publishers and consumers with SIGKILL, round after round, and then counts: every message whose publish returned
//! `Ok` was acknowledged, is waiting, or is dead; and none that was acknowledged came again, but for the few that a kill between
//! the two steps of giving part of a file back leaves in two places.
//!
//! `roles` is what the children do, `ledger` what they write down and how it is checked.

mod ledger;
mod roles;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use estafette::{Bus, QueueSpec};

use crate::ledger::{Ledger, Moves};

/// The queue everything goes through.
const QUEUE: &str = "work";

/// How long the children may take to finish once the killing is over.
const FINISH_MAX: Duration = Duration::from_secs(120);

/// Publishes numbered messages while publishers and consumers are killed at random, and checks that nothing is lost.
///
/// Example: nothing-lost file --rounds 500 --messages 200000
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Role,
}

#[derive(Subcommand)]
enum Role {
    /// On drop-files, in a new folder.
    File(Plan),
    /// On SQLite, in a new folder.
    Sqlite(Plan),
    /// A child that publishes until its share is stored.
    #[command(hide = true)]
    Publisher(roles::Share),
    /// A child that consumes until it is killed.
    #[command(hide = true)]
    Consumer(roles::Share),
}

/// How much, how often, where.
#[derive(clap::Args, Clone)]
struct Plan {
    /// How many children are killed.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// How many messages are published at least.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// How many processes publish at a time.
    #[arg(long, default_value_t = 2)]
    publishers: usize,
    /// How many processes consume at a time.
    #[arg(long, default_value_t = 3)]
    consumers: usize,
    /// Where the scratch folder is made.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The seed of all chance here; the parent's part repeats with it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Settings of the transport, as in its URL.
    #[arg(long, default_value = "")]
    settings: String,
}

#[allow(clippy::print_stderr, reason = "a program says why it failed")]
fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Role::File(plan) => torment("file:", "mail", Moves::InTwoSteps, &plan),
        Role::Sqlite(plan) => torment("sqlite:", "mail.db", Moves::InOneStep, &plan),
        Role::Publisher(share) => roles::publish(&share),
        Role::Consumer(share) => roles::consume(&share),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nothing-lost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program prints its results")]
fn torment(scheme: &str, name: &str, moves: Moves, plan: &Plan) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("nothing-lost-").tempdir_in(&plan.dir)?;
    let place = scratch.path().join(name);
    let url =
        format!("{scheme}{}?{}", place.to_str().context("the folder's name is not text")?, plan.settings);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let bus = Bus::connect(&url).await?;
        bus.declare(&QueueSpec::durable(QUEUE.try_into()?).subscribe("work.#".try_into()?)).await?;
        anyhow::Ok(bus.close().await?)
    })?;
    let killed = kill_at_random(&url, scratch.path(), plan)?;
    let drained = runtime.block_on(roles::drain(&url))?;
    let ledger = Ledger::read(scratch.path())?;
    ledger.check(&drained, moves, killed)?;
    println!(
        "{scheme} {killed} killed; {} published, {} acknowledged, {} left, {} dead, {} delivered more than once: nothing lost",
        ledger.published(),
        ledger.acknowledged(),
        drained.waiting.len(),
        drained.dead.len(),
        ledger.delivered_again(),
    );
    Ok(())
}

/// One process of the torment, killed when it is dropped.
struct Victim {
    child: Child,
    publishes: bool,
    share: u64,
}

impl Victim {
    fn start(url: &str, dir: &Path, publishes: bool, share: u64) -> Result<Self> {
        let role = if publishes { "publisher" } else { "consumer" };
        let child = Command::new(std::env::current_exe()?)
            .args([role, "--url", url, "--share", &share.to_string(), "--ledger"])
            .arg(dir)
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { child, publishes, share })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn kill_at_random(url: &str, dir: &Path, plan: &Plan) -> Result<u32> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let share = plan.messages.div_ceil(plan.publishers as u64);
    let mut victims = Vec::new();
    for number in 0..plan.publishers + plan.consumers {
        victims.push(Victim::start(url, dir, number < plan.publishers, share)?);
    }
    let mut killed = 0;
    while killed < plan.rounds {
        std::thread::sleep(Duration::from_millis(random.u64(10..120)));
        let index = random.usize(..victims.len());
        let victim = victims.swap_remove(index);
        let (publishes, share) = (victim.publishes, victim.share);
        drop(victim);
        killed += 1;
        victims.push(Victim::start(url, dir, publishes, share)?);
    }
    // The killing is over: publishers store the rest of their share, then the consumers are ended too.
    let deadline = Instant::now() + FINISH_MAX;
    for victim in victims.iter_mut().filter(|victim| victim.publishes) {
        while victim.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "a publisher did not finish within {FINISH_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        ensure!(victim.child.wait()?.success(), "a publisher failed");
    }
    Ok(killed)
}
