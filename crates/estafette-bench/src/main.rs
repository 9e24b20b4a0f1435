//! The program `estafette-bench`: runs the cases of a transport, or of all, and prints what they came to.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use estafette_bench::cases::{self, Size};
use estafette_bench::{Case, Outcome, Settings, floor, json, ours, run, table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Estafette beside bare loops, in turns, and prints the ratios.
///
/// Example: estafette-bench file --rounds 5 --dir /var/tmp
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    group: Group,

    /// How often each loop runs; the median counts.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Runs the cases alone whose name contains this text.
    #[arg(long, global = true, value_name = "TEXT", default_value = "")]
    only: String,

    /// Where the loops write: choose the file system to measure (a tmpfs measures no flush).
    #[arg(long, global = true, default_value = ".")]
    dir: PathBuf,

    /// One JSON object a line instead of a table.
    #[arg(long, global = true)]
    json: bool,

    /// A tenth of the messages: to see that everything runs, not to quote.
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Subcommand)]
enum Group {
    /// RabbitMQ, which must be running; not part of `all`.
    Amqp,
    /// Drop-files, every message flushed.
    File,
    /// Users' connections; not part of `all`.
    Gateway,
    /// Gearman, whose server must be running; not part of `all`.
    Gearman,
    /// MySQL or MariaDB, which must be running; not part of `all`.
    Mysql,
    /// PostgreSQL, which must be running; not part of `all`.
    Postgres,
    /// SQLite, every transaction flushed.
    Sqlite,
    /// Within one process.
    Memory,
    /// The outbox, from PostgreSQL to RabbitMQ, which must be running; not part of `all`.
    Outbox,
    /// Between worker processes.
    Workers,
    /// Everything.
    All,
}

impl Group {
    fn cases(&self, size: Size) -> Vec<Case> {
        match self {
            Self::Amqp => cases::amqp::cases(size),
            Self::File => cases::file::cases(size),
            Self::Gateway => cases::gateway::cases(size),
            Self::Gearman => cases::gearman::cases(size),
            Self::Mysql => cases::servers::mysql(size),
            Self::Postgres => cases::servers::postgres(size),
            Self::Sqlite => cases::sqlite::cases(size),
            Self::Outbox => cases::outbox::cases(size),
            Self::Memory => cases::memory::cases(size),
            Self::Workers => cases::workers::cases(size),
            Self::All => [Self::File, Self::Sqlite, Self::Memory, Self::Workers]
                .iter()
                .flat_map(|group| group.cases(size))
                .collect(),
        }
    }
}

/// What a benchmark between processes starts this program for, when it did.
fn agent() -> Option<anyhow::Result<()>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1)?.as_str() {
        ours::LATENCY_AGENT => Some(ours::latency_agent(arguments.get(2..)?)),
        floor::workers::AGENT => Some(floor::workers::echo(arguments.get(2..)?)),
        cases::gateway::AGENT => Some(cases::gateway::serve(arguments.get(2..)?)),
        floor::gateway::AGENT => Some(floor::gateway::serve(arguments.get(2..)?)),
        cases::workers::AGENT => Some(cases::workers::run(arguments.get(2..)?)),
        _ => None,
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints its results")]
fn main() -> anyhow::Result<ExitCode> {
    if let Some(outcome) = agent() {
        return outcome.map(|()| ExitCode::SUCCESS);
    }
    let Arguments { group, rounds, only, dir, json: as_json, quick } = Arguments::parse();
    let scratch = tempfile::Builder::new().prefix("estafette-bench-").tempdir_in(dir)?;
    let settings = Settings { rounds, directory: scratch.path().to_owned() };
    let size = if quick { Size::Quick } else { Size::Full };
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;

    let mut outcomes = Vec::new();
    for case in group.cases(size).into_iter().filter(|case| case.name.contains(&only)) {
        eprintln!("running {}", case.name);
        let outcome = run(case, &settings, &runtime)?;
        if as_json {
            println!("{}", json(&outcome));
        }
        outcomes.push(outcome);
    }
    scratch.close()?;
    if !as_json {
        print!("{}", table(&outcomes));
    }
    let missed = outcomes.iter().filter(|outcome: &&Outcome| outcome.is_met() == Some(false)).count();
    // Like a failed assertion: a run by hand may look at the table, a script at the status.
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
