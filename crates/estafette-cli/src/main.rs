//! The program `estafette`: messages from the command line.
//!
//! `main` is a table; each command is a file in [`commands`] with the same two things, its arguments and `run`. This is
//! the only crate that prints, exits or reads the environment.
//!
//! Reading order: this file, [`session`] (what all commands share), any command, then [`daemon`], [`output`], [`table`],
//! [`values`] and [`failure`], which support them.

mod commands;
mod daemon;
mod failure;
mod logging;
mod output;
mod session;
mod table;
mod values;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use commands::{
    bench, bridge, completions, conformance, consume, dead, declare, delete, demo, doctor, migrate, outbox,
    publish, queues, workers,
};
#[cfg(feature = "gateway")]
use commands::{gateway, lua};
use session::Session;

/// How long what still blocks, such as a read of the terminal, may hold up the end.
const SHUTDOWN_MAX: Duration = Duration::from_millis(200);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "\
EXIT STATUS
  0  done, or stopped as asked
  1  it failed; one line on standard error says why
  2  the command line is wrong

ENVIRONMENT
  ESTAFETTE_URL     where the messages are, unless --url or --bus says so
  ESTAFETTE_DB      the database of an outbox, unless --db says so
  ESTAFETTE_CONFIG  the file with named connections, unless --config says so
  RUST_LOG          what is logged to standard error, such as debug or estafette_file=trace; warn by default
  NO_COLOR          no colours

EXAMPLES
  estafette demo
  export ESTAFETTE_URL=file:./mail
  estafette declare billing --subscribe 'order.*'
  estafette publish order.created '{\"id\":42}'
  estafette consume billing --exec ./bill.sh --until-empty
  estafette dead list billing";

/// Publishes, consumes and looks after messages, over the engines people already run.
#[derive(Parser)]
#[command(name = "estafette", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    session: Session,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Publish(publish::Arguments),
    Consume(Box<consume::Arguments>),
    Declare(declare::Arguments),
    Queues(queues::Arguments),
    Workers(workers::Arguments),
    #[cfg(feature = "gateway")]
    Gateway(gateway::Arguments),
    #[cfg(feature = "gateway")]
    Lua(lua::Arguments),
    Delete(delete::Arguments),
    Dead(dead::Arguments),
    Bridge(bridge::Arguments),
    Outbox(outbox::Arguments),
    Doctor(doctor::Arguments),
    Migrate(migrate::Arguments),
    Conformance(conformance::Arguments),
    Bench(bench::Arguments),
    Completions(completions::Arguments),
    Demo(demo::Arguments),
    #[command(hide = true)]
    ConformanceAgent(conformance::agent::Arguments),
    #[command(hide = true)]
    DemoPublisher(demo::publisher::Arguments),
    #[command(hide = true)]
    DemoWorker(demo::worker::Arguments),
}

impl Command {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Publish(arguments) => arguments.run(session).await,
            Self::Consume(arguments) => arguments.run(session).await,
            Self::Declare(arguments) => arguments.run(session).await,
            Self::Queues(arguments) => arguments.run(session).await,
            Self::Workers(arguments) => arguments.run(session).await,
            #[cfg(feature = "gateway")]
            Self::Gateway(arguments) => arguments.run(session).await,
            #[cfg(feature = "gateway")]
            Self::Lua(arguments) => arguments.run(session).await,
            Self::Delete(arguments) => arguments.run(session).await,
            Self::Dead(arguments) => arguments.run(session).await,
            Self::Bridge(arguments) => arguments.run(session).await,
            Self::Outbox(arguments) => arguments.run(session).await,
            Self::Doctor(arguments) => arguments.run(session).await,
            Self::Migrate(arguments) => arguments.run(session).await,
            Self::Conformance(arguments) => arguments.run(session).await,
            Self::Bench(arguments) => arguments.run(session).await,
            Self::Completions(arguments) => arguments.run(session).await,
            Self::Demo(arguments) => arguments.run(session).await,
            Self::ConformanceAgent(arguments) => arguments.run(session).await,
            Self::DemoPublisher(arguments) => arguments.run(session).await,
            Self::DemoWorker(arguments) => arguments.run(session).await,
        }
    }
}

fn main() -> ExitCode {
    let Arguments { session, command } = Arguments::parse();
    logging::start(session.verbose());
    match tokio::runtime::Runtime::new().context("the runtime does not start") {
        Ok(runtime) => {
            let result = runtime.block_on(command.run(&session));
            runtime.shutdown_timeout(SHUTDOWN_MAX);
            failure::report(result)
        }
        Err(error) => failure::report(Err(error)),
    }
}
